"""Selection of the edges used for estimation: strong gradients of all directions, away from the window's border."""

from __future__ import annotations

import numpy as np

from tilepipe.dtypes import FloatArray

__all__ = ["edge_threshold", "gradients", "select_edges"]

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


def select_edges(across: FloatArray, down: FloatArray, threshold: float, margin: int) -> tuple[FloatArray, FloatArray]:
    """Return the gradients with those below `threshold` and those within `margin` px of the border set to 0.

    Near the border the restored image depends on unknown pixels outside the window; edges there cause streaks in the
    kernel.
    """
    keep = np.hypot(across, down) >= np.float32(threshold)
    if margin:
        keep[:margin] = keep[-margin:] = False
        keep[:, :margin] = keep[:, -margin:] = False
    return across * keep, down * keep
