"""The last check before a picture is restored, on windows of it: nothing may speak against the blur that was found.

The windows are from all over the picture; a free-form kernel was estimated from others.  When the signs say that the
restoration goes too far, the blur's width is taken back step by step, as a blur taken for too narrow costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.noise import Noise
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.signs import Signs, read_signs
from tilepipe.deconv.solvers import restore
from tilepipe.dtypes import FloatArray
from tilepipe.planning.schedules import RestorationOptions, candidate_parameters
from tilepipe.psf.model import PSF

__all__ = ["Check", "check_restoration", "windows_to_check"]

EDGE, MOST = 384, 4
"""Edge of the windows that are checked, px, and how many."""

OVERSHOOT, OVERSHOOT_PER_PX = 0.035, 0.035
"""Median overshoot that is allowed, and how much more for every px of the PSF's spread."""

NEGATIVE = 0.006
"""Share of pixels below zero that is allowed."""

GROWTH = 2.5
"""Growth of fine differences in flat parts that is allowed."""

WIDE_SLACK, WIDE_NEGATIVE = 20.0, 0.3
"""Times the limits for a free-form kernel, whose spectrum has been checked; share of pixels below zero that is allowed
then: in a dark hall behind a shake of 67 px the true kernel puts a fifth to a quarter there."""

FEWEST_EDGES = 20
"""Isolated edges without which overshoot says nothing."""


@dataclass(frozen=True)
class Check:
    """What the last check found.

    Parameters
    ----------
    passed : nothing speaks against the restoration.
    why : what does, for people; empty when nothing does.
    signs : medians over the windows.
    """

    passed: bool
    why: str
    signs: Signs

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "passed": self.passed,
            "why": self.why,
            "overshoot": round(self.signs.overshoot, 3),
            "negative": round(self.signs.negative, 4),
            "growth": round(self.signs.growth, 2),
            "residual": round(self.signs.residual, 2),
        }


def windows_to_check(windows: Sequence[FloatArray]) -> list[FloatArray]:
    """Return the middles of some windows (c, h, w)."""
    cut = []
    for window in windows[:MOST]:
        height, width = window.shape[1:]
        top, left = max(0, (height - EDGE) // 2), max(0, (width - EDGE) // 2)
        cut.append(np.ascontiguousarray(window[:, top : top + EDGE, left : left + EDGE]))
    return cut


def check_restoration(
    windows: Sequence[FloatArray], noise: Noise, psf: PSF, options: RestorationOptions, *, free_form: bool = False
) -> Check:
    """Restore windows (c, h, w) with a PSF and read the signs.

    Parameters
    ----------
    windows : working units, finite.
    free_form : the PSF is a free-form kernel: a wide blur's restoration has more of everything.
    """
    numbers = candidate_parameters(replace(options, refocus=False), noise, psf, windows)[0]
    signs = [_signs(window, psf, numbers) for window in windows]
    return _judged(signs, psf, free_form=free_form)


def _signs(window: FloatArray, psf: PSF, numbers: Parameters) -> Signs:
    work = Workspace(len(window), (window.shape[1], window.shape[2]), spectra=numbers.keeps_spectra)
    work.y[...], work.x[...] = window, window
    restored = restore(work, Spectrum.of(psf.planes, work.shape), numbers)
    return read_signs(window.mean(0), restored.mean(0), psf.kernel, max(numbers.sigma, 1e-6))


def _judged(signs: Sequence[Signs], psf: PSF, *, free_form: bool) -> Check:
    edges = np.array([max(one.edges, 1) for one in signs], np.float64)

    def mean(name: str) -> float:
        return float(np.average([getattr(one, name) for one in signs], weights=edges))

    spread = float(np.mean(psf.facts()["spread"]))
    joint = Signs(
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
    if joint.edges >= FEWEST_EDGES and joint.overshoot > allowed:
        why.append(f"edges overshoot by {100 * joint.overshoot:.0f} % (allowed {100 * allowed:.0f} %)")
    if joint.negative > negative:
        why.append(f"{100 * joint.negative:.1f} % of the pixels fall below zero (allowed {100 * negative:.1f} %)")
    if joint.growth > growth:
        why.append(f"noise in flat parts grows {joint.growth:.1f} times (allowed {growth:g})")
    return Check(not why, "; ".join(why), joint)
