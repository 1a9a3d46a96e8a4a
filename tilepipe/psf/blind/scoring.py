"""Scoring of kernels: the windows are restored with each kernel and the results are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.edges import gradients
from tilepipe.psf.blind.splitting import Window

__all__ = ["Each", "Score", "Scorer"]

Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""(function, items) -> results in the items' order: ``map``, or that of an executor."""

RIM = 20
"""Border of a window excluded from the score, px; half the widest kernel if that is more.  There the restoration
depends on unknown pixels outside the window."""

TOLERANCE = 1.08
"""Largest ratio of a kernel's misfit to the smallest misfit at which it can still win by a sparser restoration."""

NOISE_SHARE = 0.6
"""Share of the noise below which a smaller misfit is no advantage: the restoration then fits the noise."""

SMALLEST_LAM, LAM_PER_VARIANCE = 2e-4, 8.0
"""Weight of the total variation in scoring: 8 sigma^2, at least 2e-4."""


@dataclass(frozen=True, eq=False)
class Score:
    """A kernel and the quality of the windows restored with it.

    Parameters
    ----------
    kernel : ndarray of float32, shape (k, k)
        Sum 1.
    misfit : float
        Standard deviation of k*x - y, in the unit of the windows.
    density : float
        l1 / l2 norm of the restored gradients; low for sharp images without ringing (Krishnan, Tay & Fergus 2011).
    """

    kernel: FloatArray
    misfit: float
    density: float


class Scorer:
    """Scores kernels by the windows restored with them and stores all scores.

    Parameters
    ----------
    windows : sequence of Window
        Blurred windows.
    noise : float
        Standard deviation of their noise.
    widest : int
        Size of the widest kernel to be scored, px.
    """

    def __init__(self, windows: Sequence[Window], noise: float, widest: int = 1) -> None:
        self.windows = windows
        self.rim = max(RIM, widest // 2)
        self.noise = noise
        self.lam = max(LAM_PER_VARIANCE * noise**2, SMALLEST_LAM)
        self.scores: list[Score] = []

    def restore(self, window: Window, kernel: FloatArray) -> FloatArray:
        """Return the window restored with `kernel`, as used for the score."""
        return window.total_variation(kernel, self.lam)

    def score(self, kernel: FloatArray) -> Score:
        """Restore all windows with `kernel`; store and return the score."""
        return self.score_all([kernel])[0]

    def score_all(self, kernels: Sequence[FloatArray], each: Each = map) -> list[Score]:
        """Score `kernels` with `each`, which may work in parallel; store the scores in this order and return them."""
        scores = list(each(self._score, kernels))
        self.scores.extend(scores)
        return scores

    def _score(self, kernel: FloatArray) -> Score:
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
        return Score(kernel, (misfit / pixels) ** 0.5, first / max(second * pixels, 1e-30) ** 0.5)

    def best(self) -> Score:
        """Return the score of lowest density among those whose misfit is within TOLERANCE of the lowest.

        Misfit alone prefers kernels that fit noise; density alone prefers kernels with many faint taps everywhere.
        """
        limit = TOLERANCE * max(NOISE_SHARE * self.noise, min(score.misfit for score in self.scores))
        return min((score for score in self.scores if score.misfit <= limit), key=lambda score: score.density)
