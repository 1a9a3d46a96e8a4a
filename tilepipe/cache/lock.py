"""One run at a time on one recipe's folder, and no lock that outlives its process.

The lock is a file that names host, process and the process's start; a thread touches it every few seconds.
It is taken over at once when its process is gone from this host.  A lock of another host is watched: when
nobody touches it for a minute, by this host's own monotonic clock, it was left behind.  So clocks that differ
or go backwards decide nothing.

Looking at a lock and taking it happens under the cache's guard (``flock``, where the file system has it): two
runs that find the same dead lock do not both take it, and no folder is removed under a run that begins.
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
"""Seconds without a touch after which a lock of another host counts as left behind."""

POLL_SECONDS = 0.5
"""Seconds between looks at another host's lock."""


class Lock:
    """A lock that is held; :meth:`check` tells whether it still is."""

    def __init__(self, path: Path, content: str) -> None:
        self._path, self._content = path, content

    def check(self) -> None:
        """Raise CacheError when the lock is gone: somebody removed the cache, or took it for left behind."""
        if not self.held():
            raise CacheError(
                f"the cache folder {self._path.parent} was removed or taken over while the run used it; "
                "nothing was written to the output: run the same command again"
            )

    def held(self) -> bool:
        """Return whether the file is there and still ours."""
        return _read(self._path) == self._content


@contextmanager
def guarded(root: Path) -> Iterator[None]:
    """Hold the guard of the cache at `root`, for moments only; waits for it."""
    make_folder(root)
    with (root / GUARD_FILE).open("ab") as file:
        with contextlib.suppress(OSError):  # not on this file system: the exclusive creation of the lock is all
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked(folder: Path, root: Path) -> Iterator[Lock]:
    """Make `folder`, in the cache at `root`, and hold its lock.

    Raises
    ------
    CacheError : a living run holds it.
    """
    path = folder / LOCK_FILE
    me = {"host": os.uname().nodename, "pid": os.getpid(), "started": _start_of(os.getpid()), "token": uuid.uuid4().hex}
    lock = Lock(path, json.dumps(me))
    silent: tuple[str, int] | None = None
    while not _take(folder, root, lock, silent):
        silent = _watch(path, folder)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(lock, path, stop), daemon=True, name="cache-lock").start()
    try:
        yield lock
    finally:
        stop.set()
        if lock.held():
            path.unlink(missing_ok=True)


def holder_of(folder: Path) -> str | None:
    """Return who works in `folder`, "process 12 on host"; None when nobody does, as far as this host can tell."""
    content = _read(folder / LOCK_FILE)
    return None if content is None or _is_dead(content) else _name(content)


def _take(folder: Path, root: Path, lock: Lock, silent: tuple[str, int] | None) -> bool:
    """Make the lock; False when another host's lock stands there that is not the `silent` one."""
    path = folder / LOCK_FILE
    with guarded(root):
        make_folder(folder)
        content = _read(path)
        if content is not None:
            if not _is_dead(content) and _state(path) != silent:
                if _is_here(content):
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


def _watch(path: Path, folder: Path) -> tuple[str, int] | None:
    """Watch another host's lock until it is gone or silent for ``STALE`` seconds; CacheError when it is touched."""
    first, deadline = _state(path), time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        now = _state(path)
        if now is None:
            return None
        if now != first:
            raise _in_use(folder, now[0])
    return first


def _beat(lock: Lock, path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            if lock.held():
                os.utime(path)
        except OSError:
            return


def _state(path: Path) -> tuple[str, int] | None:
    """Return content and time of the last touch; None when there is no lock."""
    content = _read(path)
    try:
        return None if content is None else (content, path.stat().st_mtime_ns)
    except OSError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _facts(content: str) -> dict[str, object]:
    try:
        facts = json.loads(content)
    except ValueError:
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_here(content: str) -> bool:
    return _facts(content).get("host") == os.uname().nodename


def _is_dead(content: str) -> bool:
    """Return whether the lock is torn, or its process of this host is gone (a later one may have its number)."""
    facts = _facts(content)
    pid = facts.get("pid")
    if not isinstance(pid, int) or "host" not in facts:
        return True
    return _is_here(content) and not (_lives(pid) and _start_of(pid) == facts.get("started"))


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0 and _stat(pid)[:1] not in (["Z"], ["X"])  # killed, and not yet fetched by its parent


def _start_of(pid: int) -> int | None:
    """Return when the process began, in ticks since the machine did; None where that is not told (macOS)."""
    fields = _stat(pid)
    return int(fields[19]) if len(fields) > 19 else None


def _stat(pid: int) -> list[str]:
    """Return the fields of proc(5)'s stat from the third on: state first."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _name(content: str) -> str:
    facts = _facts(content)
    return f"process {facts.get('pid')} on {facts.get('host')}"


def _in_use(folder: Path, content: str) -> CacheError:
    return CacheError(f"{folder} is in use by {_name(content)}; wait for it, stop it, or give another --cache")
