"""The plan: everything that a run will do, to be read before anything is done, even when it does not fit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from tilepipe.cache.lifecycle import default_root, recall_bytes, run_folders, size_of
from tilepipe.cache.store import CHUNK, RESULT_CHUNK
from tilepipe.choices import Choices, choose
from tilepipe.decisions import libraries
from tilepipe.deconv.frames import workspace_planes
from tilepipe.deconv.locality import SEAM_LIMIT
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError, SettingsError
from tilepipe.events import Listener, silent
from tilepipe.image.info import ImageInfo
from tilepipe.image.mask import mask_bytes
from tilepipe.image.writers.tiff import is_unfinished, output_bytes
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.recipe import Recipe
from tilepipe.settings import Settings, resolve
from tilepipe.system.memory import (
    available,
    cores,
    forget_peak,
    let_go_of_code,
    peak_memory,
    return_memory_at_once,
    used_memory,
)
from tilepipe.tiling.budget import MemoryPlan, StageModel, check_memory, plan_memory
from tilepipe.tiling.grid import Grid, default_core
from tilepipe.tuning import Tuning
from tilepipe.units import human_bytes

if TYPE_CHECKING:
    from tilepipe.pipeline import RunReport

__all__ = ["DiskPlan", "Plan", "make_plan"]

BOUNDING_PLANES = 2
"""Planes of a frame, float32, that keeping what lies beside lamps in bounds takes."""

SELECTIVE_PLANES = 12
"""Planes of a frame, float32, that finding what is blurred takes besides the workspace."""

IO_NANOSECONDS = 90.0
"""Decoding, storing, blending and writing, per pixel and channel, one thread (measured at 24 Mpx)."""


@dataclass(frozen=True)
class DiskPlan:
    """Bytes that the cache and the output will take at most (lz4 takes some off), and what is free there."""

    cache: int
    output: int
    cached_already: int
    cache_free: int
    output_free: int
    same_disk: bool


@dataclass(frozen=True)
class Plan:
    """What a run will do.

    Parameters
    ----------
    chosen : the input, and what was found out about it.
    output : where the result goes; None for a plan without one.
    recipe, memory, disk, settings : the decisions; ``recipe.source`` is empty until the input is hashed, when
        the run begins.
    root : the cache.
    """

    chosen: Choices
    output: Path | None
    dtype: str
    recipe: Recipe
    model: StageModel
    memory: MemoryPlan
    disk: DiskPlan
    settings: Settings
    root: Path

    @property
    def info(self) -> ImageInfo:
        """The input."""
        return self.chosen.info

    @property
    def psf(self) -> PSF:
        """The blur."""
        return self.chosen.psf

    @property
    def tuning(self) -> Tuning:
        """The solver's numbers and the halo, as measured."""
        return self.chosen.tuning

    @property
    def grid(self) -> Grid:
        """The tiles."""
        return self.recipe.grid

    @cached_property
    def seam(self) -> float:
        """Predicted largest difference to the untiled result, encoded 0..1."""
        return self.tuning.seam(self.grid)

    @cached_property
    def seconds(self) -> float:
        """Expected time on this machine, from the solver's speed during planning."""
        pixels = self.info.height * self.info.width
        solver = (
            pixels
            * self.recipe.solved
            * self.grid.amplification
            * self.recipe.parameters.passes
            * self.tuning.nanoseconds
        )
        return (solver / self.memory.jobs + pixels * self.info.colours * IO_NANOSECONDS) * 1e-9

    @property
    def record(self) -> bytes:
        """How the output is made, for the output itself: canonical JSON of what decides its pixels, nothing else."""
        facts = {
            "tilepipe": ALGORITHM_VERSION,
            "psf": self.recipe.psf,
            "halo": self.recipe.halo,
            "tile": self.recipe.core,
        }
        return json.dumps(recipe_facts(self.recipe) | facts, sort_keys=True).encode()

    def check(self) -> None:
        """Raise what would stop the run: DoesNotFitError for memory, and for disk unless that is forced."""
        check_memory(self.memory, self.model, self.grid)
        disk = self.disk
        if self.settings.force:
            return
        cache_needs = max(0, disk.cache - disk.cached_already) + (disk.output if disk.same_disk else 0)
        if cache_needs > disk.cache_free:
            raise DoesNotFitError(
                f"the cache in {self.root} needs {human_bytes(cache_needs)}, {human_bytes(disk.cache_free)} are free "
                "there; free some space, give another place with --cache, or begin all the same with --force"
            )
        if self.output is not None and disk.output > disk.output_free:
            raise DoesNotFitError(
                f"the output {self.output} needs {human_bytes(disk.output)}, {human_bytes(disk.output_free)} are free "
                "there; free some space, write elsewhere, or begin all the same with --force"
            )

    def run(self, on_event: Listener = silent, *, overwrite: bool = False, fresh: bool = False) -> RunReport:
        """Do it: ingest, restore, blend, export; see :func:`tilepipe.pipeline.run`."""
        from tilepipe.pipeline import run

        return run(self, on_event, overwrite=overwrite, fresh=fresh)

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
            "check": self.chosen.check,
            "recipe": recipe_facts(self.recipe),
            "halo": self.recipe.halo,
            "tile": self.recipe.core,
            "tiles": self.grid.tiles,
            "frame": [width, height],
            "amplification": round(self.grid.amplification, 3),
            "seam": {
                "predicted": round(self.seam, 6),
                "limit": round(SEAM_LIMIT, 6),
                "price_db": self.tuning.price,
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
    """Return the recipe's numbers under their public names."""
    numbers = recipe.parameters
    return {
        "solver": recipe.solver,
        "lambda": numbers.lam,
        "steps": numbers.steps,
        "closing": numbers.closing,
        "noise": recipe.noise,
        "priority": recipe.priority,
        "r1": numbers.r1,
        "r2": numbers.r2,
        "solved": "luminance" if recipe.luminance_only else "colour",
        "refocus": bool(numbers.unexplained),
        "base": numbers.base,
        "slope": numbers.slope,
        "convolution": numbers.convolution,
    }


def make_plan(
    image: str | Path,
    output: str | Path | None = None,
    *,
    psf: PSF | str | Path | None = None,
    config: str | Path | None = None,
    sets: tuple[str, ...] = (),
    on_event: Listener = silent,
    keep: bool = False,
    fresh: bool = False,
    **flags: Any,
) -> Plan:
    """Plan the restoration of `image`; writes nothing, unless told to `keep` what it finds in the cache.

    Parameters
    ----------
    image : TIFF, JPEG or PNG.
    output : TIFF to write.
    psf : the blur, or its file; by default the setting ``psf``.
    config, sets : further settings, as on the command line.
    on_event : told when the blur is about to be estimated and the halo measured, which takes some seconds.
    keep, fresh : see :func:`tilepipe.choices.choose`.
    **flags : any field of :class:`tilepipe.settings.Settings`.

    Raises
    ------
    UncertainPsfError : no PSF was given and the estimate is too uncertain.
    InputError, SettingsError, PsfError, OutputError : as their names say.  A plan that does not fit is
        returned all the same; its :meth:`Plan.check` raises.
    """
    return_memory_at_once()
    let_go_of_code()
    forget_peak()
    if isinstance(psf, (str, Path)):
        flags["psf"] = str(psf)
    settings = resolve(flags, sets, config).settings
    if settings.save_mask and not (settings.mask or settings.refocus):
        raise SettingsError("save_mask needs a mask to save: give --refocus or --mask")
    root = Path(settings.cache).expanduser() if settings.cache else default_root()
    given = psf if isinstance(psf, PSF) else PSF.load(settings.psf) if settings.psf else None
    if settings.priority_value == -1:
        given = delta()  # noise is taken off and nothing else
    chosen = choose(Path(image), given, settings, root, on_event, keep=keep, fresh=fresh)
    info = chosen.info
    _check_nodata(info, settings)
    recipe = _recipe(chosen, settings)
    model = _stage_model(info, recipe, chosen.psf, mask_bytes(settings.mask, info))
    allowed = settings.memory_bytes or available() // 2
    jobs = settings.jobs or cores()
    target = None if output is None else Path(output)
    return Plan(
        chosen=chosen,
        output=target,
        dtype=settings.dtype or info.dtype,
        recipe=recipe,
        model=model,
        memory=plan_memory(model, recipe.grid, allowed, jobs),
        disk=_disk(info, recipe, root, target, settings.dtype or info.dtype),
        settings=settings,
        root=root,
    )


def check_output(output: Path, *, overwrite: bool) -> None:
    """Raise OutputError or OutputExistsError when `output` cannot be written; creates nothing."""
    if output.suffix.lower() not in (".tif", ".tiff"):
        raise SettingsError(f"output {output} must end in .tif or .tiff: tilepipe writes TIFF")
    if output.is_dir():
        raise OutputError(f"output {output} is a folder; give a file name ending in .tif")
    if output.exists() and not overwrite and not is_unfinished(output):
        raise OutputExistsError(f"output {output} exists; --overwrite replaces it")
    if not output.parent.is_dir():
        raise OutputError(f"output {output}: the folder {output.parent} does not exist; make it first")
    if not os.access(output.parent, os.W_OK):
        raise OutputError(f"output {output}: the folder {output.parent} is not writable")


def _check_nodata(info: ImageInfo, settings: Settings) -> None:
    """Raise SettingsError when the output's samples cannot hold the value of pixels without data."""
    value, dtype = info.light.nodata, settings.dtype
    if value is None or dtype is None or dtype == info.dtype:
        return
    if np.dtype(dtype).kind == "u" and not (
        np.isfinite(value) and 0 <= value <= np.iinfo(dtype).max and value % 1 == 0
    ):
        raise SettingsError(f"pixels without data are {value:g}, which {dtype} cannot hold; give --dtype float32")


def _recipe(chosen: Choices, settings: Settings) -> Recipe:
    info, tuning = chosen.info, chosen.tuning
    core = settings.tile or default_core(tuning.halo)
    return Recipe(
        algorithm=ALGORITHM_VERSION,
        libraries=libraries(),
        source="",
        height=info.height,
        width=info.width,
        colours=info.colours,
        extras=info.extras,
        dtype=info.dtype,
        curves=tuple((curve.name, curve.parameters, curve.samples) for curve in info.light.curves),
        unit=info.light.unit,
        white=info.light.white,
        nodata=None if info.light.nodata is None else repr(info.light.nodata),  # JSON has no NaN
        kinds=info.light.extras,
        psf=chosen.psf.digest,
        noise=tuning.noise,
        priority=settings.priority_value,
        parameters=tuning.parameters,
        luminance_only=settings.luminance_only and info.colours > 1,
        core=min(core, max(info.height, info.width, 64)),
        halo=tuning.halo,
    )


def _stage_model(info: ImageInfo, recipe: Recipe, psf: PSF, mask_bytes: int) -> StageModel:
    import tilepipe.pipeline  # noqa: F401  # everything a run imports counts as the process

    return StageModel(
        process=used_memory(),
        decoded=info.decoded_bytes,
        pixel=info.pixel_bytes,
        channels=info.colours,
        stored=recipe.planes,
        planning=peak_memory(),
        planes=0
        if recipe.solver == "identity"
        else workspace_planes(recipe.solved, spectra=recipe.parameters.keeps_spectra),
        extra=SELECTIVE_PLANES * bool(recipe.parameters.unexplained)
        + 3 * info.colours * recipe.luminance_only
        + recipe.solved
        + BOUNDING_PLANES,
        mask=mask_bytes,
        kernels=len(psf.planes),
        band=CHUNK[0],
        chunk=RESULT_CHUNK[0] * RESULT_CHUNK[1],
    )


def _disk(info: ImageInfo, recipe: Recipe, root: Path, output: Path | None, dtype: str) -> DiskPlan:
    pixels, grid = info.height * info.width, recipe.grid
    stored_height, stored_width = grid.stored_shape
    tiles = 4 * recipe.planes * grid.tiles * stored_height * stored_width
    cache = pixels * info.pixel_bytes + tiles + 4 * recipe.planes * pixels
    content, _ = recall_bytes(root, info.path)
    already = size_of(run_folders(root, msgspec.structs.replace(recipe, source=content))[0]) if content else 0
    cache_place, output_place = _existing(root), _existing(output.parent if output else root)
    return DiskPlan(
        cache=cache,
        output=output_bytes(info, dtype) if output else 0,
        cached_already=already,
        cache_free=shutil.disk_usage(cache_place).free,
        output_free=shutil.disk_usage(output_place).free,
        same_disk=cache_place.stat().st_dev == output_place.stat().st_dev,
    )


def _existing(path: Path) -> Path:
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path
