"""OME-Zarr writer: version 0.5, a pyramid of zarr arrays, written block by block (ngff.openmicroscopy.org/0.5).

Level 0 is written as the blocks arrive, and each further level in chunks from the one before: memory depends neither on
the width nor on the height.  Colours are averaged in linear light, further channels as stored.
"""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from tilepipe.dtypes import FloatArray
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import LINEAR, MASK, Light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.pixel_size import PixelSize, pixel_size
from tilepipe.image.readers.multiscales import ALPHA_LABELS, COLOUR_LABELS, MOST_CHANNELS, RECORD_ATTRIBUTE
from tilepipe.image.writers.output import BLOCK_ROWS, Output, output_light

__all__ = ["level_shapes", "metadata_lost", "missing_channels", "pyramid_bytes", "window_bytes", "write_omezarr"]

VERSION = "0.5"

CHUNK = (BLOCK_ROWS, 4 * BLOCK_ROWS)
"""Rows and columns of a chunk, px: as high as a block, so that each is encoded once; a chunk holds one channel."""

LEVEL = 3
"""Level of zstd, 1..9: 1 takes half of the time for files 4 to 14 % larger, 5 nearly twice for files 1 to 6 % smaller
(photograph of 24 Mpx at 8 and 16 bits)."""

SMALLEST = 512
"""Levels are added until the smaller side is below this, px."""

COLOURS = {"red": "FF0000", "green": "00FF00", "blue": "0000FF"}
"""Colours in which viewers show channels; all others in white."""

LINEAR_BYTES, CURVED_BYTES = 16, 48
"""Memory for averaging, bytes per pixel of four chunks: samples, chunks in transit, linear light; curves of floats are
computed in float64."""

CHUNK_COPIES = 4
"""Memory for writing a chunk, as a multiple of its bytes: read back, changed, compressed, and its part of the block."""


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    """Return height and width of each level, the largest first: each side is half of the one before, rounded up."""
    shapes = [(height, width)]
    while min(shapes[-1]) >= SMALLEST:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def pyramid_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the size of all levels, uncompressed, bytes; chunks are padded."""
    rows, columns = CHUNK
    chunks = sum(-(-height // rows) * -(-width // columns) for height, width in level_shapes(info.height, info.width))
    return chunks * rows * columns * info.written_channels * np.dtype(dtype).itemsize


def window_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the memory that writing takes beside the blocks, bytes."""
    is_curved = np.dtype(dtype).kind == "f" and set(output_light(info, dtype).curves) != {LINEAR}
    pixels = CHUNK[0] * CHUNK[1]
    averaging = (CURVED_BYTES if is_curved else LINEAR_BYTES) * 4 * pixels
    return averaging + CHUNK_COPIES * pixels * info.written_channels * np.dtype(dtype).itemsize


