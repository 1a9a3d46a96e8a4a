"""Lock of a recipe's folder in an object store.

The lock is an object, created only if there is none, and replaced only while it is the version that was read last.  Its
content is that of a lock file, and a count that a thread increases every few seconds.  The lock of a process that no
longer exists here is taken over at once, one from elsewhere after a minute without a change.  A run that cannot
increase its count for a minute gives its lock up, because another one may have it by then.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tilepipe.cache.layout import LOCK_FILE
from tilepipe.cache.lock_owner import in_use_error, is_dead, is_local, lost_error, new_owner, owner_name
from tilepipe.errors import CacheError
from tilepipe.events import Listener, Note
from tilepipe.system.object_store import ObjectPath, Version

__all__ = ["ObjectLock", "locked_object"]

HEARTBEAT = 10.0
"""Seconds between changes of the count; each is a request."""

STALE = 60.0
"""Seconds without a change after which a lock from elsewhere is stale."""

POLL_SECONDS = 5.0
"""Seconds between readings of a lock from elsewhere."""


class ObjectLock:
    """A lock that was taken.

    Parameters
    ----------
    path : ObjectPath
        Address of the lock.
    owner : str
        Its content without the count, see :func:`tilepipe.cache.lock_owner.new_owner`.
    version : dict
        The version that was written.
    """

    def __init__(self, path: ObjectPath, owner: str, version: Version) -> None:
        self._path, self._owner, self._version = path, owner, version
        self._count, self._renewed, self._lost = 0, time.monotonic(), False
        self._one_at_a_time = threading.Lock()

    def check(self) -> None:
        """Raise CacheError if the lock is lost; ask the store only when the count is overdue, as after a suspension."""
        if time.monotonic() - self._renewed > 2 * HEARTBEAT:
            self.renew()
        if self._lost:
            raise lost_error(self._path.parent)

    def renew(self) -> None:
        """Increase the count."""
        with self._one_at_a_time:
            if self._lost:
                return
            try:
                self._version = _replace(self._path, self._owner, self._count + 1, self._version)
                self._count, self._renewed = self._count + 1, time.monotonic()
            except FileExistsError:
                self._lost = True
            except OSError:  # the next attempt may succeed
                self._lost = time.monotonic() - self._renewed > STALE

    def release(self) -> None:
        """Delete the lock if it is still held."""
        self.renew()
        with self._one_at_a_time, suppress(OSError):  # a lock that stays is stale in a minute
            if not self._lost:
                self._path.unlink()
            self._lost = True


@contextmanager
def locked_object(folder: ObjectPath, on_event: Listener) -> Iterator[ObjectLock]:
    """Hold the lock of `folder`; report to `on_event` when that takes a minute.

    Raises
    ------
    CacheError
        If another live run holds it.
    """
    lock = _acquire(folder, on_event)
    stop = threading.Event()

    def renew_repeatedly() -> None:
        while not stop.wait(HEARTBEAT):
            lock.renew()

    threading.Thread(target=renew_repeatedly, daemon=True, name="cache-lock").start()
    try:
        yield lock
    finally:
        stop.set()
        lock.release()


def _acquire(folder: ObjectPath, on_event: Listener) -> ObjectLock:
    path, owner = folder / LOCK_FILE, new_owner()
    stale: Version | None = None
    while True:
        try:
            return ObjectLock(path, owner, path.create(_content(owner, 0)))
        except FileExistsError:
            found = _read(path)
        if found is None:
            continue  # released in the meantime
        content, version = found
        if _is_by(content, owner):  # the first of two identical requests created it
            return ObjectLock(path, owner, version)
        if is_dead(content) or version == stale:
            try:
                return ObjectLock(path, owner, _replace(path, owner, 0, version))
            except FileExistsError:
                raise CacheError(f"{folder} is being taken by another run; try again") from None
        if is_local(content):
            raise in_use_error(folder, content)
        on_event(
            Note(f"waiting  {folder} is locked by {owner_name(content)}: taken over unless it changes in {STALE:g} s")
        )
        stale = _wait_until_stale(path, version)


def _wait_until_stale(path: ObjectPath, version: Version) -> Version | None:
    """Return `version` after ``STALE`` seconds without a change, None once it is gone; CacheError on a change."""
    deadline = time.monotonic() + STALE
    while time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        found = _read(path)
        if found is None:
            return None
        if found[1] != version:
            raise in_use_error(path.parent, found[0])
    return version


def _replace(path: ObjectPath, owner: str, count: int, version: Version) -> Version:
    """Replace `version` of the lock; FileExistsError if it is another one, not written by a repeated request."""
    try:
        return path.replace_version(_content(owner, count), version)
    except FileExistsError:
        found = _read(path)
        if found is None or not _is_by(found[0], owner):
            raise
        return found[1]


def _content(owner: str, count: int) -> bytes:
    return json.dumps(json.loads(owner) | {"count": count}).encode()


def _is_by(content: str, owner: str) -> bool:
    """Return whether a lock was written by `owner`."""
    try:
        found = json.loads(content)
    except ValueError:
        return False
    return isinstance(found, dict) and found.get("token") == json.loads(owner)["token"]


def _read(path: ObjectPath) -> tuple[str, Version] | None:
    """Return content and version of the lock; None if there is none."""
    try:
        content, version = path.read_version()
    except FileNotFoundError:
        return None
    return content.decode(errors="replace"), version
