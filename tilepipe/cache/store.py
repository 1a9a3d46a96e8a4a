"""Arrays on disk, each with its ledger: zarr v3, lz4 with byte shuffle, a CRC-32C for every chunk.

Every chunk has one writer.  zarr writes a chunk to a temporary file and renames it; the ledger flushes it before
recording it.  All chunks of an array are in one folder (``c.0.1.2``), so only one folder needs flushing.
"""

from __future__ import annotations

import itertools
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any, Literal

import google_crc32c
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.storage import MemoryStore

from tilepipe.cache.ledger import Ledger, Record
from tilepipe.cache.zarr_arrays import CHUNK, DamagedError, open_array, open_complete_array
from tilepipe.system.files import make_folder, read_file, retried, write_durably
from tilepipe.system.memory import cores
from tilepipe.system.object_store import ObjectPath, StoragePath, object_errors
from tilepipe.system.prefetch import prefetch

__all__ = ["PARTIAL", "CheckedArray", "Index", "State", "piece_name"]

PARTIAL = ".partial"
"""Suffix of unfinished files; the next run removes those of killed processes."""

Index = tuple[int, ...]
"""Index of a piece of an array."""

State = Literal["done", "damaged", "absent"]
"""State of a piece: "damaged" if it has a record that its chunks do not match."""

REQUESTS = 16
"""Pieces in an object store whose state is read at the same time: that waits for the network, not for a processor."""


