"""Confidence in a blindly estimated PSF, 0..1.

A logistic regression on 154 cases with known truth: sharp images (photographs and synthetic scenes) blurred with known
PSFs at 0 to 3 % noise, some of them saved as JPEG, and images without structure (flat, ramps, soft blobs, white noise).
A case is good if restoration with the estimated kernel gains more than 0.3 dB over the blurred image.
The table is in docs/blind.md.  `tilepipe.planning.find_psf` combines these with the evidence of the whole image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.slight import SlightBlur

__all__ = ["confidence", "lens_confidence", "relief", "ripple_confidence", "slight_confidence", "strong_confidence"]

HALF_TRUSTED, RIPPLE_SLOPE = 0.86, 25.0
"""Share of the spectrum's ripples that a kernel must explain for a confidence of one half, and the logistic rate:
kernels that explain 0.9 and more restored well, those at 0.83 and below badly."""

MANY_BLOCKS, EVEN = 40, 0.2
"""Number of blocks, and unevenness over directions, with which a slight blur is nearly always correct."""


HALF_EXPLAINED, LENS_RATE, MANY_CELLS = 0.85, 12.0, 16
"""Share of the deviation left by a lens, in parts held out, at which it is as likely wrong as right, logistic rate, and
number of parts from which their number does not limit the confidence."""

OFFSET = -5.64
AGREEMENT, RELIEF, GAIN, BORDER, MISFIT = 2.27, 1.24, 2.2, -0.67, -2.2
"""Weights of the regression: contributions of the features to the log odds."""

SHARP_CORE, SHARP_MASS, SHARP_RELIEF = 20.0, 0.85, 3.08
"""For an image classified as sharp: weight of the mass within 3 x 3 px, mass at which that term is 0,
weight of relief."""

LIKENESS_SHARE, HALF_SURE, SURENESS = 0.5, 1.19, 25.0
"""For a strong blur: weight of ripple likeness relative to agreement; weighted sum at which half of the kernels are
right; slope of the log odds."""

BAND = (1.5, 8.0)
"""Standard deviations, px, of the Gaussians whose difference passes edges of all blurs considered, but neither pixel
noise nor shading."""

BAND_NOISE = 0.188
"""Approximate standard deviation of that difference for white noise of standard deviation 1: that of the narrow
Gaussian alone, 1 / (2 sqrt(pi) 1.5)."""

NOISE_RELIEF = 3.0
"""Approximate :func:`relief` of noise alone (2.8 for the 99.5 % quantile of a Gaussian)."""


def relief(windows: Sequence[FloatArray], noise: float) -> float:
    """Return the height of structures over the noise: 99.5 % quantile of the band-passed windows over their noise."""
    heights = [
        np.quantile(np.abs(np.subtract(*(scipy.ndimage.gaussian_filter(window, sigma) for sigma in BAND))), 0.995)
        for window in windows
    ]
    return float(np.mean(heights)) / (BAND_NOISE * max(noise, 1e-4))


def confidence(agreement: float, relief: float, gain: float, misfit: float, border: float, *, sharp: bool) -> float:
    """Return the confidence, 0..1, from the fields of an :class:`~tilepipe.psf.blind.narrow.Estimate`."""
    height = math.log(max(relief, 1e-3) / NOISE_RELIEF)
    if sharp:
        return _logistic(SHARP_CORE * (agreement - SHARP_MASS) + SHARP_RELIEF * (min(height, 2.0) - 1))
    sparser = math.log(max(gain, 1e-3))
    return _logistic(
        OFFSET
        + AGREEMENT * min(max((agreement - 0.5) / 0.5, 0.0), 1.0)
        + RELIEF * min(height, 3.0)
        + GAIN * 10 * min(max(sparser, 0.0), 0.1)
        + BORDER * 10 * min(border, 0.3)
        + MISFIT * max(math.log(max(misfit, 1e-3)), 0.0)
    )


def strong_confidence(likeness: float, agreement: float) -> float:
    """Return the confidence, 0..1, in the kernel of an image with strong ripples.

    Parameters
    ----------
    likeness : float
        Likeness of its ripples to the image's (:meth:`tilepipe.psf.blind.ripples.Ripples.likeness`): 0.3 to 0.64 for
        kernels unrelated to the blur, at least 0.74 for correct and some partly correct ones.
    agreement : float
        Mean likeness to the other candidates: at least 0.84 for correct kernels, 0.66 to 0.72 for those partly correct.
    """
    return _logistic(SURENESS * (LIKENESS_SHARE * likeness + agreement - HALF_SURE))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-max(odds, -30.0)))


def ripple_confidence(share: float) -> float:
    """Return the confidence, 0..1, in a free-form kernel that explains this share of an image's ripples."""
    return 1 / (1 + math.exp(-RIPPLE_SLOPE * (share - HALF_TRUSTED)))


def lens_confidence(unexplained: float, cells: int) -> float:
    """Return the confidence in a blur that grows towards the corners, 0..1, from the fields of a ``LensFit``."""
    return _logistic(LENS_RATE * (HALF_EXPLAINED - unexplained)) * min(1.0, cells / MANY_CELLS)


def slight_confidence(slight: SlightBlur) -> float:
    """Return the confidence in the width of a slight blur, 0..1."""
    if not math.isfinite(slight.variance):
        return 0.1
    if not slight.explains:
        return 0.6 if slight.trusted else 0.45
    return 0.95 if slight.blocks >= MANY_BLOCKS and slight.unevenness < EVEN else 0.75
