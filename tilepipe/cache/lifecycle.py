"""Caches as a whole: where they are, which bytes they are for, what is in them, and how to be rid of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tilepipe.cache.lock import guarded, holder_of
from tilepipe.cache.store import PARTIAL
from tilepipe.errors import CacheError
from tilepipe.recipe import Recipe
from tilepipe.system.files import read_sealed, write_sealed

__all__ = [
    "Bytes",
    "CachedRun",
    "Collected",
    "Stamp",
    "collect",
    "default_root",
    "hash_bytes",
    "recall_bytes",
    "remove",
    "run_folders",
    "runs_in",
    "size_of",
    "source_folder",
    "stamp_of",
    "sweep",
]

SOURCE_DIGITS = 16
RECIPE_DIGITS = 12
READ_BLOCK = 1 << 20

TRASH = ".trash-"
"""How names of folders begin that are being removed."""

Stamp = tuple[int, int, int, int, int]
"""Device, inode, size, and times of the last change of content and of inode, ns: another one may be another file."""


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


def default_root() -> Path:
    """Return the user's cache folder for tilepipe."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilepipe"


def source_folder(root: Path, content: str) -> Path:
    """Return where everything about the picture whose bytes have the SHA-256 `content` lies in the cache at `root`."""
    return root / content[:SOURCE_DIGITS]


def run_folders(root: Path, recipe: Recipe) -> tuple[Path, Path]:
    """Return (source folder, recipe folder) of `recipe` in the cache at `root`."""
    source = source_folder(root, recipe.source)
    return source, source / recipe.fingerprint[:RECIPE_DIGITS]


def stamp_of(path: Path) -> Stamp:
    """Return what tells without reading whether a file was touched; OSError when it is not there."""
    stat = path.stat()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


class Bytes(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a file's bytes.

    Parameters
    ----------
    path : the file, for people.
    stamp : it had when it was read.
    sha256 : of its bytes then.
    before : of the bytes it had before that, when they were others.
    """

    path: str
    stamp: Stamp
    sha256: str
    before: str | None = None


def recall_bytes(root: Path, path: Path) -> tuple[str | None, str | None]:
    """Return (SHA-256 of `path`, SHA-256 of what it was before) without reading it.

    The first is None when the file was touched since it was hashed; the second when nothing is known.
    """
    known = _known(root, path)
    if known is None:
        return None, None
    try:
        same = known.stamp == stamp_of(path)
    except OSError:
        same = False
    return (known.sha256, known.before) if same else (None, known.sha256)


def hash_bytes(root: Path, path: Path, *, trust_stamp: bool = False) -> Bytes:
    """Read and hash the file at `path`, and remember that; with `trust_stamp` an untouched one is not read again."""
    known, stamp = _known(root, path), stamp_of(path)
    if trust_stamp and known is not None and known.stamp == stamp:
        return known
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            digest.update(block)
    content, before = digest.hexdigest(), None
    if known is not None:
        before = known.before if known.sha256 == content else known.sha256
    found = Bytes(path=str(path.resolve()), stamp=stamp, sha256=content, before=before)
    if found != known:
        write_sealed(_memo_file(root, path), msgspec.json.encode(found))
    return found


def _known(root: Path, path: Path) -> Bytes | None:
    data = read_sealed(_memo_file(root, path))
    try:
        return None if data is None else msgspec.json.decode(data, type=Bytes)
    except msgspec.MsgspecError:  # of another format
        return None


def _memo_file(root: Path, path: Path) -> Path:
    return root / "hashes" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def runs_in(root: Path) -> Iterator[CachedRun]:
    """Yield every run in the cache at `root`, or the one that `root` itself is; the damaged are passed over."""
    for file in sorted([*root.glob("*/*/recipe.json"), *root.glob("*/recipe.json"), *root.glob("recipe.json")]):
        folder = file.absolute().parent
        try:
            recipe = Recipe.from_json(file.read_bytes())
            used = file.stat().st_mtime
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        try:
            image = str(json.loads((folder.parent / "image.json").read_text()).get("path", "?"))
        except (OSError, ValueError):
            image = "?"
        yield CachedRun(folder, recipe, image, used, (folder / "done.json").is_file())


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
    if not (folder / "recipe.json").is_file():
        raise CacheError(f"{folder} is not a tilepipe cache folder (no recipe.json); nothing removed")
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
    for mark in ("recipe.json", "lock"):
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
        inside = [path for path in source.glob("*/") if path.name.isalnum() and path.name != "decisions"]
        if not any((path / mark).exists() for path in inside for mark in ("recipe.json", "lock")):
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
