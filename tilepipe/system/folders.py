"""Folders that are one picture, such as a zarr store: their files, what shows that they were touched, their removal."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

from tilepipe.errors import InputError
from tilepipe.system.files import flush, sync

__all__ = ["exchange", "files_in", "flush_folder", "remove_folder", "size_and_time", "touch_marks"]

CURRENT_FOLDER, EXCHANGE = -100, 2
"""AT_FDCWD, and the flag RENAME_EXCHANGE of renameat2 (Linux, ``linux/fs.h``)."""


def files_in(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the relative name, with slashes, and the stat of each file below `folder`, in a fixed order.

    Raises
    ------
    InputError
        If there is a symbolic link, which may lead out of the folder or in a circle, or anything that is no file.
    OSError
        If the folder cannot be read.
    """
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as found:
            entries = sorted(found, key=lambda entry: entry.name)
        for entry in entries:
            name, status = inside + entry.name, entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                waiting.append(name + "/")
            elif stat.S_ISREG(status.st_mode):
                yield name, status
            else:
                kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "a pipe or a device"
                raise InputError(f"{folder} contains {kind}, {name}; copy the folder with real files in it (cp -rL)")


def touch_marks(folder: Path) -> tuple[int, int, int]:
    """Return the size of all files, bytes, and two numbers that differ once any of them is added, removed or touched.

    The first number depends on names, sizes and times of modification, and is the same on all hosts that share the
    folder; the second depends on inodes and times of change.
    """
    size, shared, here = 0, hashlib.sha256(), hashlib.sha256()
    for name, status in files_in(folder):
        size += status.st_size
        shared.update(os.fsencode(name) + b"\0%d %d\n" % (status.st_size, status.st_mtime_ns))
        here.update(b"%d %d\n" % (status.st_ino, status.st_ctime_ns))
    first, second = (int.from_bytes(digest.digest()[:7], "little") for digest in (shared, here))
    return size, first, second


def size_and_time(path: Path) -> tuple[int, int]:
    """Return size, bytes, and time of modification, ns, of a file; of a folder :func:`touch_marks` without inodes."""
    status = path.stat()
    return touch_marks(path)[:2] if stat.S_ISDIR(status.st_mode) else (status.st_size, status.st_mtime_ns)


def flush_folder(folder: Path) -> None:
    """Flush all files below `folder`, and its subfolders, to disk."""
    for parent, _, names in os.walk(folder):
        for name in names:
            with (Path(parent) / name).open("r+b") as file:
                flush(file.fileno())
        sync(Path(parent))


def exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders in one step; return False where the system or the file system cannot."""
    if sys.platform != "linux":
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(CURRENT_FOLDER, os.fsencode(one), CURRENT_FOLDER, os.fsencode(other), EXCHANGE) == 0)


def remove_folder(folder: Path, last: Collection[str]) -> None:
    """Remove a folder with all that is in it, the files named in `last` at the end: they mark what it is."""
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name not in last:
            entry.unlink()
    shutil.rmtree(folder)
