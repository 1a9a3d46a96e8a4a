"""JPEG XL writer: lossless, 8 or 16 bits, with the metadata of the input (ISO/IEC 18181).

libjxl encodes the whole picture at once; the plan accounts for this memory.  Its binding for Python fails on floats far
from 0..1 (pyjpegxl 0.3), so floats are not written.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tilepipe.image.info import ImageInfo
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.writers.output import Output

__all__ = ["encoding_bytes", "metadata_lost", "write_jpegxl"]

HEADER = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
"""First boxes of a file with metadata (ISO/IEC 18181-2, 9.1 and 9.2).  The others are written here, too, because libjxl
compresses metadata, which many programs cannot read."""

LEVEL_BYTES = 9
"""Size of the box of the level, which 16 bits need (9.4)."""

COPIES = 3
"""Memory for encoding, as a multiple of the picture: as stored, as seen, and the encoder's."""


def encoding_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the memory held while a picture is encoded, bytes."""
    return COPIES * info.height * info.width * info.written_channels * np.dtype(dtype).itemsize


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of the blocks that a JPEG XL has no place for."""
    return [*metadata.tiff_only, *metadata.fits_only, *(["IPTC"] if metadata.iptc or metadata.photoshop else [])]


def write_jpegxl(path: Path, output: Output) -> None:
    """Create the JPEG XL `path`.

    Viewers ignore the orientation in its Exif block (ISO/IEC 18181-2, annex A): the picture is stored upright.
    """
    import pyjpegxl

    metadata = output.metadata
    pixels = np.ascontiguousarray(metadata.orientation.seen(output.whole(output.info.written_channels)))
    upright = metadata.upright()
    encoded = pyjpegxl.encode_from_numpy(
        pixels,
        lossless=True,
        speed=pyjpegxl.EncoderSpeed.Lightning,  # 8 % larger files than three levels above, in a tenth of the time
        icc=output.profile,
    )
    exif, xmp = upright.exif_block(), upright.xmp
    with path.open("wb") as file:
        if exif or xmp:
            file.write(HEADER)
            if encoded.startswith(HEADER):  # with boxes already, of which that of the level must be the first
                level = LEVEL_BYTES if encoded[len(HEADER) + 4 :].startswith(b"jxll") else 0
                file.write(encoded[len(HEADER) : len(HEADER) + level])
                encoded = encoded[len(HEADER) + level :]
            else:
                encoded = struct.pack(">I4s", 0, b"jxlc") + encoded  # to the end of the file
            file.write(_box(b"Exif", bytes(4) + exif) if exif else b"")  # at offset 0 behind this number
            file.write(_box(b"xml ", xmp) if xmp else b"")
        file.write(encoded)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
