"""A job: the open folder of one recipe, on any machine that runs its tasks.

Tasks carry the folder's path and an index.  A run opens the folder (recipe, PSF, arrays, ledgers, and a pool of
workspaces) in its process for its duration.  On the worker of a cluster the first task opens it, later tasks reuse it.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from tilepipe.cache import layout
from tilepipe.cache.store import CheckedArray
from tilepipe.deconv.frames import Workspace
from tilepipe.errors import CacheError, InputError
from tilepipe.image.info import ImageReader
from tilepipe.image.readers import open_image
from tilepipe.image.selection import WHOLE, Selection
from tilepipe.psf.field import psf_from_bytes
from tilepipe.recipe import Recipe
from tilepipe.system.files import read_file, read_sealed, write_sealed
from tilepipe.system.folders import size_and_time
from tilepipe.system.memory import peak_memory
from tilepipe.system.object_store import StoragePath, storage_path
from tilepipe.tiling.components import Spectra

__all__ = ["Job", "RunConfig", "job_in", "running", "shared_stamp", "store_band"]


class RunConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a run executes, for all processes that take part; no field changes a pixel.

    Parameters
    ----------
    durable : bool
        Flush every chunk and record to disk.
    edited_from : str or None
        SHA-256 of the image before an edit: tiles with unchanged samples are taken from its cache.
    image : str or None
        Absolute path of the image file, for workers that read it; None if it is not valid Unicode.
    image_stamp : tuple of int or None
        Its size, bytes, and time of modification, ns: equal on all machines that share the file.
    selection : Selection
        Which picture of the file is read.
    """

    durable: bool = True
    edited_from: str | None = None
    image: str | None = None
    image_stamp: tuple[int, int] | None = None
    selection: Selection = WHOLE

    def save(self, folder: StoragePath) -> None:
        """Write the configuration into a recipe's `folder`."""
        write_sealed(folder / layout.RUN_FILE, msgspec.json.encode(self))

    @classmethod
    def of(cls, folder: StoragePath) -> RunConfig:
        """Read the configuration; return the defaults if it is absent or damaged."""
        data = read_sealed(folder / layout.RUN_FILE)
        return cls() if data is None else msgspec.json.decode(data, type=cls)


def shared_stamp(image: str | None) -> tuple[int, int] | None:
    """Return size and time of modification of an image, see `RunConfig`; None if it is not here."""
    try:
        return size_and_time(Path(image)) if image else None
    except (OSError, InputError):
        return None


def _recipe_in(folder: StoragePath) -> Recipe:
    """Read the recipe of a recipe folder; raise CacheError unless it is the one that the folder is named after."""
    file = folder / layout.RECIPE_FILE
    with suppress(msgspec.MsgspecError, UnicodeDecodeError):  # reported below, as a wrong fingerprint is
        recipe = Recipe.from_json(file.read_bytes())
        if recipe.fingerprint.startswith(folder.name):
            return recipe
    raise CacheError(f"{file} is damaged; run the same command again to rewrite it")


