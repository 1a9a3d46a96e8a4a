"""Layout of a cache: folders, files, arrays and chunk shapes; names inside an array or a ledger belong to these.

A cache (``ROOT``), format 2; docs/resume.md describes every file::

    ROOT/
      guard                      locked briefly when a run starts or a folder is removed
      hashes/<path>.json         SHA-256 of an input file, with its stat
      <source>/                  first 16 digits of the input's SHA-256
        image.json               path of the input, for human readers
        memos/<key>.json         PSF and parameters estimated for it
        source.zarr/             (channels, height, width), dtype of the file
        source.ledger/           one record per row of chunks
        <recipe>/                first 12 digits of the recipe's fingerprint
          recipe.json  run.json  psf.tif  lock  done.json
          tiles.zarr/            (rows, columns, planes, h, w) float32, one or more chunks per tile
          tiles.ledger/          one record per tile
          result.zarr/           (planes, height, width) float32, linear light
          result.ledger/         one record per chunk
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from tilepipe.cache.store import CheckedArray
from tilepipe.errors import SettingsError
from tilepipe.recipe import Recipe
from tilepipe.system.object_store import StoragePath, storage_path
from tilepipe.tiling.grid import Box

__all__ = [
    "DONE_FILE",
    "EXPORT_COLUMNS",
    "GUARD_FILE",
    "IMAGE_FILE",
    "LOCK_FILE",
    "MEMO_FOLDER",
    "PSF_FILE",
    "RECIPE_DIGITS",
    "RECIPE_FILE",
    "RESULT_CHUNK",
    "RUN_FILE",
    "SOURCE_CHUNK",
    "SOURCE_DIGITS",
    "TILE_ROWS",
    "cache_root",
    "chunk_box",
    "chunks_touching",
    "digest_file",
    "memo_file",
    "recipe_files",
    "result_array",
    "run_folders",
    "source_array",
    "source_folder",
    "source_pixels",
    "tiles_array",
    "written_file",
]

SOURCE_CHUNK = (256, 512)
"""Rows and columns of a source chunk, px: about 1 MB, and a row of chunks takes little memory."""

RESULT_CHUNK = (256, 1024)
"""Rows and columns of a result chunk, px: 3 MB (RGB); as many rows are exported at a time."""

EXPORT_COLUMNS = 4 * RESULT_CHUNK[1]
"""Columns that are exported at a time, px, so that memory does not grow with the width: 100 MB for a row of chunks
32768 px wide, RGB."""

TILE_ROWS = 288
"""Largest number of tile rows in a chunk, px, so that blending a result chunk decodes few rows outside it."""

RECIPE_FILE, RUN_FILE, PSF_FILE, LOCK_FILE, DONE_FILE = "recipe.json", "run.json", "psf.tif", "lock", "done.json"
"""Files of a recipe's folder; the last exists once the output is written."""

IMAGE_FILE, GUARD_FILE, MEMO_FOLDER = "image.json", "guard", "memos"
"""Path of the input, in the source's folder; the file in the root that is locked briefly; the folder of memos."""

SOURCE_DIGITS, RECIPE_DIGITS = 16, 12
"""Hexadecimal digits of the digest in the name of a source folder, and of a recipe folder."""


def cache_root(setting: str | None) -> StoragePath:
    """Return the cache folder, or address in an object store, that the setting ``cache`` names; by default the user's.

    Raises
    ------
    SettingsError
        If the user has no home folder, or the setting is an address that cannot be used.
    """
    try:
        if setting:
            return storage_path(setting)
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tilepipe"
    except ImportError as error:
        raise SettingsError(f"{setting} needs obstore ({error}): pip install 'tilepipe[cloud]'") from error
    except ValueError as error:
        raise SettingsError(f"cache {error}") from error
    except RuntimeError as error:  # neither $HOME nor an entry in the user database
        raise SettingsError(f"there is no home folder for the cache ({error}); give a folder with --cache") from error


def source_folder(root: StoragePath, content: str) -> StoragePath:
    """Return the folder, in the cache at `root`, of the image file whose SHA-256 is `content`."""
    return root / content[:SOURCE_DIGITS]


