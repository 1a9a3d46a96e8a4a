"""Where the light of a lamp is not known well enough to sharpen what lies beside it.

A clipped sample says "at least this".  How bright the lamp is has to follow from its glow, which a few steps find for
lamps a few times brighter than white, and not for lamps fifty times as bright: what is missing then comes to lie around
the lamp as rings.  It shows in the residual: beside such a lamp the restored picture does not explain what was seen.
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
"""Mean squared residual over the noise's variance up to which a place is explained, and from which on it is not."""

REACHES = 8
"""From how far, in half PSFs, a clipped sample influences what is restored beside the solver itself."""

LEAST_COUNTED = 1e-3
"""Share of a box that has to be seen for its residual to count in full."""


def fade_to_input(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> None:
    """Bring ``work.x``, restored, back to the input y beside clipped samples whose light is not known well enough.

    Uses up ``work.d`` and ``work.e``.
    """
    share = _doubt(work, spectrum, parameters)
    if share is not None:
        for y, x in zip(work.y, work.x, strict=True):
            np.copyto(x, x + share * (np.where(np.isfinite(y), y, x) - x), where=share > 0)


def _doubt(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray | None:
    """Return how much of the input to take, float32 (h, w), 0..1; None when nothing is clipped."""
    clipped = np.isposinf(work.y).any(0)
    if not clipped.any():
        return None
    size = 2 * spectrum.reach + 1
    near = scipy.ndimage.maximum_filter(clipped, 2 * size - 1)
    seen, squares, counted, *_ = [
        *work.d,
        *work.e.reshape(-1, *work.shape),
    ]  # the solver's state is not needed any more
    worst = np.zeros(work.shape, np.float32)
    for channel, y in enumerate(work.y):
        multiply(spectrum.otf(channel), forward(work.x[channel], work.product), work.product)
        inverse(work.product, seen)
        counts = np.isfinite(y) & near
        counted[...] = counts
        squares[...] = 0
        np.subtract(y, seen, out=squares, where=counts)
        np.square(squares, out=squares)
        np.clip(seen, 0, 1, out=seen)
        seen *= np.float32(parameters.slope)
        seen += np.float32(parameters.base)
        seen *= np.float32(max(parameters.sigma, 1e-6) ** 2)  # the noise's variance
        np.divide(squares, np.maximum(seen, np.float32(1e-12), out=seen), out=squares)
        scipy.ndimage.uniform_filter(squares, size, output=squares)
        scipy.ndimage.uniform_filter(counted, size, output=counted)
        np.divide(squares, np.maximum(counted, np.float32(LEAST_COUNTED), out=counted), out=squares)
        np.maximum(worst, squares, out=worst)
    doubtful = np.clip((worst - np.float32(SURE)) / np.float32(LOST - SURE), 0, 1)
    doubtful[~near] = 0
    spread = scipy.ndimage.maximum_filter(doubtful, 2 * size - 1)
    feathered: FloatArray = scipy.ndimage.uniform_filter(spread, size)
    return np.maximum(feathered, 0, out=feathered)
