"""Indicators of over-restoration, measured on a window without ground truth.

A PSF that is too wide causes overshoots beside edges and negative light; a PSF that is not the image's leaves a
structured residual; a wrong noise level makes flat regions rough.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum
from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = ["Signs", "read_signs"]

SIDE = 6
"""Pixels on each side of an edge that are evaluated."""

ENDS = 3
"""Outermost of these pixels, which have to be flat."""

EDGE_SCALE = 0.8
"""Standard deviation of the Gaussian for edge detection, px."""

HEIGHT, NOISE_FLOOR = 20.0, 0.002
"""Least gradient of an edge over that of the noise; lower bound of the noise, working units."""

STEP = 0.04
"""Least height of an edge, square root of working units: about the visible limit."""

FLATNESS = 0.15
"""Range of the ends of an edge's profile, as a share of its height, up to which it is isolated."""

RIM = 12
"""Border of a window that is ignored, px: there the restoration depends on unknown data beyond."""

FLAT_SHARE, FLAT_BOX = 0.2, 5
"""Share of the flattest pixels, in which noise growth is measured, and edge of the boxes for their range, px."""


@dataclass(frozen=True)
class Signs:
    """Measured indicators, see :func:`read_signs`.

    Parameters
    ----------
    overshoot : float
        Median over isolated edges of the overshoot, mean of both sides, relative to the edge's height; in the square
        root of light.
    worst : float
        90 % quantile of the larger side's overshoot.
    edges : int
        Number of isolated edges.
    negative : float
        Share of pixels that became negative.
    growth : float
        Standard deviation of fine detail in flat regions, restored over blurred.
    residual : float
        Standard deviation of k * x - y over the expected noise.
    likeness : float
        Correlation of neighbours in that residual; 0 when it is white.
    """

    overshoot: float
    worst: float
    edges: int
    negative: float
    growth: float
    residual: float
    likeness: float


def read_signs(blurred: FloatArray, restored: FloatArray, kernel: FloatArray, noise: float) -> Signs:
    """Compare a window before and after restoration.

    Parameters
    ----------
    blurred, restored : ndarray of float32, shape (h, w)
        Mean of the colours, working units, finite.
    kernel : ndarray of float32, shape (k, k)
        The PSF.
    noise : float
        Standard deviation that the restoration assumed.

    Returns
    -------
    Signs
        Measured indicators.
    """
    before, after = (np.sqrt(np.clip(plane, 0, None)) for plane in (blurred, restored))
    overshoots = _overshoots(blurred, before, after, noise)
    inner = np.s_[RIM:-RIM, RIM:-RIM]
    otf = Spectrum.of(kernel, (blurred.shape[0], blurred.shape[1])).otf(0)
    predicted = scipy.fft.irfft2(scipy.fft.rfft2(restored) * otf, s=restored.shape)
    residual = (predicted - blurred)[inner]
    residual = residual - residual.mean()
    power = float((residual**2).mean())
    neighbours = float((residual[:, 1:] * residual[:, :-1]).mean())
    low, high = (f(before, FLAT_BOX) for f in (scipy.ndimage.minimum_filter, scipy.ndimage.maximum_filter))
    span = (high - low)[inner]
    flat = span <= np.quantile(span, FLAT_SHARE)
    rough = [(plane - scipy.ndimage.uniform_filter(plane, 3))[inner][flat].std() for plane in (before, after)]
    return Signs(
        overshoot=float(np.median(overshoots.mean(1))) if len(overshoots) else 0.0,
        worst=float(np.quantile(overshoots.max(1), 0.9)) if len(overshoots) else 0.0,
        edges=len(overshoots),
        negative=float(((restored < 0) & (blurred >= 0))[inner].mean()),
        growth=float(rough[1] / max(float(rough[0]), 1e-6)),
        residual=power**0.5 / max(noise, 1e-6),
        likeness=neighbours / max(power, 1e-20),
    )


def _overshoots(blurred: FloatArray, before: FloatArray, after: FloatArray, noise: float) -> DoubleArray:
    """Return the overshoot on the bright and dark side of every isolated edge, (edges, 2), relative to its height."""
    along_x, along_y = (scipy.ndimage.gaussian_filter(blurred, EDGE_SCALE, order=order) for order in ((0, 1), (1, 0)))
    steep = np.hypot(along_x, along_y)
    least = HEIGHT * max(noise, NOISE_FLOOR) / (np.sqrt(8 * np.pi) * EDGE_SCALE**2)
    found = []
    for axis, runs in ((1, np.abs(along_x) >= np.abs(along_y)), (0, np.abs(along_x) < np.abs(along_y))):
        peak = (steep >= np.roll(steep, 1, axis)) & (steep > np.roll(steep, -1, axis)) & runs & (steep > least)
        rim = max(SIDE + 1, RIM)
        peak[:rim] = peak[-rim:] = peak[:, :rim] = peak[:, -rim:] = False
        y, x = np.nonzero(peak)
        if len(y):
            offsets = np.arange(-SIDE, SIDE + 1)
            rows, columns = y[:, None] + offsets * (axis == 0), x[:, None] + offsets * (axis == 1)
            found.append(_profiles(before[rows, columns], after[rows, columns]))
    return np.concatenate(found) if found else np.empty((0, 2))


def _profiles(before: FloatArray, after: FloatArray) -> DoubleArray:
    """Return the overshoots (edges, 2) of the profiles (n, 2 SIDE + 1) that are isolated edges."""
    falling = before[:, -1] < before[:, 0]
    before, after = (np.where(falling[:, None], profile[:, ::-1], profile) for profile in (before, after))
    low, high = before[:, :ENDS].mean(1), before[:, -ENDS:].mean(1)
    height = high - low
    flat = np.maximum(np.ptp(before[:, :ENDS], 1), np.ptp(before[:, -ENDS:], 1)) < FLATNESS * height
    within = (before.max(1) < high + 0.1 * height) & (before.min(1) > low - 0.1 * height)
    kept = flat & within & (height > STEP)
    before, after, low, high, height = (part[kept] for part in (before, after, low, high, height))
    bright = after[:, SIDE + 1 :].max(1) - np.maximum(before[:, SIDE + 1 :].max(1), high)
    dark = np.minimum(before[:, :SIDE].min(1), low) - after[:, :SIDE].min(1)
    return np.stack([bright / height, dark / height], 1).astype(np.float64)
