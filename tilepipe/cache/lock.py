"""Lock of a recipe's folder: one run at a time, and no lock outlives its process.

The lock is a file that holds the host, the process id and the start time of the process; a thread touches it every few
seconds.  If its process no longer exists on this host, the lock is taken over at once.  A lock of another host is
watched, and is stale if it is not touched for a minute by this host's monotonic clock.  So clocks that differ or go
backwards have no effect.

A lock is checked and taken under the cache's guard (``flock``, where the file system supports it), so two runs that
find the same stale lock do not both take it, and no folder is removed while a run starts in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.cache.layout import GUARD_FILE, LOCK_FILE
from tilepipe.errors import CacheError
from tilepipe.system.files import make_folder

__all__ = ["Lock", "guarded", "holder_of", "locked"]

HEARTBEAT = 5.0
"""Seconds between touches."""

STALE = 60.0
"""Seconds without a touch after which a lock of another host is stale."""

POLL_SECONDS = 0.5
"""Seconds between checks of another host's lock."""


class Lock:
    """A lock that was taken; :meth:`check` verifies that it is still held."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content

    def check(self) -> None:
        """Raise CacheError if the lock is lost: the cache was removed, or another run took the lock for stale."""
        if not self.held():
            raise CacheError(
                f"the cache folder {self._path.parent} was removed or taken over while the run used it; "
                "nothing was written to the output: run the same command again"
            )

    def held(self) -> bool:
        """Return whether the lock file exists and is unchanged."""
        return _read(self._path) == self._content


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Wait for the guard of the cache at `root` and hold it; only for short sections."""
    make_folder(root)
    with (root / GUARD_FILE).open("ab") as file:
        with contextlib.suppress(OSError):  # no flock on this file system: only exclusive creation protects the lock
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(folder: Path, root: Path) -> Iterator[Lock]:
    """Create `folder` in the cache at `root` and hold its lock.

    Raises
    ------
    CacheError
        If another live run holds it.
    """
    path = folder / LOCK_FILE
    owner = {
        "host": os.uname().nodename,
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    lock = Lock(path, json.dumps(owner))
    stale: tuple[str, int] | None = None
    while not _acquire(folder, root, lock, stale):
        stale = _wait_until_stale(path, folder)
    stop = threading.Event()
    threading.Thread(target=_touch_repeatedly, args=(lock, path, stop), daemon=True, name="cache-lock").start()
    try:
        yield lock
    finally:
        stop.set()
        if lock.held():
            path.unlink(missing_ok=True)


def holder_of(folder: Path) -> str | None:
    """Return the process that holds the lock of `folder`, as "process 12 on host".

    None if there is no lock or its process no longer exists on this host; a lock of another host counts as held.
    """
    content = _read(folder / LOCK_FILE)
    return None if content is None or _is_dead(content) else _owner_name(content)


def _acquire(folder: Path, root: Path, lock: Lock, stale: tuple[str, int] | None) -> bool:
    """Create the lock file; return False if another host holds the lock and its state is not the `stale` one."""
    path = folder / LOCK_FILE
    with guarded(root):
        make_folder(folder)
        content = _read(path)
        if content is not None:
            if not _is_dead(content) and _state(path) != stale:
                if _is_local(content):
                    raise _in_use(folder, content)
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
    """Return the state of another host's lock after ``STALE`` seconds, None once it is gone; CacheError on a touch."""
    first, deadline = _state(path), time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = _state(path)
        if now is None:
            return None
        if now != first:
            raise _in_use(folder, now[0])
    return first


def _touch_repeatedly(lock: Lock, path: Path, stop: threading.Event) -> None:
    """Touch the lock file every ``HEARTBEAT`` seconds while it is held, until `stop` is set."""
    while not stop.wait(HEARTBEAT):
        try:
            if lock.held():
                os.utime(path)
        except OSError:
            return


def _state(path: Path) -> tuple[str, int] | None:
    """Return the content and the mtime of the lock file; None if there is no lock."""
    content = _read(path)
    try:
        return None if content is None else (content, path.stat().st_mtime_ns)
    except OSError:
        return None


def _read(path: Path) -> str | None:
    """Return the content of the lock file; None if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _parse(content: str) -> dict[str, object]:
    """Return the fields of a lock; empty if it is not valid JSON."""
    try:
        fields = json.loads(content)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _is_local(content: str) -> bool:
    """Return whether the lock was taken on this host."""
    return _parse(content).get("host") == os.uname().nodename


def _is_dead(content: str) -> bool:
    """Return whether the lock is incomplete or its process on this host is gone (its pid may have been reused)."""
    fields = _parse(content)
    pid = fields.get("pid")
    if not isinstance(pid, int) or "host" not in fields:
        return True
    return _is_local(content) and not (_is_alive(pid) and _start_time(pid) == fields.get("started"))


def _is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0 and _stat(pid)[:1] not in (["Z"], ["X"])  # killed, but not yet reaped by its parent


def _start_time(pid: int) -> int | None:
    """Return the start time of the process, in ticks since boot; None where it is not available (macOS)."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` (proc(5)) from the third, the state, on; empty if unavailable."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _owner_name(content: str) -> str:
    """Return the owner of a lock, as "process 12 on host"."""
    fields = _parse(content)
    return f"process {fields.get('pid')} on {fields.get('host')}"


def _in_use(folder: Path, content: str) -> CacheError:
    """Return the error for a folder whose lock is held."""
    return CacheError(f"{folder} is in use by {_owner_name(content)}; wait for it, stop it, or give another --cache")
