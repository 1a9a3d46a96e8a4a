"""Noise of a picture from its own pixels: how strong it is, and how it grows with the light."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.optimize

__all__ = ["Noise", "estimate_noise", "fit_noise"]

FloatArray = npt.NDArray[np.float32]
Block = tuple[float, float]
"""Light and noise of a block."""

LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Difference of two Laplacians: blind to planes and edges along the axes (Immerkaer 1996, eq. 3)."""

LAPLACIAN_GAIN = 6.0
"""Standard deviation of its response to white noise of standard deviation 1 (root of 36)."""

MAD_TO_SIGMA = 1.4826
"""Median absolute deviation of a Gaussian to its standard deviation."""

BLOCK = 64
"""Edge of the blocks that are judged one by one, px; smaller pictures are one block."""

LEVELS = 8
"""Groups of blocks of like light in which the noise is taken before it is fitted."""

SMALLEST_GROUP = 6
"""Blocks that a group needs to count."""

WORTH = 0.5
"""A variance that grows with the light is believed when it leaves less than this share of the constant's misfit."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation at the picture's mean light, and the variance elsewhere in multiples of its square.

    Parameters
    ----------
    sigma : linear light 0..1.
    base, slope : variance at light u over sigma^2 is base + slope u (Foi, Trimeche, Katkovnik & Egiazarian 2008,
        eq. 3: Gaussian plus Poissonian); 1 and 0 when it is the same everywhere.
    light : the mean, linear light; 0 when no block was usable.
    """

    sigma: float
    base: float = 1.0
    slope: float = 0.0
    light: float = 0.0


def fit_noise(windows: Iterable[FloatArray]) -> Noise:
    """Estimate the noise and how its variance grows with the light.

    Blocks as in :func:`estimate_noise`, all channels together, sorted by their light; in every eighth of them
    the median.  Through these medians a constant and the lines through the origin, and with a base, are laid; a line
    counts only when it fits clearly better.

    Parameters
    ----------
    windows : as for :func:`estimate_noise`, whose figure is `sigma` when the noise does not grow.
    """
    by_channel = _blocks_by_channel(windows)
    constant = _noise_of(by_channel)
    blocks = [block for channel in by_channel for block in channel]
    middle = float(np.mean([light for light, _ in blocks])) if blocks else 0.0
    if constant == 0 or len(blocks) < LEVELS * SMALLEST_GROUP:
        return Noise(constant, light=middle)
    light, level = np.array(sorted(blocks)).T
    groups = np.array_split(np.arange(len(light)), LEVELS)
    at = np.array([light[group].mean() for group in groups])
    variance = np.array([max(np.median(level[group]), 0.1 * constant) ** 2 for group in groups])
    base, slope = _line(at, variance)
    flat = float(np.exp(np.log(variance).mean()))
    misfit, plain = _misfit(base + slope * at, variance), _misfit(np.full_like(at, flat), variance)
    mean = base + slope * middle
    if slope <= 0 or misfit > WORTH * plain:
        return Noise(constant, light=middle)
    return Noise(float(np.sqrt(mean)), float(base / mean), float(slope / mean), middle)


def _line(at: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return base and slope, neither negative, of the line through `variance`; errors count relative to it."""
    rows = np.stack([np.ones_like(at), at], 1) / variance[:, None]
    base, slope = scipy.optimize.nnls(rows, np.ones_like(at))[0]
    return float(base), float(slope)


def _misfit(line: npt.NDArray[np.float64], variance: npt.NDArray[np.float64]) -> float:
    return float((np.log(np.maximum(line, 1e-30) / variance) ** 2).mean())


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
    return _noise_of(_blocks_by_channel(windows))


def _blocks_by_channel(windows: Iterable[FloatArray]) -> list[list[Block]]:
    by_channel: dict[int, list[Block]] = {}
    for window in windows:
        for channel, plane in enumerate(window):
            by_channel.setdefault(channel, []).extend(_blocks(plane))
    return list(by_channel.values())


def _noise_of(by_channel: list[list[Block]]) -> float:
    levels = [float(np.median([level for _, level in blocks])) for blocks in by_channel if blocks]
    return float(np.sqrt(np.mean(np.square(levels)))) if levels else 0.0


def _blocks(plane: FloatArray) -> list[Block]:
    """Return mean light and noise of every usable block."""
    if min(plane.shape) < LAPLACIAN.shape[0]:
        return []
    response = scipy.ndimage.convolve(plane, LAPLACIAN, mode="nearest")[1:-1, 1:-1]
    inner = plane[1:-1, 1:-1]
    blocks = []
    for y in range(0, max(1, response.shape[0] - BLOCK + 1), BLOCK):
        for x in range(0, max(1, response.shape[1] - BLOCK + 1), BLOCK):
            box = np.s_[y : y + BLOCK, x : x + BLOCK]
            usable = np.isfinite(response[box])
            if usable.sum() * 2 > usable.size:
                values = response[box][usable]
                deviation = np.median(np.abs(values - np.median(values)))
                light = float(inner[box][usable].mean())
                blocks.append((light, float(deviation) * MAD_TO_SIGMA / LAPLACIAN_GAIN))
    return blocks
