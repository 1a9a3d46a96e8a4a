"""What a run takes on disk, and what is free there."""

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
    """FileDigest that the cache and the output will take at most (lz4 takes some off), and what is free there."""

    cache: int
    output: int
    cached_already: int
    cache_free: int
    output_free: int
    same_disk: bool


def plan_disk(info: ImageInfo, recipe: Recipe, root: Path, output: Path | None, dtype: str) -> DiskPlan:
    """Return what cache and output will take, for `recipe` and an output of `dtype`."""
    pixels, grid = info.height * info.width, recipe.grid
    stored_height, stored_width = grid.stored_shape
    tiles = 4 * recipe.planes * grid.tiles * stored_height * stored_width
    cache = pixels * info.pixel_bytes + tiles + 4 * recipe.planes * pixels
    content, _ = recall_digest(root, info.path)
    already = size_of(run_folders(root, msgspec.structs.replace(recipe, source=content))[0]) if content else 0
    cache_place, output_place = _existing(root), _existing(output.parent if output else root)
    return DiskPlan(
        cache=cache,
        output=output_bytes(info, dtype) if output else 0,
        cached_already=already,
        cache_free=shutil.disk_usage(cache_place).free,
        output_free=shutil.disk_usage(output_place).free,
        same_disk=cache_place.stat().st_dev == output_place.stat().st_dev,
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
