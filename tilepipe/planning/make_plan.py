"""From a picture and settings to the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.cache.layout import RESULT_CHUNK, SOURCE_CHUNK, default_root
from tilepipe.deconv.frames import workspace_planes
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.errors import SettingsError
from tilepipe.events import Listener, silent
from tilepipe.image.info import ImageInfo
from tilepipe.image.mask import mask_bytes
from tilepipe.planning.analysis import Analysis, analyse
from tilepipe.planning.disk_model import plan_disk
from tilepipe.planning.memo import libraries
from tilepipe.planning.memory_model import StageModel, plan_memory
from tilepipe.planning.plan import Plan
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.recipe import Recipe
from tilepipe.settings import Settings, resolve
from tilepipe.system.memory import (
    available,
    cores,
    forget_peak,
    peak_memory,
    release_compiler_memory,
    return_memory_at_once,
    used_memory,
)
from tilepipe.tiling.grid import default_core

__all__ = ["make_plan"]

BOUNDING_PLANES = 2
"""Planes of a frame, float32, that keeping what lies beside lamps in bounds takes."""

SELECTIVE_PLANES = 12
"""Planes of a frame, float32, that finding what is blurred takes besides the workspace."""


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
    keep, fresh : see :func:`tilepipe.planning.analysis.choose`.
    **flags : any field of :class:`tilepipe.settings.Settings`.

    Raises
    ------
    UncertainPsfError : no PSF was given and the estimate is too uncertain.
    InputError, SettingsError, PsfError, OutputError : as their names say.  A plan that does not fit is
        returned all the same; its :meth:`Plan.check` raises.
    """
    return_memory_at_once()
    release_compiler_memory()
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
    analysis = analyse(Path(image), given, settings, root, on_event, keep=keep, fresh=fresh)
    info = analysis.info
    _check_nodata(info, settings)
    recipe = _recipe(analysis, settings)
    model = _stage_model(info, recipe, analysis.psf, mask_bytes(settings.mask, info))
    allowed = settings.memory_bytes or available() // 2
    jobs = settings.jobs or cores()
    target = None if output is None else Path(output)
    return Plan(
        analysis=analysis,
        output=target,
        dtype=settings.dtype or info.dtype,
        recipe=recipe,
        model=model,
        memory=plan_memory(model, recipe.grid, allowed, jobs),
        disk=plan_disk(info, recipe, root, target, settings.dtype or info.dtype),
        settings=settings,
        root=root,
    )


def _check_nodata(info: ImageInfo, settings: Settings) -> None:
    """Raise SettingsError when the output's samples cannot hold the value of pixels without data."""
    value, dtype = info.light.nodata, settings.dtype
    if value is None or dtype is None or dtype == info.dtype:
        return
    if np.dtype(dtype).kind == "u" and not (
        np.isfinite(value) and 0 <= value <= np.iinfo(dtype).max and value % 1 == 0
    ):
        raise SettingsError(f"pixels without data are {value:g}, which {dtype} cannot hold; give --dtype float32")


def _recipe(analysis: Analysis, settings: Settings) -> Recipe:
    info, tuning = analysis.info, analysis.tuning
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
        psf=analysis.psf.digest,
        noise=tuning.noise,
        priority=settings.priority_value,
        parameters=tuning.parameters,
        luminance_only=settings.luminance_only and info.colours > 1,
        core=min(core, max(info.height, info.width, 64)),
        halo=tuning.halo,
    )


def _stage_model(info: ImageInfo, recipe: Recipe, psf: PSF, mask_bytes: int) -> StageModel:
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
        extra=SELECTIVE_PLANES * bool(recipe.parameters.misfit_limit)
        + 3 * info.colours * recipe.luminance_only
        + recipe.solved
        + BOUNDING_PLANES,
        mask=mask_bytes,
        kernels=len(psf.planes),
        band=SOURCE_CHUNK[0],
        chunk=RESULT_CHUNK[0] * RESULT_CHUNK[1],
    )
