"""WebP writer: lossless, 8 bits, with the metadata of the input (RFC 9649).

libwebp encodes the whole picture at once; the plan accounts for this memory.
"""

from __future__ import annotations

from pathlib import Path

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.profiles import profile_of_curve
from tilepipe.image.writers.output import Output

__all__ = ["LONGEST_SIDE", "encoding_bytes", "metadata_lost", "write_webp"]

LONGEST_SIDE = 16383
"""Largest width and height, px: 14 bits each (RFC 9649, 3.4)."""

BYTES_PER_PIXEL = 24
"""Memory for encoding: the pixels, libwebp's in four channels, and its tables of repetitions (21 measured)."""

EFFORT = {"method": 0, "quality": 0}
"""The least: a photograph of 19 Mpx takes 7 s, with more effort 40 s for a file that is 21 % smaller."""


def encoding_bytes(pixels: int) -> int:
    """Return the memory held while a picture is encoded, bytes."""
    return BYTES_PER_PIXEL * pixels


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of the blocks that a WebP has no place for."""
    return [*metadata.tiff_only, *metadata.fits_only, *(["IPTC"] if metadata.iptc or metadata.photoshop else [])]


def write_webp(path: Path, output: Output) -> None:
    """Create the WebP `path`; gray is stored as RGB, colours under transparent pixels are kept."""
    from PIL import Image

    metadata = output.metadata
    image = Image.fromarray(output.whole(output.info.written_channels))
    if output.info.colours == 1:
        image = image.convert("RGBA" if output.info.written_channels == 2 else "RGB")
    profile = output.profile
    if profile and output.info.colours == 1:  # a profile of gray does not fit RGB
        profile = profile_of_curve(output.info.light.curves[0], 3)
    image.save(
        path,
        "WEBP",
        lossless=True,
        exact=True,
        icc_profile=profile or b"",
        exif=metadata.exif_block() or b"",
        xmp=metadata.xmp or b"",
        **EFFORT,
    )
