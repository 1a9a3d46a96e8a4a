"""Lock of a recipe's folder: one run at a time, and no lock outlives its process.

The lock is a file that holds the process id, the start time of the process, and where the id is valid: host, boot and
PID namespace (containers have their own).  A thread touches it every few seconds.  If its process no longer exists
here, the lock is taken over at once.  A lock from elsewhere is watched, and is stale if it is not touched for a minute
by this host's monotonic clock.  So clocks that differ or go backwards have no effect.

A lock is checked and taken under the cache's guard (a file lock, where the file system supports it), so two runs that
find the same stale lock do not both take it, and no folder is removed while a run starts in it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.cache.layout import GUARD_FILE, LOCK_FILE
from tilepipe.cache.lock_owner import HeldLock, in_use_error, is_dead, is_local, lost_error, new_owner, owner_name
from tilepipe.cache.object_lock import locked_object
from tilepipe.errors import CacheError
from tilepipe.events import Listener, Note, silent
from tilepipe.system.file_lock import wait_for_lock
from tilepipe.system.files import ABSENT, make_folder, retried
from tilepipe.system.object_store import ObjectPath, StoragePath

__all__ = ["guarded", "holder_of", "locked"]

HEARTBEAT = 5.0
"""Seconds between touches."""

STALE = 60.0
"""Seconds without a touch after which a lock from elsewhere is stale."""

POLL_SECONDS = 0.5
"""Seconds between checks of a lock from elsewhere."""


class Lock:
    """A lock file that was taken."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content

    def check(self) -> None:
        """Raise CacheError if the lock is lost: the cache was removed, or another run took the stale lock over."""
        if not self.held():
            raise lost_error(self._path.parent)

    def held(self) -> bool:
        """Return whether the lock file exists and is unchanged; a lock that cannot be read just now is not lost."""
        try:
            return retried(self._path.read_text) == self._content
        except (*ABSENT, UnicodeDecodeError):
            return False
        except OSError:
            return True


@contextmanager
def guarded(root: StoragePath) -> Iterator[None]:
    """Wait for the guard of the cache at `root` and hold it; only for short sections.

    Object stores have no guard: their locks are created and replaced by conditional requests.
    """
    if isinstance(root, ObjectPath):
        yield
        return
    make_folder(root)
    with (root / GUARD_FILE).open("ab") as file:
        with contextlib.suppress(OSError):  # no locks on this file system: only exclusive creation protects ours
            wait_for_lock(file)
        yield


@contextmanager
def locked(folder: StoragePath, root: StoragePath, on_event: Listener = silent) -> Iterator[HeldLock]:
    """Create `folder` in the cache at `root` and hold its lock; report to `on_event` when that takes a minute.

    Raises
    ------
    CacheError
        If another live run holds it.
    """
    if isinstance(folder, ObjectPath):
        with locked_object(folder, on_event) as object_lock:
            yield object_lock
        return
    path = folder / LOCK_FILE
    lock = Lock(path, new_owner())
    stale: tuple[str, int] | None = None
    while not _acquire(folder, root, lock, stale):
        on_event(
            Note(f"waiting  {folder} is locked by {holder_of(folder)}: taken over unless touched within {STALE:g} s")
        )
        stale = _wait_until_stale(path, folder)
    stop = threading.Event()
    threading.Thread(target=_touch_repeatedly, args=(lock, path, stop), daemon=True, name="cache-lock").start()
    try:
        yield lock
    finally:
        stop.set()
        if lock.held():
            path.unlink(missing_ok=True)


def holder_of(folder: StoragePath) -> str | None:
    """Return the process that holds the lock of `folder`, as "process 12 on host".

    None if there is no lock or its process no longer exists here; a lock from elsewhere counts as held.
    """
    content = _read(folder / LOCK_FILE)
    return None if content is None or is_dead(content) else owner_name(content)


def _acquire(folder: Path, root: StoragePath, lock: Lock, stale: tuple[str, int] | None) -> bool:
    """Create the lock file; return False if a lock from elsewhere is there and its state is not the `stale` one."""
    path = folder / LOCK_FILE
    with guarded(root):
        make_folder(folder)
        content = _read(path)
        if content is not None:
            if not is_dead(content) and _state(path) != stale:
                if is_local(content):
                    raise in_use_error(folder, content)
                return False
            path.unlink(missing_ok=True)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        except FileExistsError:
            raise CacheError(f"{folder} is being taken by another run; try again") from None
        os.write(descriptor, lock._content.encode())
        os.close(descriptor)
    return True


def _wait_until_stale(path: Path, folder: Path) -> tuple[str, int] | None:
    """Return a lock's state after ``STALE`` seconds without a touch, None once it is gone; CacheError on a touch."""
    first, deadline = _state(path), time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = _state(path)
        if now is None:
            return None
        if now != first:
            raise in_use_error(folder, now[0])
    return first


def _touch_repeatedly(lock: Lock, path: Path, stop: threading.Event) -> None:
    """Touch the lock file every ``HEARTBEAT`` seconds while it is held, until `stop` is set."""
    while not stop.wait(HEARTBEAT):
        try:
            if lock.held():
                os.utime(path)
        except OSError:  # the next touch may succeed
            continue


def _state(path: Path) -> tuple[str, int] | None:
    """Return the content and the mtime of the lock file; None if there is no lock."""
    content = _read(path)
    try:
        return None if content is None else (content, path.stat().st_mtime_ns)
    except OSError:
        return None


def _read(path: StoragePath) -> str | None:
    """Return the content of the lock file; None if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None
