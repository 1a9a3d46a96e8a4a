"""Deconvolution of numpy and dask arrays, with the same tiles as for files but without a cache."""

from __future__ import annotations

import math
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
from tilepipe.planning.tuning import check_psf_fits, rim, tune
from tilepipe.psf.field import AnyPSF, PSFField, load_psf
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.settings import parse_priority
from tilepipe.tiling.grid import SMALLEST_CORE, Grid, default_core, has_seams

__all__ = ["deconvolve"]

MOST_COLOURS = 4
"""Largest length of the last axis that is treated as colours."""


def deconvolve(
    image: npt.ArrayLike,
    psf: AnyPSF | str | Path | npt.ArrayLike | None,
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
    """Deconvolve `image` with the point-spread function `psf`.

    Noise is measured in the image and the parameters of the solver are derived from it.  The image is restored in
    overlapping tiles, and the result scales with the image: a multiple of `image` gives that multiple of the result.

    Parameters
    ----------
    image : array_like of any real dtype, shape (H, W) or (H, W, C)
        Image in linear light, in any unit, with up to 4 colours in the last axis; a numpy or dask array.  NaN, Inf,
        masked elements (``numpy.ma``) and `nodata` are unknown to the solver and returned unchanged.
    psf : PSF, PSFField, str, Path or array_like, shape (k, k) or (C, k, k)
        The blur: a PSF, a PSF file, or a kernel, for all channels or one for each.  May be None if `priority` is -1.
    priority : float or {"denoise", "balanced", "deblur"}, default 0.0
        From -1 (denoising without deblurring) to 1 (sharper, noisier).
    quality : {"fast", "normal", "best"}, default "normal"
        Number of iterations: more take longer and restore better.
    solver : {"tv", "sparse", "log", "richardson-lucy"}, default "tv"
        Prior of the restoration; "richardson-lucy" is for photon counts.
    tolerance : float, default 1.0
        Scales how long the iterations run, 0.25 to 4: more tolerance is more sharpness, and slower.
    refocus : bool, default False
        Restore only blurred regions; sharp regions are returned unchanged.
    mask : array_like, shape (H, W), optional
        Weight of the restored image, 0 to 1; pixels with 0 are returned unchanged.  With `refocus`, both masks are
        multiplied.
    luminance_only : bool, default False
        Restore the luminance of three colours and apply its change to each of them; takes a third of the time.
    white : float, optional
        Value from which samples are clipped; clipped samples are returned at least as bright.  By default it is
        detected as a value that many samples share.
    nodata : float, optional
        Value of pixels that are not part of the image.
    stack : bool, default False
        Treat `image` as a stack (Z, H, W) and restore every plane independently.
    tile : int, optional
        Largest core edge of a tile (without its halo), px, at least 64.  By default, a frame of 1152 px minus halos.
    jobs : int, optional
        Number of threads, by default one per core.  Ignored for dask arrays.

    Returns
    -------
    ndarray, MaskedArray or dask array of float32, shape of `image`
        The restored image.  For numpy, memory for three copies of the image and one workspace per thread is needed.
        For dask, the result has one chunk per tile and is computed lazily; only a few windows of `image` are computed
        immediately, to derive the parameters.

    Raises
    ------
    SettingsError
        If the shape of `image` is not supported, or a parameter is out of range.
    PsfError
        If the PSF is not valid, or larger than the image.

    See Also
    --------
    tilepipe.estimate_psf : Estimate the PSF from a blurred image.
    tilepipe.plan : Plan the restoration of an image file.

    Examples
    --------
    Blur a bright square with a 5 x 5 box, add noise, and restore it:

    >>> import numpy as np
    >>> import scipy.ndimage
    >>> import tilepipe
    >>> sharp = np.full((96, 96), 0.2, dtype=np.float32)
    >>> sharp[32:64, 32:64] = 0.8
    >>> kernel = np.full((5, 5), 1 / 25)
    >>> noise = np.random.default_rng(0).normal(0, 0.005, sharp.shape)
    >>> blurred = scipy.ndimage.convolve(sharp, kernel) + noise
    >>> restored = tilepipe.deconvolve(blurred, kernel)
    >>> restored.shape, restored.dtype
    ((96, 96), dtype('float32'))
    >>> bool(np.std(restored - sharp) < np.std(blurred - sharp) / 2)
    True
    """
    lazy = type(image).__module__.startswith("dask.")
    is_masked = np.ma.getmaskarray(image) if isinstance(image, np.ma.MaskedArray) else None
    pixels: Any = image if lazy else np.array(np.ma.getdata(image), np.float32)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (H, W) or (H, W, C)")
    if any(math.isnan(length) for length in pixels.shape):
        raise SettingsError(
            f"image has shape {pixels.shape}: the chunks of the dask array have unknown sizes; call its method "
            "compute_chunk_sizes() first"
        )
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
        # `image` has three dimensions here and can be indexed, although its type is any array-like
        planes = [deconvolve(image[z], psf, priority, **keywords) for z in range(pixels.shape[0])]  # type: ignore[index]
        if lazy:
            import dask.array as da

            return da.stack(planes)
        return np.ma.stack(planes) if is_masked is not None else np.stack(planes)
    if pixels.ndim == 3 and pixels.shape[2] > MOST_COLOURS:
        raise SettingsError(
            f"image has shape {pixels.shape}: {pixels.shape[2]} colours in the last axis, at most {MOST_COLOURS} "
            "are supported; pass stack=True for (Z, H, W), or move the colours to the last axis"
        )
    if tile is not None and tile < SMALLEST_CORE:
        raise SettingsError(f"tile is {tile} px; it must be at least {SMALLEST_CORE}")
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
    if is_masked is not None:
        pixels = np.where(is_masked, np.float32(np.nan), pixels)
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    height, width = planes.shape[1:]
    check_psf_fits(blur, height, width, len(planes))
    places = _windows(height, width)
    windows = [np.asarray(planes[(slice(None), *window)], np.float32) for window in places]
    light = _light_of(planes, windows, white, nodata)
    luminance_only = luminance_only and len(planes) == 3
    blur = blur.joint if luminance_only else blur
    centres = tuple(((y.start + min(y.stop, height)) // 2, (x.start + min(x.stop, width)) // 2) for y, x in places)
    sample = Sample(tuple(windows), light, centres, (height, width), luminance_only)
    tuning = tune(sample, blur, options, None, seams=has_seams(height, width, tile, rim(blur)))
    grid = Grid(height, width, tile or default_core(tuning.halo, height, width), tuning.halo)
    parameters = None if passes_through(blur, options.priority) else tuning.parameters
    if lazy:
        from tilepipe.arrays.lazy import restore_lazily

        restored = restore_lazily(planes, light, blur, parameters, grid, drawn, luminance_only=luminance_only)
        return restored[0] if pixels.ndim == 2 else np.moveaxis(restored, 0, -1)
    if parameters is None:
        restored = planes
    else:
        restored = restore_array(
            np.ascontiguousarray(planes), light, blur, parameters, grid, drawn, jobs, luminance_only=luminance_only
        )
    out = np.ascontiguousarray(np.moveaxis(restored, 0, -1)).reshape(pixels.shape)
    if is_masked is None:
        return out
    # `image` is a masked array here; numpy.ma has no types by which mypy could infer it
    return np.ma.masked_array(np.where(is_masked, original, out), mask=is_masked.copy(), fill_value=image.fill_value)  # type: ignore[union-attr]


def _light_of(planes: Any, windows: list[FloatArray], white: float | None, nodata: float | None) -> Light:
    """Return the light of an array (c, h, w): white and unit; of a dask array, only `windows` are read."""
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
        raise SettingsError(f"mask has shape {drawn.shape}, the image {tuple(shape)}: they must be equal")
    return np.clip(np.nan_to_num(drawn), 0, 1)


def _as_psf(psf: Any) -> AnyPSF:
    if psf is None:
        raise SettingsError("psf is None: a PSF is required unless priority is -1 (denoise)")
    if isinstance(psf, (PSF, PSFField)):
        return psf
    return load_psf(psf) if isinstance(psf, (str, Path)) else PSF(np.asarray(psf))


def _windows(height: int, width: int) -> list[tuple[slice, slice]]:
    """Return distinct windows along the diagonal of the image, with edges of up to ``WINDOW`` px."""
    places = {
        (round((height - min(WINDOW, height)) * share), round((width - min(WINDOW, width)) * share))
        for share in (0.2, 0.5, 0.8)
    }
    return [(slice(y, y + WINDOW), slice(x, x + WINDOW)) for y, x in sorted(places)]
