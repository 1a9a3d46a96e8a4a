"""Deconvolution of an array in memory: the tiles of the file path, without files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.arrays.in_memory import restore_array
from tilepipe.deconv.parameters import SOLVERS
from tilepipe.dtypes import FloatArray
from tilepipe.errors import SettingsError
from tilepipe.image.levels import find_unit, find_white
from tilepipe.image.light import LINEAR, Light
from tilepipe.planning.sample import Sample
from tilepipe.planning.schedules import SCHEDULES, RestorationOptions, passes_through
from tilepipe.planning.seam_error import WINDOW
from tilepipe.planning.tuning import check_psf_fits, tune
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.settings import parse_priority
from tilepipe.tiling.grid import SMALLEST_CORE, Grid, default_core, has_seams

__all__ = ["deconvolve"]

MOST_COLOURS = 4
"""Channels of an array that are taken for colours."""


def deconvolve(
    image: npt.ArrayLike,
    psf: PSF | str | Path | npt.ArrayLike | None,
    priority: float | str = 0.0,
    *,
    quality: str = "normal",
    solver: str = "tv",
    tolerance: float = 1.0,
    refocus: bool = False,
    mask: npt.ArrayLike | None = None,
    luminance_only: bool = False,
    white: float | None = None,
    nodata: float | None = None,
    stack: bool = False,
    tile: int | None = None,
    jobs: int | None = None,
) -> Any:
    """Take the blur `psf` out of `image`.

    A multiple of a picture comes out as that multiple of the result.

    Parameters
    ----------
    image : (H, W) or (H, W, C) with C up to 4, any real dtype, linear light in any unit; numpy or dask.  NaN, Inf,
        masked elements (``numpy.ma``) and `nodata` are unknown to the solver and come back as they are.
    psf : a PSF, its file, or a kernel (k, k), or (C, k, k) with one for each channel.  None is enough at priority -1.
    priority : -1 (noise taken off, nothing deblurred) .. 1 (sharper), or "denoise", "balanced", "deblur".
    quality : "fast", "normal" or "best": more steps, a better picture.
    solver : "tv", "sparse", "log", or "richardson-lucy" for counted light.
    tolerance : how long the steps go on, 0.25..4: more is sharper and slower.
    refocus : restore only where the picture is blurred; what is sharp comes back exactly.
    mask : (H, W), 0..1: 1 is restored, 0 comes back exactly; together with `refocus` their product counts.
    luminance_only : restore the luminance of three colours and change each by as much; a third of the time.
    white : value from which samples are clipped: they come back as bright at least.  None: where many share it.
    nodata : value of pixels that are not part of the picture.
    stack : `image` is (Z, H, W): every plane is restored by itself.
    tile : largest core edge, px, at least 64; by default what a frame of 1152 px leaves beside the halos.
    jobs : threads; by default one a core.

    Returns
    -------
    float32, the shape of `image`.  numpy: memory for the picture three times, and a workspace a thread.  dask: a dask
    array with a chunk a tile, computed when it is asked for; only some windows are computed at once, to measure.

    Raises
    ------
    SettingsError : `image` is not a picture, or a setting is out of range.
    PsfError : the PSF cannot be used, or is larger than the picture.
    """
    lazy = type(image).__module__.startswith("dask.")
    hidden = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    pixels: Any = image if lazy else np.array(np.ma.getdata(image), np.float32)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (H, W) or (H, W, C)")
    keywords: dict[str, Any] = {
        "quality": quality,
        "solver": solver,
        "tolerance": tolerance,
        "refocus": refocus,
        "mask": mask,
        "white": white,
        "nodata": nodata,
        "tile": tile,
        "jobs": jobs,
    }
    if stack:
        if pixels.ndim != 3:
            raise SettingsError(f"image has shape {pixels.shape}; a stack must be (Z, H, W)")
        # "image" has three dimensions here, so it can be indexed; its type is any array-like
        planes = [deconvolve(image[z], psf, priority, **keywords) for z in range(pixels.shape[0])]  # type: ignore[index]
        if lazy:
            import dask.array as da

            return da.stack(planes)
        return np.ma.stack(planes) if hidden is not None else np.stack(planes)
    if pixels.ndim == 3 and pixels.shape[2] > MOST_COLOURS:
        raise SettingsError(
            f"image has shape {pixels.shape}: {pixels.shape[2]} colours in the last axis, at most {MOST_COLOURS} "
            "are taken; give stack=True for (Z, H, W), every plane by itself, or move the colours to the end"
        )
    if tile is not None and tile < SMALLEST_CORE:
        raise SettingsError(f"tile is {tile} px; the smallest is {SMALLEST_CORE}")
    if quality not in SCHEDULES:
        raise SettingsError(f"quality is {quality!r}; it must be one of {', '.join(SCHEDULES)}")
    if solver not in SOLVERS:
        raise SettingsError(f"solver is {solver!r}; it must be one of {', '.join(SOLVERS)}")
    if not 0.25 <= tolerance <= 4:
        raise SettingsError(f"tolerance is {tolerance:g}; it must lie in 0.25..4")
    options = RestorationOptions(parse_priority(priority), quality, solver, refocus, tolerance)
    blur = delta() if options.priority == -1 else _as_psf(psf)
    drawn = None if mask is None else _as_mask(mask, pixels.shape[:2])
    original = pixels
    if hidden is not None:
        pixels = np.where(hidden, np.float32(np.nan), pixels)
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    height, width = planes.shape[1:]
    check_psf_fits(blur, height, width, len(planes))
    seen = [np.asarray(planes[(slice(None), *window)], np.float32) for window in _windows(height, width)]
    light = _light_of(planes, seen, white, nodata)
    luminance_only = luminance_only and len(planes) == 3
    blur = blur.joint if luminance_only else blur
    sample = Sample(tuple(seen), light, luminance_only)
    tuning = tune(sample, blur, options, None, seams=has_seams(height, width, tile))
    grid = Grid(height, width, tile or default_core(tuning.halo), tuning.halo)
    parameters = None if passes_through(blur, options.priority) else tuning.parameters
    if lazy:
        from tilepipe.arrays.lazy import restore_lazily

        restored = restore_lazily(planes, light, blur, parameters, grid, drawn, luminance_only=luminance_only)
        return restored[0] if pixels.ndim == 2 else np.moveaxis(restored, 0, -1)
    if parameters is None:
        return image.copy() if isinstance(image, np.ma.MaskedArray) else original.copy()
    restored = restore_array(
        np.ascontiguousarray(planes), light, blur, parameters, grid, drawn, jobs, luminance_only=luminance_only
    )
    out = np.ascontiguousarray(np.moveaxis(restored, 0, -1)).reshape(pixels.shape)
    if hidden is None:
        return out
    # only a masked array comes here, which mypy cannot see: numpy.ma has no types for the test
    return np.ma.masked_array(np.where(hidden, original, out), mask=hidden.copy(), fill_value=image.fill_value)  # type: ignore[union-attr]


def _light_of(planes: Any, windows: list[FloatArray], white: float | None, nodata: float | None) -> Light:
    """Return what the samples of an array (c, h, w) mean; of a dask array only `windows` are looked at."""
    light = Light((LINEAR,) * len(planes), "float32", nodata=nodata)
    if white is not None:
        if not white > 0:
            raise SettingsError(f"white is {white:g}; it must be above 0")
        light = replace(light, white=(float(white),) * len(planes))
    else:
        pieces = [planes] if isinstance(planes, np.ndarray) else windows
        light = replace(light, white=find_white(iter(pieces), light))
    return replace(light, unit=find_unit(windows, light))


def _as_mask(mask: npt.ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    drawn = np.asarray(mask, np.float32)
    if drawn.shape != tuple(shape):
        raise SettingsError(f"mask has shape {drawn.shape}, the image {tuple(shape)}: they must be of one size")
    return np.clip(np.nan_to_num(drawn), 0, 1)


def _as_psf(psf: Any) -> PSF:
    if psf is None:
        raise SettingsError("psf is None: without a PSF only priority -1 (denoise) can be done")
    if isinstance(psf, PSF):
        return psf
    return PSF.load(psf) if isinstance(psf, (str, Path)) else PSF(np.asarray(psf))


def _windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return windows along the diagonal of the picture, up to ``WINDOW`` px an edge; equal ones once."""
    places = {
        (round((height - min(WINDOW, height)) * share), round((width - min(WINDOW, width)) * share))
        for share in (0.2, 0.5, 0.8)
    }
    return [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y, x in sorted(places)]
