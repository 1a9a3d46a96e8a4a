"""Blending of overlapping tiles into one image.

Along each axis a tile has weight 1, rising or falling as a raised cosine across the overlap with its neighbour: where
one has weight r, the other has 1 - r.  A pixel's weights are products over the axes, so they sum to 1 at every pixel,
corners included, in any order of summation.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tilepipe.dtypes import FloatArray
from tilepipe.tiling.grid import OVERLAP, Box, Grid, Tile

__all__ = ["axis_weights", "blend"]


def _rise() -> FloatArray:
    return (0.5 - 0.5 * np.cos(np.pi * (np.arange(OVERLAP) + 0.5) / OVERLAP)).astype(np.float32)


def axis_weights(length: int, *, first: bool, last: bool) -> FloatArray:
    """Return the weights (length,) of a stored box along one axis; a `first` or `last` box ends at the border."""
    weights = np.ones(length, np.float32)
    if not first:
        weights[:OVERLAP] = _rise()
    if not last:
        weights[-OVERLAP:] = np.float32(1) - _rise()
    return weights


def blend(grid: Grid, box: Box, channels: int, tiles: Iterable[tuple[Tile, FloatArray]]) -> FloatArray:
    """Return the image inside `box`, blended from the tiles that touch it.

    Parameters
    ----------
    grid : Grid
        Grid of the tiles.
    box : Box
        Part of the image to compute.
    channels : int
        Number of channels.
    tiles : iterable of (Tile, ndarray of float32, shape (channels, h, w))
        Every tile of ``grid.touching(box)``, in that order, with the restored pixels of its stored box inside `box`.

    Returns
    -------
    ndarray of float32, shape (channels, h, w)
        Pixels of `box`.
    """
    out = np.zeros((channels, *box.shape), np.float32)
    for tile, pixels in tiles:
        height, width = tile.stored.shape
        weights_y = axis_weights(height, first=tile.row == 0, last=tile.row == grid.rows - 1)
        weights_x = axis_weights(width, first=tile.column == 0, last=tile.column == grid.columns - 1)
        common = box.intersection(tile.stored)
        source_y, source_x = common.within(tile.stored)
        weights = weights_y[source_y, None] * weights_x[None, source_x]
        out[(slice(None), *common.within(box))] += weights * pixels
    return out
