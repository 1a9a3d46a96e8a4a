"""Files and folders that survive a power failure, and small files with a checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

__all__ = ["is_disk_full", "make_folder", "read_sealed", "seal", "sync", "unseal", "write_durably", "write_sealed"]


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error` means that a disk or a quota is full.

    ``numpy.ndarray.tofile``, used by tifffile, sets no errno; its message is "196608 requested and 129736 written".
    """
    if not isinstance(error, OSError):
        return False
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error))


def sync(path: Path) -> None:
    """Flush a file's content or a folder's entries to disk (fsync); ignore file systems without fsync for folders."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_folder(path: Path, *, durable: bool = True) -> None:
    """Create the folder `path` and its parents; if `durable`, flush the parent of each new folder."""
    if path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync(path.parent)


def write_durably(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write `path` atomically: after a crash it is the old file or the new one, never a partial one.

    Parameters
    ----------
    path : Path
        The file; its folder is created when needed.
    data : bytes
        Its content.
    durable : bool
        Flush the file and its folder, so that this holds after a power failure, not only after a killed process.
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
    """Return `data`, a single line, followed by a line with its SHA-256."""
    return data + b"\n" + hashlib.sha256(data).hexdigest().encode() + b"\n"


def unseal(sealed: bytes) -> bytes | None:
    """Return the data passed to :func:`seal`; None if `sealed` was altered or truncated."""
    data = sealed.partition(b"\n")[0]
    return data if seal(data) == sealed else None


def write_sealed(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a single line of `data` and its SHA-256 with :func:`write_durably`."""
    write_durably(path, seal(data), durable=durable)


def read_sealed(path: Path) -> bytes | None:
    """Return the line written by :func:`write_sealed`; None if it is absent, unreadable or damaged."""
    try:
        return unseal(path.read_bytes())
    except OSError:
        return None
