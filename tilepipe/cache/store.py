"""The arrays on disk: zarr v3, lz4 with byte shuffle, a CRC-32C over every chunk; each with its ledger.

Every chunk has one writer.  zarr writes a chunk to a temporary file and renames it; the ledger flushes it before
it is recorded.  All chunks of an array lie in one folder (``c.0.1.2``), so that there is one folder to flush.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from tilepipe.cache.ledger import Ledger, Record
from tilepipe.errors import CacheError
from tilepipe.system.files import make_folder, write_durably

__all__ = ["PARTIAL", "CheckedArray", "Index", "piece_name", "reader_threads"]

PARTIAL = ".partial"
"""How names of files end that are not finished; those of killed processes are swept away by the next run."""

Index = tuple[int, ...]
"""Which piece of an array."""


class CheckedArray:
    """A zarr array on disk whose pieces count only when their ledger says so.

    A piece is what is made at once: some chunks with one record.

    Parameters
    ----------
    folder : the array lies in ``FOLDER.zarr``, its records in ``FOLDER.ledger``.
    shape, chunks, dtype : of the array.
    pieces : how many pieces there are along each axis of their index.
    chunks_of : piece -> the chunks that hold it, as indices of the chunk grid.
    fingerprint : what the pieces belong to; others do not count.
    durable : see :class:`tilepipe.cache.ledger.Ledger`.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: str,
        pieces: tuple[int, ...],
        chunks_of: Callable[[Index], list[Index]],
        fingerprint: str,
        *,
        durable: bool = True,
    ) -> None:
        self.folder = folder.with_suffix(".zarr")
        self.ledger = Ledger(folder.with_suffix(".ledger"), fingerprint, durable=durable)
        self.pieces = pieces
        self._shape, self._chunks, self._dtype = shape, chunks, dtype
        self._chunks_of = chunks_of

    @cached_property
    def array(self) -> zarr.Array[Any]:
        """The array, made when it is not there; a damaged header is written anew, chunks are left to the ledger.

        Chunks that hold nothing but zeros are written too: an absent chunk always means "not done".
        """
        made: dict[str, Any] = {}
        zarr.create_array(
            store=MemoryStore(made),
            shape=self._shape,
            chunks=self._chunks,
            dtype=self._dtype,
            compressors=[BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            fill_value=0,
            zarr_format=3,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        wanted, file = made["zarr.json"].to_bytes(), self.folder / "zarr.json"
        if not file.is_file() or file.read_bytes() != wanted:
            write_durably(file, wanted, durable=self.ledger.durable)
        array = zarr.open_array(store=str(self.folder), mode="r+", zarr_format=3)
        return array.with_config({"write_empty_chunks": True})  # what open_array is given, it forgets (zarr 3.1)

    def read(self, *selection: slice | int) -> npt.NDArray[Any]:
        """Return the pixels of `selection`; CacheError when a chunk is damaged, or not there: zarr would give zeros."""
        try:
            pixels = np.asarray(self.array[selection])
        except Exception as error:  # codecs, checksums and files each raise their own
            raise CacheError(f"{self.folder} is damaged ({error}); run again: damaged chunks are made anew") from error
        missing = [file for file in self._files_of(selection) if not file.exists()]
        if missing:
            raise CacheError(f"{missing[0]} is gone; run again: missing chunks are made anew")
        return pixels

    def write(self, pixels: npt.NDArray[Any], *selection: slice | int) -> None:
        """Write whole chunks; they count once :meth:`record` was called."""
        self.array[selection] = pixels

    def indices(self) -> Iterator[Index]:
        """Yield the index of every piece, row by row."""
        return itertools.product(*map(range, self.pieces))

    def files(self, index: Index) -> list[Path]:
        """Return the files that hold piece `index`."""
        return [self._file(chunk) for chunk in self._chunks_of(index)]

    def state(self, index: Index, *, full: bool = True) -> Literal["done", "damaged", "absent"]:
        """Return whether piece `index` is done; "damaged" when a record speaks of chunks that are not as it says."""
        name = piece_name(index)
        if self.ledger.accepts(name, self.files(index), full=full):
            return "done"
        return "absent" if self.ledger.get(name) is None else "damaged"

    def record(
        self, index: Index, began: float, peak: int, *, inputs: str = "", facts: dict[str, Any] | None = None
    ) -> Record:
        """Enter piece `index`, begun at ``time.perf_counter()`` `began`; then ask what a later run will ask.

        `peak` is the largest memory of the process so far, bytes.

        Raises
        ------
        CacheError : the chunks do not read back as they were written.
        """
        name, files = piece_name(index), self.files(index)
        record = self.ledger.put(
            name, files, seconds=time.perf_counter() - began, peak=peak, inputs=inputs, facts=facts
        )
        if not self.ledger.accepts(name, files):
            raise CacheError(f"{files[0]} does not read back as it was written; is the disk sound?")
        return record

    def take_over(self, index: Index, other: CheckedArray, inputs: str, peak: int) -> bool:
        """Take piece `index` from `other`, an array of the same shape, if it is sound there and made from `inputs`.

        The files are linked where the file system can do that (chunks are never written in place), else copied.
        """
        began = time.perf_counter()
        found = other.ledger.get(piece_name(index))
        if found is None or found.inputs != inputs or other.state(index) != "done":
            return False
        make_folder(self.folder, durable=self.ledger.durable)
        for mine, theirs in zip(self.files(index), other.files(index), strict=True):
            temporary = mine.with_name(f"{mine.name}.{uuid.uuid4().hex}{PARTIAL}")
            try:
                os.link(theirs, temporary)
            except OSError:
                shutil.copyfile(theirs, temporary)
            temporary.replace(mine)
        self.record(index, began, peak, inputs=inputs, facts=found.facts)
        return True

    def forget_damaged(self) -> list[Index]:
        """Drop the records of damaged pieces, so that they count as not done; return which."""
        damaged = [index for index in self.indices() if self.state(index) == "damaged"]
        for index in damaged:
            self.ledger.forget(piece_name(index))
        return damaged

    def _files_of(self, selection: tuple[slice | int, ...]) -> Iterator[Path]:
        """Yield the files of the chunks that `selection` touches."""
        ranges = []
        for axis, (length, size) in enumerate(zip(self._shape, self._chunks, strict=True)):
            selected = selection[axis] if axis < len(selection) else slice(None)
            low, high, _ = (selected, selected + 1, 1) if isinstance(selected, int) else selected.indices(length)
            ranges.append(range(low // size, -(-high // size)))
        return map(self._file, itertools.product(*ranges))

    def _file(self, chunk: Index) -> Path:
        return self.folder / ".".join(("c", *map(str, chunk)))

    def forget_all(self) -> None:
        """Drop all records: every piece will be made again."""
        for record in self.ledger.folder.glob("*.json"):
            record.unlink()


def piece_name(index: Index) -> str:
    """Return the name of a piece in ledger and receipts: "row-column"."""
    return "-".join(map(str, index))


def reader_threads(jobs: int) -> None:
    """Bound zarr's own threads to the jobs, and blosc to the thread that calls it."""
    import numcodecs.blosc

    zarr.config.set({"threading.max_workers": max(1, jobs), "async.concurrency": max(1, jobs)})
    numcodecs.blosc.set_nthreads(1)
