"""The ledger: one small file per finished piece of work.

A record says which piece, made under which fingerprint and from which pixels, and the SHA-256 of the chunk files
that hold it.  The chunks are flushed to the disk first, then the record is written: to a temporary file, flushed,
renamed, the folder flushed.  So a record never speaks of a chunk that is not there; and a chunk that was lost,
cut short or mixed up later does not agree with its record and is made again.  A record is sealed with its own
SHA-256: damaged, it is none.  No shared file, no file locks: it works on network filesystems.
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
"""Of the records; others are ignored, so their work is done again."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One finished piece.

    Parameters
    ----------
    index : which piece, as "row-column".
    fingerprint : of the recipe (or source) it belongs to.
    inputs : SHA-256 of the samples it was made from; "" where the fingerprint says it all.
    checksum, size : of its chunk files, in order; SHA-256 and bytes.
    seconds, peak, finished, host, pid : how it was made, for people and benchmarks: time taken, memory of the
        process in bytes, seconds since 1970, where.  Nothing is decided by them.
    facts : what the stage counted (NaN, clipped samples).
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
    """Return the SHA-256 over the bytes of `files` and their size; FileNotFoundError when one is missing."""
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
    folder : where they lie; made when needed.
    fingerprint : records under another one do not count.
    durable : flush chunks and records to the disk; without it they survive a killed process, and after a power
        failure what the system had not written yet is found damaged and made again.
    """

    def __init__(self, folder: Path, fingerprint: str, *, durable: bool = True) -> None:
        self.folder = folder
        self.fingerprint = fingerprint
        self.durable = durable

    def accepts(self, index: str, files: Iterable[Path], *, full: bool = True) -> bool:
        """Return whether piece `index`, stored in `files`, is done.

        The one check, asked before work is skipped and after it was done.  `full` reads and hashes the
        files; otherwise only their size counts.
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
        """Return the record of `index`; None when absent, damaged, of another format or fingerprint."""
        data = read_sealed(self._file(index))
        try:
            record = None if data is None else msgspec.json.decode(data, type=Record)
        except msgspec.MsgspecError:  # of another format
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
        """Flush `files`, which hold piece `index`, then record it; OSError when that cannot be done."""
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
        """Drop the record of `index`: the piece will be made again."""
        self._file(index).unlink(missing_ok=True)

    def records(self) -> dict[str, Record]:
        """Return every record that counts, by index."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        found = ((name, self.get(name)) for name in names)
        return {name: record for name, record in found if record is not None}

    def _file(self, index: str) -> Path:
        return self.folder / f"{index}.json"
