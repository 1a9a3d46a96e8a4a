"""Disk space that a run needs, and free space."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tilepipe.cache.collection import size_of
from tilepipe.cache.digests import recall_digest
from tilepipe.cache.layout import run_folders
from tilepipe.image.info import ImageInfo
from tilepipe.image.writers.tiff import output_bytes
from tilepipe.recipe import Recipe

__all__ = ["DiskPlan", "plan_disk"]


@dataclass(frozen=True)
class DiskPlan:
    """Upper bounds of the bytes that cache and output need (lz4 compression reduces them), and the bytes free there."""

    cache: int
    output: int
    cached_already: int
    cache_free: int
    output_free: int
    same_disk: bool


def plan_disk(info: ImageInfo, recipe: Recipe, root: Path, output: Path | None, dtype: str) -> DiskPlan:
    """Return the disk space needed by the cache and by the output, for `recipe` and an output of `dtype`."""
    pixels, grid = info.height * info.width, recipe.grid
    stored_height, stored_width = grid.stored_shape
    tiles = 4 * recipe.planes * grid.tiles * stored_height * stored_width
    cache = pixels * info.pixel_bytes + tiles + 4 * recipe.planes * pixels
    content, _ = recall_digest(root, info.path)
    already = size_of(run_folders(root, msgspec.structs.replace(recipe, source=content))[0]) if content else 0
    cache_parent, output_parent = _existing_parent(root), _existing_parent(output.parent if output else root)
    return DiskPlan(
        cache=cache,
        output=output_bytes(info, dtype) if output else 0,
        cached_already=already,
        cache_free=shutil.disk_usage(cache_parent).free,
        output_free=shutil.disk_usage(output_parent).free,
        same_disk=cache_parent.stat().st_dev == output_parent.stat().st_dev,
    )


def _existing_parent(path: Path) -> Path:
    """Return `path`, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
