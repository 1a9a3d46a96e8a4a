"""Restoration of planes in memory: tile by tile on threads, blended, masks and units applied."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.refocus import composite
from tilepipe.dtypes import FloatArray
from tilepipe.image.light import Light
from tilepipe.image.linearise import hidden as hidden_pixels
from tilepipe.image.linearise import start_and_data, whites
from tilepipe.psf.model import PSF
from tilepipe.tiling.blend import blend
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["in_units_of", "masked", "restore_array", "restore_planes"]


def restore_array(
    planes: FloatArray,
    light: Light,
    psf: PSF,
    parameters: Parameters,
    grid: Grid,
    drawn: FloatArray | None = None,
    jobs: int | None = None,
    *,
    luminance_only: bool = False,
) -> FloatArray:
    """Restore planes (c, h, w) of linear light; what is unknown comes back as it is, float32 (c, h, w)."""
    start, known = (np.stack(parts) for parts in zip(*start_and_data(planes, light), strict=True))
    threads = jobs or os.cpu_count() or 1
    restored = restore_planes(
        start, known, whites(light), psf, parameters, grid, threads, luminance_only=luminance_only
    )
    return in_units_of(planes, masked(restored, start, drawn), light, drawn)


def in_units_of(samples: FloatArray, restored: FloatArray, light: Light, drawn: FloatArray | None = None) -> FloatArray:
    """Return `restored` (c, h, w) in the units of `samples`, which stand where nothing is known or `drawn` is 0."""
    out = restored * np.float32(light.unit)
    kept = ~np.isfinite(samples)
    outside = hidden_pixels(samples, light)
    if outside is not None:
        kept |= outside
    if drawn is not None:
        kept |= drawn == 0
    return np.where(kept, samples, out)


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
    white: Sequence[float],
    psf: PSF,
    parameters: Parameters,
    grid: Grid,
    jobs: int = 1,
    *,
    luminance_only: bool = False,
) -> FloatArray:
    """Restore planes (c, h, w) tile by tile on `jobs` threads and blend.

    `known` is NaN where unknown, +inf where clipped; `white` is what a clipped sample of each channel is at least.

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
            return tile, restore(work, tile, inside, planes, white, spectrum, parameters)
        finally:
            idle.put(work)

    with ThreadPoolExecutor(jobs) as pool:
        pieces = pool.map(one, grid.touching(picture))
        return blend(grid, picture, len(start) + bool(parameters.misfit_limit), pieces)
