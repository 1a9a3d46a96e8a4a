"""Noise of a picture from its own pixels: how strong it is, and how it grows with the light."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import scipy.optimize

from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = ["Noise", "estimate_noise", "fit_noise", "hidden_noise", "quantisation_noise", "white_equivalent"]

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

QUIET = 0.4
"""Quantile of the blocks' noise that is taken: texture adds to it, nothing takes away."""

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
    hidden : level that differences of neighbours do not show, see :func:`hidden_noise`; 0 for none.
    """

    sigma: float
    base: float = 1.0
    slope: float = 0.0
    light: float = 0.0
    hidden: float = 0.0

    def expected(self, amplification: float) -> Noise:
        """Return the noise that a restoration of this amplification has to expect.

        What hides at low frequencies does no harm where a PSF that is nearly a point leaves it as it is.

        Parameters
        ----------
        amplification : of white noise by an inverse filter, see :func:`tilepipe.deconv.frames.amplification`.
        """
        share = min(max((amplification - 1) / FULLY_AMPLIFIED, LEAST_SHARE), 1.0)
        return replace(self, sigma=max(self.sigma, share * self.hidden))


def fit_noise(windows: Iterable[FloatArray]) -> Noise:
    """Estimate the noise and how its variance grows with the light.

    Blocks as in :func:`estimate_noise`, all channels together, sorted by their light; in every eighth of them
    a low quantile.  Through these a constant and the lines through the origin, and with a base, are laid; a line
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
    variance = np.array([max(np.quantile(level[group], QUIET), 0.1 * constant) ** 2 for group in groups])
    base, slope = _line(at, variance)
    flat = float(np.exp(np.log(variance).mean()))
    misfit, plain = _misfit(base + slope * at, variance), _misfit(np.full_like(at, flat), variance)
    mean = base + slope * middle
    if slope <= 0 or misfit > WORTH * plain:
        return Noise(constant, light=middle)
    return Noise(float(np.sqrt(mean)), float(base / mean), float(slope / mean), middle)


def _line(at: DoubleArray, variance: DoubleArray) -> tuple[float, float]:
    """Return base and slope, neither negative, of the line through `variance`; errors count relative to it."""
    rows = np.stack([np.ones_like(at), at], 1) / variance[:, None]
    base, slope = scipy.optimize.nnls(rows, np.ones_like(at))[0]
    return float(base), float(slope)


def _misfit(line: DoubleArray, variance: DoubleArray) -> float:
    return float((np.log(np.maximum(line, 1e-30) / variance) ** 2).mean())


def estimate_noise(windows: Iterable[FloatArray]) -> float:
    """Estimate the standard deviation of additive white noise.

    The response of Immerkaer's mask is taken in blocks of 64 px; the median absolute deviation makes a
    block's figure robust to texture, a low quantile of the blocks robust to textured and to empty blocks.

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
    levels = [float(np.quantile([level for _, level in blocks], QUIET)) for blocks in by_channel if blocks]
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


FULLY_AMPLIFIED, LEAST_SHARE = 0.6, 0.3
"""Amplification less 1 from which on hidden noise counts in full, and its share for a PSF that is nearly a point."""

FLOOR_OF_WHITE = 1.58
"""Floor of a fitted spectrum at 0.2 cycles/px over white noise: the fit expects it to rise towards low frequencies."""

MOST_HIDDEN = 3.0
"""The floor counts up to so many times what is known of the noise otherwise: texture may look like a floor."""

LEAST_KNOWN = 0.002
"""Noise that counts as known at least, where a spectrum's floor is limited by it, working units."""

QUANTISATION_FACTOR, QUANTISATION_EXPONENT = 0.27, 0.65
"""Noise that suits a JPEG best over the power of its quantisation error: fitted on photographs of quality 60 to 98."""

LOW_FREQUENCIES = 4
"""Rows and columns of a quantisation table whose steps count: a slight blur leaves little above."""


def white_equivalent(floor: float, pixels: float, mean: float) -> float:
    """Return the white noise of the pixels of each colour that has the power of a spectrum's floor.

    Parameters
    ----------
    floor : of the mean of the colours, at 0.2 cycles/px.
    pixels, mean : measured noise of the pixels of the colours, and of their mean.
    """
    independence = pixels / mean if mean > 0 and pixels > 0 else 1.0
    return floor / FLOOR_OF_WHITE * independence


def quantisation_noise(table: Sequence[int]) -> float:
    """Return the noise to restore a JPEG for, encoded values 0..1, from the luminance's 64 quantisation steps.

    A coefficient that is rounded to steps of q is off by q / sqrt(12) (Widrow 1956), or by all that it was.
    """
    steps = np.asarray(table, np.float64).reshape(8, 8)[:LOW_FREQUENCIES, :LOW_FREQUENCIES]
    error = float(np.sqrt((steps**2).mean() / 12)) / 255
    return float(QUANTISATION_FACTOR * error**QUANTISATION_EXPONENT)


def hidden_noise(pixels: float, floor: float, quantisation: float) -> float:
    """Return the level of the noise that hides from its pixels, from what pixels, spectrum and file say; 0 for none.

    Noise that is correlated or was partly removed (JPEG, demosaicing, denoising, resampling) hides from differences of
    neighbours, and from them alone a picture of quality 92 would be called nearly free of noise.

    Parameters
    ----------
    pixels : from :func:`estimate_noise`.
    floor : from :func:`white_equivalent`.
    quantisation : from :func:`quantisation_noise`; 0 for what is no JPEG.
    """
    floor = min(floor, MOST_HIDDEN * max(pixels, quantisation, LEAST_KNOWN))
    level = float(np.hypot(floor, quantisation))
    return level if level > pixels else 0.0
