"""The dask graph: a task per tile, a task per chunk of the result, in bands.

A band is a run of tile rows with the chunks that they complete, at most ``BAND_TASKS`` tasks unless a
single row holds more; graphs stay small however large the picture, and only indices and receipts travel.
A chunk waits for those of its tiles that are made in its band; the others are done already.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from dask.delayed import delayed

from tilepipe.cache.layout import chunk_boxes
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import blend_chunk, restore_tile

__all__ = ["BAND_TASKS", "Todo", "bands", "find_todo"]

BAND_TASKS = 48
"""Tasks of a band: enough to keep many workers busy, few enough that a graph stays below 64 KiB."""

Index = tuple[int, int]


@dataclass
class Todo:
    """What is left of a job, and why.

    `repaired` counts pieces whose record is there but whose chunk does not agree with it.
    """

    tiles: list[Index] = field(default_factory=list)
    chunks: list[Index] = field(default_factory=list)
    tiles_total: int = 0
    chunks_total: int = 0
    tiles_repaired: int = 0
    chunks_repaired: int = 0


def find_todo(job: Job, *, full: bool = True) -> Todo:
    """Ask the ledgers which tiles and chunks are not done.

    A chunk of the result that is done needs its tiles no more; a chunk that is not needs all of them.
    """
    todo = Todo(tiles_total=job.grid.tiles)
    boxes = chunk_boxes(job.grid.height, job.grid.width)
    needed: set[Index] = set()
    for row, column in job.result.indices():
        todo.chunks_total += 1
        state = job.result.state((row, column), full=full)
        if state != "done":
            todo.chunks.append((row, column))
            todo.chunks_repaired += state == "damaged"
            needed.update((tile.row, tile.column) for tile in job.grid.touching(boxes[row][column]))
    for index in sorted(needed):
        state = job.tiles.state(index, full=full)
        if state != "done":
            todo.tiles.append(index)
            todo.tiles_repaired += state == "damaged"
    return todo


def bands(job: Job, todo: Todo) -> Iterator[list[Any]]:
    """Yield the graph of each band as a list of delayed tasks; each returns a receipt."""
    folder = str(job.folder)
    boxes = chunk_boxes(job.grid.height, job.grid.width)
    touching = {
        index: [(t.row, t.column) for t in job.grid.touching(boxes[index[0]][index[1]])] for index in todo.chunks
    }
    # a chunk can be blended once the last of its tiles that is still to be made was: tiles are made row by row
    left = set(todo.tiles)
    last = {index: max((tile for tile in touching[index] if tile in left), default=(-1, -1)) for index in todo.chunks}
    waiting = deque(sorted(todo.chunks, key=lambda index: (last[index], index)))
    tiles = deque(sorted(todo.tiles))
    restore, blend = delayed(restore_tile, pure=False), delayed(blend_chunk, pure=False)
    while tiles or waiting:
        made: dict[Index, Any] = {}
        while tiles and len(made) < BAND_TASKS // 2:
            row, column = tiles.popleft()
            made[row, column] = restore(folder, row, column, dask_key_name=f"restore-{row}-{column}")
        tasks = list(made.values())
        while waiting and len(tasks) < len(made) + BAND_TASKS and (not tiles or last[waiting[0]] < tiles[0]):
            index = waiting.popleft()
            before = [made[tile] for tile in touching[index] if tile in made]
            tasks.append(blend(folder, *index, before, dask_key_name=f"blend-{index[0]}-{index[1]}"))
        yield tasks