class CheckedArray:
    """A zarr array on disk whose pieces are valid only if they match their record in the ledger.

    A piece is the unit of work: one or more chunks with one record.

    Parameters
    ----------
    folder : Path or ObjectPath
        The array is stored in ``FOLDER.zarr``, its records in ``FOLDER.ledger``.
    shape : tuple of int
        Shape of the array.
    chunks : tuple of int
        Shape of a chunk.
    dtype : str
        Data type of the array.
    pieces : tuple of int
        Number of pieces along each axis of their index.
    chunks_of : callable
        Maps the index of a piece to the indices of its chunks in the chunk grid.
    fingerprint : str
        Fingerprint of the pieces; pieces with another one are ignored.
    durable : bool
        See :class:`tilepipe.cache.ledger.Ledger`.
    """

    def __init__(
        self,
        folder: StoragePath,
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
        """The zarr array, created if absent.  A damaged header is rewritten; chunks are not touched.

        Chunks of zeros are written too, so an absent chunk always means "not done".
        """
        expected: dict[str, Any] = {}
        zarr.create_array(
            store=MemoryStore(expected),
            shape=self._shape,
            chunks=self._chunks,
            dtype=self._dtype,
            compressors=[BloscCodec(cname="lz4", clevel=1, shuffle="shuffle"), Crc32cCodec()],
            fill_value=0,
            zarr_format=3,
            chunk_key_encoding={"name": "default", "separator": "."},
        )
        header, file = expected["zarr.json"].to_bytes(), self.folder / "zarr.json"
        if read_file(file) != header:
            write_durably(file, header, durable=self.ledger.durable)
        return open_array(self.folder)

    @cached_property
    def _complete(self) -> zarr.Array[Any]:
        """The array for reading."""
        _ = self.array  # creates it
        return open_complete_array(self.folder)

    def read(self, *selection: slice | int) -> npt.NDArray[Any]:
        """Return the pixels of `selection`.

        Raises
        ------
        DamagedError
            If a chunk is missing, where zarr would return zeros, or does not decode, twice.
        OSError, MemoryError
            If the chunks cannot be read for a reason that says nothing about them, such as too many open files.
        """
        try:
            return self._decode(selection)
        except DamagedError:  # the reading may be at fault
            return self._decode(selection)

    def _decode(self, selection: tuple[slice | int, ...]) -> npt.NDArray[Any]:
        """Read and decode `selection` once; errors as :meth:`read`."""
        try:
            with self._errors():
                return retried(lambda: np.asarray(self._complete[selection]))
        except (OSError, MemoryError, DamagedError):
            raise
        except Exception as error:  # codecs and checksums raise different types
            raise DamagedError(f"{self.folder} is damaged ({error}); run again to recompute damaged chunks") from error

    def write(self, pixels: npt.NDArray[Any], *selection: slice | int) -> None:
        """Write whole chunks, which become valid when :meth:`record` is called."""
        with self._errors():
            self.array[selection] = pixels

    def _errors(self) -> AbstractContextManager[None]:
        """Return a context in which errors of an object store become errors of files."""
        return object_errors(self.folder) if isinstance(self.folder, ObjectPath) else nullcontext()

    def indices(self) -> Iterator[Index]:
        """Yield the index of every piece, row by row."""
        return itertools.product(*map(range, self.pieces))

    def files(self, index: Index) -> list[StoragePath]:
        """Return the files that hold piece `index`."""
        return [self.folder / f"{CHUNK}{'.'.join(map(str, chunk))}" for chunk in self._chunks_of(index)]

    def states(
        self, indices: Iterable[Index] | None = None, *, full: bool = True, check: Callable[[], None] = lambda: None
    ) -> Iterator[tuple[Index, State]]:
        """Yield the indices and states of all pieces, or of those with `indices`; several are read at the same time.

        The ledger is listed once, so pieces without a record cost nothing.  `check` is called before each piece and
        raises to stop.
        """
        recorded = set(self.ledger.names())

        def checked() -> Iterator[Index]:
            for index in self.indices() if indices is None else indices:
                check()
                yield index

        def read(index: Index) -> tuple[Index, State]:
            return index, self.state(index, full=full) if piece_name(index) in recorded else "absent"

        at_a_time = REQUESTS if isinstance(self.folder, ObjectPath) else cores() if full else 1
        yield from prefetch(read, checked(), at_a_time)

    def state(self, index: Index, *, full: bool = True) -> State:
        """Return the state of piece `index`."""
        name = piece_name(index)
        if self.ledger.accepts(name, self.files(index), full=full):
            return "done"
        return "absent" if self.ledger.get(name) is None else "damaged"

    def record(
        self, index: Index, began: float, peak: int, *, inputs: str = "", facts: dict[str, Any] | None = None
    ) -> Record:
        """Read the chunks of piece `index` back, compare them with the CRC-32C of what was written, and record them.

        Parameters
        ----------
        index : tuple of int
            Index of the piece.
        began : float
            Start of its computation, ``time.perf_counter()``.
        peak : int
            Peak memory of the process so far, bytes.
        inputs, facts
            See :class:`tilepipe.cache.ledger.Record`.

        Returns
        -------
        Record
            The record.

        Raises
        ------
        CacheError
            If the chunks read back differ from those written.
        """
        return self.ledger.put(
            piece_name(index),
            self.files(index),
            seconds=time.perf_counter() - began,
            peak=peak,
            inputs=inputs,
            facts=facts,
            is_intact=_matches_crc,
        )

    def take_over(self, index: Index, other: CheckedArray, inputs: str, peak: int) -> bool:
        """Reuse piece `index` of `other`, an array of the same shape, if it is intact and computed from `inputs`.

        The files are hard-linked, which is safe because chunks are never written in place, or copied where there are
        no hard links.  Return whether the piece was reused.
        """
        began = time.perf_counter()
        reusable = other.ledger.get(piece_name(index))
        if reusable is None or reusable.inputs != inputs or other.state(index) != "done":
            return False
        make_folder(self.folder, durable=self.ledger.durable)
        for target, source in zip(self.files(index), other.files(index), strict=True):
            _link_or_copy(source, target)
        self.record(index, began, peak, inputs=inputs, facts=reusable.facts)
        return True

    def forget_damaged(self, indices: Iterable[Index] | None = None, check: Callable[[], None] = lambda: None) -> None:
        """Delete the records of damaged pieces, of all or of those with `indices`, so that they are recomputed.

        `check` is called before each deletion and raises if the folder may not be changed.
        """
        for index, state in self.states(indices):
            if state == "damaged":
                check()
                self.ledger.forget(piece_name(index))

    def drop(self, index: Index) -> None:
        """Delete the record of piece `index`, and then its chunks: nothing needs them any longer."""
        self.ledger.forget(piece_name(index))
        for file in self.files(index):
            file.unlink(missing_ok=True)

    def forget_all(self) -> None:
        """Delete all records, so that every piece is recomputed."""
        for record in self.ledger.folder.glob("*.json"):
            record.unlink()


def _link_or_copy(source: StoragePath, target: StoragePath) -> None:
    """Create `target` with the content of `source`, at once."""
    if isinstance(source, ObjectPath) or isinstance(target, ObjectPath):
        assert isinstance(source, ObjectPath)
        assert isinstance(target, ObjectPath)
        source.copy_to(target)
        return
    temporary = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        os.link(source, temporary)
    except OSError:
        shutil.copyfile(source, temporary)
    temporary.replace(target)


def piece_name(index: Index) -> str:
    """Return the name of a piece in ledgers and receipts, "row-column"."""
    return "-".join(map(str, index))


def _matches_crc(chunk: bytes) -> bool:
    """Return whether a chunk ends with the CRC-32C of the rest; it was computed before the chunk was written."""
    return len(chunk) > 4 and int.from_bytes(chunk[-4:], "little") == google_crc32c.value(chunk[:-4])
