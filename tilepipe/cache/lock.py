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
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil

from tilepipe.cache.layout import GUARD_FILE, LOCK_FILE
from tilepipe.errors import CacheError
from tilepipe.events import Listener, Note, silent
from tilepipe.system.file_lock import wait_for_lock
from tilepipe.system.files import ABSENT, make_folder, retried

__all__ = ["Lock", "guarded", "holder_of", "locked"]

HEARTBEAT = 5.0
"""Seconds between touches."""

STALE = 60.0
"""Seconds without a touch after which a lock from elsewhere is stale."""

POLL_SECONDS = 0.5
"""Seconds between checks of a lock from elsewhere."""

INITIAL_NAMESPACE = "pid:[4026531836]"
"""PID namespace outside containers (Linux, PROC_PID_INIT_INO)."""


class Lock:
    """A lock that was taken; :meth:`check` verifies that it is still held."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content

    def check(self) -> None:
        """Raise CacheError if the lock is lost: the cache was removed, or another run took the stale lock over."""
        if not self.held():
            raise CacheError(
                f"the cache folder {self._path.parent} was removed or taken over while the run used it; "
                "nothing was written to the output: run the same command again"
            )

    def held(self) -> bool:
        """Return whether the lock file exists and is unchanged; a lock that cannot be read just now is not lost."""
        try:
            return retried(self._path.read_text) == self._content
        except (*ABSENT, UnicodeDecodeError):
            return False
        except OSError:
            return True


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Wait for the guard of the cache at `root` and hold it; only for short sections."""
    make_folder(root)
    with (root / GUARD_FILE).open("ab") as file:
        with contextlib.suppress(OSError):  # no locks on this file system: only exclusive creation protects ours
            wait_for_lock(file)
        yield


@contextmanager
def locked(folder: Path, root: Path, on_event: Listener = silent) -> Iterator[Lock]:
    """Create `folder` in the cache at `root` and hold its lock; report to `on_event` when that takes a minute.

    Raises
    ------
    CacheError
        If another live run holds it.
    """
    path = folder / LOCK_FILE
    owner = _place() | {
        "pid": os.getpid(),
        "started": _start_time(os.getpid()),
        "token": uuid.uuid4().hex,
    }
    lock = Lock(path, json.dumps(owner))
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


def holder_of(folder: Path) -> str | None:
    """Return the process that holds the lock of `folder`, as "process 12 on host".

    None if there is no lock or its process no longer exists here; a lock from elsewhere counts as held.
    """
    content = _read(folder / LOCK_FILE)
    return None if content is None or _is_dead(content) else _owner_name(content)


def _acquire(folder: Path, root: Path, lock: Lock, stale: tuple[str, int] | None) -> bool:
    """Create the lock file; return False if a lock from elsewhere is there and its state is not the `stale` one."""
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
    """Return a lock's state after ``STALE`` seconds without a touch, None once it is gone; CacheError on a touch."""
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
        except OSError:  # the next touch may succeed
            continue


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


@cache
def _place() -> dict[str, str]:
    """Return where this process's id is valid: host, machine, boot and PID namespace; "" for what is not available."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    return {
        "host": platform.node(),
        "machine": _first_line("/etc/machine-id"),
        "boot": _first_line("/proc/sys/kernel/random/boot_id"),
        "namespace": namespace,
    }


def _first_line(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _is_local(content: str) -> bool:
    """Return whether the lock's process id is valid here."""
    fields, place = _parse(content), _place()
    return all(fields.get(name) == place[name] for name in place)


def _was_rebooted(fields: dict[str, object]) -> bool:
    """Return whether this machine was started again since the lock was taken, outside containers."""
    place = _place()
    same = all(place[name] and fields.get(name) == place[name] for name in ("host", "machine", "namespace"))
    return same and place["namespace"] == INITIAL_NAMESPACE and fields.get("boot") != place["boot"]


def _is_dead(content: str) -> bool:
    """Return whether the lock is incomplete or its process is known to be gone (its pid may have been reused)."""
    fields = _parse(content)
    pid = fields.get("pid")
    if not isinstance(pid, int) or "host" not in fields or _was_rebooted(fields):
        return True
    return _is_local(content) and not (_is_alive(pid) and _start_time(pid) == fields.get("started"))


def _is_alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie (killed, but not yet reaped by its parent)."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False


def _start_time(pid: int) -> float | None:
    """Return when the process started: ticks since boot on Linux, elsewhere seconds since 1970; None if unknown."""
    try:
        if os.path.isdir("/proc/self"):
            return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])  # proc(5)
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error, ValueError, IndexError):
        return None


def _owner_name(content: str) -> str:
    """Return the owner of a lock, as "process 12 on host"."""
    fields = _parse(content)
    return f"process {fields.get('pid')} on {fields.get('host')}"


def _in_use(folder: Path, content: str) -> CacheError:
    """Return the error for a folder whose lock is held."""
    return CacheError(f"{folder} is in use by {_owner_name(content)}; wait for it, stop it, or give another --cache")
