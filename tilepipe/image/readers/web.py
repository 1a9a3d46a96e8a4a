"""WebP, AVIF and JPEG 2000 reader: Pillow parses the header, imagecodecs decodes the pixels in all their bits."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.metadata.blocks import Metadata, from_exif_block
from tilepipe.image.metadata.profiles import coded_profile, with_stated_profile
from tilepipe.image.readers.convert import scaled
from tilepipe.image.readers.whole import ApartReader, info_of_decoded

__all__ = ["is_web_format", "open_web"]

CHANNELS = {"L": (1, 0), "LA": (1, 1), "I;16": (1, 0), "RGB": (3, 0), "RGBA": (3, 1)}
"""Pillow's mode -> (colours, alpha)."""

START = 1 << 24
"""Bytes at the start of a file in which boxes are looked for."""

CONTAINERS = {b"meta": 4, b"iprp": 0, b"ipco": 0, b"jp2h": 0}
"""Boxes with boxes in them, and the bytes before these."""

XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")

COPIES = 4
"""Memory for decoding, as a multiple of the pixels: decoders hold planes beside the result, this process has it too."""


def is_web_format(start: bytes) -> bool:
    """Return whether a file that begins with `start`, 16 bytes or more, is one of these formats."""
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    is_avif = start[4:8] == b"ftyp" and start[8:12] in (b"avif", b"avis")
    return is_webp or is_avif or start[4:8] == b"jP  " or start[:4] == b"\xff\x4f\xff\x51"


def open_web(path: Path) -> ApartReader:
    """Read the header of a WebP, AVIF or JPEG 2000.

    Raises
    ------
    InputError
        If the file is damaged, or its colours are not supported.
    """
    from PIL import AvifImagePlugin, Jpeg2KImagePlugin, WebPImagePlugin

    with path.open("rb") as file:
        start = file.read(START)
    plugins: dict[str, Any] = {
        "WebP": WebPImagePlugin.WebPImageFile,
        "AVIF": AvifImagePlugin.AvifImageFile,
        "JPEG 2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
    }
    kind = "WebP" if start[:4] == b"RIFF" else "AVIF" if start[4:8] == b"ftyp" else "JPEG 2000"
    try:
        with plugins[kind](path) as image:
            mode, (width, height), properties = image.mode, image.size, dict(image.info)
            frames = int(getattr(image, "n_frames", 1))
    except (OSError, SyntaxError, ValueError, struct.error) as error:
        raise InputError(f"{path} is a damaged {kind}: {error}") from error
    if frames > 1:  # decoders return all of them, or crash (imagecodecs 2026.3.6, one frame of an AVIF)
        raise InputError(f"{path} is an animation of {frames} frames; save one of them as an image first")
    if mode not in CHANNELS:
        raise InputError(f"{path} is a {kind} of mode {mode}; supported: gray and RGB, with or without alpha")
    colours, alpha = CHANNELS[mode]
    if kind == "AVIF" and _avif_flags(start) & 0x10:
        colours = 1  # monochrome, which Pillow shows as RGB
    bits = BITS[kind](start)
    metadata = with_stated_profile(_metadata(start, properties, colours), colours)
    info = info_of_decoded(path, kind, (height, width), (colours, alpha), bits, metadata, copies=COPIES)
    return ApartReader(info, partial(_decode, kind, bits))


def _decode(kind: str, bits: int, content: bytes) -> npt.NDArray[Any]:
    import imagecodecs

    decode: dict[str, Callable[[bytes], Any]] = {
        "WebP": imagecodecs.webp_decode,
        "AVIF": imagecodecs.avif_decode,
        "JPEG 2000": imagecodecs.jpeg2k_decode,
    }
    pixels = np.asarray(decode[kind](content))
    if pixels.dtype != (np.uint8 if bits <= 8 else np.uint16):
        raise ValueError(f"its samples are {pixels.dtype}, its header states {bits} bits")
    return scaled(pixels, bits)


def _boxes(start: bytes, wanted: bytes) -> Iterator[bytes]:
    """Yield the contents of the boxes of a type, in order, also inside boxes (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= len(start):
        size, kind = struct.unpack_from(">I4s", start, at)
        head = 16 if size == 1 else 8
        if size == 1 and at + 16 <= len(start):
            size = struct.unpack_from(">Q", start, at + 8)[0]
        content = start[at + head : at + size if size else None]
        if kind == wanted:
            yield content
        elif kind in CONTAINERS:
            yield from _boxes(content[CONTAINERS[kind] :], wanted)
        if size < head:
            return  # the last box of the file, or a damaged one
        at += size


def _webp_bits(start: bytes) -> int:
    """Return 8, which is all that the format has."""
    return 8


def _avif_flags(start: bytes) -> int:
    """Return the byte of the codec configuration with the depth (AV1 in ISOBMFF, 2.3.3)."""
    return next((content[2] for content in _boxes(start, b"av1C") if len(content) > 2), 0)


def _avif_bits(start: bytes) -> int:
    flags = _avif_flags(start)
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _jpeg2000_bits(start: bytes) -> int:
    """Return the bits of the first component (ITU-T T.800, A.5.1)."""
    stream = start if start[:2] == b"\xff\x4f" else next(_boxes(start, b"jp2c"), b"")
    return (stream[42] & 0x7F) + 1 if len(stream) > 42 else 8


BITS: dict[str, Callable[[bytes], int]] = {"WebP": _webp_bits, "AVIF": _avif_bits, "JPEG 2000": _jpeg2000_bits}
"""How the bits of a sample are found in the start of a file."""


def _metadata(start: bytes, properties: dict[str, Any], colours: int) -> Metadata:
    exif = from_exif_block(properties.get("exif") or b"")
    icc, cicp = properties.get("icc_profile"), None
    for content in _boxes(start, b"colr"):
        if content[:4] == b"nclx" and len(content) >= 11:
            primaries, transfer = struct.unpack_from(">HH", content, 4)
            cicp = bytes([primaries & 255, transfer & 255, 0, 1])
            icc = icc or coded_profile(primaries, transfer, colours)
        elif content[:1] == b"\2":  # JPEG 2000: a profile (ITU-T T.800, I.5.3.3)
            icc = icc or content[3:]
    xmp = next((content[16:] for content in _boxes(start, b"uuid") if content[:16] == XMP_UUID), None)
    return replace(exif, icc=icc or None, cicp=cicp, xmp=properties.get("xmp") or xmp)
