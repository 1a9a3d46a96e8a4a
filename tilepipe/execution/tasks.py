"""The two tasks of the graph: restore a tile, blend a chunk.

Each takes the job's folder and an index, reads and writes the store, and returns a receipt.  A task never raises: it
reports a failure in its receipt, so that one failed tile does not end the graph.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tilepipe.cache.layout import chunk_boxes
from tilepipe.cache.store import piece_name
from tilepipe.dtypes import FloatArray
from tilepipe.errors import CacheError
from tilepipe.events import Receipt, Stage
from tilepipe.execution.job import Job, job_in
from tilepipe.image.linearise import start_and_data, whites
from tilepipe.system.files import is_disk_full
from tilepipe.system.memory import peak_memory
from tilepipe.tiling.blend import blend
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["blend_chunk", "restore_tile"]


def restore_tile(folder: str, row: int, column: int) -> Receipt:
    """Restore the tile at (row, column) of the job in `folder` and record it."""
    return _receipt("restore", folder, (row, column), _restore)


def blend_chunk(folder: str, row: int, column: int, tiles: Sequence[Receipt] = ()) -> Receipt:
    """Blend the chunk at (row, column) of the result and record it.

    `tiles` are the receipts of the tiles computed in the same graph: the chunk depends on them and is cancelled if one
    of them failed.
    """
    if any(tile.status != "done" for tile in tiles):
        return Receipt("blend", piece_name((row, column)), "cancelled")
    return _receipt("blend", folder, (row, column), _blend)


def _receipt(stage: Stage, folder: str, index: tuple[int, int], work: Callable[[Job, int, int], bool]) -> Receipt:
    """Run `work` and return its receipt; `work` returns whether an earlier task or run computed the piece."""
    name = piece_name(index)
    started, host, pid = time.perf_counter(), platform.node(), os.getpid()
    try:
        job = job_in(folder)
        if job.is_stopped:
            return Receipt(stage, name, "cancelled")
        taken_over = work(job, *index)
    except Exception as error:  # whatever a task raises, the others run
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Receipt(stage, name, "failed", host=host, pid=pid, error=why, disk_full=is_disk_full(error))
    seconds = time.perf_counter() - started
    return Receipt(stage, name, "done", seconds, host, pid, peak_memory(), taken_over=taken_over)


def _restore(job: Job, row: int, column: int) -> bool:
    began = time.perf_counter()
    if job.tiles.state((row, column)) == "done":
        return True  # a cluster repeats the tasks of a worker that is lost with its receipts
    tile = job.grid.tile(row, column)
    plain = job.recipe.solver == "identity"
    box = tile.stored if plain else tile.frame.intersection(Box(0, job.grid.height, 0, job.grid.width))
    samples = job.source.read(slice(0, job.light.channels_read), slice(box.y0, box.y1), slice(box.x0, box.x1))
    inputs = hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()
    if job.before is not None and job.tiles.take_over((row, column), job.before, inputs, peak_memory()):
        return True
    if plain:
        pixels = np.stack([start for start, _ in start_and_data(samples, job.light)])
    else:
        planes = start_and_data(samples, job.light)
        del samples  # the generator linearises plane by plane and releases the samples after the last
        pixels = _deconvolved(job, tile, box, planes)
    if not np.isfinite(pixels).all():
        raise FloatingPointError(f"tile {row}-{column} has values that are not finite")
    job.tiles.write(_padded(pixels, job.grid.stored_shape), row, column)
    job.tiles.record((row, column), began, peak_memory(), inputs=inputs)
    return False


def _padded(pixels: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Return `pixels` (planes, h, w), padded with zeros to `shape`; without a copy if they have it."""
    if pixels.shape[1:] == shape:
        return pixels
    padded = np.zeros((len(pixels), *shape), np.float32)
    padded[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    return padded


def _deconvolved(job: Job, tile: Tile, inside: Box, planes: Any) -> Any:
    work = job.take_workspace()
    try:
        restore = restore_luminance if job.recipe.luminance_only else restore_in_frame
        return restore(work, tile, inside, planes, whites(job.light), job.spectrum, job.recipe.parameters)
    finally:
        job.give_back(work)


def _blend(job: Job, row: int, column: int) -> bool:
    began = time.perf_counter()
    box = chunk_boxes(job.grid.height, job.grid.width)[row][column]

    def touching() -> Any:
        for tile in job.grid.touching(box):
            name = piece_name((tile.row, tile.column))
            if job.tiles.ledger.get(name) is None:
                raise CacheError(f"tile {name} is not in the ledger")
            rows, columns = box.intersection(tile.stored).within(tile.stored)
            yield tile, job.tiles.read(tile.row, tile.column, slice(None), rows, columns)

    pixels = blend(job.grid, box, job.recipe.planes, touching())
    job.result.write(pixels, slice(None), slice(box.y0, box.y1), slice(box.x0, box.x1))
    job.result.record((row, column), began, peak_memory())
    return False