def run_folders(root: StoragePath, recipe: Recipe) -> tuple[StoragePath, StoragePath]:
    """Return the source folder and the recipe folder of `recipe` in the cache at `root`."""
    source = source_folder(root, recipe.source)
    return source, source / recipe.fingerprint[:RECIPE_DIGITS]


def memo_file(root: StoragePath, content: str, question: str) -> StoragePath:
    """Return the memo file with the key `question` (a digest) of the image file whose SHA-256 is `content`."""
    return source_folder(root, content) / MEMO_FOLDER / f"{question[:16]}.json"


def digest_file(root: StoragePath, path: Path) -> StoragePath:
    """Return the file that stores the digest of the input file `path`."""
    return root / "hashes" / f"{hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32]}.json"


def written_file(root: StoragePath, output: Path) -> StoragePath:
    """Return the file that records what the output file `output` was made from."""
    return root / "written" / f"{hashlib.sha256(os.fsencode(output.resolve())).hexdigest()[:32]}.json"


def recipe_files(root: StoragePath) -> list[StoragePath]:
    """Return the recipe files of all runs in the cache at `root`, which may also be a source's or a run's folder."""
    return sorted(
        found for pattern in (f"*/*/{RECIPE_FILE}", f"*/{RECIPE_FILE}", RECIPE_FILE) for found in root.glob(pattern)
    )


def source_pixels(folder: StoragePath) -> StoragePath:
    """Return the folder that holds the image's samples in a source's `folder`."""
    return folder / "source.zarr"


def source_array(folder: StoragePath, recipe: Recipe, *, durable: bool) -> CheckedArray:
    """Return the array of the image's samples in a source's `folder`; a piece is a row of chunks."""
    channels, columns = recipe.colours + recipe.extras, -(-recipe.width // SOURCE_CHUNK[1])
    return CheckedArray(
        source_pixels(folder),
        (channels, recipe.height, recipe.width),
        (channels, *SOURCE_CHUNK),
        recipe.dtype,
        (-(-recipe.height // SOURCE_CHUNK[0]),),
        lambda index: [(0, *index, column) for column in range(columns)],
        recipe.source,
        durable=durable,
    )


def tiles_array(folder: StoragePath, recipe: Recipe, *, durable: bool) -> CheckedArray:
    """Return the array of restored tiles in a recipe's `folder`; a piece is a tile, in chunks of equal height."""
    grid = recipe.grid
    height, width = grid.stored_shape
    parts = -(-height // TILE_ROWS)
    return CheckedArray(
        folder / "tiles",
        (grid.rows, grid.columns, recipe.planes, height, width),
        (1, 1, recipe.planes, -(-height // parts), width),
        "float32",
        (grid.rows, grid.columns),
        lambda index: [(*index, 0, part, 0) for part in range(parts)],
        recipe.fingerprint,
        durable=durable,
    )


def result_array(folder: StoragePath, recipe: Recipe, *, durable: bool) -> CheckedArray:
    """Return the array of the blended result, linear light, in a recipe's `folder`; a piece is one chunk."""
    height, width = RESULT_CHUNK
    return CheckedArray(
        folder / "result",
        (recipe.planes, recipe.height, recipe.width),
        (recipe.planes, *RESULT_CHUNK),
        "float32",
        (-(-recipe.height // height), -(-recipe.width // width)),
        lambda index: [(0, *index)],
        recipe.fingerprint,
        durable=durable,
    )


def chunk_box(row: int, column: int, height: int, width: int) -> Box:
    """Return the box of a chunk of the result, within an image of `height` x `width` px."""
    y, x = row * RESULT_CHUNK[0], column * RESULT_CHUNK[1]
    return Box(y, min(y + RESULT_CHUNK[0], height), x, min(x + RESULT_CHUNK[1], width))


def chunks_touching(box: Box) -> Iterator[tuple[int, int]]:
    """Yield the rows and columns of the chunks of the result that intersect `box`, row by row."""
    rows, columns = RESULT_CHUNK
    for row in range(box.y0 // rows, -(-box.y1 // rows)):
        for column in range(box.x0 // columns, -(-box.x1 // columns)):
            yield row, column
