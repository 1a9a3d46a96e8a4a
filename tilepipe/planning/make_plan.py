"""Planning from an image and settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.cache.layout import EXPORT_COLUMNS, RESULT_CHUNK, SOURCE_CHUNK, cache_root
from tilepipe.deconv.frames import workspace_planes
from tilepipe.deconv.parameters import ALGORITHM_VERSION
from tilepipe.errors import InputError, OutputError, SettingsError, TilepipeError
from tilepipe.events import Listener, Note, silent
from tilepipe.image.info import ImageInfo
from tilepipe.image.mask import mask_bytes
from tilepipe.image.sidecar import sidecars
from tilepipe.image.writers.beside import partial_of
from tilepipe.image.writers.formats import OutputFormat, format_of
from tilepipe.image.writers.output import output_bytes
from tilepipe.planning.analysis import Analysis, analyse
from tilepipe.planning.disk_model import plan_disk
from tilepipe.planning.memo import libraries
from tilepipe.planning.memory_model import StageModel, plan_memory
from tilepipe.planning.plan import Plan
from tilepipe.psf.field import AnyPSF, load_psf
from tilepipe.psf.shapes import delta
from tilepipe.recipe import Recipe, stored_levels
from tilepipe.settings import Settings, resolve
from tilepipe.system.files import is_same_file, lies_in
from tilepipe.system.memory import (
    available,
    cores,
    peak_memory,
    peak_since,
    release_freed_memory,
    used_memory,
)
from tilepipe.tiling.grid import default_core

__all__ = ["make_plan"]

BOUNDING_PLANES = 2
"""Float32 planes of a frame needed to bound the result beside clipped light sources."""

BACK_PIXEL = 48
"""Bytes of a pixel of a block that is converted back: stored and converted samples, RGB, and what differs."""

STORED_BANDS = 2
"""Bands of stored samples held at a time: the one in use and the one that is read."""

MASK_PIXEL = 24
"""Bytes of a pixel in the rows of the mask that are read, combined and written at a time."""

SELECTIVE_PLANES = 12
"""Float32 planes of a frame, besides the workspace, needed to detect what is blurred."""


def make_plan(
    image: str | Path,
    output: str | Path | None = None,
    *,
    psf: AnyPSF | str | Path | None = None,
    config: str | Path | None = None,
    sets: tuple[str, ...] = (),
    on_event: Listener = silent,
    keep: bool = False,
    fresh: bool = False,
    **flags: Any,
) -> Plan:
    """Plan the restoration of `image`; nothing is written unless `keep` is set.

    Parameters
    ----------
    image : str or Path
        The image, in any format of :mod:`tilepipe.image.readers`.
    output : str or Path, optional
        File to write, in a format of :mod:`tilepipe.image.writers.formats`, by its extension or the setting ``format``.
    psf : PSF, PSFField, str or Path, optional
        The blur, or its file; by default the setting ``psf``.
    config : str or Path, optional
        TOML file with settings, as on the command line.
    sets : tuple of str
        Further settings, ``key=value``.
    on_event : callable
        Receives notes before the blur is estimated and before the halo is measured, which take some seconds.
    keep : bool
        Write results to the cache as soon as they are available, see :func:`tilepipe.planning.analysis.analyse`.
    fresh : bool
        Ignore results of earlier runs in the cache.
    **flags : Any
        Any field of :class:`tilepipe.settings.Settings`.

    Returns
    -------
    Plan
        Returned even if the run does not fit; its :meth:`Plan.check` raises then.

    Raises
    ------
    DoesNotFitError
        If planning itself needs more memory than is allowed, for example to decode a JPEG.
    UncertainPsfError
        If no PSF is given and the estimate is too uncertain.
    InputError
        If `image` or a file named by a setting cannot be read.
    OutputError
        If an output would replace an input or another output.
    SettingsError
        If a setting is invalid, or does not suit the image.
    PsfError
        If the PSF is invalid, or does not suit the image.
    """
    if isinstance(psf, (str, Path)):
        flags["psf"] = str(psf)
    resolved = resolve(flags, sets, config)
    settings = resolved.settings
    if resolved.note:
        on_event(Note(resolved.note))
    try:
        return _make_plan(
            Path(image),
            None if output is None else Path(output),
            None if isinstance(psf, (str, Path)) else psf,
            settings,
            on_event,
            keep=keep,
            fresh=fresh,
        )
    except TilepipeError:
        raise  # some are also OSErrors
    except OSError as error:
        raise InputError(
            f"planning failed at {error.filename or image}: {error.strerror or error}; run the same command again"
        ) from error


def _make_plan(
    image: Path,
    output: Path | None,
    psf: AnyPSF | None,
    settings: Settings,
    on_event: Listener,
    *,
    keep: bool,
    fresh: bool,
) -> Plan:
    """Plan with merged `settings`, see :func:`make_plan`."""
    if settings.save_mask and not (settings.mask or settings.refocus):
        raise SettingsError("save_mask requires a mask: give --refocus or --mask")
    kind = format_of(output, settings.format)
    if settings.save_mask and format_of(Path(settings.save_mask)).name != "TIFF":
        raise SettingsError(f"save_mask is {settings.save_mask}; the mask is written as a TIFF: end the name in .tif")
    root = cache_root(settings.cache)
    if settings.compression is not None and kind.name != "TIFF":
        raise SettingsError(f"compression is {settings.compression}; it is that of a TIFF, the output is a {kind.name}")
    _check_distinct(image, output, settings)
    if settings.priority_value == -1:
        psf = delta()  # denoising only
    elif psf is None and settings.psf:
        psf = load_psf(settings.psf)
    before = peak_memory()
    allowed = settings.memory_bytes or available() // 2
    analysis = analyse(image, psf, settings, root, on_event, allowed=allowed, keep=keep, fresh=fresh)
    info = analysis.info
    for note in info.notes:
        on_event(Note(f"note     {note}"))
    dtype = kind.dtype_for(info, settings.dtype)
    space = kind.space_for(info, dtype)
    if info.space is not None and space is None:
        on_event(Note(f"note     the output is RGB; {info.space.name} is written as TIFF of {info.space.dtype}"))
    if kind.changes_curve(info):
        on_event(Note(f"note     samples are written as linear light in {dtype}: {kind.name} has no other curves"))
    elif settings.dtype is None and space is None and dtype != info.dtype:
        on_event(Note(f"note     {info.dtype} samples are written as {dtype}: {kind.name} holds no {info.dtype}"))
    _check_nodata(info, dtype)
    if settings.sidecar and output is not None and not sidecars(image, output):
        on_event(Note(f"note     {image.name} has no XMP sidecar to copy"))
    if white := _clipped_at(info, kind, dtype):
        on_event(Note(f"note     samples above {white:g} are clipped in {dtype}; TIFF and FITS hold float32"))
    recipe = _recipe(analysis, settings)
    masks = mask_bytes(settings.mask, info)
    if settings.mask or settings.refocus:
        masks += MASK_PIXEL * SOURCE_CHUNK[0] * info.width
    release_freed_memory()  # planning's, which must not count as the process's
    model = _stage_model(info, recipe, analysis.psf, masks + kind.held(info, dtype), peak_since(before))
    written = kind.size(info, dtype) if space is None else output_bytes(info, dtype, space)
    if space is not None:
        rows = STORED_BANDS * SOURCE_CHUNK[0] * info.width * space.channels * np.dtype(space.dtype).itemsize
        model = replace(model, writing=model.writing + info.decoded_bytes + rows, back=BACK_PIXEL)
    return Plan(
        analysis=analysis,
        output=output,
        format=kind,
        dtype=dtype,
        recipe=recipe,
        model=model,
        memory=plan_memory(model, recipe.grid, allowed, settings.jobs or cores()),
        disk=plan_disk(info, recipe, root, output, written, settings),
        settings=settings,
        root=root,
    )


def _check_distinct(image: Path, output: Path | None, settings: Settings) -> None:
    """Raise OutputError if a file that would be written is an input, or if both would be the same file."""
    read = [image, *(Path(name) for name in (settings.psf, settings.mask, settings.input_curve) if name)]
    written = [path for path in (output, Path(settings.save_mask) if settings.save_mask else None) if path is not None]
    for path in written:
        for name in (path, partial_of(path)):
            other = next((one for one in read if is_same_file(one, name)), None)
            if other is not None:
                raise OutputError(f"output {path} would replace the input {other}; write to another file")
    for path in written:
        other = next((one for one in read if lies_in(one, path) or lies_in(path, one)), None)
        if other is not None:
            raise OutputError(f"output {path} and the input {other} lie one inside the other; write to another folder")
    if len(written) == 2 and is_same_file(*written):
        raise OutputError(f"the output and the mask would both be written to {written[0]}; write to two files")


def _check_nodata(info: ImageInfo, dtype: str) -> None:
    """Raise SettingsError if `dtype`, the output's, cannot represent the value of pixels without data."""
    value = info.light.nodata
    if value is None or dtype == info.dtype:
        return
    if np.dtype(dtype).kind == "u" and not (
        np.isfinite(value) and 0 <= value <= np.iinfo(dtype).max and value % 1 == 0
    ):
        raise SettingsError(
            f"pixels without data are {value:g}, which {dtype} cannot represent; write a TIFF with --dtype float32"
        )


