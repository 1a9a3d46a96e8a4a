"""The tasks of the graph: read a band of the image, restore a tile, blend a chunk.

Each takes the job's folder and an index, reads and writes the store, and returns a receipt.  A task never raises: it
reports a failure in its receipt, so that one failed tile does not end the graph.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from tilepipe.cache.layout import SOURCE_CHUNK, chunk_box
from tilepipe.cache.store import piece_name
from tilepipe.dtypes import FloatArray
from tilepipe.errors import CacheError
from tilepipe.events import Receipt, Status
from tilepipe.execution.job import Job, job_in, store_band
from tilepipe.image.linearise import start_and_data, whites
from tilepipe.system.files import is_disk_full
from tilepipe.system.memory import peak_memory
from tilepipe.tiling.blend import blend
from tilepipe.tiling.components import restore_tile
from tilepipe.tiling.grid import Box, Tile

__all__ = ["Group", "Stage", "Task", "run_group"]


Stage = Literal["ingest", "restore", "blend"]
"""Kind of a task."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task: the stage, and row and column of its piece.

    That is a row of chunks of the source ("ingest", column 0), a tile ("restore"), or a chunk of the result ("blend").
    """

    stage: Stage
    row: int
    column: int

    def receipt(self, status: Status, error: str = "") -> Receipt:
        """Return a receipt of the task without measurements."""
        index = (self.row,) if self.stage == "ingest" else (self.row, self.column)
        return Receipt(self.stage, piece_name(index), status, error=error)


Group = tuple[Task, ...]
"""Tasks that an executor runs one after the other, in one go."""


def run_group(folder: str, group: Group) -> list[Receipt]:
    """Read bands, restore tiles, or blend chunks, of the job in `folder`, and record them.

    Parameters
    ----------
    folder : str
        Recipe folder in the cache.
    group : tuple of Task
        What to do.

    Returns
    -------
    list of Receipt
        One for each task; "cancelled" if the run is to stop.
    """
    return [_run(folder, task) for task in group]


def _run(folder: str, task: Task) -> Receipt:
    started, host, pid = time.perf_counter(), platform.node(), os.getpid()
    try:
        job = job_in(folder)
        if job.is_stopped:
            return task.receipt("cancelled")
        run = {"ingest": _ingest, "restore": _restore, "blend": _blend}[task.stage]
        taken_over = run(job, task.row, task.column)
    except Exception as error:  # whatever a task raises, the others run
        why = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return replace(task.receipt("failed", why), host=host, pid=pid, disk_full=is_disk_full(error))
    seconds = time.perf_counter() - started
    return replace(task.receipt("done"), seconds=seconds, host=host, pid=pid, peak=peak_memory(), taken_over=taken_over)


def _ingest(job: Job, row: int, _column: int) -> bool:
    """Read a band of the image into the cache; return False, as bands are always read."""
    began, top = time.perf_counter(), row * SOURCE_CHUNK[0]
    rows = job.read_rows(top, min(top + SOURCE_CHUNK[0], job.recipe.height))
    store_band(job.source, row, rows, job.recipe.colours, began)
    return False


def _restore(job: Job, row: int, column: int) -> bool:
    """Restore a tile; return whether an earlier task or run had computed it."""
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
        held = [samples]
        del samples
        pixels = _deconvolved(job, tile, box, held)
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


def _deconvolved(job: Job, tile: Tile, inside: Box, held: list[Any]) -> FloatArray:
    """Restore a tile from the samples in `held`."""

    def planes() -> Iterator[tuple[FloatArray, FloatArray]]:
        # with a PSF that is the same everywhere the samples are needed once; they are released after the last plane
        return start_and_data(held.pop() if job.spectra.is_uniform else held[0], job.light)

    work = job.take_workspace()
    try:
        return restore_tile(
            work,
            tile,
            inside,
            planes,
            whites(job.light),
            job.spectra,
            job.recipe.parameters,
            luminance_only=job.recipe.luminance_only,
        )
    finally:
        job.give_back(work)


def _blend(job: Job, row: int, column: int) -> bool:
    """Blend a chunk of the result; return False, as chunks are always computed."""
    began = time.perf_counter()
    box = chunk_box(row, column, job.grid.height, job.grid.width)

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
