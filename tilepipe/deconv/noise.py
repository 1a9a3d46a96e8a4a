"""Noise level of a picture from its own pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import scipy.ndimage

__all__ = ["estimate_noise"]

FloatArray = npt.NDArray[np.float32]

LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Difference of two Laplacians: blind to planes and edges along the axes (Immerkaer 1996, eq. 3)."""

LAPLACIAN_GAIN = 6.0
"""Standard deviation of its response to white noise of standard deviation 1 (root of 36)."""

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation of a Gaussian to its standard deviation."""

BLOCK = 64
"""Edge of the blocks that are judged one by one, px; smaller pictures are one block."""


def estimate_noise(windows: Iterable[FloatArray]) -> float:
    """Estimate the standard deviation of additive white noise.

    The response of Immerkaer's mask is taken in blocks of 64 px; the median absolute deviation makes a
    block's figure robust to texture, the median over blocks robust to textured and to empty blocks.

    Parameters
    ----------
    windows : float32 (c, h, w) each, linear light; NaN marks pixels that say nothing (clipped, invalid).

    Returns
    -------
    Root mean square over channels, 0.0 when no block is usable (everything clipped or too small).
    """
    by_channel: dict[int, list[float]] = {}
    for window in windows:
        for channel, plane in enumerate(window):
            by_channel.setdefault(channel, []).extend(_block_levels(plane))
    levels = [float(np.median(blocks)) for blocks in by_channel.values() if blocks]
    return float(np.sqrt(np.mean(np.square(levels)))) if levels else 0.0


def _block_levels(plane: FloatArray) -> list[float]:
    if min(plane.shape) < LAPLACIAN.shape[0]:
        return []
    response = scipy.ndimage.convolve(plane, LAPLACIAN, mode="nearest")[1:-1, 1:-1]
    levels = []
    for y in range(0, max(1, response.shape[0] - BLOCK + 1), BLOCK):
        for x in range(0, max(1, response.shape[1] - BLOCK + 1), BLOCK):
            block = response[y : y + BLOCK, x : x + BLOCK]
            usable = block[np.isfinite(block)]
            if usable.size * 2 > block.size:
                deviation = np.median(np.abs(usable - np.median(usable)))
                levels.append(float(deviation) * MAD_TO_SIGMA / LAPLACIAN_GAIN)
    return levels
