"""List, measure and remove the runs in a cache."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tilepipe.cache.layout import (
    DONE_FILE,
    IMAGE_FILE,
    LOCK_FILE,
    MEMO_FOLDER,
    RECIPE_FILE,
    SOURCE_DIGITS,
    recipe_files,
)
from tilepipe.cache.lock import guarded, holder_of, locked
from tilepipe.cache.store import PARTIAL
from tilepipe.errors import CacheError
from tilepipe.recipe import Recipe
from tilepipe.system.object_store import ObjectPath, StoragePath

__all__ = ["CachedRun", "Collected", "collect", "leftovers", "remove", "runs_in", "size_of", "sweep"]

TRASH = ".trash-"
"""Prefix of the names of folders that are being removed."""


@dataclass(frozen=True)
class CachedRun:
    """One recipe's folder in a cache.

    Parameters
    ----------
    folder : Path or ObjectPath
        The recipe's folder.
    recipe : Recipe
        Its recipe.
    image : str
        Path of the image at the last run, "?" if not recorded.
    used : float
        Time of the last run, seconds since 1970.
    complete : bool
        Whether the output was written; otherwise the run can be resumed.
    """

    folder: StoragePath
    recipe: Recipe
    image: str
    used: float
    complete: bool

    @property
    def name(self) -> str:
        """``SOURCE/RECIPE``, the argument of ``tilepipe cache rm``."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def runs_in(root: StoragePath) -> Iterator[CachedRun]:
    """Yield every run in the cache at `root`, which may also be a source's or a run's folder; skip damaged runs."""
    for file in recipe_files(root):
        folder = file.absolute().parent
        try:
            recipe = Recipe.from_json(file.read_bytes())
            used = file.stat().st_mtime
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        try:
            image = str(json.loads((folder.parent / IMAGE_FILE).read_text()).get("path", "?"))
        except (OSError, ValueError):
            image = "?"
        yield CachedRun(folder, recipe, image, used, (folder / DONE_FILE).is_file())


def size_of(folder: StoragePath) -> int:
    """Return the total size of all files below `folder`, bytes."""
    if isinstance(folder, ObjectPath):
        return sum(size for _, size in folder.below())
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:
                continue  # removed in the meantime
    return total


def remove(folder: StoragePath, root: StoragePath) -> int:
    """Remove a run's folder from the cache at `root`, and its source if no other run uses it; return the bytes freed.

    Raises
    ------
    CacheError
        If the folder is in use, or is not a run's folder: nothing else is ever deleted.
    """
    if not (folder / RECIPE_FILE).is_file():
        raise CacheError(f"{folder} is not a tilepipe cache folder (no {RECIPE_FILE}); nothing removed")
    if isinstance(folder, ObjectPath):
        return _remove_objects(folder, root)
    with guarded(root):
        holder = holder_of(folder)
        if holder is not None:
            raise CacheError(f"{folder} is in use by {holder}; nothing removed: wait for it or stop it")
        is_only_run = all(other == folder for other in _runs_of_same_source(folder))
        trash = _move_to_trash(folder.parent if is_only_run else folder, root)
    freed = size_of(trash)
    _delete(trash)
    return freed


def _remove_objects(folder: ObjectPath, root: StoragePath) -> int:
    """Remove a run's folder from an object store, as :func:`remove`; its recipe first, so that no part of a run stays.

    Another run of the same image that starts at this moment may lose its source, and ends with an error.
    """
    with locked(folder, root):
        is_only_run = all(other == folder for other in _runs_of_same_source(folder))
        (folder / RECIPE_FILE).unlink(missing_ok=True)
        return (folder.parent if is_only_run else folder).remove_below(keep=folder / LOCK_FILE)


def _runs_of_same_source(folder: StoragePath) -> Iterator[StoragePath]:
    """Yield all run folders of the source of the run in `folder`, including runs that have only taken their lock."""
    for name in (RECIPE_FILE, LOCK_FILE):
        yield from (file.parent for file in folder.parent.glob(f"*/{name}"))


def _move_to_trash(folder: StoragePath, root: StoragePath) -> StoragePath:
    """Rename `folder` to a trash folder in `root`; return the new path.  Object stores cannot rename."""
    if isinstance(folder, ObjectPath) or isinstance(root, ObjectPath):
        return folder
    trash = root / f"{TRASH}{uuid.uuid4().hex}"
    folder.rename(trash)
    return trash