class Job:
    """An open recipe folder.

    Parameters
    ----------
    folder : Path or ObjectPath
        Recipe folder, named after the recipe's fingerprint.
    stop : threading.Event, optional
        Set by the user of the run to stop it.

    Attributes
    ----------
    hopeless : threading.Event
        Set when all further tasks of the run would fail too.

    Raises
    ------
    CacheError
        If the recipe in the folder cannot be decoded, or its fingerprint does not match the folder's name.
    """

    def __init__(self, folder: StoragePath, stop: threading.Event | None = None) -> None:
        self.folder = folder
        self.stop = stop or threading.Event()
        self.hopeless = threading.Event()
        self.recipe = _recipe_in(folder)
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
        self._image, self._image_stamp, self._selection = config.image, config.image_stamp, config.selection
        self._reader: ImageReader | None = None
        self._reader_lock = threading.Lock()
        self._spectra: Spectra | None = None
        self._spectra_lock = threading.Lock()
        self._idle: queue.LifoQueue[Workspace] = queue.LifoQueue()

    @property
    def is_stopped(self) -> bool:
        """Whether tasks that have not started are to be cancelled."""
        return self.stop.is_set() or self.hopeless.is_set()

    @property
    def spectra(self) -> Spectra:
        """The PSF for this grid's frames; prepared once, shared by all threads."""
        with self._spectra_lock:
            if self._spectra is None:
                file = self.folder / layout.PSF_FILE
                psf = psf_from_bytes(read_file(file) or b"", str(file))
                if psf.digest != self.recipe.psf:
                    raise CacheError(f"{file} is damaged; run the same command again to rewrite it")
                self._spectra = Spectra(psf, self.grid)
            return self._spectra

    def read_rows(self, top: int, bottom: int) -> npt.NDArray[Any]:
        """Return rows of the image file, (rows, width, channels); by one thread at a time.

        Raises
        ------
        InputError
            If the file is not here, is not the one that was planned, or is damaged.
        """
        with self._reader_lock:
            if self._reader is None:
                self._reader = open_image(self._image or "", self._selection)
            rows = self._reader.rows(top, bottom)
        if shared_stamp(self._image) != self._image_stamp:
            raise InputError(f"{self._image} was changed or removed since it was planned; run the same command again")
        return rows

    def close(self) -> None:
        """Close the image file."""
        with self._reader_lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def forget_damaged(self, check: Callable[[], None] = lambda: None) -> None:
        """Drop the records of damaged pieces; `check` is called before each, see `CheckedArray.forget_damaged`."""
        for array in (self.source, self.tiles, self.result):
            array.forget_damaged(check=check)

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
        """Free all idle workspaces and the PSF's spectra; later tiles create new ones."""
        while True:
            try:
                self._idle.get_nowait()
            except queue.Empty:
                break
        self._spectra = None


def store_band(source: CheckedArray, row: int, rows: npt.NDArray[Any], colours: int, began: float) -> None:
    """Write and record a band of the image.

    Parameters
    ----------
    source : CheckedArray
        The source array.
    row : int
        Index of the band, a row of chunks.
    rows : ndarray, shape (rows, width, channels)
        Its samples; those of float images that are not finite are counted.
    colours : int
        Number of channels that are counted, the first ones.
    began : float
        When its reading began, ``time.perf_counter()``.
    """
    top = row * layout.SOURCE_CHUNK[0]
    source.write(np.moveaxis(rows, -1, 0), slice(None), slice(top, top + len(rows)), slice(None))
    is_float = rows.dtype.kind == "f"
    facts = {"not_finite": int((~np.isfinite(rows[:, :, :colours])).sum())} if is_float else {}
    source.record((row,), began, peak_memory(), facts=facts)


_running: dict[StoragePath, Job] = {}
"""Jobs of the runs in progress in this process."""

_visited: dict[StoragePath, Job] = {}
"""The job of the last task on a worker: at most one, as every job holds workspaces."""

_jobs_lock = threading.Lock()


@contextmanager
def running(folder: StoragePath, stop: threading.Event | None = None) -> Iterator[Job]:
    """Open the job of `folder` for the duration of a run in this process; its tasks find it with :func:`job_in`."""
    job = Job(folder, stop)
    with _jobs_lock:
        _running[folder] = job
    try:
        yield job
    finally:
        with _jobs_lock:
            del _running[folder]
        job.close()


def job_in(folder: str) -> Job:
    """Return the open job of `folder`; on a worker the first call opens it, and releases that of another folder."""
    path = storage_path(folder)
    with _jobs_lock:
        job = _running.get(path) or _visited.get(path)
        if job is None:
            for other in _visited.values():
                other.close()
            _visited.clear()
            job = _visited[path] = Job(path)
        return job
