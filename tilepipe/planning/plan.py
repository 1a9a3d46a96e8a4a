"""The plan: everything that a run will do, available before the run starts, even when the run does not fit."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError
from tilepipe.image.colour_space import ColourSpace
from tilepipe.image.info import ImageInfo
from tilepipe.image.sidecar import sidecars
from tilepipe.image.writers.beside import is_unfinished, partial_of
from tilepipe.image.writers.formats import OutputFormat
from tilepipe.image.zarr_folder import is_zarr
from tilepipe.planning.analysis import Analysis
from tilepipe.planning.disk_model import DiskPlan, drops_tiles
from tilepipe.planning.memory_model import MemoryPlan, StageModel, check_memory, worker_memory
from tilepipe.planning.seam_error import SEAM_LIMIT
from tilepipe.planning.tuning import Tuning
from tilepipe.psf.field import AnyPSF
from tilepipe.recipe import Recipe
from tilepipe.settings import Settings
from tilepipe.system.object_store import StoragePath
from tilepipe.tiling.components import mean_components
from tilepipe.tiling.grid import Grid
from tilepipe.units import human_bytes

__all__ = ["Plan", "WorkersPlan", "check_output", "recipe_facts"]

IO_NANOSECONDS = 90.0
"""Time of decoding, storing, blending and writing, per pixel and channel on one thread (measured at 24 Mpx)."""


@dataclass(frozen=True)
class WorkersPlan:
    """What the workers of a cluster need for a plan.

    Parameters
    ----------
    number : int
        Number of workers.
    jobs : int
        Tiles in flight in each, ``tilepipe worker --jobs``.
    memory : int
        Memory limit of each, ``tilepipe worker --memory``, bytes.
    seconds : float
        Expected time if they are as fast as this machine; reading and writing are done by one process.
    """

    number: int
    jobs: int
    memory: int
    seconds: float


@dataclass(frozen=True)
class Plan:
    """Everything that a run will do.

    Parameters
    ----------
    analysis : Analysis
        The input, and the results of its analysis.
    output : Path or None
        File to write; None for a plan without output.
    format : OutputFormat
        Format of the output.
    dtype : str
        Of the output.
    recipe : Recipe
        Its ``source`` is empty until the run starts and hashes the input.
    model : StageModel
        Memory model.
    memory : MemoryPlan
        Memory, jobs and threads.
    disk : DiskPlan
        Disk space needed and free.
    settings : Settings
        Settings of the run.
    root : Path
        The cache.
    """

    analysis: Analysis
    output: Path | None
    format: OutputFormat
    dtype: str
    recipe: Recipe
    model: StageModel
    memory: MemoryPlan
    disk: DiskPlan
    settings: Settings
    root: StoragePath

    @property
    def space(self) -> ColourSpace | None:
        """The input's CMYK or Lab if the output has it too."""
        return self.format.space_for(self.info, self.dtype)

    @property
    def info(self) -> ImageInfo:
        """The input."""
        return self.analysis.info

    @property
    def psf(self) -> AnyPSF:
        """The blur."""
        return self.analysis.psf

    @property
    def tuning(self) -> Tuning:
        """Solver parameters and halo, as measured."""
        return self.analysis.tuning

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return self.recipe.grid

    @property
    def drops_tiles(self) -> bool:
        """Whether tiles are removed from the cache once they are blended."""
        return drops_tiles(self.info, self.settings)

    @property
    def blur_text(self) -> str:
        """The blur and its origin in words."""
        made_by, colours = self.psf.made_by, len(self.psf.planes)
        size = f"{self.psf.size} x {self.psf.size}" + (f" for each of {colours} colours" if colours > 1 else "")
        if self.recipe.solver == "identity":
            reason = "already sharp" if made_by.get("estimated") else "delta"
            return f"{reason}: nothing to deconvolve, pixels are unchanged"
        if made_by.get("estimated"):
            return f"{size}  estimated: {made_by['nearest']}; confidence {self.psf.confidence:.2f}"
        if self.recipe.solver == "cosines":
            return "none: denoising only, no deblurring"
        return f"{size}  {made_by['shape']}" if made_by.get("shape") else size

    @cached_property
    def seam(self) -> float:
        """Predicted largest difference to the untiled result, encoded 0..1."""
        return self.tuning.seam(self.grid)

    @cached_property
    def seconds(self) -> float:
        """Expected time on this machine, from the solver's speed during planning, s."""
        return self._seconds(self.memory.jobs)

    def on_workers(self, number: int) -> WorkersPlan:
        """Return what `number` workers of a cluster need, each with as many tiles in flight as this plan has jobs."""
        jobs = self.settings.jobs or self.memory.jobs
        return WorkersPlan(number, jobs, worker_memory(self.model, self.grid, jobs), self._seconds(number * jobs))

    def _seconds(self, jobs: int) -> float:
        pixels = self.info.height * self.info.width
        solver = (
            pixels
            * self.recipe.solved
            * self.grid.amplification
            * self.recipe.parameters.passes
            * self.tuning.nanoseconds
            * mean_components(self.psf, self.grid)
        )
        return (solver / min(jobs, self.grid.tiles) + pixels * self.info.colours * IO_NANOSECONDS) * 1e-9

    @property
    def record(self) -> bytes:
        """Canonical JSON of what determines the output's pixels, and nothing else; stored in the output."""
        facts = {
            "tilepipe": ALGORITHM_VERSION,
            "psf": self.recipe.psf,
            "halo": self.recipe.halo,
            "tile": self.recipe.core,
        }
        chosen = self.info.selection.facts()
        return json.dumps(recipe_facts(self.recipe) | facts | chosen, sort_keys=True).encode()

    @property
    def sidecars(self) -> list[tuple[Path, Path]]:
        """Sidecars of the image, each with the file to which it is copied, if the settings ask for it."""
        if self.output is None or not self.settings.sidecar:
            return []
        return sidecars(self.info.path, self.output)

    def check(self) -> None:
        """Raise DoesNotFitError if the run exceeds the memory or, unless forced, the disk space."""
        check_memory(self.memory, self.model, self.grid)
        disk = self.disk
        if self.settings.force:
            return
        cache_needs = max(0, disk.cache - disk.cached_already) + (disk.output if disk.same_disk else 0)
        if disk.cache_free is not None and cache_needs > disk.cache_free:
            raise DoesNotFitError(
                f"the cache in {self.root} needs {human_bytes(cache_needs)}, {human_bytes(disk.cache_free)} are free; "
                "free some space, use another folder with --cache, or start anyway with --force"
            )
        if self.output is not None and disk.output > disk.output_free:
            raise DoesNotFitError(
                f"the output {self.output} needs {human_bytes(disk.output)}, {human_bytes(disk.output_free)} are free; "
                "free some space, write to another disk, or start anyway with --force"
            )

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        height, width = self.grid.frame_shape
        return {
            "image": str(self.info.path),
            "width": self.info.width,
            "height": self.info.height,
            "channels": self.info.channels,
            "dtype": self.info.dtype,
            "curve": self.info.curve_note,
            "psf": {
                "size": self.psf.size,
                "delta": self.psf.is_delta,
                "confidence": self.psf.confidence,
                "made_by": self.psf.made_by,
            },
            "unit": self.info.light.unit,
            "check": self.analysis.check,
            "recipe": recipe_facts(self.recipe),
            "halo": self.recipe.halo,
            "tile": self.recipe.core,
            "tiles": self.grid.tiles,
            "frame": [width, height],
            "amplification": round(self.grid.amplification, 3),
            "seam": {
                "predicted": round(self.seam, 6),
                "limit": round(SEAM_LIMIT, 6),
                "price_db": self.tuning.psnr_cost_db,
            },
            "memory": {
                "allowed": self.memory.allowed,
                "projected": self.memory.projected,
                "jobs": self.memory.jobs,
                "stages": self.memory.stages,
            },
            "disk": {"cache": self.disk.cache, "output": self.disk.output, "free": self.disk.cache_free},
            "seconds": round(self.seconds, 1),
            "cache": str(self.root),
        }


