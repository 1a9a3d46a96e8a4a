"""Ranking of windows for blur estimation: edges in all directions, in focus, unclipped, texture rather than noise.

The image is read once, in bands; a few sums per block of 32 px are stored (some bytes per thousand pixels).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.system.jit import kernel

__all__ = ["BLOCK", "WindowRanking"]

Array = Any

BLOCK = 32
"""Size of the blocks over which differences are summed, px."""

REACH = 3
"""Distance of the differences that measure edges, px: blurred edges are wide, noise does not depend on distance."""

FLOOR_SHARE = 0.05
"""Quantile of the block means of differences that is treated as the noise level."""

CLIPPED_POWER = 40
"""Exponent of the usable share in a window's worth: 2 % clipped pixels more than halve it."""


class WindowRanking:
    """Collects block statistics of an image band by band and returns its best windows.

    Parameters
    ----------
    height, width : int
        Size of the image, px.
    """

    def __init__(self, height: int, width: int) -> None:
        self.shape = height, width
        rows, columns = -(-height // BLOCK), -(-width // BLOCK)
        self._edges = np.zeros((4, rows, columns))
        self._fine = np.zeros((rows, columns))
        self._unusable = np.zeros((rows, columns))
        self._pixels = np.zeros((rows, columns))

    def add(self, top: int, luminance: FloatArray) -> None:
        """Add the rows starting at `top`.

        Parameters
        ----------
        top : int
            First row, px; a multiple of BLOCK.
        luminance : ndarray of float32, shape (rows, width)
            Linear light; NaN where clipped or not finite.
        """
        _sum_blocks(luminance, top // BLOCK, self._edges, self._fine, self._unusable, self._pixels)

    def best(self, count: int, size: int) -> list[tuple[int, int, int, int]]:
        """Return up to `count` windows (y0, y1, x0, x1), best first, that overlap by less than a quarter.

        A window's worth is the geometric mean of the edges in its weakest direction and in all directions, times the
        square root of the ratio of fine to coarse differences (focus), times a power of the unclipped share.

        Parameters
        ----------
        count : int
            Largest number of windows.
        size : int
            Size of the windows, px; limited to the size of the image.
        """
        height, width = (min(size, length) for length in self.shape)
        spans = max(1, height // BLOCK), max(1, width // BLOCK)
        pixels = np.maximum(_box(self._pixels, spans), 1)
        edges = np.stack([_box(_above_floor(plane, self._pixels), spans) for plane in self._edges]) / pixels
        fine = _box(_above_floor(self._fine, self._pixels), spans) / pixels
        usable = 1 - _box(self._unusable, spans) / np.maximum(_box(self._unusable + self._pixels, spans), 1)
        mean = edges.mean(0)
        worth = np.sqrt(edges.min(0) * mean) * np.sqrt(fine / np.maximum(mean, 1e-12)) * usable**CLIPPED_POWER
        selected: list[tuple[int, int, int, int]] = []
        for at in np.argsort(-worth, axis=None, kind="stable"):
            row, column = np.unravel_index(int(at), worth.shape)
            y0, x0 = min(int(row) * BLOCK, self.shape[0] - height), min(int(column) * BLOCK, self.shape[1] - width)
            window = (y0, y0 + height, x0, x0 + width)
            if selected and worth[row, column] <= 0.1 * worth.max():
                break
            if all(_overlap(window, other) < 0.25 * height * width for other in selected):
                selected.append(window)
            if len(selected) == count:
                break
        return selected


def _above_floor(sums: DoubleArray, pixels: DoubleArray) -> DoubleArray:
    """Return block sums minus the contribution of noise, estimated from the blocks with the smallest differences."""
    has_data = pixels > 0
    if not has_data.any():
        return sums
    floor = float(np.quantile(sums[has_data] / pixels[has_data], FLOOR_SHARE))
    return np.maximum(sums - floor * pixels, 0)


def _box(blocks: DoubleArray, spans: tuple[int, int]) -> DoubleArray:
    """Return the sums over all boxes of `spans` (rows, columns) blocks."""
    total = np.pad(blocks.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = spans
    boxes: DoubleArray = (
        total[rows:, columns:] - total[:-rows, columns:] - total[rows:, :-columns] + total[:-rows, :-columns]
    )
    return boxes


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> int:
    height = min(one[1], other[1]) - max(one[0], other[0])
    width = min(one[3], other[3]) - max(one[2], other[2])
    return max(0, height) * max(0, width)


@kernel
def _sum_blocks(luminance: Array, first: int, edges: Array, fine: Array, unusable: Array, pixels: Array) -> None:
    """Add each pixel's differences to its block; pixels whose differences involve NaN count as unusable.

    Both differences are means over the same square; with only one corner in common they would miss falling diagonals.
    """
    height, width = luminance.shape
    for i in range(height - REACH):
        row = first + i // BLOCK
        for j in range(width - REACH):
            column = j // BLOCK
            here = luminance[i, j]
            right, below = luminance[i, j + REACH], luminance[i + REACH, j]
            opposite = luminance[i + REACH, j + REACH]
            across = (right + opposite - here - below) / 2
            down = (below + opposite - here - right) / 2
            near = abs(luminance[i, j + 1] - here) + abs(luminance[i + 1, j] - here)
            if np.isnan(across + down + near):
                unusable[row, column] += 1
                continue
            wide, tall = abs(across), abs(down)
            if wide > 2.4142 * tall:
                direction = 0
            elif tall > 2.4142 * wide:
                direction = 2
            elif across * down > 0:
                direction = 1
            else:
                direction = 3
            edges[direction, row, column] += wide + tall
            fine[row, column] += near
            pixels[row, column] += 1
