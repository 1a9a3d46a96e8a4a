"""The output: a tiled TIFF, streamed a row of tiles at a time, with everything the input carried."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError, TilepipeError
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import MASK, SRGB, Light
from tilepipe.image.metadata.blocks import IPTC, PHOTOSHOP, XMP, Metadata, srgb_profile
from tilepipe.image.metadata.exif import EXIF_POINTER, GPS_POINTER, PLACEHOLDERS, graft
from tilepipe.image.metadata.icc import gray_srgb_profile
from tilepipe.system.files import is_disk_full, sync

__all__ = ["TILE", "is_unfinished", "output_bytes", "output_light", "read_record", "write_beside", "write_tiff"]

TILE = 256
"""Edge of the output's tiles, px (TIFF wants multiples of 16)."""

RECORD = 65001
"""Private TIFF tag (the range for use without registration) that says how the picture was made."""

TRANSPARENCY_MASK = 4
"""Bit of NewSubfileType of a page that says which pixels are part of the picture."""

CLASSIC_LIMIT = 2**32 - 2**25
"""Largest pixel data in a classic TIFF, bytes; above it BigTIFF, whose offsets have 64 bits."""

LOSSLESS = {"adobe_deflate": "adobe_deflate", "deflate": "adobe_deflate", "lzw": "lzw", "zstd": "zstd"}
"""Compressions of an input TIFF that the output keeps; from anything else it is uncompressed."""


def output_light(info: ImageInfo, dtype: str) -> Light:
    """Return the curves that the output is written on: the input's.

    Only linear floats without a profile that become integers change theirs: plain integers read as sRGB.
    """
    if info.is_float and info.metadata.icc is None and np.dtype(dtype).kind == "u":
        return Light((SRGB,) * info.colours, info.dtype)
    return info.light


Bands = Iterator[npt.NDArray[Any]]
"""The picture by ``TILE`` rows, top to bottom: (rows, width, channels), in the output's dtype."""


def output_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the size of the uncompressed pixels of the output, whole tiles."""
    padded = -(-info.height // TILE) * TILE * -(-info.width // TILE) * TILE
    return padded * info.written_channels * np.dtype(dtype).itemsize


def write_tiff(
    path: Path,
    info: ImageInfo,
    dtype: str,
    bands: Bands,
    record: bytes = b"",
    mask: Bands | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the picture, see :func:`write_beside`.

    Parameters
    ----------
    path : where the picture goes.
    info : the input, whose metadata is carried over.
    dtype : samples of the output.
    bands : the pixels.
    record : how the picture was made, ASCII JSON, for the private tag ``RECORD``.
    mask : which pixels are part of the picture, bool (rows, width, 1) by ``TILE`` rows, for a page of its own.

    Raises
    ------
    DoesNotFitError, OutputError, OutputExistsError : as :func:`write_beside`.
    """
    write_beside(path, lambda partial: _write(partial, info, dtype, bands, record, mask), overwrite=overwrite)


def write_beside(path: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Let `write` make ``PATH.partial``, flush it to disk, and give it its name; whatever fails, `path` is untouched.

    Parameters
    ----------
    overwrite : replace a file that stands at `path`; without it not even one that came to be meanwhile is.

    Raises
    ------
    DoesNotFitError : the disk is full.
    OutputExistsError : a file stands at `path`.
    OutputError : the file cannot be written, or another run is writing it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        if is_unfinished(path):
            partial.unlink()
            overwrite = True
        with partial.open("ab") as mine:  # one that a killed run left is written over
            _claim(mine, path)
            try:
                write(partial)
                os.fsync(mine.fileno())
                _give_name(partial, path, overwrite=overwrite)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        sync(path.parent)
    except TilepipeError:
        raise  # some are OSErrors as well
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(
                f"the disk of the output {path} is full; free some space and run the same command to go on"
            ) from error
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def is_unfinished(path: Path) -> bool:
    """Return whether a run was killed just as it gave its finished file the name `path`."""
    try:
        return path.samefile(path.with_name(path.name + ".partial"))
    except OSError:
        return False


def _claim(file: IO[bytes], path: Path) -> None:
    """Let no other process write the same output at the same time, where the file system has locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{path} is being written by another run; wait for it or write elsewhere") from None
    except OSError:
        return


def _give_name(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Rename `partial` to `path`; without `overwrite` a link shows in the same step that nothing stands there."""
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise OutputExistsError(
            f"output {path} came to be while the run worked and is left alone; --overwrite replaces it, "
            "what is done is kept"
        ) from None
    except OSError:  # a file system without links
        if path.exists():
            raise OutputExistsError(f"output {path} exists; --overwrite replaces it, what is done is kept") from None
        partial.replace(path)
    else:
        partial.unlink()


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Return how tilepipe made the TIFF at `path`; None when it did not, or does not say."""
    try:
        with tifffile.TiffFile(path) as tiff:
            tag = tiff.pages.first.tags.get(RECORD)
            found = None if tag is None else json.loads(tag.value)
    except (OSError, ValueError):  # no TIFF, or somebody else's tag; tifffile's errors are ValueErrors
        return None
    return found if isinstance(found, dict) else None


def _write(path: Path, info: ImageInfo, dtype: str, bands: Bands, record: bytes, mask: Bands | None) -> None:
    metadata = info.metadata
    big = output_bytes(info, dtype) > CLASSIC_LIMIT
    channels = info.written_channels
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
    compression = LOSSLESS.get(info.compression)
    with tifffile.TiffWriter(path, bigtiff=big, byteorder="<") as tiff:
        tiff.write(
            _tiles(info.width, channels, dtype, bands),
            shape=shape if channels > 1 else shape[:2],
            dtype=dtype,
            tile=(TILE, TILE),
            photometric="rgb" if info.colours == 3 else "minisblack",
            planarconfig="contig" if channels > 1 else None,
            extrasamples=tuple(kind for kind in info.extra_kinds if kind != MASK) or None,
            compression=compression,
            predictor=bool(compression),
            iccprofile=_profile(info, dtype),
            metadata=None,
            software=False,
            maxworkers=1,
            extratags=_extra_tags(metadata)
            + placeholders
            + [(RECORD, 2, len(record) + 1, record, True)] * bool(record),
            **resolution,
        )
        if mask is not None:
            tiff.write(
                _tiles(info.width, 1, "bool", mask),
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


def _profile(info: ImageInfo, dtype: str) -> bytes | None:
    """Keep the input's profile; floats that carry a curve must say so, as plain floats read as linear."""
    if info.metadata.icc is None and np.dtype(dtype).kind == "f" and not info.is_float:
        return srgb_profile() if info.colours == 3 else gray_srgb_profile()
    return info.metadata.icc


def _extra_tags(metadata: Metadata) -> list[tuple[int, int, int, Any, bool]]:
    tags = [(entry.code, entry.kind, entry.count, entry.data, True) for entry in metadata.tags.entries]
    for code, kind, block in ((XMP, 1, metadata.xmp), (IPTC, 7, metadata.iptc), (PHOTOSHOP, 1, metadata.photoshop)):
        if block:
            tags.append((code, kind, len(block), block, True))
    return tags


def _tiles(width: int, channels: int, dtype: str, bands: Bands) -> Iterator[npt.NDArray[Any]]:
    for band in bands:
        for left in range(0, width, TILE):
            tile = np.zeros((TILE, TILE, channels), dtype)
            piece = band[:, left : left + TILE, :channels]
            tile[: piece.shape[0], : piece.shape[1]] = piece
            yield tile if channels > 1 else tile[:, :, 0]
