"""Output writer: a tiled TIFF, streamed block by block, with the metadata of the input."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
from tilepipe.system.file_lock import try_lock
from tilepipe.system.files import flush, is_disk_full, sync

__all__ = [
    "TILE",
    "is_unfinished",
    "output_bytes",
    "output_light",
    "partial_of",
    "read_record",
    "write_beside",
    "write_tiff",
]

TILE = 256
"""Edge of the output's tiles, px (TIFF requires multiples of 16)."""

RECORD = 65001
"""Private TIFF tag (in the range for use without registration) with the processing record."""

TRANSPARENCY_MASK = 4
"""Bit of NewSubfileType of a page that marks which pixels are part of the image."""

CLASSIC_LIMIT = 2**32 - 2**25
"""Largest pixel data written as classic TIFF, bytes; above it BigTIFF, whose offsets have 64 bits."""

LOSSLESS = {"adobe_deflate": "adobe_deflate", "deflate": "adobe_deflate", "lzw": "lzw", "zstd": "zstd"}
"""Input compressions that the output keeps; for all others it is uncompressed."""


def output_light(info: ImageInfo, dtype: str) -> Light:
    """Return the curves of the output: those of the input.

    Exception: floats without a profile that are written as integers get sRGB, because integers without a profile
    are read as sRGB.
    """
    if info.is_float and info.metadata.icc is None and np.dtype(dtype).kind == "u":
        return Light((SRGB,) * info.colours, info.dtype)
    return info.light


Blocks = Iterator[npt.NDArray[Any]]
"""The image in blocks of ``TILE`` rows, row by row and left to right: (rows, columns, channels), in the output's dtype.

All but the last of a row have a multiple of ``TILE`` columns; a block may be a whole row.
"""


def output_bytes(info: ImageInfo, dtype: str) -> int:
    """Return the size of the output's uncompressed pixels, bytes, padded to whole tiles."""
    padded = -(-info.height // TILE) * TILE * -(-info.width // TILE) * TILE
    return padded * info.written_channels * np.dtype(dtype).itemsize


def write_tiff(
    path: Path,
    info: ImageInfo,
    dtype: str,
    blocks: Blocks,
    record: bytes = b"",
    mask: Blocks | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write the image through :func:`write_beside`.

    Parameters
    ----------
    path : Path
        Output file.
    info : ImageInfo
        The input, whose metadata is copied.
    dtype : str
        dtype of the output.
    blocks : iterator of ndarray, shape (rows, columns, channels)
        The pixels in blocks of ``TILE`` rows, row by row and left to right.
    record : bytes
        Processing record, ASCII JSON, for the private tag ``RECORD``.
    mask : iterator of ndarray of bool, shape (rows, width, 1), optional
        Which pixels belong to the image, in bands of ``TILE`` rows; written as a separate page.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    DoesNotFitError, OutputError, OutputExistsError
        As :func:`write_beside`.
    """
    write_beside(path, lambda partial: _write(partial, info, dtype, blocks, record, mask), overwrite=overwrite)


def write_beside(path: Path, write: Callable[[Path], None], *, overwrite: bool = False) -> None:
    """Write ``PATH.partial``, flush it to disk and rename it to `path`; on failure `path` is unchanged.

    Parameters
    ----------
    path : Path
        Output file.
    write : callable
        ``write(partial)`` creates the file under the temporary name.
    overwrite : bool
        Whether to replace an existing file; if False, a file created in the meantime is not replaced either.

    Raises
    ------
    DoesNotFitError
        If the disk is full.
    OutputExistsError
        If `path` exists.
    OutputError
        If the file cannot be written, or another run is writing it.
    """
    partial = partial_of(path)
    try:
        if is_unfinished(path):
            partial.unlink()
            overwrite = True
        with _locked(partial, path) as file:
            try:
                write(partial)
                flush(file.fileno())
                _rename(partial, path, overwrite=overwrite)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        sync(path.parent)
    except TilepipeError:
        raise  # some are also OSErrors
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(
                f"the disk of the output {path} is full; free some space and rerun the same command to resume"
            ) from error
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def partial_of(path: Path) -> Path:
    """Return the temporary file of the output `path`."""
    return path.with_name(path.name + ".partial")


def is_unfinished(path: Path) -> bool:
    """Return whether a run was killed after linking its finished file to `path`, before removing ``PATH.partial``."""
    try:
        return path.samefile(partial_of(path))
    except OSError:
        return False


@contextmanager
def _locked(partial: Path, path: Path) -> Iterator[IO[bytes]]:
    """Open `partial`, which a killed run may have left, and lock it, so that no other run writes the same output.

    Another run may rename or remove the file between the opening and the locking; then it is opened again.
    """
    while True:
        with partial.open("ab") as file:
            is_ours = True  # also where the file system or the platform has no locks
            with suppress(OSError):
                is_ours = try_lock(file)
            if not is_ours:
                raise OutputError(f"{path} is being written by another run; wait for it or use another output path")
            if _is_at(file, partial):
                yield file
                return


def _is_at(file: IO[bytes], path: Path) -> bool:
    """Return whether the open `file` is the one that `path` names now."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _rename(partial: Path, path: Path, *, overwrite: bool) -> None:
    """Rename `partial` to `path`; without `overwrite` by a hard link, which fails atomically if `path` exists."""
    if overwrite:
        partial.replace(path)
        return
    try:
        os.link(partial, path)
    except FileExistsError:
        raise OutputExistsError(
            f"output {path} was created during the run and was not replaced; --overwrite replaces it, "
            "completed work is kept"
        ) from None
    except OSError:  # a file system without hard links
        if path.exists():
            raise OutputExistsError(f"output {path} exists; --overwrite replaces it, completed work is kept") from None
        partial.replace(path)
    else:
        partial.unlink()


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Return tilepipe's processing record of the TIFF at `path`; None if it has none."""
    try:
        with tifffile.TiffFile(path) as tiff:
            tag = tiff.pages.first.tags.get(RECORD)
            record = None if tag is None else json.loads(tag.value)
    except (OSError, ValueError):  # not a TIFF, or a foreign tag; tifffile's errors are ValueErrors
        return None
    return record if isinstance(record, dict) else None


def _write(path: Path, info: ImageInfo, dtype: str, blocks: Blocks, record: bytes, mask: Blocks | None) -> None:
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
    # opened here because TiffWriter leaves its own file open when its first or last write fails
    with path.open("w+b") as file, tifffile.TiffWriter(file, bigtiff=big, byteorder="<") as tiff:
        tiff.write(
            _tiles(channels, dtype, blocks),
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
                _tiles(1, "bool", mask),
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
    """Return the input's profile; for floats from integers without one, sRGB, as floats without one read as linear."""
    if info.metadata.icc is None and np.dtype(dtype).kind == "f" and not info.is_float:
        return srgb_profile() if info.colours == 3 else gray_srgb_profile()
    return info.metadata.icc


def _extra_tags(metadata: Metadata) -> list[tuple[int, int, int, Any, bool]]:
    tags = [(entry.code, entry.kind, entry.count, entry.data, True) for entry in metadata.tags.entries]
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
