"""Which of several kernels explains the windows best: each restores them, and what comes out is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.edges import gradients
from tilepipe.psf.blind.splitting import Window

__all__ = ["Score", "Scorer"]

RIM = 20
"""Border of a window that is not judged, px, or half the widest kernel if that is more: there the restoration guesses
what lies beyond."""

TOLERANCE = 1.08
"""A kernel may misfit by this factor more than the best one and still win by restoring a sparser picture."""

NOISE_SHARE = 0.6
"""A misfit below this share of the noise is no merit: the restoration follows the noise."""

SMALLEST_LAM, LAM_PER_VARIANCE = 2e-4, 8.0
"""Weight of the total variation while judging: 8 sigma^2, but not less."""


@dataclass(frozen=True, eq=False)
class Score:
    """A kernel with what it makes of the windows.

    Parameters
    ----------
    kernel : float32 (k, k), sum 1.
    misfit : standard deviation of k*x - y, the unit of the windows.
    density : l1 / l2 norm of the restored gradients; sharp pictures without ringing have a low one
        (Krishnan, Tay & Fergus 2011).
    """

    kernel: FloatArray
    misfit: float
    density: float


class Scorer:
    """Judges kernels by the windows they restore, and remembers every verdict.

    Parameters
    ----------
    windows : blurred windows.
    noise : their noise, standard deviation.
    widest : edge of the widest kernel that will be judged, px.
    """

    def __init__(self, windows: Sequence[Window], noise: float, widest: int = 1) -> None:
        self.windows = windows
        self.rim = max(RIM, widest // 2)
        self.noise = noise
        self.lam = max(LAM_PER_VARIANCE * noise**2, SMALLEST_LAM)
        self.scores: list[Score] = []

    def restore(self, window: Window, kernel: FloatArray) -> FloatArray:
        """Return the window restored with `kernel`, as it is for judging."""
        return window.total_variation(kernel, self.lam)

    def score(self, kernel: FloatArray) -> Score:
        """Restore every window with `kernel`; return and remember the verdict."""
        misfit = first = second = 0.0
        pixels = 0
        for window in self.windows:
            rim = min(self.rim, min(window.blurred.shape) // 4)
            inside = np.s_[rim:-rim, rim:-rim]
            restored = self.restore(window, kernel)
            residual = (window.blur(restored, kernel) - window.blurred)[inside]
            residual = residual - residual.mean()
            length = np.hypot(*gradients(restored))[inside]
            misfit += float(np.vdot(residual, residual))
            first += float(length.sum(dtype=np.float64))
            second += float(np.vdot(length, length))
            pixels += residual.size
        score = Score(kernel, (misfit / pixels) ** 0.5, first / max(second * pixels, 1e-30) ** 0.5)
        self.scores.append(score)
        return score

    def best(self) -> Score:
        """Return the verdict of lowest density among those whose misfit is within TOLERANCE of the lowest.

        Misfit alone prefers kernels that explain noise; density alone is fooled by a carpet of faint taps.
        """
        limit = TOLERANCE * max(NOISE_SHARE * self.noise, min(score.misfit for score in self.scores))
        return min((score for score in self.scores if score.misfit <= limit), key=lambda v: v.density)
