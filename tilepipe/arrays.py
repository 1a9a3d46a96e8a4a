"""Deconvolution of an array in memory: the tiles of the file path, without files."""

from __future__ import annotations

import os
import queue
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.locality import WINDOW
from tilepipe.deconv.parameters import SOLVERS, Parameters
from tilepipe.deconv.refocus import composite
from tilepipe.errors import SettingsError
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.linearise import fill
from tilepipe.image.sample import Sample
from tilepipe.penalties import LADDERS, Wishes, passes_through
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.settings import parse_priority
from tilepipe.tiling.blend import blend
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import SMALLEST_CORE, Box, Grid, Tile, default_core, has_seams
from tilepipe.tuning import check_psf_fits, tune

__all__ = ["deconvolve", "masked", "restore_planes"]

FloatArray = npt.NDArray[np.float32]


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
    tile: int | None = None,
    jobs: int | None = None,
) -> Any:
    """Take the blur `psf` out of `image`.

    Parameters
    ----------
    image : (H, W) or (H, W, C), any real dtype, linear light, 1.0 = white; numpy or dask.  NaN and Inf count as
        unknown and are filled in from around.
    psf : a PSF, its file, or a kernel (k, k), or (C, k, k) with one for each channel.  None is enough at priority -1.
    priority : -1 (noise taken off, nothing deblurred) .. 1 (sharper), or "denoise", "balanced", "deblur".
    quality : "fast", "normal" or "best": more steps, a better picture.
    solver : "tv", "sparse", "log", or "richardson-lucy" for counted light.
    tolerance : how long the steps go on, 0.25..4: more is sharper and slower.
    refocus : restore only where the picture is blurred; what is sharp comes back exactly.
    mask : (H, W), 0..1: 1 is restored, 0 comes back exactly; together with `refocus` their product counts.
    luminance_only : restore the luminance of three colours and change each by as much; a third of the time.
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
    pixels: Any = image if lazy else np.asarray(image, np.float32)
    if pixels.ndim not in (2, 3) or 0 in pixels.shape:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (H, W) or (H, W, C)")
    if tile is not None and tile < SMALLEST_CORE:
        raise SettingsError(f"tile is {tile} px; the smallest is {SMALLEST_CORE}")
    if quality not in LADDERS:
        raise SettingsError(f"quality is {quality!r}; it must be one of {', '.join(LADDERS)}")
    if solver not in SOLVERS:
        raise SettingsError(f"solver is {solver!r}; it must be one of {', '.join(SOLVERS)}")
    if not 0.25 <= tolerance <= 4:
        raise SettingsError(f"tolerance is {tolerance:g}; it must lie in 0.25..4")
    wishes = Wishes(parse_priority(priority), quality, solver, refocus, tolerance)
    blur = delta() if wishes.priority == -1 else _as_psf(psf)
    drawn = None if mask is None else _as_mask(mask, pixels.shape[:2])
    planes = pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    height, width = planes.shape[1:]
    check_psf_fits(blur, height, width, len(planes))
    seen = (np.asarray(planes[(slice(None), *window)], np.float32) for window in _windows(height, width))
    luminance_only = luminance_only and len(planes) == 3
    blur = blur.joint if luminance_only else blur
    sample = Sample(tuple(seen), Light((LINEAR,) * len(planes), "float32"), luminance_only)
    tuning = tune(sample, blur, wishes, None, seams=has_seams(height, width, tile))
    grid = Grid(height, width, tile or default_core(tuning.halo), tuning.halo)
    parameters = None if passes_through(blur, wishes.priority) else tuning.parameters
    if lazy:
        from tilepipe.lazy import restore_lazily

        restored = restore_lazily(planes, blur, parameters, grid, drawn, luminance_only=luminance_only)
        return restored[0] if pixels.ndim == 2 else np.moveaxis(restored, 0, -1)
    start = fill(np.ascontiguousarray(planes))
    if parameters is not None:
        known = np.where(np.isfinite(planes), planes, np.float32(np.nan))
        threads = jobs or os.cpu_count() or 1
        restored = restore_planes(start, known, blur, parameters, grid, threads, luminance_only=luminance_only)
        start = masked(restored, start, drawn)
    return np.ascontiguousarray(np.moveaxis(start, 0, -1)).reshape(pixels.shape)


def masked(restored: FloatArray, original: FloatArray, drawn: FloatArray | None) -> FloatArray:
    """Return the restored colours where the masks are 1, the `original` (c, h, w) where one is 0.

    `restored` may have the mask of a selective restoration as its last plane; `drawn` is (h, w).
    """
    colours, found = restored[: len(original)], restored[len(original) :]
    mask = np.prod([*found, *([] if drawn is None else [drawn])], axis=0, dtype=np.float32)
    return composite(colours, original, mask)


def restore_planes(
    start: FloatArray,
    known: FloatArray,
    psf: PSF,
    parameters: Parameters,
    grid: Grid,
    jobs: int = 1,
    *,
    luminance_only: bool = False,
) -> FloatArray:
    """Restore planes (c, h, w) tile by tile on `jobs` threads and blend; `known` is NaN where unknown.

    A selective restoration's mask is one plane more.
    """
    spectrum = Spectrum.of(psf.planes, grid.frame_shape)
    restore = restore_luminance if luminance_only else restore_in_frame
    idle: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    for _ in range(min(jobs, grid.tiles)):
        idle.put(Workspace(1 if luminance_only else len(start), grid.frame_shape))
    picture = Box(0, grid.height, 0, grid.width)

    def one(tile: Tile) -> tuple[Tile, FloatArray]:
        inside = tile.frame.intersection(picture)
        place = (slice(None), *inside.within(picture))
        work = idle.get()
        try:
            planes = zip(start[place], known[place], strict=True)
            return tile, restore(work, tile, inside, planes, spectrum, parameters)
        finally:
            idle.put(work)

    with ThreadPoolExecutor(jobs) as pool:
        pieces = pool.map(one, grid.touching(picture))
        return blend(grid, picture, len(start) + bool(parameters.unexplained), pieces)


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
