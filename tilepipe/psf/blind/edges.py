"""The edges that a blur is read from: strong gradients in every direction, away from the window's border."""

from __future__ import annotations

import numpy as np

from tilepipe.dtypes import FloatArray

__all__ = ["edge_threshold", "gradients", "select_edges"]

DIRECTIONS = 4
"""Orientation classes, 45 degrees each: every one has to be seen, or the kernel is known across it only."""


def gradients(image: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the forward differences along x and along y, (h, w) each, 0 in the last column or row."""
    across, down = np.zeros_like(image), np.zeros_like(image)
    np.subtract(image[:, 1:], image[:, :-1], out=across[:, :-1])
    np.subtract(image[1:], image[:-1], out=down[:-1])
    return across, down


def edge_threshold(across: FloatArray, down: FloatArray, count: int) -> float:
    """Return the largest gradient that leaves at least `count` pixels in each direction (Cho & Lee 2009, sec. 4).

    Parameters
    ----------
    across, down : float32 (h, w), as :func:`gradients` returns them.
    count : pixels wanted in each of the four classes; fewer when a class has fewer.

    Returns
    -------
    In the unit of the gradients; 0.0 when a direction does not occur at all.
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
    """Return the gradients of at least `threshold`, the others and those within `margin` px of the border set to 0.

    Near the border the restored image is a guess about what lies beyond; its edges there draw streaks into
    the kernel.
    """
    keep = np.hypot(across, down) >= np.float32(threshold)
    if margin:
        keep[:margin] = keep[-margin:] = False
        keep[:, :margin] = keep[:, -margin:] = False
    return across * keep, down * keep
