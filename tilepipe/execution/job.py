"""A job: one recipe's folder opened for work, on whatever machine the task runs.

Tasks carry the folder's path and an index.  The first task on a process opens the folder: recipe, PSF,
arrays, ledgers, and a pool of workspaces; later ones find it open.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import msgspec

from tilepipe.cache import layout
from tilepipe.cache.store import CheckedArray
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.errors import CacheError
from tilepipe.psf.model import PSF
from tilepipe.recipe import Recipe
from tilepipe.system.files import read_sealed, write_sealed
from tilepipe.system.memory import keep_memory_for_tiles

__all__ = ["Job", "RunConfig", "job_in", "open_job"]


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a run goes about its work, for all who take part; nothing in it changes a pixel.

    Parameters
    ----------
    durable : flush every chunk and record to the disk.
    edited_from : SHA-256 of the picture that this one is an edit of: tiles whose samples are the same are taken
        from its cache.
    """

    durable: bool = True
    edited_from: str | None = None

    def save(self, folder: Path) -> None:
        """Write it into a recipe's `folder`."""
        write_sealed(folder / layout.RUN_FILE, msgspec.json.encode(self))

    @classmethod
    def of(cls, folder: Path) -> RunConfig:
        """Read it; the defaults when it is absent or damaged."""
        data = read_sealed(folder / layout.RUN_FILE)
        return cls() if data is None else msgspec.json.decode(data, type=cls)


class Job:
    """An open recipe folder.

    Raises
    ------
    CacheError : the recipe in it is not the one that the folder is named after.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = Recipe.from_json((folder / layout.RECIPE_FILE).read_bytes())
        if not self.recipe.fingerprint.startswith(folder.name):
            raise CacheError(f"{folder / layout.RECIPE_FILE} is damaged; run the same command: it is written anew")
        config = RunConfig.of(folder)
        self.grid = self.recipe.grid
        self.light = self.recipe.light
        self.source = layout.source_array(folder.parent, self.recipe, durable=config.durable)
        self.tiles = layout.tiles_array(folder, self.recipe, durable=config.durable)
        self.result = layout.result_array(folder, self.recipe, durable=config.durable)
        self.before: CheckedArray | None = None
        if config.edited_from:
            old = msgspec.structs.replace(self.recipe, source=config.edited_from)
            self.before = layout.tiles_array(
                layout.run_folders(folder.parent.parent, old)[1], old, durable=config.durable
            )
        self._spectrum: Spectrum | None = None
        self._opening = threading.Lock()
        self._idle: queue.LifoQueue[Workspace] = queue.LifoQueue()

    @property
    def spectrum(self) -> Spectrum:
        """The PSF prepared for this grid's frames; made once, shared by all threads."""
        with self._opening:
            if self._spectrum is None:
                psf = PSF.load(self.folder / layout.PSF_FILE)
                if psf.digest != self.recipe.psf:
                    raise CacheError(
                        f"{self.folder / layout.PSF_FILE} is damaged; run the same command: it is written anew"
                    )
                self._spectrum = Spectrum.of(psf.planes, self.grid.frame_shape)
            return self._spectrum

    def forget_damaged(self) -> None:
        """Let no damaged piece count as done any more, so that the next run makes it anew."""
        for array in (self.source, self.tiles, self.result):
            array.forget_damaged()

    def take_workspace(self) -> Workspace:
        """Return a workspace that no other thread uses; give it back with :meth:`give_back`."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return Workspace(self.recipe.solved, self.grid.frame_shape, spectra=self.recipe.parameters.keeps_spectra)

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


_open: dict[Path, Job] = {}
_open_lock = threading.Lock()


def job_in(folder: str | Path) -> Job:
    """Return the open job of `folder`; opened at the first call in a process."""
    path = Path(folder)
    with _open_lock:
        return _open.get(path) or _opened(path)


def open_job(folder: Path) -> Job:
    """Open `folder` anew: a run begins."""
    with _open_lock:
        return _opened(folder)


def _opened(folder: Path) -> Job:
    keep_memory_for_tiles()
    _open.clear()  # a worker serves one run after the other; old arrays and workspaces go
    _open[folder] = Job(folder)
    return _open[folder]
