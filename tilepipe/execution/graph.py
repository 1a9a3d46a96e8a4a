"""The graph of tasks: one per tile, and one per chunk of the result, which depends on the tiles that it touches.

On a cluster the bands of the image may be tasks, too; a tile then depends on those that it reads.

The dependencies follow from the geometry, so none is stored: tasks are taken from the graph as others finish, and
an image of any size needs memory for the indices of its missing pieces only.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tilepipe.cache.layout import SOURCE_CHUNK, chunk_box, chunks_touching
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import Group, Stage, Task
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["Graph", "Todo", "find_todo"]

Index = tuple[int, int]

CHUNKS = 4
"""Chunks that are blended in one go instead of a tile: each takes some hundredths of a second."""

ROUNDS = 4
"""Groups that every slot gets, at least, before groups are made smaller."""


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
    bands : list of int
        Bands of the source that are read by tasks; a tile waits for those that its frame touches.
    """

    tiles: list[Index] = field(default_factory=list)
    chunks: list[Index] = field(default_factory=list)
    tiles_total: int = 0
    chunks_total: int = 0
    tiles_damaged: int = 0
    chunks_damaged: int = 0
    bands: list[int] = field(default_factory=list)


def find_todo(job: Job, *, full: bool = True, check: Callable[[], None] = lambda: None) -> Todo:
    """Return the tiles and chunks that are not done according to the ledgers.

    A finished chunk of the result no longer needs its tiles; an unfinished one needs all of them.  `full` hashes every
    piece; otherwise only sizes are compared.  `check` is called before each piece and raises to stop.
    """
    todo = Todo(tiles_total=job.grid.tiles)
    needed: set[Index] = set()
    for chunk, state in job.result.states(full=full, check=check):
        todo.chunks_total += 1
        row, column = chunk
        if state != "done":
            todo.chunks.append((row, column))
            todo.chunks_damaged += state == "damaged"
            needed.update(
                (tile.row, tile.column)
                for tile in job.grid.touching(chunk_box(row, column, job.grid.height, job.grid.width))
            )
    for tile, state in job.tiles.states(sorted(needed), full=full, check=check):
        row, column = tile
        if state != "done":
            todo.tiles.append((row, column))
            todo.tiles_damaged += state == "damaged"
    return todo


class Graph:
    """The missing tasks of a job, in the order in which they can start.

    A chunk can be blended once all of its tiles are done; it then comes before the tiles that are left, so that
    blending follows restoration row by row.  A chunk of which a tile failed is never handed out.

    Parameters
    ----------
    grid : Grid
        Tiles of the image.
    todo : Todo
        The missing tiles and chunks.
    """

    def __init__(self, grid: Grid, todo: Todo) -> None:
        self._grid = grid
        self._missing = set(todo.tiles)
        self._tiles = deque(sorted(todo.tiles))
        self._unread = set(todo.bands)
        self._bands = deque((band, 0) for band in sorted(todo.bands))
        self._waiting = set(todo.chunks)
        self._unblended = set(todo.chunks)
        self._ready: deque[Index] = deque()
        self._release(sorted(todo.chunks))

    def group_size(self, slots: int, most: int) -> int:
        """Return the number of tiles in a group, at most `most`: fewer towards the end, so that `slots` stay in use."""
        return max(1, min(most, len(self._tiles) // (ROUNDS * slots)))

    def take(self, number: int, size: int = 1) -> Iterator[Group]:
        """Yield up to `number` groups of tasks that can start now.

        Chunks come first, ``CHUNKS`` times `size` at a time, then `size` tiles, then the next band of the image.
        """
        for _ in range(number):
            if self._ready:
                yield _next(self._ready, "blend", CHUNKS * size)
            elif readable := self._readable(size):
                yield _next(self._tiles, "restore", readable)
            elif self._bands:
                yield _next(self._bands, "ingest", 1)
            else:
                return

    def _readable(self, most: int) -> int:
        """Return how many of the next tiles, at most `most`, have all bands that they need."""
        number = 0
        for index in itertools.islice(self._tiles, most):
            if self._unread and not self._unread.isdisjoint(bands_touching(self._grid.tile(*index).frame, self._grid)):
                break
            number += 1
        return number

    def finish(self, task: Task) -> None:
        """Note that `task` is done; chunks that waited for it alone can start."""
        index = (task.row, task.column)
        if task.stage == "ingest":
            self._unread.discard(task.row)
        elif task.stage == "restore":
            self._missing.discard(index)
            stored = self._grid.tile(*index).stored
            self._release([chunk for chunk in chunks_touching(stored) if chunk in self._waiting])
        else:
            self._unblended.discard(index)

    def blended_tiles(self, task: Task) -> list[Index]:
        """Return the tiles of a chunk that is done of which all other chunks are done, too: nothing needs them."""
        box = chunk_box(task.row, task.column, self._grid.height, self._grid.width)
        return [(tile.row, tile.column) for tile in self._grid.touching(box) if self.is_blended(tile)]

    def is_blended(self, tile: Tile) -> bool:
        """Return whether all chunks that need `tile` are done."""
        return self._unblended.isdisjoint(chunks_touching(tile.stored))

    def _release(self, chunks: list[Index]) -> None:
        """Move those of the waiting `chunks` whose tiles are all done to the ready ones."""
        for chunk in chunks:
            box = chunk_box(*chunk, self._grid.height, self._grid.width)
            if not any((tile.row, tile.column) in self._missing for tile in self._grid.touching(box)):
                self._waiting.discard(chunk)
                self._ready.append(chunk)


def bands_touching(frame: Box, grid: Grid) -> range:
    """Return the bands of the source that the frame of a tile touches."""
    return range(max(0, frame.y0) // SOURCE_CHUNK[0], -(-min(frame.y1, grid.height) // SOURCE_CHUNK[0]))


def _next(waiting: deque[Index], stage: Stage, number: int) -> Group:
    """Remove the next `number` indices, or all that are left, and return their tasks."""
    return tuple(Task(stage, *waiting.popleft()) for _ in range(min(number, len(waiting))))
