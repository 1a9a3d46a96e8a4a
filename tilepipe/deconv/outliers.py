"""Single pixels that the PSF cannot have produced: hot and dead pixels, cosmic rays, dust on a scan.

Light that passed through the PSF also reaches a pixel's neighbours.  A pixel that differs from its neighbours by far
more than the PSF allows is not light of the scene; a solver that treats it as light restores a ring around it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.system.jit import kernel

__all__ = ["find_outliers", "without_outliers"]

Array = Any

HEIGHT = 12.0
"""Smallest difference of an outlier from the extreme of its neighbours, in standard deviations of the noise."""

SHARE = 0.5
"""Share of what the PSF passes to the neighbours of a point of light; an outlier's neighbours vary by less."""

LEAST_SHARE = 0.1
"""With a PSF that passes less to a neighbour, relative to its peak, outliers and points of light look the same."""


def find_outliers(known: FloatArray, psf: FloatArray, parameters: Parameters) -> BoolArray | None:
    """Return where `known` (h, w) has single pixels that `psf` (k, k) cannot have produced; None when there are none.

    Pixels with an unknown or clipped neighbour are never marked.
    """
    middle = psf.shape[0] // 2
    if parameters.sigma <= 0 or middle == 0 or psf.max() <= 0:
        return None
    neighbourhood = psf[middle - 1 : middle + 2, middle - 1 : middle + 2]
    share = SHARE * float((neighbourhood.sum() - psf[middle, middle]) / 8 / max(float(psf[middle, middle]), 1e-9))
    if share < LEAST_SHARE * SHARE:
        return None
    found = np.zeros(known.shape, bool)
    count = _mark(known, np.float32(HEIGHT * parameters.sigma), np.float32(min(share, SHARE)), found)
    return found if count else None


def without_outliers(plane: FloatArray, outlying: BoolArray) -> FloatArray:
    """Return `plane` (h, w) with NaN at the outliers."""
    return np.where(outlying, np.float32(np.nan), plane)


@kernel
def _mark(y: Array, height: Array, share: Array, found: Array) -> int:
    """Mark outliers of y (h, w) in `found`; return their number."""
    rows, columns = y.shape
    count = 0
    for i in range(1, rows - 1):
        for j in range(1, columns - 1):
            here = y[i, j]
            if abs(here - y[i, j - 1]) < height or abs(here - y[i, j + 1]) < height:
                continue
            if not abs(here) < np.float32(np.inf):
                continue
            low, high, total = np.float32(np.inf), np.float32(-np.inf), np.float32(0)
            for a in range(i - 1, i + 2):
                for b in range(j - 1, j + 2):
                    if a != i or b != j:
                        neighbour = y[a, b]
                        total += neighbour  # NaN or infinite when a neighbour is
                        low, high = min(low, neighbour), max(high, neighbour)
            excess = here - high if here > high else low - here
            mean = total / np.float32(8)
            if excess > height and high - low < share * abs(here - mean) and abs(total) < np.float32(np.inf):
                found[i, j] = True
                count += 1
    return count
