"""Locks on open files, by the system's own calls: fcntl on Linux and macOS, msvcrt on Windows.

They end with the process.  They are advisory on Linux and macOS: only processes that ask for the lock notice it.
"""

from __future__ import annotations

import time
from typing import IO, Any

__all__ = ["is_available", "try_lock", "wait_for_lock"]

# None stands for a module that the platform lacks; mypy knows the names as modules only
try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

try:
    import msvcrt
except ImportError:
    msvcrt = None  # type: ignore[assignment]

LOCKED_BYTE = 1 << 30
"""Byte that is locked on Windows, where a lock prevents reading and writing: beyond the content."""

POLL_SECONDS = 0.05
"""Time between attempts on Windows, whose own call gives up after ten."""


def is_available() -> bool:
    """Return whether this platform has file locks; a file system may still not support them."""
    return fcntl is not None or msvcrt is not None


def try_lock(file: IO[Any]) -> bool:
    """Lock `file`; return False if another process or handle holds the lock.

    Raises
    ------
    OSError
        If the file system or the platform does not support locks.
    """
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
    if msvcrt is not None:
        file.seek(LOCKED_BYTE)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    raise OSError("this platform has no file locks")


def wait_for_lock(file: IO[Any]) -> None:
    """Lock `file`, waiting as long as it takes; OSError as :func:`try_lock`."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX)
        return
    while not try_lock(file):
        time.sleep(POLL_SECONDS)
