"""The arrays on disk: zarr v3, lz4 with byte shuffle, a CRC-32C over every chunk.

Layout of a cache (``ROOT``)::

    ROOT/
      hashes/<path>.json         SHA-256 of input files, remembered with their stat
      <source>/                  first 16 digits of the input's SHA-256
        image.json               where it came from, for people
        source.zarr/             (channels, height, width), the file's own dtype
        source.ledger/           one record per row of chunks
        <recipe>/                first 12 digits of the recipe's fingerprint
          recipe.json  psf.tif  lock
          tiles.zarr/            (rows, columns, colours, h, w) float32, one chunk a tile
          tiles.ledger/          one record per tile
          result.zarr/           (colours, height, width) float32, linear light
          result.ledger/         one record per chunk

Every chunk has one writer.  zarr writes a chunk to a temporary file and renames it, without fsync; that is
enough, because nothing counts as done without a ledger record whose checksum agrees with the file.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from tilepipe.errors import CacheError

__all__ = ["CHUNK", "RESULT_CHUNK", "ChunkArray", "open_array", "reader_threads"]

CHUNK = (256, 512)
"""Rows and columns of a chunk of the source, px: about 1 MB, and a band of rows stays small."""

RESULT_CHUNK = (512, 512)
"""Rows and columns of a chunk of the result, px: 3 MB, so that a tile is read for few chunks."""


@dataclass(frozen=True)
class ChunkArray:
    """A zarr array and the folder that it lies in."""

    folder: Path
    array: zarr.Array[Any]

    def chunk_file(self, *index: int) -> Path:
        """Return the file that holds the chunk at `index` of the chunk grid."""
        return self.folder.joinpath("c", *(str(i) for i in index))

    def read(self, *selection: slice | int) -> npt.NDArray[Any]:
        """Return the pixels of `selection`; CacheError when a chunk is damaged."""
        try:
            return np.asarray(self.array[selection])
        except Exception as error:  # codecs, checksums and files each raise their own
            raise CacheError(f"{self.folder} is damaged ({error}); run again: damaged chunks are made anew") from error

    def write(self, pixels: npt.NDArray[Any], *selection: slice | int) -> None:
        """Write whole chunks."""
        self.array[selection] = pixels


def open_array(folder: Path, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: str) -> ChunkArray:
    """Open the array in `folder`, or make it when it is not there or is another one.

    Chunks that hold nothing but zeros are written too: an absent chunk always means "not done".
    """
    try:
        array = zarr.open_array(store=str(folder), mode="r+", zarr_format=3, config={"write_empty_chunks": True})
        if array.shape == shape and array.chunks == chunks and array.dtype == np.dtype(dtype):
            return ChunkArray(folder, array)
    except (FileNotFoundError, KeyError, ValueError, zarr.errors.BaseZarrError):
        pass  # absent, or its header is damaged: made anew, and no record will agree with old chunks
    shutil.rmtree(folder, ignore_errors=True)
    array = zarr.create_array(
        store=str(folder),
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        compressors=[BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()],
        fill_value=0,
        zarr_format=3,
        config={"write_empty_chunks": True},
    )
    return ChunkArray(folder, array)


def reader_threads(jobs: int) -> None:
    """Bound zarr's own threads to the jobs, and blosc to the thread that calls it."""
    import numcodecs.blosc

    zarr.config.set({"threading.max_workers": max(1, jobs), "async.concurrency": max(1, jobs)})
    numcodecs.blosc.set_nthreads(1)
