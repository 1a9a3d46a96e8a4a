"""A job: one recipe's folder opened for work, on whatever machine the task runs.

Tasks carry the folder's path and an index.  The first task on a process opens the folder: recipe, PSF,
arrays, ledgers, and a pool of workspaces; later ones find it open.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path

from tilepipe.cache.ledger import Ledger
from tilepipe.cache.store import CHUNK, RESULT_CHUNK, ChunkArray, open_array
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.psf.model import PSF
from tilepipe.recipe import Recipe
from tilepipe.runtime.memory import return_memory_at_once
from tilepipe.tiling.grid import Box

__all__ = ["Job", "chunk_boxes", "job_in"]


class Job:
    """An open recipe folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = Recipe.from_json((folder / "recipe.json").read_bytes())
        recipe, grid = self.recipe, self.recipe.grid
        self.grid = grid
        self.light = recipe.light
        self.source = source_array(folder.parent, recipe)
        tile_shape = (recipe.planes, *grid.stored_shape)
        self.tiles = open_array(
            folder / "tiles.zarr", (grid.rows, grid.columns, *tile_shape), (1, 1, *tile_shape), "float32"
        )
        self.result = open_array(
            folder / "result.zarr",
            (recipe.planes, recipe.height, recipe.width),
            (recipe.planes, *RESULT_CHUNK),
            "float32",
        )
        self.tile_ledger = Ledger(folder / "tiles.ledger", recipe.fingerprint)
        self.result_ledger = Ledger(folder / "result.ledger", recipe.fingerprint)
        self._spectrum: Spectrum | None = None
        self._opening = threading.Lock()
        self._idle: queue.LifoQueue[Workspace] = queue.LifoQueue()

    @property
    def spectrum(self) -> Spectrum:
        """The PSF prepared for this grid's frames; made once, shared by all threads."""
        with self._opening:
            if self._spectrum is None:
                planes = PSF.load(self.folder / "psf.tif").planes
                self._spectrum = Spectrum.of(planes, self.grid.frame_shape)
            return self._spectrum

    def take_workspace(self) -> Workspace:
        """Return a workspace that no other thread uses; give it back with :meth:`give_back`."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return Workspace(self.recipe.solved, self.grid.frame_shape)

    def give_back(self, workspace: Workspace) -> None:
        """Keep `workspace` for the next tile."""
        self._idle.put(workspace)

    def release_workspaces(self) -> None:
        """Free all idle workspaces and the spectrum: no more tiles will come."""
        while True:
            try:
                self._idle.get_nowait()
            except queue.Empty:
                break
        self._spectrum = None


def source_array(folder: Path, recipe: Recipe) -> ChunkArray:
    """Open the source array in its folder."""
    channels = recipe.colours + recipe.extras
    return open_array(folder / "source.zarr", (channels, recipe.height, recipe.width), (channels, *CHUNK), recipe.dtype)


def chunk_boxes(height: int, width: int) -> list[list[Box]]:
    """Return the boxes of all chunks of the result, row by row."""
    rows, columns = RESULT_CHUNK
    return [
        [Box(y, min(y + rows, height), x, min(x + columns, width)) for x in range(0, width, columns)]
        for y in range(0, height, rows)
    ]


_open: dict[Path, Job] = {}
_open_lock = threading.Lock()


def job_in(folder: str | Path) -> Job:
    """Return the open job of `folder`; opened at the first call in a process."""
    path = Path(folder)
    with _open_lock:
        job = _open.get(path)
        if job is None:
            return_memory_at_once()
            _open.clear()  # a worker serves one run after the other; old arrays and workspaces go
            job = _open[path] = Job(path)
        return job
