"""Deconvolution of a dask array: one lazy task per tile and per chunk of the result."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from tilepipe.arrays.in_memory import apply_masks
from tilepipe.deconv.frames import Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import FloatArray
from tilepipe.image.light import Light
from tilepipe.image.linearise import FILL_WIDTH, start_and_data, whites
from tilepipe.psf.field import AnyPSF
from tilepipe.tiling.blend import blend
from tilepipe.tiling.components import Spectra, restore_tile
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["restore_lazily"]


def restore_lazily(
    planes: Any,
    light: Light,
    psf: AnyPSF,
    parameters: Parameters | None,
    grid: Grid,
    drawn: FloatArray | None = None,
    *,
    luminance_only: bool = False,
) -> Any:
    """Return the restored planes as a dask array.

    Every tile reads its frame from `planes`, independently of their chunks; a chunk of the result is blended from the
    up to nine tiles that touch it.

    Parameters
    ----------
    planes : dask array, shape (c, h, w)
        Linear light in the unit of `light`.
    light : Light
        Meaning of the samples.
    psf : PSF or PSFField
        The blur.
    parameters : Parameters or None
        Parameters of the solver; None returns the pixels unchanged.
    grid : Grid
        The tiles.
    drawn : ndarray of float32, shape (h, w), optional
        Drawn mask.
    luminance_only : bool, default False
        Restore the luminance only.

    Returns
    -------
    dask array of float32, shape (c, h, w)
        One chunk per core of `grid`, restored when it is computed.
    """
    if parameters is None:
        return planes.astype(np.float32)
    channels = planes.shape[0]
    extent = Box(0, grid.height, 0, grid.width)
    spectra = dask.delayed(Spectra, pure=True)(psf, grid)
    selective = int(bool(parameters.misfit_limit))
    restored = {}
    for row in range(grid.rows):
        for tile in grid.row_of_tiles(row):
            inside = tile.frame.intersection(extent)
            frame = planes[(slice(None), *inside.within(extent))]
            restored[tile.row, tile.column] = dask.delayed(_restore_tile)(
                frame, tile, inside, grid, light, spectra, parameters, luminance_only
            )

    def chunk(core: Box) -> Any:
        tiles = list(grid.touching(core))
        pieces = [restored[tile.row, tile.column] for tile in tiles]
        blended = dask.delayed(_blend_tiles)(grid, core, channels + selective, tiles, pieces)
        around = Box(core.y0 - FILL_WIDTH, core.y1 + FILL_WIDTH, core.x0 - FILL_WIDTH, core.x1 + FILL_WIDTH)
        around = around.intersection(extent)
        samples = planes[(slice(None), *around.within(extent))]
        mask = None if drawn is None else drawn[core.within(extent)]
        blended = dask.delayed(_apply_masks)(blended, samples, core.within(around), light, mask)
        return da.from_delayed(blended, (channels, *core.shape), np.float32)

    return da.block([[chunk(tile.core) for tile in grid.row_of_tiles(row)] for row in range(grid.rows)])


def _restore_tile(
    frame: FloatArray,
    tile: Tile,
    inside: Box,
    grid: Grid,
    light: Light,
    spectra: Spectra,
    parameters: Parameters,
    luminance_only: bool,
) -> FloatArray:
    frame = np.asarray(frame, np.float32)
    work = Workspace(1 if luminance_only else len(frame), grid.frame_shape)
    return restore_tile(
        work,
        tile,
        inside,
        lambda: start_and_data(frame, light),
        whites(light),
        spectra,
        parameters,
        luminance_only=luminance_only,
    )


def _blend_tiles(grid: Grid, core: Box, channels: int, tiles: list[Tile], pieces: list[FloatArray]) -> FloatArray:
    common = ((slice(None), *core.intersection(tile.stored).within(tile.stored)) for tile in tiles)
    cut = (piece[place] for piece, place in zip(pieces, common, strict=True))
    return blend(grid, core, channels, zip(tiles, cut, strict=True))


def _apply_masks(
    restored: FloatArray, samples: FloatArray, core: tuple[slice, slice], light: Light, drawn: FloatArray | None
) -> FloatArray:
    """Apply the masks to a chunk; `samples` is the image there with a margin from which unknown pixels are filled."""
    samples = np.asarray(samples, np.float32)
    start, known = (np.stack(planes) for planes in zip(*start_and_data(samples, light), strict=True))
    inside = (slice(None), *core)
    return apply_masks(samples[inside], restored, start[inside], known[inside], light, drawn)
