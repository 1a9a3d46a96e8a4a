"""The ledger: one small file (record) per finished piece of work.

A record holds the index of the piece, its fingerprint, a digest of its input samples, and the SHA-256 of its chunk
files.  The chunks are flushed to disk first; then the record is written to a temporary file, flushed and renamed, and
its folder is flushed.  So a record never refers to a chunk that was not written, and a chunk that is later lost,
truncated or swapped does not match its record and is recomputed.  A record ends with its own SHA-256; a damaged record
is ignored.  There are no shared files and no file locks, so the ledger works on network file systems.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from tilepipe.system.files import read_sealed, sync, write_sealed

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


def checksum(files: Iterable[Path]) -> tuple[str, int]:
    """Return the SHA-256 and the total size of `files`; FileNotFoundError if one is missing."""
    digest, size = hashlib.sha256(), 0
    for file in files:
        data = file.read_bytes()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
        size += len(data)
    return digest.hexdigest(), size


class Ledger:
    """The records of one stage.

    Parameters
    ----------
    folder : Path
        Folder of the records, created when needed.
    fingerprint : str
        Records with another fingerprint are ignored.
    durable : bool
        Flush chunks and records to disk.  Otherwise they survive a killed process, but after a power failure pieces
        that the system had not yet written are detected as damaged and recomputed.
    """

    def __init__(self, folder: Path, fingerprint: str, *, durable: bool = True) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.durable = durable

    def accepts(self, index: str, files: Iterable[Path], *, full: bool = True) -> bool:
        """Return whether piece `index`, stored in `files`, is done.

        The same check decides whether work is skipped and verifies finished work.  `full` reads and hashes the files;
        otherwise only their size is compared.
        """
        record = self.get(index)
        if record is None:
            return False
        files = list(files)
        try:
            if not full:
                return sum(file.stat().st_size for file in files) == record.size
            return checksum(files) == (record.checksum, record.size)
        except OSError:
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
        files: Iterable[Path],
        *,
        seconds: float,
        peak: int,
        inputs: str = "",
        facts: dict[str, Any] | None = None,
    ) -> Record:
        """Flush `files`, which hold piece `index`, then write its record; OSError if that fails."""
        files = list(files)
        if self.durable:
            for path in [*files, *sorted({file.parent for file in files})]:
                sync(path)
        digest, size = checksum(files)
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
            host=os.uname().nodename,
            pid=os.getpid(),
            facts=facts or {},
        )
        write_sealed(self._file(index), msgspec.json.encode(record), durable=self.durable)
        return record

    def forget(self, index: str) -> None:
        """Delete the record of `index`, so that the piece is recomputed."""
        self._file(index).unlink(missing_ok=True)

    def records(self) -> dict[str, Record]:
        """Return all valid records, by index."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        records = ((name, self.get(name)) for name in names)
        return {name: record for name, record in records if record is not None}

    def _file(self, index: str) -> Path:
        return self.folder / f"{index}.json"
