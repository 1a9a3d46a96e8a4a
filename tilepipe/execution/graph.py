"""The dask graph: one task per tile and one per chunk of the result, submitted in bands.

A band holds up to ``BAND_TASKS // 2`` tiles, row by row, and up to ``BAND_TASKS`` chunks that these tiles complete.
Graphs stay small for images of any size, and only indices and receipts are transferred.  A chunk depends on those of
its tiles that are computed in the same band; the others are already done.
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from dask.delayed import delayed

from tilepipe.cache.layout import RECIPE_DIGITS, chunk_boxes
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import blend_chunk, restore_tile

__all__ = ["BAND_TASKS", "Todo", "bands", "find_todo"]

BAND_TASKS = 48
"""Chunks per band, and twice the tiles: enough to keep many workers busy, few enough for a graph below 64 KiB."""

Index = tuple[int, int]


@dataclass
class Todo:
    """The tiles and chunks that a job still has to compute.

    Parameters
    ----------
    tiles, chunks : list of (int, int)
        Rows and columns of the missing tiles, and of the missing chunks of the result.
    tiles_total, chunks_total : int
        All tiles and chunks of the job.
    tiles_damaged, chunks_damaged : int
        Those among the missing that have a record, but whose chunks do not match it.
    """

    tiles: list[Index] = field(default_factory=list)
    chunks: list[Index] = field(default_factory=list)
    tiles_total: int = 0
    chunks_total: int = 0
    tiles_damaged: int = 0
    chunks_damaged: int = 0


def find_todo(job: Job, *, full: bool = True, check: Callable[[], None] = lambda: None) -> Todo:
    """Return the tiles and chunks that are not done according to the ledgers.

    A finished chunk of the result no longer needs its tiles; an unfinished one needs all of them.  `full` hashes every
    piece; otherwise only sizes are compared.  `check` is called before each piece and raises to stop.
    """
    todo = Todo(tiles_total=job.grid.tiles)
    boxes = chunk_boxes(job.grid.height, job.grid.width)
    needed: set[Index] = set()
    for row, column in job.result.indices():
        check()
        todo.chunks_total += 1
        state = job.result.state((row, column), full=full)
        if state != "done":
            todo.chunks.append((row, column))
            todo.chunks_damaged += state == "damaged"
            needed.update((tile.row, tile.column) for tile in job.grid.touching(boxes[row][column]))
    for index in sorted(needed):
        check()
        state = job.tiles.state(index, full=full)
        if state != "done":
            todo.tiles.append(index)
            todo.tiles_damaged += state == "damaged"
    return todo


def bands(job: Job, todo: Todo) -> Iterator[list[Any]]:
    """Yield each band as a list of delayed tasks; each task returns a receipt.

    Keys are unique to the run: a scheduler returns the result of a known key instead of running the task, and several
    runs, of one recipe in different caches too, may share a scheduler.
    """
    folder, run = str(job.folder), f"{job.recipe.fingerprint[:RECIPE_DIGITS]}{uuid.uuid4().hex[:8]}"
    boxes = chunk_boxes(job.grid.height, job.grid.width)
    touching = {
        index: [(t.row, t.column) for t in job.grid.touching(boxes[index[0]][index[1]])] for index in todo.chunks
    }
    # tiles are computed row by row: a chunk can be blended after the last of its missing tiles
    to_do = set(todo.tiles)
    last = {index: max((tile for tile in touching[index] if tile in to_do), default=(-1, -1)) for index in todo.chunks}
    waiting = deque(sorted(todo.chunks, key=lambda index: (last[index], index)))
    tiles = deque(sorted(todo.tiles))
    restore, blend = delayed(restore_tile, pure=False), delayed(blend_chunk, pure=False)
    while tiles or waiting:
        restoring: dict[Index, Any] = {}
        while tiles and len(restoring) < BAND_TASKS // 2:
            row, column = tiles.popleft()
            restoring[row, column] = restore(folder, row, column, dask_key_name=f"restore-{run}-{row}-{column}")
        tasks = list(restoring.values())
        while waiting and len(tasks) < len(restoring) + BAND_TASKS and (not tiles or last[waiting[0]] < tiles[0]):
            index = waiting.popleft()
            inputs = [restoring[tile] for tile in touching[index] if tile in restoring]
            tasks.append(blend(folder, *index, inputs, dask_key_name=f"blend-{run}-{index[0]}-{index[1]}"))
        yield tasks
