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
from tilepipe.cache.lock import guarded, holder_of
from tilepipe.cache.store import PARTIAL
from tilepipe.errors import CacheError
from tilepipe.recipe import Recipe

__all__ = ["CachedRun", "Collected", "collect", "leftovers", "remove", "runs_in", "size_of", "sweep"]

TRASH = ".trash-"
"""Prefix of the names of folders that are being removed."""


@dataclass(frozen=True)
class CachedRun:
    """One recipe's folder in a cache.

    Parameters
    ----------
    folder : Path
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

    folder: Path
    recipe: Recipe
    image: str
    used: float
    complete: bool

    @property
    def name(self) -> str:
        """``SOURCE/RECIPE``, the argument of ``tilepipe cache rm``."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def runs_in(root: Path) -> Iterator[CachedRun]:
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


def size_of(folder: Path) -> int:
    """Return the total size of all files below `folder`, bytes."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:
                continue  # removed in the meantime
    return total


def remove(folder: Path, root: Path) -> int:
    """Remove a run's folder from the cache at `root`, and its source if no other run uses it; return the bytes freed.

    Raises
    ------
    CacheError
        If the folder is in use, or is not a run's folder: nothing else is ever deleted.
    """
    if not (folder / RECIPE_FILE).is_file():
        raise CacheError(f"{folder} is not a tilepipe cache folder (no {RECIPE_FILE}); nothing removed")
    with guarded(root):
        holder = holder_of(folder)
        if holder is not None:
            raise CacheError(f"{folder} is in use by {holder}; nothing removed: wait for it or stop it")
        is_only_run = all(other == folder for other in _runs_of_same_source(folder))
        trash = _move_to_trash(folder.parent if is_only_run else folder, root)
    freed = size_of(trash)
    shutil.rmtree(trash, ignore_errors=True)
    return freed


def _runs_of_same_source(folder: Path) -> Iterator[Path]:
    """Yield all run folders of the source of the run in `folder`, including runs that have only taken their lock."""
    for name in (RECIPE_FILE, LOCK_FILE):
        yield from (file.parent for file in folder.parent.glob(f"*/{name}"))


def _move_to_trash(folder: Path, root: Path) -> Path:
    """Rename `folder` to a trash folder in `root`; return the new path."""
    trash = root / f"{TRASH}{uuid.uuid4().hex}"
    folder.rename(trash)
    return trash


def sweep(folder: Path) -> None:
    """Remove partial files of killed processes below `folder`; the caller holds its lock."""
    for file in folder.rglob(f"*{PARTIAL}"):
        _delete(file)


def leftovers(root: Path) -> list[Path]:
    """Return unused paths: partly removed folders, sources without runs, partial files of dead processes."""
    found = list(root.glob(f"{TRASH}*"))
    for source in sorted(path for path in root.iterdir() if path.is_dir() and _is_source(path)):
        runs = [path for path in source.glob("*/") if path.name.isalnum() and path.name != MEMO_FOLDER]
        if not any((path / name).exists() for path in runs for name in (RECIPE_FILE, LOCK_FILE)):
            found.append(source)
        elif not any(holder_of(path) for path in runs):
            found.extend(source.rglob(f"*{PARTIAL}"))
    return found


def _is_source(path: Path) -> bool:
    """Return whether `path` is named like a source folder."""
    return len(path.name) == SOURCE_DIGITS and all(digit in "0123456789abcdef" for digit in path.name)


def _size(path: Path) -> int:
    """Return the size of a file or a folder, bytes."""
    return size_of(path) if path.is_dir() else path.lstat().st_size


def _delete(path: Path) -> None:
    """Delete a file or a folder, if it exists."""
    if path.is_dir():
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
    root: Path, limit: int | None, *, resumable: bool = False, dry_run: bool = False, keep: Path | None = None
) -> list[Collected]:
    """Remove leftovers, then complete runs, least recently used first, until the cache is at most `limit` bytes.

    Parameters
    ----------
    root : Path
        The cache.
    limit : int or None
        Largest size of the cache, bytes; None removes no runs.
    resumable : bool
        Also remove unfinished runs, after the complete ones.  Runs in use are never removed.
    dry_run : bool
        Remove nothing, only report.
    keep : Path or None
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
        collected = [Collected(str(path.relative_to(root)), "leftover", _size(path)) for path in unused]
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
