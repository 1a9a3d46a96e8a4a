"""Folders of zarr: how they are recognised, and their JSON documents, read within bounds."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from tilepipe.errors import InputError

__all__ = ["ZARR_MARKS", "document", "file_inside", "is_zarr"]

ZARR_MARKS = ("zarr.json", ".zgroup", ".zarray")
"""Documents of which every zarr folder has one (zarr specification 3.0 and 2)."""

LONGEST_DOCUMENT = 1 << 24
"""Largest JSON document that is read, bytes; consolidated metadata of a large plate have some megabytes."""


def is_zarr(path: Path) -> bool:
    """Return whether `path` is a folder with a zarr group or array in it."""
    return any((path / name).is_file() for name in ZARR_MARKS)


def file_inside(root: Path, key: str) -> Path | None:
    """Return the file `key` of the zarr folder `root`; None if it does not exist.

    Raises
    ------
    InputError
        If it lies outside of `root`, by its name or by a symbolic link, or is no regular file.
    """
    base = os.path.realpath(root)
    wanted = os.path.normpath(os.path.join(base, key))
    if not Path(wanted).is_relative_to(base) or os.path.realpath(wanted) != wanted:
        raise InputError(f"{root} is damaged: {key!r} leads out of it, or through a symbolic link")
    try:
        mode = os.stat(wanted).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    if stat.S_ISDIR(mode):
        return None
    if not stat.S_ISREG(mode):
        raise InputError(f"{root} is damaged: {key!r} is a pipe or a device")
    return Path(wanted)


def document(root: Path, key: str) -> dict[str, Any] | None:
    """Return the JSON object in the file `key` of the zarr folder `root`; None if it does not exist.

    Raises
    ------
    InputError
        If it is no JSON object, or larger than 16 MiB.
    """
    file = file_inside(root, key)
    if file is None:
        return None
    if (size := file.stat().st_size) > LONGEST_DOCUMENT:
        raise InputError(f"{root} is damaged: {key} has {size} bytes; at most {LONGEST_DOCUMENT} are read")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{root} is damaged: {key} is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{root} is damaged: {key} holds no JSON object")
    return content
