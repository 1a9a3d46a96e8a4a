"""One run at a time on one recipe's folder.

The lock is a file made exclusively, which names host and process; a thread touches it every few seconds.
It is taken over when its process is gone from this host, or when it was not touched for a minute.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tilepipe.errors import CacheError

__all__ = ["locked"]

HEARTBEAT = 5.0
"""Seconds between touches."""

STALE = 60.0
"""Seconds without a touch after which a lock of another host counts as left behind."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`; CacheError when a living run holds it."""
    path = folder / "lock"
    me = json.dumps({"host": os.uname().nodename, "pid": os.getpid()})
    for _ in range(3):
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
            break
        except FileExistsError:
            _refuse_if_alive(path, folder)
            path.unlink(missing_ok=True)
    else:
        raise CacheError(f"{folder} is being taken by another run; try again")
    os.write(descriptor, me.encode())
    os.close(descriptor)
    stop = threading.Event()
    threading.Thread(target=_beat, args=(path, stop), daemon=True, name="cache-lock").start()
    try:
        yield
    finally:
        stop.set()
        path.unlink(missing_ok=True)


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            os.utime(path)
        except OSError:
            return


def _refuse_if_alive(path: Path, folder: Path) -> None:
    try:
        holder = json.loads(path.read_text())
        age = time.time() - path.stat().st_mtime
    except (OSError, ValueError):
        return  # gone, or written by a process that died at once
    here = holder.get("host") == os.uname().nodename
    alive = _process_exists(int(holder.get("pid", 0))) if here else age < STALE
    if alive:
        raise CacheError(
            f"{folder} is in use by process {holder.get('pid')} on {holder.get('host')}; "
            "wait for it, stop it, or give another --cache"
        )


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid > 0
