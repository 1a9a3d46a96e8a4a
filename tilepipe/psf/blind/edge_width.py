"""Width of a slight blur from isolated edges, for text and renders, whose spectrum is unlike that of natural images.

For an ideal step blurred by a Gaussian of standard deviation sigma, the peak gradients under Gaussian derivatives of
standard deviations a < b have the ratio R^(1/2), R = (sigma^2 + b^2) / (sigma^2 + a^2) (Zhuo & Sim, Pattern Recognition
44, 2011), so sigma^2 = (b^2 - R a^2) / (R - 1).  Three scales give two estimates; an edge is isolated if they agree.
Since not all edges of a scene are steps, the sharpest ones determine the blur.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import BoolArray, DoubleArray, FloatArray

__all__ = ["EdgeWidth", "measure_edges"]

SCALES = (0.8, 1.4, 2.2)
"""Standard deviations of the Gaussian derivatives, px."""

NOISE_FLOOR = 0.004
"""Least noise assumed, linear light: fainter edges are texture."""

HEIGHT = 20.0
"""Least gradient of an edge, in standard deviations of the noise's gradient."""

RIM = 8
"""Border of a window that is excluded, px."""

CLIPPED_REACH = 7
"""Size of the box, px, centred on an edge, that must not contain clipped samples."""

FEWEST = 50
"""Least number of edges for a result."""

SHARPEST = 0.2
"""Quantile of the variances that is used: most edges of a scene are softer than the blur alone."""

STRONGEST, MANY = 0.67, 150
"""Quantile of the heights at or above which edges are used, and number of edges from which this applies."""

CALIBRATION = (0.10, 1.02, 0.03)
"""Coefficients of the blur's variance as a polynomial of the SHARPEST quantile (nine photographs, 0.4 to 2 px)."""


@dataclass(frozen=True)
class EdgeWidth:
    """Variance of the blur, px^2, from `count` isolated edges."""

    variance: float
    count: int


def measure_edges(windows: Iterable[tuple[FloatArray, BoolArray]], noise: float) -> EdgeWidth | None:
    """Return the blur's variance from the isolated edges of windows; None if there are fewer than ``FEWEST``.

    Parameters
    ----------
    windows : iterable of (ndarray of float32, ndarray of bool), shape (h, w) each
        Pixels in linear light, finite, and their mask, False where clipped or unknown.
    noise : float
        Standard deviation of the noise.
    """
    edges = [_edges(plane, usable, max(noise, NOISE_FLOOR)) for plane, usable in windows]
    variance = np.concatenate([variance for variance, _ in edges] or [np.empty(0)])
    height = np.concatenate([height for _, height in edges] or [np.empty(0)])
    count = len(variance)
    if count < FEWEST:
        return None
    if count >= MANY:
        variance = variance[height >= np.quantile(height, STRONGEST)]
    sharpest = float(np.quantile(variance, SHARPEST))
    offset, slope, curve = CALIBRATION
    return EdgeWidth(offset + slope * sharpest + curve * sharpest**2, count)


def _edges(plane: FloatArray, usable: BoolArray, noise: float) -> tuple[DoubleArray, DoubleArray]:
    """Return the variances and heights of all isolated edges."""
    gradients = [
        [scipy.ndimage.gaussian_filter(plane, scale, order=order, mode="nearest") for order in ((0, 1), (1, 0))]
        for scale in SCALES
    ]
    along_x, along_y = gradients[0]
    height = np.hypot(along_x, along_y)
    across = np.abs(along_x) >= np.abs(along_y)  # the edge is steepest along x
    peak = np.zeros(plane.shape, bool)
    inner = height[1:-1, 1:-1]
    peak[1:-1, 1:-1] = np.where(
        across[1:-1, 1:-1],
        (inner >= height[1:-1, :-2]) & (inner > height[1:-1, 2:]),
        (inner >= height[:-2, 1:-1]) & (inner > height[2:, 1:-1]),
    )
    peak &= height > HEIGHT * noise / (np.sqrt(8 * np.pi) * SCALES[0] ** 2)
    if not usable.all():
        peak &= ~scipy.ndimage.maximum_filter(~usable, CLIPPED_REACH)
    peak[:RIM] = peak[-RIM:] = peak[:, :RIM] = peak[:, -RIM:] = False
    y, x = np.nonzero(peak)
    if not len(y):
        return np.empty(0), np.empty(0)
    top = height[y, x].astype(np.float64)
    normal_x, normal_y = along_x[y, x] / top, along_y[y, x] / top
    step_y, step_x = np.where(across[y, x], 0, 1), np.where(across[y, x], 1, 0)
    logs: list[DoubleArray] = []
    for scale, (gx, gy) in enumerate(gradients):  # log gradient at the steepest point, by parabolic interpolation
        before, at, after = (
            np.log(
                np.maximum(
                    gx[y + step * step_y, x + step * step_x] * normal_x
                    + gy[y + step * step_y, x + step * step_x] * normal_y,
                    1e-9,
                )
            )
            for step in (-1, 0, 1)
        )
        slope, bend = (after - before) / 2, before + after - 2 * at
        if scale == 0:
            offset = np.clip(-slope / np.minimum(bend, -1e-6), -0.6, 0.6)
        logs.append(at + slope * offset + 0.5 * bend * offset**2)
    fine, coarse = _variance(logs, 0, 1), _variance(logs, 1, 2)
    isolated = np.abs(fine - coarse) < 0.25 + 0.25 * np.maximum(fine, 0)
    return fine[isolated], top[isolated]


def _variance(logs: list[DoubleArray], small: int, large: int) -> DoubleArray:
    ratio = np.maximum(np.exp(2 * (logs[small] - logs[large])), 1.02)
    return np.asarray((SCALES[large] ** 2 - ratio * SCALES[small] ** 2) / (ratio - 1))
