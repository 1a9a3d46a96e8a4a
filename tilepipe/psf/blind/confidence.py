"""How far a PSF that was found blind can be trusted, 0..1.

A logistic regression on 154 known cases: sharp pictures (photographs and made scenes) seen through known blurs at 0 to
3 % noise, some of them then as JPEG, and pictures with nothing to see (flat, ramps, soft blobs, white noise).
A case is good when restoring with the kernel found gains more than 0.3 dB over the blurred picture.
docs/blind.md has the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import FloatArray

__all__ = ["confidence", "relief", "strong_confidence"]

OFFSET = -5.64
AGREEMENT, RELIEF, GAIN, BORDER, MISFIT = 2.27, 1.24, 2.2, -0.67, -2.2
"""Weights of the regression: what each feature adds to the log odds."""

SHARP_CORE, SHARP_MASS, SHARP_RELIEF = 20.0, 0.85, 3.08
"""For a picture called sharp: weight of the mass found within 3 x 3 px, where it counts nothing, weight of relief."""

LIKENESS_SHARE, HALF_SURE, SURENESS = 0.5, 1.19, 25.0
"""Of a strong blur likeness of ripples counts by half beside agreement; their sum at which a kernel is right in every
second case; how fast trust grows."""

BAND = (1.5, 8.0)
"""Gaussians whose difference holds edges of all blurs that are looked for, but neither pixel noise nor shading."""

BAND_NOISE = 0.188
"""Standard deviation of that difference for white noise of standard deviation 1, 1 / (2 sqrt(pi) 1.5)."""

NOISE_RELIEF = 3.0
"""What :func:`relief` gives for noise alone, about (2.8 for the 99.5 % quantile of a Gaussian)."""


def relief(windows: Sequence[FloatArray], noise: float) -> float:
    """Return how far structures rise above the noise: the 99.5 % quantile of the band-passed windows over its noise."""
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
    """Return the confidence, 0..1, in the kernel of a picture with strong ripples.

    Parameters
    ----------
    likeness : of its ripples and the picture's (:meth:`tilepipe.psf.blind.ripples.Ripples.likeness`): 0.3 to 0.64 for
        kernels that have nothing to do with the blur, 0.74 and more for right ones, and for some right in part.
    agreement : with the kernels that other ways gave: 0.84 and more for right ones, 0.66 to 0.72 for those.
    """
    return _logistic(SURENESS * (LIKENESS_SHARE * likeness + agreement - HALF_SURE))


def _logistic(odds: float) -> float:
    return 1 / (1 + math.exp(-max(odds, -30.0)))
