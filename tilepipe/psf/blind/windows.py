"""Where to look for the blur: windows with edges in every direction, in focus, unclipped, textured but not noise.

The picture goes by once, in bands; per block of 32 px a few sums stay (some bytes a thousand pixels).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.system.jit import kernel

__all__ = ["BLOCK", "WindowRanking"]

Array = Any

BLOCK = 32
"""Edge of the blocks that are summed up, px."""

REACH = 3
"""Distance of the differences that count as edges, px: a blurred edge is wide, noise does not care."""

FLOOR_SHARE = 0.05
"""Share of the emptiest blocks whose differences are taken for noise."""

CLIPPED_POWER = 40
"""A window keeps this power of its usable share as weight: two hundredths clipped cost more than half of it."""


class WindowRanking:
    """Sums up a picture band by band, then names its best windows.

    Parameters
    ----------
    height, width : of the picture, px.
    """

    def __init__(self, height: int, width: int) -> None:
        self.shape = height, width
        rows, columns = -(-height // BLOCK), -(-width // BLOCK)
        self._edges = np.zeros((4, rows, columns))
        self._fine = np.zeros((rows, columns))
        self._unusable = np.zeros((rows, columns))
        self._pixels = np.zeros((rows, columns))

    def add(self, top: int, luminance: FloatArray) -> None:
        """Take in the rows from `top` on, a multiple of BLOCK.

        Parameters
        ----------
        luminance : float32 (rows, width), linear light; NaN where clipped or not finite.
        """
        _sum_blocks(luminance, top // BLOCK, self._edges, self._fine, self._unusable, self._pixels)

    def best(self, count: int, size: int) -> list[tuple[int, int, int, int]]:
        """Return up to `count` windows (y0, y1, x0, x1), best first, that overlap by less than a quarter.

        Parameters
        ----------
        size : edge, px; windows of a smaller picture are as large as it.

        A window's worth is the geometric mean of its weakest direction and of all of them, times the ratio of
        fine to coarse differences (focus), times what is not clipped.
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
    """Return block sums less what noise alone gives, read from the emptiest blocks."""
    seen = pixels > 0
    if not seen.any():
        return sums
    floor = float(np.quantile(sums[seen] / pixels[seen], FLOOR_SHARE))
    return np.maximum(sums - floor * pixels, 0)


def _box(blocks: DoubleArray, spans: tuple[int, int]) -> DoubleArray:
    """Return the sums over all boxes of `spans` blocks."""
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
    """Add every pixel's differences to its block; those that touch NaN count as unusable.

    Both differences are means over the same square: with one corner in common, falling diagonals would not be seen.
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
