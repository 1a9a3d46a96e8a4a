"""Fade to the input beside clipped lamps whose brightness the solver could not recover.

A clipped sample is only a lower bound.  The lamp's brightness has to be inferred from its glow, which a few steps do
for lamps a few times brighter than white but not for lamps fifty times as bright: the missing light then appears as
rings around the lamp.  The residual shows it: beside such a lamp the restored image does not explain the data.
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.kernels import multiply
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray

__all__ = ["REACHES", "fade_to_input"]

SURE, LOST = 2.0, 6.0
"""Ratio of mean squared residual to noise variance up to which data count as explained, and from which as not."""

REACHES = 8
"""Distance in half PSF widths up to which a clipped sample changes the result besides through the solver."""

LEAST_COUNTED = 1e-3
"""Share of a box with data below which its mean residual is reduced in proportion."""


def fade_to_input(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> None:
    """Fade the restored ``work.x`` to the input y beside clipped samples whose light was not recovered.

    Overwrites ``work.d`` and ``work.e``.
    """
    weight = _input_weight(work, spectrum, parameters)
    if weight is not None:
        for y, x in zip(work.y, work.x, strict=True):
            np.copyto(x, x + weight * (np.where(np.isfinite(y), y, x) - x), where=weight > 0)


def _input_weight(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray | None:
    """Return the weight of the input, float32 (h, w), 0..1; None when nothing is clipped."""
    clipped = np.isposinf(work.y).any(0)
    if not clipped.any():
        return None
    size = 2 * spectrum.reach + 1
    near = scipy.ndimage.maximum_filter(clipped, 2 * size - 1)
    predicted, squares, counted, *_ = [
        *work.d,
        *work.e.reshape(-1, *work.shape),
    ]  # the solver's state is no longer needed
    worst = np.zeros(work.shape, np.float32)
    for channel, y in enumerate(work.y):
        multiply(spectrum.otf(channel), forward(work.x[channel], work.product), work.product)
        inverse(work.product, predicted)
        valid = np.isfinite(y) & near
        counted[...] = valid
        squares[...] = 0
        np.subtract(y, predicted, out=squares, where=valid)
        np.square(squares, out=squares)
        np.clip(predicted, 0, 1, out=predicted)
        predicted *= np.float32(parameters.slope)
        predicted += np.float32(parameters.base)
        predicted *= np.float32(max(parameters.sigma, 1e-6) ** 2)  # the noise's variance
        np.divide(squares, np.maximum(predicted, np.float32(1e-12), out=predicted), out=squares)
        scipy.ndimage.uniform_filter(squares, size, output=squares)
        scipy.ndimage.uniform_filter(counted, size, output=counted)
        np.divide(squares, np.maximum(counted, np.float32(LEAST_COUNTED), out=counted), out=squares)
        np.maximum(worst, squares, out=worst)
    unexplained = np.clip((worst - np.float32(SURE)) / np.float32(LOST - SURE), 0, 1)
    unexplained[~near] = 0
    spread = scipy.ndimage.maximum_filter(unexplained, 2 * size - 1)
    feathered: FloatArray = scipy.ndimage.uniform_filter(spread, size)
    return np.maximum(feathered, 0, out=feathered)
