"""What a picture's gradients are like, as shrinkages: how much of a gradient survives a step of the splitting.

Every prior here is a penalty of the gradient's length |g|, taken jointly over rows, columns and colours.  Its step
``w = argmin tau phi(|w|) + |w - u|^2 / 2`` shortens u and keeps its direction, so a prior is one curve: the factor
|w| / |u| against |u|.  Total variation's is a formula; the others are tabulated once and looked up, which makes
a non-convex penalty no slower than a convex one, and its jump (below a threshold everything goes) a steep ramp.

- ``tv``: phi = |g|.  Convex, the most local.
- ``sparse``: phi = |g|^(2/3), the hyper-Laplacian (Krishnan & Fergus 2009).
- ``log``: phi = log(1 + |g|^2 / s^2), the law of Cauchy with scale s (Perrone & Favaro 2016, eq. 5, with s for
  their epsilon and in the data's own units).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

import numpy as np

from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = ["fit_log", "shrinkage"]

EXPONENT = 2 / 3
"""Of the hyper-Laplacian."""

ENTRIES = 4096
"""Of a table; the last holds for all longer gradients, where hardly anything is taken off."""

REACH = 64.0
"""Longest gradient in a table, in multiples of the prior's own length."""

ROUNDS = 200
"""Of majorisation-minimisation; each roughly halves the error, least where two minima meet."""

TV_TABLE: FloatArray = np.zeros(0, np.float32)
"""No table: total variation is computed."""


@lru_cache(maxsize=64)
def shrinkage(prior: str, tau: float, scale: float) -> tuple[FloatArray, float]:
    """Return a prior's factors |w| / |u| and how many of them there are per unit of |u|.

    Parameters
    ----------
    prior : "tv", "sparse" or "log".
    tau : the penalty's weight over the splitting's.
    scale : s of the law of Cauchy, linear light per pixel; unused by the others.
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

    Majorisation by a parabola (the slope of phi over w, as a weight) falls into the minimum next to its start;
    started at u and next to 0, the lower of the two is taken.
    """
    found = []
    for start in (lengths, 1e-6 * lengths):
        w = start
        for _ in range(ROUNDS):
            w = lengths / (1 + tau * _slope_over_length(prior, w, scale))
        found.append(w)
    cost = [tau * _penalty(prior, w, scale) + (w - lengths) ** 2 / 2 for w in found]
    lower: DoubleArray = np.where(cost[0] <= cost[1], found[0], found[1])
    return lower


def _penalty(prior: str, w: DoubleArray, scale: float) -> DoubleArray:
    penalty: DoubleArray = np.log1p((w / scale) ** 2) if prior == "log" else w**EXPONENT
    return penalty


def _slope_over_length(prior: str, w: DoubleArray, scale: float) -> DoubleArray:
    slope: DoubleArray = 2 / (scale**2 + w**2) if prior == "log" else EXPONENT * np.maximum(w, 1e-30) ** (EXPONENT - 2)
    return slope


def fit_log(pictures: Iterable[FloatArray]) -> tuple[float, float]:
    """Return scale and exponent of the law of Cauchy that the gradients of pictures (c, h, w) follow best.

    The density of a gradient g is proportional to ``s^-2 (1 + |g|^2 / s^2)^-b`` with b > 1 (a bivariate t, Kotz &
    Nadarajah 2004, eq. 1.1): colours move together, so that their joint length follows the law of one.  The most
    likely pair on a grid of thirds of an octave for s and eighths for b - 1.
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
            likely = np.log(extra) - 2 * np.log(scale) - (1 + extra) * mean
            if likely > best[0]:
                best = (float(likely), float(scale), float(1 + extra))
    return best[1], best[2]
