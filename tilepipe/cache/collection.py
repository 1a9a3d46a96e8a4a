"""Runs in a cache: what is there, how large it is, and how it is removed."""

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
"""How names of folders begin that are being removed."""


@dataclass(frozen=True)
class CachedRun:
    """One recipe's folder in a cache.

    Parameters
    ----------
    image : path of the picture when it was last run.
    used : when that was, seconds since 1970.
    complete : whether its output was written; else there is something to go on with.
    """

    folder: Path
    recipe: Recipe
    image: str
    used: float
    complete: bool

    @property
    def name(self) -> str:
        """Source and recipe, as `tilepipe cache rm` takes them."""
        return f"{self.folder.parent.name}/{self.folder.name}"


def runs_in(root: Path) -> Iterator[CachedRun]:
    """Yield every run in the cache at `root`, or the one that `root` itself is; the damaged are passed over."""
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
    """Return the bytes of all files below `folder`."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(base, name)).st_size
            except OSError:
                continue  # removed meanwhile
    return total


def remove(folder: Path, root: Path) -> int:
    """Remove a run's folder in the cache at `root`, and its source when no other run uses it; return the bytes freed.

    Raises
    ------
    CacheError : a run works in it, or it is not a cache folder: nothing else is ever deleted.
    """
    if not (folder / RECIPE_FILE).is_file():
        raise CacheError(f"{folder} is not a tilepipe cache folder (no {RECIPE_FILE}); nothing removed")
    with guarded(root):
        holder = holder_of(folder)
        if holder is not None:
            raise CacheError(f"{folder} is in use by {holder}; nothing removed: wait for it or stop it")
        alone = all(other == folder for other in _run_folders_beside(folder))
        trash = _away(folder.parent if alone else folder, root)
    freed = size_of(trash)
    shutil.rmtree(trash, ignore_errors=True)
    return freed


def _run_folders_beside(folder: Path) -> Iterator[Path]:
    """Yield the runs' folders of a source, also those that have only just begun."""
    for mark in (RECIPE_FILE, LOCK_FILE):
        yield from (file.parent for file in folder.parent.glob(f"*/{mark}"))


def _away(folder: Path, root: Path) -> Path:
    trash = root / f"{TRASH}{uuid.uuid4().hex}"
    folder.rename(trash)
    return trash


def sweep(folder: Path) -> None:
    """Remove unfinished files that killed processes left below `folder`, whose lock is held."""
    for file in folder.rglob(f"*{PARTIAL}"):
        _drop(file)


def leftovers(root: Path) -> list[Path]:
    """Return what nobody will use again: folders half removed, pictures without a run, unfinished files of the dead."""
    found = list(root.glob(f"{TRASH}*"))
    for source in sorted(path for path in root.iterdir() if path.is_dir() and _is_source(path)):
        inside = [path for path in source.glob("*/") if path.name.isalnum() and path.name != MEMO_FOLDER]
        if not any((path / mark).exists() for path in inside for mark in (RECIPE_FILE, LOCK_FILE)):
            found.append(source)
        elif not any(holder_of(path) for path in inside):
            found.extend(source.rglob(f"*{PARTIAL}"))
    return found


def _is_source(path: Path) -> bool:
    return len(path.name) == SOURCE_DIGITS and all(digit in "0123456789abcdef" for digit in path.name)


def _size(path: Path) -> int:
    return size_of(path) if path.is_dir() else path.lstat().st_size


def _drop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Collected:
    """One thing that a collection removed, or would remove: its name, why, and its bytes."""

    name: str
    reason: str
    size: int


def collect(
    root: Path, limit: int | None, *, resumable: bool = False, dry_run: bool = False, keep: Path | None = None
) -> list[Collected]:
    """Remove leftovers; then complete runs, least recently used first, until the cache is within `limit` bytes.

    Parameters
    ----------
    limit : None removes no run.
    resumable : take unfinished runs as well, after the complete ones; running ones are never touched.
    dry_run : remove nothing, only tell.
    keep : a run's folder that stays.
    """
    if not root.is_dir():
        return []
    with guarded(root):
        doomed = leftovers(root)
        collected = [Collected(str(path.relative_to(root)), "left over", _size(path)) for path in doomed]
        if not dry_run:
            doomed = [_away(path, root) if _is_source(path) else path for path in doomed]
    for path in doomed if not dry_run else ():
        _drop(path)
    if limit is None:
        return collected
    left = size_of(root) - (sum(item.size for item in collected) if dry_run else 0)
    runs = [run for run in runs_in(root) if run.folder != keep and holder_of(run.folder) is None]
    candidates = [run for run in runs if run.complete or resumable]
    remaining = {run.folder for run in runs_in(root)}
    for run in sorted(candidates, key=lambda run: (not run.complete, run.used)):
        if left <= limit:
            break
        remaining.discard(run.folder)
        alone = not any(other.parent == run.folder.parent for other in remaining)
        size = size_of(run.folder.parent if alone else run.folder)
        age = max(0.0, time.time() - run.used) / 86400
        reason = f"{'complete' if run.complete else 'resumable'}, last used {age:.1f} days ago"
        collected.append(Collected(run.name, reason, size))
        left -= size
        if not dry_run:
            remove(run.folder, root)
    return collected
