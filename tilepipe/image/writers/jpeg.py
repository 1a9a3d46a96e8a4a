"""JPEG writer: 8-bit, quality 95, chrominance at full resolution, with the metadata of the input.

libjpeg encodes the whole picture at once; the plan accounts for this memory.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.photoshop import photoshop_block
from tilepipe.image.writers.output import Output

__all__ = ["LONGEST_SIDE", "encoding_bytes", "metadata_lost", "write_jpeg"]

QUALITY = 95

LONGEST_SIDE = 65535
"""Largest width and height, px: 16 bits each (T.81, B.2.2)."""

LONGEST_SEGMENT = 65533
"""Largest content of a segment, bytes: its length has 16 bits and counts itself (T.81, B.1.1.4)."""

EXIF, XMP, ICC, PHOTOSHOP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0"
APP0, APP1, APP2, APP13 = 0xE0, 0xE1, 0xE2, 0xED

LONGEST_EXIF = LONGEST_SEGMENT - len(EXIF)

COPIES = 2.5
"""Memory for encoding, as a multiple of the pixels: the picture, and the encoder's buffer, which grows by doubling."""


def encoding_bytes(pixels: int, channels: int) -> int:
    """Return the memory held while a picture is encoded, bytes."""
    return int(COPIES * pixels * channels)


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of the blocks that do not fit into a JPEG's segments, or have no place in them."""
    lost = [f"{name} (more than 64 kB)" for name in metadata.too_long_for(LONGEST_EXIF)]
    if len(metadata.exif_block(LONGEST_EXIF) or b"") > LONGEST_EXIF:
        lost.append("EXIF (more than 64 kB)")
    if len(metadata.xmp or b"") + len(XMP) > LONGEST_SEGMENT:
        lost.append("XMP (more than 64 kB)")
    return lost + metadata.tiff_only + metadata.fits_only


def write_jpeg(path: Path, output: Output) -> None:
    """Create the JPEG `path`."""
    from imagecodecs import jpeg8_encode

    pixels = output.whole(output.info.colours)
    encoded = memoryview(jpeg8_encode(pixels, level=QUALITY, subsampling="444", optimize=True))
    start = 4 + struct.unpack_from(">H", encoded, 4)[0]  # after the start marker and the encoder's JFIF segment
    with path.open("wb") as file:
        file.write(b"\xff\xd8")
        for marker, content in _segments(_fitting(output), output.profile):
            file.write(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)
        file.write(encoded[start:])


def _fitting(output: Output) -> Metadata:
    """Return the output's metadata, without the record if the XMP does not fit into a segment with it."""
    metadata = output.metadata
    if len(metadata.xmp or b"") + len(XMP) > LONGEST_SEGMENT:
        return replace(metadata, xmp=output.info.metadata.xmp)
    return metadata


def _segments(metadata: Metadata, profile: bytes | None) -> list[tuple[int, bytes]]:
    """Return markers and contents of the segments before the picture, in the order of the standards."""
    segments = [(APP0, _jfif(metadata))]
    exif = metadata.exif_block(LONGEST_EXIF)
    segments += [(APP1, EXIF + exif)] if exif else []
    segments += [(APP1, XMP + metadata.xmp)] if metadata.xmp else []
    if profile:
        size = LONGEST_SEGMENT - len(ICC) - 2  # with the number of the part, and of parts (ICC.1:2022, B.4)
        parts = [profile[at : at + size] for at in range(0, len(profile), size)]
        segments += [(APP2, ICC + bytes([number, len(parts)]) + part) for number, part in enumerate(parts, 1)]
    photoshop = photoshop_block(metadata.photoshop, metadata.iptc) or b""
    size = LONGEST_SEGMENT - len(PHOTOSHOP)
    segments += [(APP13, PHOTOSHOP + photoshop[at : at + size]) for at in range(0, len(photoshop), size)]
    return [(marker, content) for marker, content in segments if len(content) <= LONGEST_SEGMENT]


def _rounding(values: list[float]) -> float:
    return max(abs(value - round(value)) / value for value in values)


def _jfif(metadata: Metadata) -> bytes:
    """Return a JFIF header with the resolution, whole numbers per inch or centimetre (JFIF 1.02)."""
    unit, x, y = 0, 1, 1
    if metadata.resolution is not None:
        horizontal, vertical, kind = metadata.resolution
        exact = [number / parts for number, parts in (horizontal, vertical)]
        unit = kind - 1  # TIFF 1, 2, 3 are none, inch, centimetre
        inches = [2.54 * value for value in exact]
        if unit == 2 and _rounding(inches) < _rounding(exact):  # 72 per inch, which PNG states per metre
            unit, exact = 1, inches
        x, y = (min(max(1, round(value)), 65535) for value in exact)
    return b"JFIF\0" + struct.pack(">HBHHBB", 0x0102, unit, x, y, 0, 0)