def _clipped_at(info: ImageInfo, kind: OutputFormat, dtype: str) -> float | None:
    """Return the largest sample of a float image that `dtype`, the output's, holds; None if the image has it in use."""
    if not info.is_float or np.dtype(dtype).kind == "f":
        return None
    top = float(kind.light(info, dtype).curves[0].decode(np.ones(1))[0])
    return top if info.light.unit > top else None


def _recipe(analysis: Analysis, settings: Settings) -> Recipe:
    """Return the recipe; its source is empty until the run hashes the input."""
    info, tuning = analysis.info, analysis.tuning
    core = settings.tile or default_core(tuning.halo, info.height, info.width)
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
        white=stored_levels(info.light.white),
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


def _stage_model(info: ImageInfo, recipe: Recipe, psf: AnyPSF, writing: int, planning: int) -> StageModel:
    """Return the memory model of the run."""
    return StageModel(
        process=used_memory(),
        decoded=info.decoded_bytes,
        pixel=info.pixel_bytes,
        channels=info.colours,
        stored=recipe.planes,
        planning=planning,
        planes=0
        if recipe.solver == "identity"
        else workspace_planes(recipe.solved, spectra=recipe.parameters.keeps_spectra),
        extra=SELECTIVE_PLANES * bool(recipe.parameters.misfit_limit)
        + 3 * info.colours * recipe.luminance_only
        + recipe.solved
        + BOUNDING_PLANES
        + _field_planes(psf, recipe, info.pixel_bytes),
        writing=writing,
        kernels=len(psf.planes) if len(psf.components) == 1 else 0,
        band=SOURCE_CHUNK[0],
        columns=EXPORT_COLUMNS,
        chunk=RESULT_CHUNK[0] * RESULT_CHUNK[1],
    )


def _field_planes(psf: AnyPSF, recipe: Recipe, pixel_bytes: int) -> int:
    """Return the number of float32 planes of a frame that the tiles of a PSF field need besides: the kernels of a
    component and their transfer functions, the sum of the components restored so far, positions and a weight, and the
    samples of the image.
    """
    return 0 if len(psf.components) == 1 else 2 * len(psf.planes) + recipe.planes + 3 + -(-pixel_bytes // 4)
