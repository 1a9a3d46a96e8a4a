"""TIFF writer: tiles, streamed block by block, with the metadata of the input."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.image.light import MASK
from tilepipe.image.metadata.blocks import IPTC, PHOTOSHOP, XMP, Metadata
from tilepipe.image.metadata.descriptions import for_dtype
from tilepipe.image.metadata.exif import EXIF_POINTER, GPS_POINTER, PLACEHOLDERS, graft
from tilepipe.image.writers.output import BLOCK_ROWS, Blocks, Output, output_bytes

__all__ = ["TILE", "write_tiff"]

TILE = BLOCK_ROWS
"""Edge of the output's tiles, px (TIFF requires multiples of 16)."""

TRANSPARENCY_MASK = 4
"""Bit of NewSubfileType of a page that marks which pixels are part of the image."""

CLASSIC_LIMIT = 2**32 - 2**25
"""Largest pixel data written as classic TIFF, bytes; above it BigTIFF, whose offsets have 64 bits."""

LOSSLESS = {"adobe_deflate": "adobe_deflate", "deflate": "adobe_deflate", "lzw": "lzw", "zstd": "zstd"}
"""Compressions that can be chosen, or that the output keeps from the input; for all others it is uncompressed."""


def write_tiff(path: Path, output: Output) -> None:
    """Create the TIFF `path`: classic or BigTIFF, with the input's compression if it is lossless."""
    info, dtype, metadata = output.info, output.dtype, output.metadata
    big = output_bytes(info, dtype, output.space) > CLASSIC_LIMIT
    channels = output.channels
    shape = (info.height, info.width, channels)
    directories = {
        code: metadata.directories[code] for code in (EXIF_POINTER, GPS_POINTER) if code in metadata.directories
    }
    pointer_kind = 16 if big else 4
    placeholders = [(PLACEHOLDERS[code], pointer_kind, 1, 0, True) for code in directories]
    resolution: dict[str, Any] = {}
    if metadata.resolution is not None:
        x, y, unit = metadata.resolution
        resolution = {"resolution": (x, y), "resolutionunit": unit}
    compression = LOSSLESS.get(output.compression or info.compression)
    # opened here because TiffWriter leaves its own file open when its first or last write fails
    with path.open("w+b") as file, tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as tiff:
        tiff.write(
            _tiles(channels, dtype, output.blocks),
            shape=shape if channels > 1 else shape[:2],
            dtype=dtype,
            tile=(TILE, TILE),
            photometric=_photometric(output),
            planarconfig="contig" if channels > 1 else None,
            extrasamples=tuple(kind for kind in info.extra_kinds if kind != MASK) or None,
            compression=compression,
            predictor=bool(compression),
            iccprofile=output.profile,
            metadata=None,
            software=False,
            maxworkers=1,
            extratags=_extra_tags(metadata, dtype) + placeholders,
            **resolution,
        )
        if output.mask is not None:
            tiff.write(
                _tiles(1, "bool", output.mask),
                shape=shape[:2],
                dtype="bool",
                tile=(TILE, TILE),
                photometric="minisblack",
                subfiletype=TRANSPARENCY_MASK,
                compression="adobe_deflate",
                metadata=None,
                software=False,
                maxworkers=1,
            )
    if directories:
        graft(path, directories)


def _photometric(output: Output) -> str:
    if output.space is not None:
        return output.space.photometric
    return "rgb" if output.info.colours == 3 else "minisblack"


def _extra_tags(metadata: Metadata, dtype: str) -> list[tuple[int, int, int, Any, bool]]:
    entries = [for_dtype(entry, dtype) for entry in metadata.tags.entries]
    tags = [(entry.code, entry.kind, entry.count, entry.data, True) for entry in entries]
    for code, kind, block in ((XMP, 1, metadata.xmp), (IPTC, 7, metadata.iptc), (PHOTOSHOP, 1, metadata.photoshop)):
        if block:
            tags.append((code, kind, len(block), block, True))
    return tags


def _tiles(channels: int, dtype: str, blocks: Blocks) -> Iterator[npt.NDArray[Any]]:
    """Yield the zero-padded tiles of `blocks`, row by row."""
    for block in blocks:
        for left in range(0, block.shape[1], TILE):
            tile = np.zeros((TILE, TILE, channels), dtype)
            piece = block[:, left : left + TILE, :channels]
            tile[: piece.shape[0], : piece.shape[1]] = piece
            yield tile if channels > 1 else tile[:, :, 0]
