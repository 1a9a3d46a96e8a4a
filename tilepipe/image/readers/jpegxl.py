"""JPEG XL reader: pyjpegxl parses the header, imagecodecs decodes the pixels, upright, in all their bits."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError, SettingsError
from tilepipe.image.metadata.blocks import from_exif_block
from tilepipe.image.readers.convert import scaled
from tilepipe.image.readers.whole import ApartReader, info_of_decoded

__all__ = ["is_jpegxl", "open_jpegxl"]

CODESTREAM, CONTAINER = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
"""First bytes (ISO/IEC 18181-2, clause 4)."""

COPIES = 6
"""Memory for decoding, as a multiple of the pixels: libjxl holds planes of floats beside the result, and this process
has it too."""


def is_jpegxl(start: bytes) -> bool:
    """Return whether a file that begins with `start`, is a JPEG XL."""
    return start.startswith((CODESTREAM, CONTAINER))


def open_jpegxl(path: Path) -> ApartReader:
    """Read the header of a JPEG XL.

    Its orientation is part of the picture, which is decoded upright; that of the Exif block does not count
    (ISO/IEC 18181-2, annex A).

    Raises
    ------
    InputError
        If the file is damaged.
    SettingsError
        If the decoder is not installed.
    """
    try:
        import pyjpegxl
    except ImportError as error:
        raise SettingsError(f"{path} is a JPEG XL, which needs pyjpegxl: pip install 'tilepipe[jxl]'") from error
    try:
        header = pyjpegxl.probe(path.read_bytes())
    except RuntimeError as error:
        raise InputError(f"{path} is a damaged JPEG XL: {error}") from error
    bits = int(header.bits_per_sample)
    exif = from_exif_block(_tiff_of(header.exif or b""))
    metadata = replace(exif, icc=header.icc or None, xmp=header.xmp or None).upright()
    shape, channels = (header.height, header.width), (int(header.num_color_channels), int(header.has_alpha))
    info = info_of_decoded(path, "JPEG XL", shape, channels, bits, metadata, copies=COPIES)
    return ApartReader(info, partial(_decode, bits))


def _tiff_of(box: bytes) -> bytes:
    """Return the Exif block in its box, behind the number of bytes before it (ISO/IEC 18181-2, annex A)."""
    if box.startswith((b"II", b"MM")):  # as programs write it that do not know of the number
        return box
    return box[4 + int.from_bytes(box[:4], "big") :]


def _decode(bits: int, content: bytes) -> npt.NDArray[Any]:
    """Decode by imagecodecs, which shows what the header does not state: animations, half floats, further channels."""
    import imagecodecs

    pixels: npt.NDArray[Any] = imagecodecs.jpegxl_decode(content)
    if pixels.ndim > 3:
        raise ValueError(f"it is an animation of {len(pixels)} frames; save one of them as an image first")
    if pixels.dtype == np.float16:
        raise ValueError("its samples are floats of 16 bits; save it with 32 bits, or as TIFF")
    return pixels if pixels.dtype.kind == "f" else scaled(pixels, bits)
