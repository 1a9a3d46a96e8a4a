"""The ledger: one small file per finished piece of work.

A record says which piece, made under which fingerprint, and the SHA-256 of the chunk files that hold it.
It is written after the chunks: to a temporary file, fsynced, renamed, the folder fsynced.  So after a crash
a record is whole or absent; and a chunk that the system lost, cut short or mixed up does not agree with its
record and is made again.  No shared file, no file locks: it works on network filesystems.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

__all__ = ["Ledger", "Record", "checksum", "write_durably"]

FORMAT = 1
"""Of the records; others are ignored, so their work is done again."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One finished piece.

    Parameters
    ----------
    index : which piece, as "row-column".
    fingerprint : of the recipe (or source) it belongs to.
    checksum, size : of its chunk files, in order; SHA-256 and bytes.
    seconds, peak, host, pid : how it was made, for people and benchmarks.
    facts : what the stage counted (NaN, clipped samples).
    """

    format: int
    index: str
    fingerprint: str
    checksum: str
    size: int
    seconds: float
    peak: int
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
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self.folder = folder
        self.fingerprint = fingerprint

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
        """Return the record of `index`; None when absent, torn, of another format or fingerprint."""
        try:
            record = msgspec.json.decode(self._file(index).read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        right = (record.format, record.index, record.fingerprint) == (FORMAT, index, self.fingerprint)
        return record if right else None

    def put(
        self, index: str, files: Iterable[Path], *, seconds: float, peak: int, facts: dict[str, Any] | None = None
    ) -> Record:
        """Record that piece `index` now lies in `files`."""
        digest, size = checksum(files)
        record = Record(
            format=FORMAT,
            index=index,
            fingerprint=self.fingerprint,
            checksum=digest,
            size=size,
            seconds=round(seconds, 4),
            peak=peak,
            host=os.uname().nodename,
            pid=os.getpid(),
            facts=facts or {},
        )
        write_durably(self._file(index), msgspec.json.encode(record))
        return record

    def records(self) -> dict[str, Record]:
        """Return every record that counts, by index."""
        names = sorted(path.stem for path in self.folder.glob("*.json"))
        found = ((name, self.get(name)) for name in names)
        return {name: record for name, record in found if record is not None}

    def _file(self, index: str) -> Path:
        return self.folder / f"{index}.json"


def write_durably(path: Path, data: bytes) -> None:
    """Write `path` so that after a crash it is the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
