"""Files and folders that survive a power failure, and small files with a checksum."""

from __future__ import annotations

import errno
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from tilepipe.system.object_store import ObjectPath, StoragePath

__all__ = [
    "ABSENT",
    "flush",
    "is_disk_full",
    "is_same_file",
    "lies_in",
    "make_folder",
    "printable",
    "read_at",
    "read_file",
    "read_sealed",
    "retried",
    "seal",
    "sync",
    "unseal",
    "write_durably",
    "write_sealed",
]

T = TypeVar("T")

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""Errors of a file that does not exist."""

TRANSIENT = {errno.EINTR, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE, errno.EIO}
"""Error numbers after which the same action may succeed: too many open files, too little memory, a lost connection."""

PAUSES = (0.02, 0.2)
"""Pauses before a failed action is repeated, s."""


def is_disk_full(error: BaseException) -> bool:
    """Return whether `error` means that a disk or a quota is full.

    ``numpy.ndarray.tofile``, used by tifffile, sets no errno; its message is "196608 requested and 129736 written".
    """
    if not isinstance(error, OSError):
        return False
    return error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and "requested and" in str(error))


def retried(action: Callable[[], T]) -> T:
    """Return ``action()``; repeat it twice after an error that may pass, then raise the error."""
    for pause in PAUSES:
        try:
            return action()
        except (OSError, MemoryError) as error:
            if isinstance(error, OSError) and error.errno not in TRANSIENT:
                raise
        time.sleep(pause)
    return action()


def read_file(path: StoragePath) -> bytes | None:
    """Return the content of a file; None if it does not exist or the disk cannot read it.

    All other errors, which do not depend on the file, are raised.
    """
    try:
        return retried(path.read_bytes)
    except ABSENT:
        return None
    except OSError as error:
        if error.errno == errno.EIO:
            return None
        raise


def is_same_file(one: Path, other: Path) -> bool:
    """Return whether two paths name one file, also through links; for files that do not exist, one path."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def lies_in(path: Path, folder: Path) -> bool:
    """Return whether `path` leads into `folder`, also through links; neither needs to exist."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def read_at(descriptor: int, size: int, offset: int) -> bytes:
    """Return `size` bytes of an open file from `offset` on, fewer only at its end; the position may change."""
    parts, end = [], offset + size
    while offset < end:
        part = retried(partial(_read_some, descriptor, end - offset, offset))
        if not part:
            break
        parts.append(part)
        offset += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_some(descriptor: int, size: int, offset: int) -> bytes:
    """Return up to `size` bytes from `offset` on: the system may return fewer, and on Linux at most 2 GiB."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, size, offset)
    with _seeking:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, size)


_seeking = threading.Lock()
"""Held between seeking and reading, where both are separate calls."""


def flush(descriptor: int) -> None:
    """Flush an open file to the disk itself; on macOS fsync leaves the data in the drive's cache."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError:  # a file system without it
            os.fsync(descriptor)
        return
    os.fsync(descriptor)


def sync(path: StoragePath) -> None:
    """Flush a file's content or a folder's entries to disk; ignore systems that cannot flush folders.

    Objects are durable once they are written.
    """
    if isinstance(path, ObjectPath):
        return
    if os.name == "nt":
        if path.is_dir():
            return
        descriptor = os.open(path, os.O_RDWR)
    else:
        descriptor = os.open(path, os.O_RDONLY)
    try:
        flush(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def make_folder(path: StoragePath, *, durable: bool = True) -> None:
    """Create the folder `path` and its parents; if `durable`, flush the parent of each new folder.

    Object stores have no folders.
    """
    if isinstance(path, ObjectPath) or path.is_dir():
        return
    make_folder(path.parent, durable=durable)
    path.mkdir(exist_ok=True)
    if durable:
        sync(path.parent)


def write_durably(path: StoragePath, data: bytes, *, durable: bool = True) -> None:
    """Write `path` atomically: after a crash it is the old file or the new one, never a partial one.

    Parameters
    ----------
    path : Path or ObjectPath
        The file; its folder is created when needed.
    data : bytes
        Its content.
    durable : bool
        Flush the file and its folder, so that this holds after a power failure, not only after a killed process.
    """
    if isinstance(path, ObjectPath):
        path.write_bytes(data)
        return
    make_folder(path.parent, durable=durable)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                flush(file.fileno())
        temporary.replace(path)
    except BaseException:  # MemoryError and KeyboardInterrupt too: no later run removes the file of a living process
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


def write_sealed(path: StoragePath, data: bytes, *, durable: bool = True) -> None:
    """Write a single line of `data` and its SHA-256 with :func:`write_durably`."""
    write_durably(path, seal(data), durable=durable)


def read_sealed(path: StoragePath) -> bytes | None:
    """Return the line written by :func:`write_sealed`; None if it is absent or damaged, as :func:`read_file`.

    A damaged file is read twice: the first reading may have been at fault.
    """
    for _ in range(2):
        sealed = read_file(path)
        data = None if sealed is None else unseal(sealed)
        if sealed is None or data is not None:
            return data
    return None


def printable(path: Path) -> str:
    """Return a path as valid Unicode; bytes of a name that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
