"""Files and folders that are still there after the power went, and small files whose damage shows."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

__all__ = ["is_disk_full", "make_folder", "read_sealed", "seal", "sync", "unseal", "write_durably", "write_sealed"]


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error` says that a disk, or somebody's share of it, is full.

    numpy's tofile, which tifffile writes with, tells no errno: "196608 requested and 129736 written".
    """
    if not isinstance(error, OSError):
        return False
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error))


def sync(path: Path) -> None:
    """Flush a file's bytes, or a folder's entries, to the disk (fsync); some file systems have none for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Make `path` and what it needs above it; each new entry is flushed in the folder that holds it."""
    if path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync(path.parent)


def write_durably(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `path` so that after a crash it is the old file or the new one, never a part.

    Parameters
    ----------
    durable : flush file and folder, so that it holds for a power failure too, not for a killed process only.
    """
    make_folder(path.parent, durable=durable)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def seal(data: bytes) -> bytes:
    """Return `data`, one line, with a second line that holds its SHA-256."""
    return data + b"\n" + hashlib.sha256(data).hexdigest().encode() + b"\n"


def unseal(sealed: bytes) -> bytes | None:
    """Return what :func:`seal` was given; None when a bit of it changed or a part is missing."""
    data = sealed.partition(b"\n")[0]
    return data if seal(data) == sealed else None


def write_sealed(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write one line of `data` and its seal, see :func:`write_durably`."""
    write_durably(path, seal(data), durable=durable)


def read_sealed(path: Path) -> bytes | None:
    """Return the line that :func:`write_sealed` wrote; None when it is absent, unreadable or damaged."""
    try:
        return unseal(path.read_bytes())
    except OSError:
        return None
