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
from tilepipe.recipe import Recipe
from tilepipe.settings import Settings
from tilepipe.system.object_store import ObjectPath, StoragePath

__all__ = ["DiskPlan", "drops_tiles", "plan_disk"]

LARGEST_WITH_TILES = 200_000_000
"""Largest image whose tiles stay in the cache by default, px: they take as much space as the result."""

ROWS_HELD = 3
"""Rows of tiles in the cache at a time while blended tiles are dropped: two, and those in flight on a cluster."""


@dataclass(frozen=True)
class DiskPlan:
    """Upper bounds of the bytes that cache and output need (lz4 compression reduces them), and the bytes free there.

    `cache_free` is None for an object store, which does not tell.
    """

    cache: int
    output: int
    cached_already: int
    cache_free: int | None
    output_free: int
    same_disk: bool


def drops_tiles(info: ImageInfo, settings: Settings) -> bool:
    """Return whether tiles are removed from the cache once they are blended."""
    if settings.keep_tiles is not None:
        return not settings.keep_tiles
    return info.height * info.width > LARGEST_WITH_TILES


def plan_disk(
    info: ImageInfo, recipe: Recipe, root: StoragePath, output: Path | None, written: int, settings: Settings
) -> DiskPlan:
    """Return the disk space needed by the cache, for `recipe`, and by an output of `written` bytes."""
    pixels, grid = info.height * info.width, recipe.grid
    stored_height, stored_width = grid.stored_shape
    # tiles are restored row by row, and a row can be blended, and dropped, with the next one
    held = min(grid.tiles, ROWS_HELD * grid.columns) if drops_tiles(info, settings) else grid.tiles
    tiles = 4 * recipe.planes * held * stored_height * stored_width
    cache = pixels * info.pixel_bytes + tiles + 4 * recipe.planes * pixels
    content, _ = recall_digest(root, info.path)
    already = size_of(run_folders(root, msgspec.structs.replace(recipe, source=content))[0]) if content else 0
    if isinstance(root, ObjectPath):
        output_parent = _existing_parent(output.parent if output else Path())
        cache_free, same_disk = None, False
    else:
        cache_parent, output_parent = _existing_parent(root), _existing_parent(output.parent if output else root)
        cache_free = shutil.disk_usage(cache_parent).free
        same_disk = cache_parent.stat().st_dev == output_parent.stat().st_dev
    return DiskPlan(
        cache=cache,
        output=written if output else 0,
        cached_already=already,
        cache_free=cache_free,
        output_free=shutil.disk_usage(output_parent).free,
        same_disk=same_disk,
    )


def _existing_parent(path: Path) -> Path:
    """Return `path`, or its nearest parent that exists."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
