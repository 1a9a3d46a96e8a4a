"""Last check before an image is restored: the PSF is tested on windows of it.

The windows are spread over the image; a free-form kernel was estimated from others.  When the signs show that the
restoration goes too far, the width of the blur is reduced step by step, as too narrow a blur costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilepipe.deconv.frames import amplification
from tilepipe.deconv.noise import Noise
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.signs import Signs, read_signs
from tilepipe.dtypes import FloatArray
from tilepipe.planning.schedules import RestorationOptions, candidate_parameters
from tilepipe.planning.seam_error import restore_window
from tilepipe.psf.model import PSF

__all__ = ["Check", "check_restoration", "middle"]

EDGE = 384
"""Edge of the windows that are checked, px."""

OVERSHOOT, OVERSHOOT_PER_PX = 0.035, 0.035
"""Median overshoot allowed, and its increase per px of the PSF's spread."""

NEGATIVE = 0.006
"""Allowed share of pixels below zero."""

GROWTH = 2.5
"""Allowed growth of fine differences in flat regions."""

WIDE_SLACK, WIDE_NEGATIVE = 20.0, 0.3
"""For a free-form kernel, whose spectrum has been checked: factor on the limits of overshoot and growth, and allowed
share of pixels below zero.  In a dark hall behind a shake of 67 px the true kernel yields a fifth to a quarter."""

FEWEST_EDGES = 20
"""Number of isolated edges below which overshoot is not evaluated."""


@dataclass(frozen=True)
class Check:
    """Result of the last check.

    Parameters
    ----------
    passed : bool
        Whether all signs are within their limits.
    why : str
        Limits that are exceeded, as text; empty when there are none.
    signs : Signs
        Combined over the windows.
    """

    passed: bool
    why: str
    signs: Signs

    def facts(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "passed": self.passed,
            "why": self.why,
            "overshoot": round(self.signs.overshoot, 3),
            "negative": round(self.signs.negative, 4),
            "growth": round(self.signs.growth, 2),
            "residual": round(self.signs.residual, 2),
        }


def middle(window: FloatArray) -> FloatArray:
    """Return the central part of a window (c, h, w) that is checked."""
    height, width = window.shape[1:]
    top, left = max(0, (height - EDGE) // 2), max(0, (width - EDGE) // 2)
    return np.ascontiguousarray(window[:, top : top + EDGE, left : left + EDGE])


def check_restoration(
    windows: Sequence[FloatArray],
    noise: Noise,
    psfs: Sequence[PSF],
    options: RestorationOptions,
    *,
    free_form: bool = False,
    threads: int = 1,
) -> Check:
    """Restore windows with the PSF and compare the signs with their limits.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (c, h, w)
        Working units, finite.
    noise : Noise
        Noise of the image.
    psfs : sequence of PSF
        The PSF to check, at each window.
    options : RestorationOptions
        The user's options.
    free_form : bool
        Whether the PSF is a free-form kernel: restoring a wide blur shows more of every sign.
    threads : int
        Number of windows restored at a time; the result does not depend on it.
    """
    widest = max(psfs, key=_spread)
    amplified = float(np.mean([amplification(psf.kernel) for psf in psfs]))
    parameters = candidate_parameters(replace(options, refocus=False), noise, widest, windows, amplified)[0]
    with ThreadPoolExecutor(threads) as pool:
        signs = list(pool.map(lambda window, psf: _restoration_signs(window, psf, parameters), windows, psfs))
    return _evaluate(signs, float(np.mean([_spread(psf) for psf in psfs])), free_form=free_form)


def _spread(psf: PSF) -> float:
    """Return the mean standard deviation along the axes, px."""
    return float(np.mean(psf.facts()["spread"]))


def _restoration_signs(window: FloatArray, psf: PSF, parameters: Parameters) -> Signs:
    """Restore a window (c, h, w) and return the signs."""
    restored = restore_window(window, psf.planes, parameters)
    return read_signs(window.mean(0), restored.mean(0), psf.kernel, max(parameters.sigma, 1e-6))


def _evaluate(signs: Sequence[Signs], spread: float, *, free_form: bool) -> Check:
    """Combine the signs of all windows and compare them with their limits, for a PSF of `spread` px."""
    edges = np.array([max(one.edges, 1) for one in signs], np.float64)

    def mean(name: str) -> float:
        return float(np.average([getattr(one, name) for one in signs], weights=edges))

    combined = Signs(
        overshoot=mean("overshoot"),
        worst=mean("worst"),
        edges=int(sum(one.edges for one in signs)),
        negative=float(np.mean([one.negative for one in signs])),
        growth=float(np.median([one.growth for one in signs])),
        residual=float(np.median([one.residual for one in signs])),
        likeness=float(np.median([one.likeness for one in signs])),
    )
    slack = WIDE_SLACK if free_form else 1.0
    allowed, growth = slack * (OVERSHOOT + OVERSHOOT_PER_PX * spread), slack * GROWTH
    negative = WIDE_NEGATIVE if free_form else NEGATIVE
    why = []
    if combined.edges >= FEWEST_EDGES and combined.overshoot > allowed:
        why.append(f"edges overshoot by {100 * combined.overshoot:.0f} % (allowed {100 * allowed:.0f} %)")
    if combined.negative > negative:
        why.append(f"{100 * combined.negative:.1f} % of the pixels are below zero (allowed {100 * negative:.1f} %)")
    if combined.growth > growth:
        why.append(f"noise in flat regions grows {combined.growth:.1f} times (allowed {growth:g})")
    return Check(not why, "; ".join(why), combined)
