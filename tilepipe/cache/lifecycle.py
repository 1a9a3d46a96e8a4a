"""Caches as a whole: where they are, what is in them, whether it is sound, and how to be rid of it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tilepipe.cache.ledger import write_durably
from tilepipe.errors import CacheError
from tilepipe.recipe import Recipe

__all__ = [
    "CachedRun",
    "content_hash",
    "default_root",
    "remembered_hash",
    "remove",
    "run_folders",
    "runs_in",
    "size_of",
    "source_folder",
]

SOURCE_DIGITS = 16
RECIPE_DIGITS = 12
READ_BLOCK = 1 << 20


@dataclass(frozen=True)
class CachedRun:
    """One recipe's folder in a cache."""

    folder: Path
    recipe: Recipe
    image: str

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


def remembered_hash(root: Path, path: Path) -> str | None:
    """Return the SHA-256 of `path` if it was hashed before and its stat is the same, else None."""
    try:
        memo = json.loads(_memo_file(root, path).read_text())
    except (OSError, ValueError):
        return None
    return memo.get("sha256") if memo.get("stat") == _stat(path) else None


def content_hash(root: Path, path: Path) -> tuple[str, str | None]:
    """Return the SHA-256 of the bytes of `path`, and the one it had before if that was another.

    Remembered with (device, inode, size, mtime, ctime), so that an unchanged file is read once.
    """
    known = remembered_hash(root, path)
    if known is not None:
        return known, None
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(READ_BLOCK):
            digest.update(block)
    memo = _memo_file(root, path)
    try:
        before = json.loads(memo.read_text()).get("sha256")
    except (OSError, ValueError):
        before = None
    content = digest.hexdigest()
    write_durably(memo, json.dumps({"path": str(path.resolve()), "stat": _stat(path), "sha256": content}).encode())
    return content, before if before != content else None


def _memo_file(root: Path, path: Path) -> Path:
    return root / "hashes" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"


def _stat(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def runs_in(root: Path) -> Iterator[CachedRun]:
    """Yield every run in the cache at `root`, or the one that `root` itself is; the damaged are passed over."""
    for file in sorted([*root.glob("*/*/recipe.json"), *root.glob("*/recipe.json"), *root.glob("recipe.json")]):
        try:
            recipe = Recipe.from_json(file.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            continue
        try:
            image = str(json.loads((file.parent.parent / "image.json").read_text()).get("path", "?"))
        except (OSError, ValueError):
            image = "?"
        yield CachedRun(file.parent, recipe, image)


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


def remove(folder: Path) -> int:
    """Remove a run's folder, and its source when no other run uses it; return the bytes freed.

    Raises
    ------
    CacheError : `folder` is not a cache folder: nothing else is ever deleted.
    """
    is_run = (folder / "recipe.json").is_file()
    is_source = (folder / "image.json").is_file()
    if not (is_run or is_source):
        raise CacheError(f"{folder} is not a tilepipe cache folder (no recipe.json, no image.json); nothing removed")
    freed = size_of(folder)
    shutil.rmtree(folder)
    parent = folder.parent
    if is_run and (parent / "image.json").is_file() and not any(parent.glob("*/recipe.json")):
        freed += size_of(parent)
        shutil.rmtree(parent)
    return freed
