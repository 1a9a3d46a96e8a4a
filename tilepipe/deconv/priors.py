"""Priors of an image's gradients, as shrinkages: the factor by which a splitting step shortens a gradient.

Every prior here is a penalty of the gradient's length |g|, taken jointly over rows, columns and colours.  Its step
``w = argmin tau phi(|w|) + |w - u|^2 / 2`` shortens u and keeps its direction, so a prior is one curve: the factor
|w| / |u| against |u|.  Total variation has a formula; the others are tabulated once and interpolated, which makes a
non-convex penalty as fast as a convex one and turns its jump (w is 0 below a threshold) into a steep ramp.

- ``tv``: phi = |g|.  Convex, the most local.
- ``sparse``: phi = |g|^(2/3), the hyper-Laplacian (Krishnan & Fergus 2009).
- ``log``: phi = log(1 + |g|^2 / s^2), the Cauchy distribution with scale s (Perrone & Favaro 2016, eq. 5, with s for
  their epsilon and in the units of the data).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = ["fit_log", "shrinkage"]

EXPONENT = 2 / 3
"""Exponent of the hyper-Laplacian."""

ENTRIES = 4096
"""Entries of a table; the last is used for all longer gradients, which are hardly shortened."""

REACH = 64.0
"""Longest gradient in a table, in multiples of the prior's characteristic length."""

ROUNDS = 200
"""Iterations of majorisation-minimisation; each about halves the error, less where two minima meet."""

TV_TABLE: FloatArray = np.zeros(0, np.float32)
"""Empty table: total variation is computed by its formula."""


@lru_cache(maxsize=64)
def shrinkage(prior: str, tau: float, scale: float) -> tuple[FloatArray, float]:
    """Return a prior's table of factors |w| / |u|.

    Parameters
    ----------
    prior : {"tv", "sparse", "log"}
        Prior.
    tau : float
        Weight of the penalty over that of the splitting.
    scale : float
        Scale s of the Cauchy distribution, linear light per pixel; unused by the others.

    Returns
    -------
    factors : ndarray of float32, shape (ENTRIES,)
        Empty for "tv".
    per_unit : float
        Number of entries per unit of |u|.
    """
    if prior == "tv":
        return TV_TABLE, 0.0
    length = max(scale, np.sqrt(2 * tau)) if prior == "log" else tau ** (1 / (2 - EXPONENT))
    longest = REACH * float(length)
    lengths = np.linspace(0, longest, ENTRIES)[1:]
    kept = _minimisers(prior, tau, scale, lengths)
    factors = np.concatenate([[kept[0] / lengths[0]], kept / lengths]).astype(np.float32)
    factors.flags.writeable = False
    return factors, (ENTRIES - 1) / longest


def _minimisers(prior: str, tau: float, scale: float, lengths: DoubleArray) -> DoubleArray:
    """Return the |w| that minimise tau phi(w) + (w - u)^2 / 2 for every u in `lengths`.

    Majorisation by a parabola (weight: the slope of phi over w) converges to the minimum nearest to its start; it is
    started at u and close to 0, and the lower of the two minima is returned.
    """
    minima = []
    for start in (lengths, 1e-6 * lengths):
        w = start
        for _ in range(ROUNDS):
            w = lengths / (1 + tau * _slope_over_length(prior, w, scale))
        minima.append(w)
    cost = [tau * _penalty(prior, w, scale) + (w - lengths) ** 2 / 2 for w in minima]
    lower: DoubleArray = np.where(cost[0] <= cost[1], minima[0], minima[1])
    return lower


def _penalty(prior: str, w: DoubleArray, scale: float) -> DoubleArray:
    penalty: DoubleArray = np.log1p((w / scale) ** 2) if prior == "log" else w**EXPONENT
    return penalty


def _slope_over_length(prior: str, w: DoubleArray, scale: float) -> DoubleArray:
    slope: DoubleArray = 2 / (scale**2 + w**2) if prior == "log" else EXPONENT * np.maximum(w, 1e-30) ** (EXPONENT - 2)
    return slope


def fit_log(pictures: Iterable[FloatArray]) -> tuple[float, float]:
    """Return scale s and exponent b of the Cauchy distribution that best fits the gradients of images (c, h, w).

    The density of a gradient g is proportional to ``s^-2 (1 + |g|^2 / s^2)^-b`` with b > 1 (a bivariate t, Kotz &
    Nadarajah 2004, eq. 1.1): colours vary together, so that their joint length follows the distribution of one colour.
    The most likely pair on a grid with steps of 1/3 octave in s and 1/8 octave in b - 1 is returned.
    """
    squares = []
    for picture in pictures:
        across = picture[:, :-1, 1:] - picture[:, :-1, :-1]
        down = picture[:, 1:, :-1] - picture[:, :-1, :-1]
        squares.append((across**2 + down**2).sum(0).ravel())
    lengths = np.concatenate(squares).astype(np.float64)
    best = (-np.inf, 1e-2, 2.0)
    for scale in np.geomspace(1e-4, 0.3, 36):
        mean = float(np.log1p(lengths / scale**2).mean())
        for extra in np.geomspace(0.05, 20, 70):
            likelihood = np.log(extra) - 2 * np.log(scale) - (1 + extra) * mean
            if likelihood > best[0]:
                best = (float(likelihood), float(scale), float(1 + extra))
    return best[1], best[2]