def sweep(folder: StoragePath) -> None:
    """Remove partial files of killed processes below `folder`; the caller holds its lock."""
    for file in _partial_files(folder):
        _delete(file)


def _partial_files(folder: StoragePath) -> Iterator[StoragePath]:
    """Yield the unfinished files below `folder`.  Object stores have none."""
    if isinstance(folder, Path):
        yield from folder.rglob(f"*{PARTIAL}")


def leftovers(root: StoragePath) -> list[StoragePath]:
    """Return unused paths: partly removed folders, sources without runs, partial files of dead processes."""
    found: list[StoragePath] = list(root.glob(f"{TRASH}*"))
    folders: list[StoragePath] = list(root.glob("*/"))
    for source in sorted(filter(_is_source, folders), key=str):
        runs = [path for path in source.glob("*/") if path.name.isalnum() and path.name != MEMO_FOLDER]
        if not any((path / name).exists() for path in runs for name in (RECIPE_FILE, LOCK_FILE)):
            found.append(source)
        elif not any(holder_of(path) for path in runs):
            found.extend(_partial_files(source))
    return found


def _is_source(path: StoragePath) -> bool:
    """Return whether `path` is named like a source folder."""
    return len(path.name) == SOURCE_DIGITS and all(digit in "0123456789abcdef" for digit in path.name)


def _size(path: StoragePath) -> int:
    """Return the size of a file or a folder, bytes."""
    return path.lstat().st_size if isinstance(path, Path) and not path.is_dir() else size_of(path)


def _delete(path: StoragePath) -> None:
    """Delete a file or a folder, if it exists."""
    if isinstance(path, ObjectPath):
        path.remove_below()
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Collected:
    """One item that :func:`collect` removed, or would remove in a dry run.

    Parameters
    ----------
    name : str
        Path in the cache, or name of the run.
    reason : str
        Why it is removed.
    size : int
        Its size, bytes.
    """

    name: str
    reason: str
    size: int


def collect(
    root: StoragePath,
    limit: int | None,
    *,
    resumable: bool = False,
    dry_run: bool = False,
    keep: StoragePath | None = None,
) -> list[Collected]:
    """Remove leftovers, then complete runs, least recently used first, until the cache is at most `limit` bytes.

    Parameters
    ----------
    root : Path or ObjectPath
        The cache.
    limit : int or None
        Largest size of the cache, bytes; None removes no runs.
    resumable : bool
        Also remove unfinished runs, after the complete ones.  Runs in use are never removed.
    dry_run : bool
        Remove nothing, only report.
    keep : Path, ObjectPath or None
        Folder of a run that is not removed.

    Returns
    -------
    list of Collected
        The items removed, in order.
    """
    if not root.is_dir():
        return []
    with guarded(root):
        unused = leftovers(root)
        names = [str(path).removeprefix(str(root)).lstrip("/\\") for path in unused]
        collected = [Collected(name, "leftover", _size(path)) for name, path in zip(names, unused, strict=True)]
        if not dry_run:
            unused = [_move_to_trash(path, root) if _is_source(path) else path for path in unused]
    for path in unused if not dry_run else ():
        _delete(path)
    if limit is None:
        return collected
    total = size_of(root) - (sum(item.size for item in collected) if dry_run else 0)
    runs = [run for run in runs_in(root) if run.folder != keep and holder_of(run.folder) is None]
    candidates = [run for run in runs if run.complete or resumable]
    remaining = {run.folder for run in runs_in(root)}
    for run in sorted(candidates, key=lambda run: (not run.complete, run.used)):
        if total <= limit:
            break
        remaining.discard(run.folder)
        is_only_run = not any(other.parent == run.folder.parent for other in remaining)
        size = size_of(run.folder.parent if is_only_run else run.folder)
        age = max(0.0, time.time() - run.used) / 86400
        reason = f"{'complete' if run.complete else 'resumable'}, last used {age:.1f} days ago"
        collected.append(Collected(run.name, reason, size))
        total -= size
        if not dry_run:
            remove(run.folder, root)
    return collected