def recipe_facts(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe's parameters under their public names."""
    parameters = recipe.parameters
    return {
        "solver": recipe.solver,
        "lambda": parameters.lam,
        "steps": parameters.steps,
        "closing": len(parameters.closing),
        "noise": recipe.noise,
        "priority": recipe.priority,
        "r1": parameters.r1,
        "r2": parameters.r2,
        "solved": "luminance" if recipe.luminance_only else "colour",
        "refocus": bool(parameters.misfit_limit),
        "base": parameters.base,
        "slope": parameters.slope,
        "convolution": parameters.convolution,
    }


def check_output(output: Path, *, overwrite: bool, is_folder: bool = False) -> None:
    """Raise OutputError or OutputExistsError if `output` cannot be written; creates nothing.

    Parameters
    ----------
    output : Path
        The file, or the folder of a format whose outputs are folders.
    overwrite : bool
        Whether what exists is replaced: of folders only those of zarr.
    is_folder : bool
        Whether the output is a folder.
    """
    if is_folder:
        if output.exists() and not is_zarr(output):
            raise OutputError(f"output {output} exists and is not a zarr folder; give another name")
    elif output.is_dir():
        raise OutputError(f"output {output} is a folder; give a file name")
    elif output.exists() and not output.is_file():
        raise OutputError(f"output {output} is not a regular file; give another name")
    if output.exists() and not overwrite and not is_unfinished(output):
        raise OutputExistsError(f"output {output} exists; --overwrite replaces it")
    folder = partial_of(output).parent
    if not folder.is_dir():
        raise OutputError(f"output {output}: the folder {folder} does not exist; create it first")
    if not os.access(folder, os.W_OK):
        raise OutputError(f"output {output}: the folder {folder} is not writable")
