"""Selection of the edges used for estimation: strong gradients of all directions, away from the window's border."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.dtypes import FloatArray
from tilepipe.system.jit import kernel

__all__ = ["edge_threshold", "gradients", "select_edges"]

Array = Any

DIRECTIONS = 4
"""Orientation classes, 45 degrees each.  All are needed: edges of one orientation determine the kernel only across
them."""


def gradients(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the forward differences along x and y, shape (h, w) each; 0 in the last column and row, respectively."""
    across, down = np.zeros_like(image), np.zeros_like(image)
    np.subtract(image[:, 1:], image[:, :-1], out=across[:, :-1])
    np.subtract(image[1:], image[:-1], out=down[:-1])
    return across, down


def edge_threshold(across: FloatArray, down: FloatArray, count: int) -> float:
    """Return the largest threshold that keeps at least `count` pixels in each direction (Cho & Lee 2009, sec. 4).

    Parameters
    ----------
    across, down : ndarray of float32, shape (h, w)
        Gradients as returned by :func:`gradients`.
    count : int
        Pixels required in each of the four classes; a class with fewer contributes all of them.

    Returns
    -------
    float
        In the unit of the gradients; 0.0 if a direction does not occur at all.
    """
    length = np.hypot(across, down).ravel()
    angle = np.arctan2(down, across).ravel() % np.pi
    classes = np.floor(angle * (DIRECTIONS / np.pi) + 0.5).astype(np.int8) % DIRECTIONS
    threshold = np.inf
    for direction in range(DIRECTIONS):
        lengths = length[(classes == direction) & (length > 0)]
        if not lengths.size:
            return 0.0
        rank = max(0, lengths.size - count)
        threshold = min(threshold, float(np.partition(lengths, rank)[rank]))
    return threshold


def select_edges(image: FloatArray, threshold: float, margin: int) -> tuple[FloatArray, FloatArray]:
    """Return the gradients of an image with those below `threshold` and within `margin` px of the border set to 0.

    Near the border the restored image depends on unknown pixels outside the window; edges there cause streaks in the
    kernel.
    """
    across, down = np.zeros_like(image), np.zeros_like(image)
    _select(image, np.float32(threshold) ** 2, margin, across, down)
    return across, down


@kernel
def _select(image: Array, least: Array, margin: Array, across: Array, down: Array) -> None:
    """Store the forward differences whose squared length is at least `least`, except in the margin."""
    height, width = image.shape
    for i in range(margin, height - margin):
        below = min(i + 1, height - 1)
        for j in range(margin, width - margin):
            right = min(j + 1, width - 1)
            a, d = image[i, right] - image[i, j], image[below, j] - image[i, j]
            keep = a * a + d * d >= least
            across[i, j] = a if keep else np.float32(0)
            down[i, j] = d if keep else np.float32(0)
