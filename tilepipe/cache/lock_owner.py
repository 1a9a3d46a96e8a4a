"""The process that holds a lock: who it is, and whether it still exists.

A lock holds the process id, the start time of the process, and where the id is valid: host, boot and PID namespace
(containers have their own).
"""

from __future__ import annotations

import json
import os
import platform
import uuid
from functools import cache
from pathlib import Path
from typing import Protocol

import psutil

from tilepipe.errors import CacheError
from tilepipe.system.object_store import StoragePath

__all__ = ["HeldLock", "in_use_error", "is_dead", "is_local", "lost_error", "new_owner", "owner_name"]

INITIAL_NAMESPACE = "pid:[4026531836]"
"""PID namespace outside containers (Linux, PROC_PID_INIT_INO)."""


class HeldLock(Protocol):
    """A lock that was taken."""

    def check(self) -> None:
        """Raise CacheError if the lock is lost: the cache was removed, or another run took the stale lock over."""


def new_owner() -> str:
    """Return the content of a lock of this process, JSON; no two are equal."""
    pid = os.getpid()
    return json.dumps(_place() | {"pid": pid, "started": _start_time(pid), "token": uuid.uuid4().hex})


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


def is_local(content: str) -> bool:
    """Return whether the lock's process id is valid here."""
    fields, place = _parse(content), _place()
    return all(fields.get(name) == place[name] for name in place)


def _was_rebooted(fields: dict[str, object]) -> bool:
    """Return whether this machine was started again since the lock was taken, outside containers."""
    place = _place()
    same = all(place[name] and fields.get(name) == place[name] for name in ("host", "machine", "namespace"))
    return same and place["namespace"] == INITIAL_NAMESPACE and fields.get("boot") != place["boot"]


def is_dead(content: str) -> bool:
    """Return whether the lock is incomplete or its process is known to be gone (its pid may have been reused)."""
    fields = _parse(content)
    pid = fields.get("pid")
    if not isinstance(pid, int) or "host" not in fields or _was_rebooted(fields):
        return True
    return is_local(content) and not (_is_alive(pid) and _start_time(pid) == fields.get("started"))


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


def owner_name(content: str) -> str:
    """Return the owner of a lock, as "process 12 on host"."""
    fields = _parse(content)
    return f"process {fields.get('pid')} on {fields.get('host')}"


def in_use_error(folder: StoragePath, content: str) -> CacheError:
    """Return the error for a folder whose lock is held."""
    return CacheError(f"{folder} is in use by {owner_name(content)}; wait for it, stop it, or give another --cache")


def lost_error(folder: StoragePath) -> CacheError:
    """Return the error for a lock that was lost."""
    return CacheError(
        f"the cache folder {folder} was removed or taken over while the run used it; "
        "nothing was written to the output: run the same command again"
    )
