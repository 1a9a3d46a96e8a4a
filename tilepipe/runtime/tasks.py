"""The two tasks of the graph: restore a tile, blend a chunk.

Each takes the job's folder and an index, reads and writes the store, and returns a receipt.  A task never
raises: a failure is a receipt too, so that one bad tile does not end the graph.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilepipe.errors import CacheError
from tilepipe.image.linearise import fill, linearise, start_and_known
from tilepipe.runtime.events import Receipt, Stage
from tilepipe.runtime.job import Job, chunk_boxes, job_in
from tilepipe.runtime.memory import peak_memory
from tilepipe.tiling.blend import blend
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["blend_chunk", "chunk_files", "restore_tile", "stop", "tile_files"]

stop = threading.Event()
"""Set when the user asks to stop: tasks that have not begun do not begin."""


def restore_tile(folder: str, row: int, column: int) -> Receipt:
    """Restore the tile at (row, column) of the job in `folder` and record it."""
    return _receipt("restore", f"{row}-{column}", lambda: _restore(job_in(folder), row, column))


def blend_chunk(folder: str, row: int, column: int, tiles: Sequence[Receipt] = ()) -> Receipt:
    """Blend the chunk at (row, column) of the result and record it.

    `tiles` are the receipts of the tiles made in the same graph; they order the graph, and a chunk is not
    blended from a tile that failed.
    """
    index = f"{row}-{column}"
    if any(tile.status != "done" for tile in tiles):
        return Receipt("blend", index, "cancelled")
    return _receipt("blend", index, lambda: _blend(job_in(folder), row, column))


def _receipt(stage: Stage, index: str, work: Callable[[], dict[str, Any]]) -> Receipt:
    if stop.is_set():
        return Receipt(stage, index, "cancelled")
    started = time.perf_counter()
    try:
        facts = work()
    except Exception as error:  # whatever a tile raises, the others go on
        return Receipt(
            stage, index, "failed", host=os.uname().nodename, pid=os.getpid(), error=f"{type(error).__name__}: {error}"
        )
    seconds = time.perf_counter() - started
    return Receipt(stage, index, "done", seconds, os.uname().nodename, os.getpid(), peak_memory(), facts=facts)


def _restore(job: Job, row: int, column: int) -> dict[str, Any]:
    started = time.perf_counter()
    tile = job.grid.tile(row, column)
    pixels = _identity(job, tile) if job.recipe.solver == "identity" else _deconvolved(job, tile)
    if not np.isfinite(pixels).all():
        raise FloatingPointError(f"tile {row}-{column} came out with values that are not finite")
    height, width = tile.stored.shape
    chunk = np.zeros((job.recipe.planes, *job.grid.stored_shape), np.float32)
    chunk[:, :height, :width] = pixels
    job.tiles.write(chunk, row, column)
    _record(job.tile_ledger, f"{row}-{column}", tile_files(job, row, column), started)
    return {}


def _identity(job: Job, tile: Tile) -> Any:
    return fill(linearise(_source(job, tile.stored), job.light))


def _deconvolved(job: Job, tile: Tile) -> Any:
    work = job.take_workspace()
    try:
        inside = tile.frame.intersection(Box(0, job.grid.height, 0, job.grid.width))
        planes = start_and_known(_source(job, inside), job.light)
        restore = restore_luminance if job.recipe.luminance_only else restore_in_frame
        return restore(work, tile, inside, planes, job.spectrum, job.recipe.parameters)
    finally:
        job.give_back(work)


def _source(job: Job, box: Box) -> Any:
    """Return the colour channels of the source in `box`, (c, h, w), the file's dtype."""
    return job.source.read(slice(0, job.recipe.colours), slice(box.y0, box.y1), slice(box.x0, box.x1))


def _blend(job: Job, row: int, column: int) -> dict[str, Any]:
    started = time.perf_counter()
    box = chunk_boxes(job.grid.height, job.grid.width)[row][column]

    def touching() -> Any:
        for tile in job.grid.touching(box):
            if job.tile_ledger.get(f"{tile.row}-{tile.column}") is None:
                raise CacheError(f"tile {tile.row}-{tile.column} is not in the ledger")
            height, width = tile.stored.shape
            yield tile, job.tiles.read(tile.row, tile.column)[:, :height, :width]

    pixels = blend(job.grid, box, job.recipe.planes, touching())
    job.result.write(pixels, slice(None), slice(box.y0, box.y1), slice(box.x0, box.x1))
    _record(job.result_ledger, f"{row}-{column}", chunk_files(job, row, column), started)
    return {}


def _record(ledger: Any, index: str, files: list[Any], started: float) -> None:
    """Enter the piece, then ask the question that a later run will ask."""
    ledger.put(index, files, seconds=time.perf_counter() - started, peak=peak_memory())
    if not ledger.accepts(index, files):
        raise CacheError(f"{files[0]} does not read back as it was written")


def tile_files(job: Job, row: int, column: int) -> list[Any]:
    """Return the chunk files of a tile."""
    return [job.tiles.chunk_file(row, column, 0, 0, 0)]


def chunk_files(job: Job, row: int, column: int) -> list[Any]:
    """Return the chunk files of a chunk of the result."""
    return [job.result.chunk_file(0, row, column)]
