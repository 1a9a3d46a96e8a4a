"""Deconvolution of a dask array: a task for each tile, a task for each chunk of the result, nothing computed before."""

from __future__ import annotations

from typing import Any

import dask
import dask.array as da
import numpy as np

from tilepipe.arrays.in_memory import in_units_of, masked
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import FloatArray
from tilepipe.image.light import Light
from tilepipe.image.linearise import FILL_WIDTH, start_and_data, whites
from tilepipe.psf.model import PSF
from tilepipe.tiling.blend import blend
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["restore_lazily"]


def restore_lazily(
    planes: Any,
    light: Light,
    psf: PSF,
    parameters: Parameters | None,
    grid: Grid,
    drawn: FloatArray | None = None,
    *,
    luminance_only: bool = False,
) -> Any:
    """Return (c, h, w) as a dask array of one chunk a core of `grid`, restored when it is computed.

    Every tile reads its own frame from `planes`, whatever the chunks there; a chunk of the result is blended from the
    up to nine tiles that touch it.

    Parameters
    ----------
    planes : dask array (c, h, w), linear light.
    light : what its samples mean.
    parameters : None passes pixels through.
    drawn : mask (h, w).
    """
    if parameters is None:
        return planes.astype(np.float32)
    channels = planes.shape[0]
    picture = Box(0, grid.height, 0, grid.width)
    spectrum = dask.delayed(Spectrum.of, pure=True)(psf.planes, grid.frame_shape)
    selective = int(bool(parameters.misfit_limit))
    restored = {}
    for row in range(grid.rows):
        for tile in grid.row_of_tiles(row):
            inside = tile.frame.intersection(picture)
            frame = planes[(slice(None), *inside.within(picture))]
            restored[tile.row, tile.column] = dask.delayed(_restored)(
                frame, tile, inside, grid, light, spectrum, parameters, luminance_only
            )

    def chunk(core: Box) -> Any:
        tiles = list(grid.touching(core))
        pieces = [restored[tile.row, tile.column] for tile in tiles]
        blended = dask.delayed(_blended)(grid, core, channels + selective, tiles, pieces)
        around = Box(core.y0 - FILL_WIDTH, core.y1 + FILL_WIDTH, core.x0 - FILL_WIDTH, core.x1 + FILL_WIDTH)
        around = around.intersection(picture)
        seen = planes[(slice(None), *around.within(picture))]
        share = None if drawn is None else drawn[core.within(picture)]
        blended = dask.delayed(_finished)(blended, seen, core.within(around), light, share)
        return da.from_delayed(blended, (channels, *core.shape), np.float32)

    return da.block([[chunk(tile.core) for tile in grid.row_of_tiles(row)] for row in range(grid.rows)])


def _restored(
    frame: FloatArray,
    tile: Tile,
    inside: Box,
    grid: Grid,
    light: Light,
    spectrum: Spectrum,
    parameters: Parameters,
    luminance_only: bool,
) -> FloatArray:
    frame = np.asarray(frame, np.float32)
    work = Workspace(1 if luminance_only else len(frame), grid.frame_shape)
    restore = restore_luminance if luminance_only else restore_in_frame
    return restore(work, tile, inside, start_and_data(frame, light), whites(light), spectrum, parameters)


def _blended(grid: Grid, core: Box, channels: int, tiles: list[Tile], pieces: list[FloatArray]) -> FloatArray:
    common = ((slice(None), *core.intersection(tile.stored).within(tile.stored)) for tile in tiles)
    cut = (piece[place] for piece, place in zip(pieces, common, strict=True))
    return blend(grid, core, channels, zip(tiles, cut, strict=True))


def _finished(
    restored: FloatArray, seen: FloatArray, core: tuple[slice, slice], light: Light, drawn: FloatArray | None
) -> FloatArray:
    """Apply the masks to a chunk; `seen` is the picture there and a little around it, for what is unknown."""
    seen = np.asarray(seen, np.float32)
    start = np.stack([plane for plane, _ in start_and_data(seen, light)])
    inside = (slice(None), *core)
    return in_units_of(seen[inside], masked(restored, start[inside], drawn), light, drawn)
