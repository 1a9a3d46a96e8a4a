"""FITS writer: planes of linear light in the primary HDU, written where they lie as the blocks arrive (FITS 4.0)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tilepipe.image.info import ImageInfo
from tilepipe.image.light import LINEAR, Curve, Light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.fits_header import BLOCK, header_of
from tilepipe.image.writers.output import BLOCK_ROWS, Output

__all__ = ["block_bytes", "linear_light", "metadata_lost", "missing_channels", "write_fits"]

COPIES = 2
"""Copies of a band that writing holds: in big-endian byte order, and its bytes."""


def linear_light(info: ImageInfo, dtype: str) -> Light:
    """Return the light of the output, which FITS samples are proportional to.

    Full scale is that of the input.  Counts of a FITS stay counts between integers and floats.
    """
    if info.light.is_linear and dtype == info.dtype:
        return info.light
    scale = 1.0
    if info.metadata.fits is not None and info.is_float != (np.dtype(dtype).kind == "f"):
        scale = 1 / _full(info.dtype) if np.dtype(dtype).kind == "f" else _full(dtype)
    curve = LINEAR if scale == 1 else Curve("counts", (1.0, scale, 0.0, scale, 0.0, 0.0, 0.0))
    return Light((curve,) * info.colours, info.dtype)


def _full(dtype: str) -> float:
    return float(np.iinfo(dtype).max)


def missing_channels(info: ImageInfo) -> str:
    """Return what a picture has that an image in FITS does not hold, as text; empty if nothing."""
    return "it has no place for alpha, a mask or further channels" if info.required_kinds else ""


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of what is not written: all but the header of a FITS, whose profile is implied."""
    return metadata.names("FITS header", *(["ICC profile"] if metadata.fits is not None else []))


def block_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the memory held while a band is written, bytes."""
    return COPIES * BLOCK_ROWS * info.width * info.colours * np.dtype(dtype).itemsize


def write_fits(path: Path, output: Output) -> None:
    """Create the FITS `path`: (h, w), or (3, h, w) for RGB; the first row of the picture is the first in the file."""
    info = output.info
    size = (info.height, info.width)
    shape = size if info.colours == 1 else (info.colours, *size)
    header = header_of(shape, output.dtype, info.metadata.fits or b"", output.record)
    end = len(header) + int(np.prod(shape)) * np.dtype(output.dtype).itemsize
    with path.open("wb") as file:
        file.write(header)
        file.truncate(end + -end % BLOCK)
        for top, left, block in output.placed():
            for plane in range(info.colours):
                first = (plane * info.height + top) * info.width + left
                _write_plane(file, len(header), first, info.width, block[..., plane])


def _write_plane(file: BinaryIO, start: int, first: int, width: int, samples: npt.NDArray[Any]) -> None:
    """Write a block of a plane, whose first sample is number `first` behind the header of `start` bytes."""
    stored = _stored(samples)
    runs = stored.reshape(1, -1) if stored.shape[1] == width else stored
    for row, run in enumerate(runs):
        file.seek(start + (first + row * width) * stored.itemsize)
        file.write(run.tobytes())


def _stored(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return samples as they are stored: big-endian; uint16 less 32768, which flips the highest bit."""
    if samples.dtype == np.uint16:
        samples = samples ^ np.uint16(1 << 15)
    return np.ascontiguousarray(samples, samples.dtype.newbyteorder(">"))
