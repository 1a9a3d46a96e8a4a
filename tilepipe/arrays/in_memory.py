"""Restoration of planes in memory: restore tiles on threads, blend them, apply masks and units."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tilepipe.deconv.frames import Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.refocus import composite
from tilepipe.dtypes import FloatArray
from tilepipe.image.light import Light
from tilepipe.image.linearise import hidden as hidden_pixels
from tilepipe.image.linearise import start_and_data, whites
from tilepipe.psf.field import AnyPSF
from tilepipe.tiling.blend import blend
from tilepipe.tiling.components import Spectra, restore_tile
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["apply_masks", "restore_array", "restore_planes"]


def restore_array(
    planes: FloatArray,
    light: Light,
    psf: AnyPSF,
    parameters: Parameters,
    grid: Grid,
    drawn: FloatArray | None = None,
    jobs: int | None = None,
    *,
    luminance_only: bool = False,
) -> FloatArray:
    """Restore planes of linear light; unknown samples are returned unchanged.

    Parameters
    ----------
    planes : ndarray of float32, shape (c, h, w)
        Linear light in the unit of `light`.
    light : Light
        Meaning of the samples.
    psf : PSF or PSFField
        The blur.
    parameters : Parameters
        Parameters of the solver.
    grid : Grid
        The tiles.
    drawn : ndarray of float32, shape (h, w), optional
        Drawn mask.
    jobs : int, optional
        Number of threads, by default one per core.
    luminance_only : bool, default False
        Restore the luminance only.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        The restored planes, in the units of `planes`.
    """
    start, known = (np.stack(parts) for parts in zip(*start_and_data(planes, light), strict=True))
    threads = jobs or os.cpu_count() or 1
    restored = restore_planes(
        start, known, whites(light), psf, parameters, grid, threads, luminance_only=luminance_only
    )
    return apply_masks(planes, restored, start, known, light, drawn)


def apply_masks(
    samples: FloatArray,
    restored: FloatArray,
    start: FloatArray,
    known: FloatArray,
    light: Light,
    drawn: FloatArray | None = None,
) -> FloatArray:
    """Return the restored colours where all masks are 1, and the samples, bit by bit, where one of them is 0.

    Clipped samples are returned at least as bright as they were.

    Parameters
    ----------
    samples : ndarray of float32, shape (c, h, w)
        The input; unknown samples are kept as well.
    restored : ndarray of float32, shape (c, h, w) or (c + 1, h, w)
        The restored planes in working units; the last one may be the mask of a selective restoration.
    start : ndarray of float32, shape (c, h, w)
        The input in working units.
    known : ndarray of float32, shape (c, h, w)
        The same, NaN where unknown, +inf where clipped.
    light : Light
        Meaning of the samples.
    drawn : ndarray of float32, shape (h, w), optional
        Drawn mask.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        In the units of `samples`.
    """
    colours, found = restored[: len(start)], restored[len(start) :]
    mask = np.prod([*found, *([] if drawn is None else [drawn])], axis=0, dtype=np.float32)
    kept = ~np.isfinite(samples) | (mask == 0)  # undoing the unit may change the last bit
    outside = hidden_pixels(samples, light)
    if outside is not None:
        kept |= outside
    out = composite(colours, start, mask) * np.float32(light.unit)
    np.maximum(out, samples, out=out, where=np.isposinf(known))
    return np.where(kept, samples, out)


def restore_planes(
    start: FloatArray,
    known: FloatArray,
    white: Sequence[float],
    psf: AnyPSF,
    parameters: Parameters,
    grid: Grid,
    jobs: int = 1,
    *,
    luminance_only: bool = False,
) -> FloatArray:
    """Restore planes tile by tile and blend the tiles.

    Parameters
    ----------
    start : ndarray of float32, shape (c, h, w)
        Start of the solver.
    known : ndarray of float32, shape (c, h, w)
        Data: NaN where unknown, +inf where clipped.
    white : sequence of float
        Lower bound of a clipped sample, for each channel.
    psf : PSF or PSFField
        The blur.
    parameters : Parameters
        Parameters of the solver.
    grid : Grid
        The tiles.
    jobs : int, default 1
        Number of threads.
    luminance_only : bool, default False
        Restore the luminance only.

    Returns
    -------
    ndarray of float32, shape (c, h, w) or (c + 1, h, w)
        The restored planes, and the mask of a selective restoration.
    """
    spectra = Spectra(psf, grid)
    idle: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    for _ in range(min(jobs, grid.tiles)):
        idle.put(Workspace(1 if luminance_only else len(start), grid.frame_shape))
    extent = Box(0, grid.height, 0, grid.width)

    def restore_one(tile: Tile) -> tuple[Tile, FloatArray]:
        inside = tile.frame.intersection(extent)
        place = (slice(None), *inside.within(extent))
        work = idle.get()
        try:
            return tile, restore_tile(
                work,
                tile,
                inside,
                lambda: zip(start[place], known[place], strict=True),
                white,
                spectra,
                parameters,
                luminance_only=luminance_only,
            )
        finally:
            idle.put(work)

    with ThreadPoolExecutor(jobs) as pool:
        pieces = pool.map(restore_one, grid.touching(extent))
        return blend(grid, extent, len(start) + bool(parameters.misfit_limit), pieces)
