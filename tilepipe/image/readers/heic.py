"""HEIC reader: libheif parses the file and decodes its primary image, upright, in all its bits (ISO/IEC 23008-12)."""

from __future__ import annotations

import io
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError, SettingsError
from tilepipe.image.metadata.blocks import Metadata, from_exif_block
from tilepipe.image.metadata.profiles import coded_profile
from tilepipe.image.readers.convert import scaled
from tilepipe.image.readers.whole import ApartReader, info_of_decoded

__all__ = ["is_heic", "open_heic"]

BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")
"""Brands of files with HEVC (ISO/IEC 23008-12, annex B); the first of a file is at byte 8."""

GENERAL_BRANDS = (b"mif1", b"msf1")
"""Brands that say nothing of the codec; AVIF is named among those behind them."""

CHANNELS = {"L": (1, 0), "L;16": (1, 0), "RGB": (3, 0), "RGB;16": (3, 0), "RGBA": (3, 1), "RGBA;16": (3, 1)}
"""Mode of pillow-heif -> (colours, alpha)."""

PARTS = {"depth_images": "depth map", "aux": "auxiliary images"}
"""Further images of a file that belong to the primary one, such as the gain map of a phone."""

COPIES = 4
"""Memory for decoding, as a multiple of the pixels: the decoder's planes, its result twice, and this process has it."""


def is_heic(start: bytes) -> bool:
    """Return whether a file that begins with `start`, 64 bytes, is a HEIC."""
    if start[4:8] != b"ftyp":
        return False
    brands = start[: int.from_bytes(start[:4], "big")]
    return start[8:12] in BRANDS or (start[8:12] in GENERAL_BRANDS and b"avif" not in brands)


def open_heic(path: Path) -> ApartReader:
    """Read the header of a HEIC.

    Its rotation is part of the picture, which is decoded upright; that of the Exif block does not count.

    Raises
    ------
    InputError
        If the file is damaged, or its colours are not supported.
    SettingsError
        If the decoder is not installed.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise SettingsError(f"{path} is a HEIC, which needs pillow-heif: pip install 'tilepipe[heic]'") from error
    try:
        file = pillow_heif.open_heif(path, convert_hdr_to_8bit=False)
        mode, (width, height), facts, number = file.mode, file.size, file.info, len(file)
    except (ValueError, OSError, RuntimeError, EOFError) as error:
        raise InputError(f"{path} is a damaged HEIC: {error}") from error
    if mode not in CHANNELS:
        raise InputError(f"{path} is a HEIC of mode {mode}; supported: gray and RGB, with or without straight alpha")
    channels, bits = CHANNELS[mode], int(facts.get("bit_depth", 8))
    metadata = _metadata(facts, number, channels[0])
    subsampled = facts.get("chroma") in (420, 422)
    info = info_of_decoded(
        path, "HEIC", (height, width), channels, bits, metadata, copies=COPIES, subsampled=subsampled
    )
    return ApartReader(info, partial(_decode, bits))


def _decode(bits: int, content: bytes) -> npt.NDArray[Any]:
    import pillow_heif

    pixels = np.asarray(pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=False))
    return pixels if bits <= 8 else scaled(pixels >> (16 - bits), bits)  # pillow-heif shifts to the highest bits


def _metadata(facts: dict[str, Any], number: int, colours: int) -> Metadata:
    nclx = facts.get("nclx_profile") or {}
    primaries, transfer = (int(nclx.get(name, 2)) for name in ("color_primaries", "transfer_characteristics"))
    profile = facts.get("icc_profile") or None
    lost = [name for key, name in PARTS.items() if facts.get(key)]
    metadata = replace(
        from_exif_block(facts.get("exif") or b""),
        icc=profile or coded_profile(primaries, transfer, colours),
        cicp=bytes([primaries & 255, transfer & 255, 0, 1]) if nclx and not profile else None,
        xmp=facts.get("xmp") or None,
        lost=(*lost, *([f"all but the primary one of {number} images"] if number > 1 else [])),
    )
    return metadata.upright()