def missing_channels(info: ImageInfo) -> str:
    """Return which channels of a picture are not written, as text; empty if all are."""
    if MASK in info.required_kinds:
        return "it has no place for a mask page"
    number = info.written_channels
    return f"it has {number} channels, and {MOST_CHANNELS} are written" if number > MOST_CHANNELS else ""


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of what an OME-Zarr has no place for: all but the size of a pixel."""
    is_lost = pixel_size(metadata) is None and not _is_square(metadata)
    return metadata.names("resolution") + (["aspect ratio"] if is_lost else [])


def _is_square(metadata: Metadata) -> bool:
    """Return whether a resolution, if there is one, is the same in both directions."""
    if metadata.resolution is None:
        return True
    (across, across_parts), (down, down_parts), _ = metadata.resolution
    return across * down_parts == down * across_parts


def write_omezarr(path: Path, output: Output) -> None:
    """Create the folder `path`, an OME-Zarr 0.5."""
    info, store = output.info, LocalStore(path)
    shapes = level_shapes(info.height, info.width)
    # first, because its document marks the folder as one that may be removed
    zarr.create_group(store, zarr_format=3, attributes=_attributes(output, len(shapes)))
    levels = [_create(store, str(index), output, shape) for index, shape in enumerate(shapes)]
    _write_blocks(levels[0], output)
    light = replace(output_light(info, output.dtype), dtype=output.dtype, unit=1.0)
    for larger, smaller in pairwise(levels):
        for channel in range(info.written_channels):
            _halve(larger, smaller, channel, light)


def _create(store: LocalStore, name: str, output: Output, shape: tuple[int, int]) -> zarr.Array[Any]:
    """Create the array of a level; chunks of zeros are written too, so that a missing one is seen to be missing."""
    channels = output.info.written_channels
    is_gray = channels == 1
    return zarr.create_array(
        store,
        name=name,
        shape=shape if is_gray else (channels, *shape),
        chunks=CHUNK if is_gray else (1, *CHUNK),
        dtype=output.dtype,
        compressors=BloscCodec(cname="zstd", clevel=LEVEL, shuffle="shuffle"),
        fill_value=0,
        dimension_names=_axes(channels),
        config={"write_empty_chunks": True},
    )


def _axes(channels: int) -> tuple[str, ...]:
    return ("y", "x") if channels == 1 else ("c", "y", "x")


def _write_blocks(level: zarr.Array[Any], output: Output) -> None:
    """Write the blocks, a column of chunks at a time."""
    info = output.info
    for top, left, block in output.placed():
        bottom = top + len(block)
        for start in range(0, block.shape[1], CHUNK[1]):
            piece = block[:, start : start + CHUNK[1], : info.written_channels]
            columns = slice(left + start, left + start + piece.shape[1])
            level[..., top:bottom, columns] = np.moveaxis(piece, -1, 0) if level.ndim == 3 else piece[:, :, 0]


def _halve(larger: zarr.Array[Any], smaller: zarr.Array[Any], channel: int, light: Light) -> None:
    """Fill a channel of a level, chunk by chunk, from the next larger level."""
    height, width = smaller.shape[-2:]
    for top in range(0, height, CHUNK[0]):
        for left in range(0, width, CHUNK[1]):
            rows, columns = slice(2 * top, 2 * (top + CHUNK[0])), slice(2 * left, 2 * (left + CHUNK[1]))
            is_gray = larger.ndim == 2
            samples = np.asarray(larger[rows, columns] if is_gray else larger[channel, rows, columns])
            means = _averaged(samples, channel, light)
            rows, columns = slice(top, top + len(means)), slice(left, left + means.shape[1])
            smaller[(rows, columns) if is_gray else (channel, rows, columns)] = means


def _averaged(samples: npt.NDArray[Any], channel: int, light: Light) -> npt.NDArray[Any]:
    """Return the means of squares of 2 x 2 samples, (h, w) to half of it; at an odd edge of those that are there."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinite samples; float16
        if channel < light.colours:
            return light.encoded(channel, _means(light.linear(channel, samples)), light.dtype)
        means = _means(samples.astype(np.float32))
        return (np.rint(means) if samples.dtype.kind == "u" else means).astype(samples.dtype)


def _means(values: FloatArray) -> FloatArray:
    height, width = values.shape
    padded = np.pad(values, ((0, height % 2), (0, width % 2)), "edge") * np.float32(0.25)  # first: sums overflow
    means: FloatArray = padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]
    return means


def _attributes(output: Output, levels: int) -> dict[str, Any]:
    """Return the attributes of the group."""
    info = output.info
    channels = info.written_channels
    size = pixel_size(info.metadata)
    ome: dict[str, Any] = {
        "version": VERSION,
        "multiscales": [
            {
                "axes": [_axis(name, has_size=size is not None) for name in _axes(channels)],
                "datasets": [
                    {"path": str(level), "coordinateTransformations": _transformations(size, level, channels)}
                    for level in range(levels)
                ],
                "type": "mean",
                "metadata": {"description": "means of 2 x 2 pixels in linear light"},
            }
        ],
    }
    if channels > 1:
        ome["omero"] = {"channels": _channels(info, output.dtype), "rdefs": {"model": "color"}}
    return {"ome": ome} | ({RECORD_ATTRIBUTE: json.loads(output.record)} if output.record else {})


def _axis(name: str, *, has_size: bool) -> dict[str, str]:
    if name == "c":
        return {"name": name, "type": "channel"}
    return {"name": name, "type": "space"} | ({"unit": "micrometer"} if has_size else {})


def _transformations(size: PixelSize | None, level: int, channels: int) -> list[dict[str, Any]]:
    """Return scale and offset of a level: the centre of its first pixel is that of the first 2**level in level 0."""
    height, width = size or (1.0, 1.0)
    ahead = [] if channels == 1 else [1.0]
    scale = {"type": "scale", "scale": [*ahead, height * 2**level, width * 2**level]}
    if level == 0:
        return [scale]
    half = (2**level - 1) / 2
    return [scale, {"type": "translation", "translation": [*(0.0 for _ in ahead), height * half, width * half]}]


def _channels(info: ImageInfo, dtype: str) -> list[dict[str, Any]]:
    """Return names, colours and ranges of the channels for viewers (section "omero")."""
    top = int(np.iinfo(dtype).max) if np.dtype(dtype).kind == "u" else 1
    labels = [*COLOUR_LABELS[info.colours]]
    labels += [ALPHA_LABELS.get(kind, "extra") for kind in info.extra_kinds if kind != MASK]
    return [
        {
            "label": label,
            "color": COLOURS.get(label, "FFFFFF"),
            "active": index < info.colours,
            "window": {"min": 0, "max": top, "start": 0, "end": top},
        }
        for index, label in enumerate(labels)
    ]
