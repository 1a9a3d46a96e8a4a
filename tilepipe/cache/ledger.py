"""The ledger: one small file (record) per finished piece of work.

A record holds the index of the piece, its fingerprint, a digest of its input samples, and the SHA-256 of its chunk
files.  The chunks are flushed to disk first; then the record is written to a temporary file, flushed and renamed, and
its folder is flushed.  So a record never refers to a chunk that was not written, and a chunk that is later lost,
truncated or swapped does not match its record and is recomputed.  A record ends with its own SHA-256; a damaged record
is ignored.  There are no shared files and no file locks, so the ledger works on network file systems, and in object
stores, where a record replaces an older one of the same piece: both are valid.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec

from tilepipe.errors import CacheError
from tilepipe.system.files import ABSENT, read_file, read_sealed, retried, sync, write_sealed
from tilepipe.system.object_store import StoragePath

__all__ = ["Ledger", "Record", "checksum"]

FORMAT = 2
"""Format of the records; records in other formats are ignored, so their pieces are recomputed."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Record of one finished piece.

    Parameters
    ----------
    format : int
        Format of the record, :data:`FORMAT`.
    index : str
        Index of the piece, "row-column".
    fingerprint : str
        Fingerprint of its recipe, or SHA-256 of its source.
    inputs : str
        SHA-256 of the input samples, or "" if the fingerprint determines them.
    checksum : str
        SHA-256 of its chunk files, in order.
    size : int
        Size of its chunk files, bytes.
    seconds : float
        Computing time.  This and the fields up to `pid` are for human readers and benchmarks; no decision uses them.
    peak : int
        Peak memory of the process, bytes.
    finished : float
        Time when it was finished, seconds since 1970.
    host : str
        Host that made it.
    pid : int
        Process that made it.
    facts : dict
        Counts made by the stage, such as samples that are not finite.
    """

    format: int
    index: str
    fingerprint: str
    inputs: str
    checksum: str
    size: int
    seconds: float
    peak: int
    finished: float
    host: str
    pid: int
    facts: dict[str, Any] = {}


def checksum(files: Iterable[StoragePath], is_intact: Callable[[bytes], bool] | None = None) -> tuple[str, int] | None:
    """Return the SHA-256 and the total size of `files`; None if one is missing or unreadable, or not `is_intact`."""
    digest, size = hashlib.sha256(), 0
    for file in files:
        data = read_file(file)
        if data is None or (is_intact is not None and not is_intact(data)):
            return None
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size


def _size(file: StoragePath) -> int:
    return file.stat().st_size


class Ledger:
    """The records of one stage.

    Parameters
    ----------
    folder : Path or ObjectPath
        Folder of the records, created when needed.
    fingerprint : str
        Records with another fingerprint are ignored.
    durable : bool
        Flush chunks and records to disk.  Otherwise they survive a killed process, but after a power failure pieces
        that the system had not yet written are detected as damaged and recomputed.
    """

    def __init__(self, folder: StoragePath, fingerprint: str, *, durable: bool = True) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.durable = durable

    def accepts(self, index: str, files: Iterable[StoragePath], *, full: bool = True) -> bool:
        """Return whether piece `index`, stored in `files`, is done.

        `full` reads and hashes the files, twice if they do not match, as the first reading may have been at fault;
        otherwise only their size is compared.

        Raises
        ------
        OSError, MemoryError
            If the files cannot be read for a reason that says nothing about the piece, such as too many open files.
        """
        record = self.get(index)
        if record is None:
            return False
        files = list(files)
        if full:
            return any(checksum(files) == (record.checksum, record.size) for _ in range(2))
        try:
            return sum(retried(partial(_size, file)) for file in files) == record.size
        except ABSENT:
            return False

    def get(self, index: str) -> Record | None:
        """Return the record of `index`; None if absent, damaged, or of another format or fingerprint."""
        data = read_sealed(self._file(index))
        try:
            record = None if data is None else msgspec.json.decode(data, type=Record)
        except msgspec.MsgspecError:  # another format
            return None
        if record is None or (record.format, record.index, record.fingerprint) != (FORMAT, index, self.fingerprint):
            return None
        return record

    def put(
        self,
        index: str,
        files: Iterable[StoragePath],
        *,
        seconds: float,
        peak: int,
        inputs: str = "",
        facts: dict[str, Any] | None = None,
        is_intact: Callable[[bytes], bool] | None = None,
    ) -> Record:
        """Flush `files`, which hold piece `index`, read them back, then write the record.

        Parameters
        ----------
        index, seconds, peak, inputs, facts
            See :class:`Record`.
        files : iterable of Path
            The chunk files.
        is_intact : callable, optional
            ``is_intact(content)`` returns whether the content of a file is what was to be written.

        Returns
        -------
        Record
            The record.

        Raises
        ------
        CacheError
            If a file does not read back as written.
        OSError
            If a file cannot be flushed, or the record cannot be written.
        """
        files = list(files)
        if self.durable:
            for path in dict.fromkeys([*files, *(file.parent for file in files)]):
                sync(path)
        found = checksum(files, is_intact) or checksum(files, is_intact)
        if found is None:
            raise CacheError(f"{files[0]} does not read back as written; check the disk")
        digest, size = found
        record = Record(
            format=FORMAT,
            index=index,
            fingerprint=self.fingerprint,
            inputs=inputs,
            checksum=digest,
            size=size,
            seconds=round(seconds, 4),
            peak=peak,
            finished=round(time.time(), 3),
            host=platform.node(),
            pid=os.getpid(),
            facts=facts or {},
        )
        write_sealed(self._file(index), msgspec.json.encode(record), durable=self.durable)
        return record

    def forget(self, index: str) -> None:
        """Delete the record of `index`, so that the piece is recomputed."""
        self._file(index).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Return the indices that have a record, valid or not."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def records(self) -> dict[str, Record]:
        """Return all valid records, by index."""
        records = ((name, self.get(name)) for name in self.names())
        return {name: record for name, record in records if record is not None}

    def _file(self, index: str) -> StoragePath:
        return self.folder / f"{index}.json"
