"""Weights under which overlapping tiles add up to one picture.

Along each axis a tile weighs 1, and rises or falls with a raised cosine across the overlap with its
neighbour; where one rises by r, the other falls to 1 - r.  The weights of a pixel are products over the
axes, so they add up to 1 at every pixel, corners included, whatever the order of summation.
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
    """Return the weights (length,) of a stored box along one axis; `first`, `last`: it ends at the border."""
    weights = np.ones(length, np.float32)
    if not first:
        weights[:OVERLAP] = _rise()
    if not last:
        weights[-OVERLAP:] = np.float32(1) - _rise()
    return weights


def blend(grid: Grid, box: Box, channels: int, tiles: Iterable[tuple[Tile, FloatArray]]) -> FloatArray:
    """Return the picture inside `box` from the tiles that touch it.

    Parameters
    ----------
    grid, box, channels : what is wanted, from which grid.
    tiles : every tile of ``grid.touching(box)``, in that order, with what of its stored box lies in `box`, restored,
        float32 (c, h, w).

    Returns
    -------
    float32 (channels, h, w) of the box's shape.
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
