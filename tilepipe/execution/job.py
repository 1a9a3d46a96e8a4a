"""A job: the open folder of one recipe, on any machine that runs its tasks.

Tasks carry the folder's path and an index.  The first task in a process opens the folder (recipe, PSF, arrays, ledgers,
and a pool of workspaces); later tasks reuse it.
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
    """How a run executes, for all processes that take part; no field changes a pixel.

    Parameters
    ----------
    durable : bool
        Flush every chunk and record to disk.
    edited_from : str or None
        SHA-256 of the image before an edit: tiles with unchanged samples are taken from its cache.
    """

    durable: bool = True
    edited_from: str | None = None

    def save(self, folder: Path) -> None:
        """Write the configuration into a recipe's `folder`."""
        write_sealed(folder / layout.RUN_FILE, msgspec.json.encode(self))

    @classmethod
    def of(cls, folder: Path) -> RunConfig:
        """Read the configuration; return the defaults if it is absent or damaged."""
        data = read_sealed(folder / layout.RUN_FILE)
        return cls() if data is None else msgspec.json.decode(data, type=cls)


class Job:
    """An open recipe folder.

    Parameters
    ----------
    folder : Path
        Recipe folder, named after the recipe's fingerprint.

    Raises
    ------
    CacheError
        If the fingerprint of the recipe in the folder does not match the folder's name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.recipe = Recipe.from_json((folder / layout.RECIPE_FILE).read_bytes())
        if not self.recipe.fingerprint.startswith(folder.name):
            raise CacheError(f"{folder / layout.RECIPE_FILE} is damaged; run the same command again to rewrite it")
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
        self._spectrum_lock = threading.Lock()
        self._idle: queue.LifoQueue[Workspace] = queue.LifoQueue()

    @property
    def spectrum(self) -> Spectrum:
        """Spectrum of the PSF for this grid's frames; computed once, shared by all threads."""
        with self._spectrum_lock:
            if self._spectrum is None:
                psf = PSF.load(self.folder / layout.PSF_FILE)
                if psf.digest != self.recipe.psf:
                    raise CacheError(
                        f"{self.folder / layout.PSF_FILE} is damaged; run the same command again to rewrite it"
                    )
                self._spectrum = Spectrum.of(psf.planes, self.grid.frame_shape)
            return self._spectrum

    def forget_damaged(self) -> None:
        """Drop the records of damaged pieces, so that the next run recomputes them."""
        for array in (self.source, self.tiles, self.result):
            array.forget_damaged()

    def take_workspace(self) -> Workspace:
        """Return a workspace for exclusive use; release it with :meth:`give_back`."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return Workspace(self.recipe.solved, self.grid.frame_shape, spectra=self.recipe.parameters.keeps_spectra)

    def give_back(self, workspace: Workspace) -> None:
        """Return `workspace` to the pool for the next tile."""
        self._idle.put(workspace)

    def release_workspaces(self) -> None:
        """Free all idle workspaces and the spectrum; later tiles create new ones."""
        while True:
            try:
                self._idle.get_nowait()
            except queue.Empty:
                break
        self._spectrum = None


_jobs: dict[Path, Job] = {}
_jobs_lock = threading.Lock()


def job_in(folder: str | Path) -> Job:
    """Return the job of `folder`; the first call in a process opens it."""
    path = Path(folder)
    with _jobs_lock:
        return _jobs.get(path) or _reopen(path)


def open_job(folder: Path) -> Job:
    """Open `folder` again, at the start of a run."""
    with _jobs_lock:
        return _reopen(folder)


def _reopen(folder: Path) -> Job:
    keep_memory_for_tiles()
    _jobs.clear()  # a worker serves one run at a time: release the arrays and workspaces of the previous one
    _jobs[folder] = Job(folder)
    return _jobs[folder]
