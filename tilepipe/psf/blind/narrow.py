"""The blur of a picture from windows of it, blind: width, several ways to the kernel, the best one judged and polished.

Sharp edges are predicted by a restoration with few gradients (Xu, Zheng & Jia, CVPR 2013), the kernel follows from
them by least squares (Cho & Lee 2009), in turn, from a 5 px kernel on a small picture up to the full size (Pan et
al., CVPR 2014): :mod:`tilepipe.psf.blind.alternation`.  No single set of parameters suits every picture, so a few
variants run to completion and are scored by what they restore (:mod:`tilepipe.psf.blind.scoring`); the best kernel is
refined by steps that the same score accepts or rejects.  Arrays only: no files, no dask.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.alternation import SPARSITY_PER_NOISE, Level, Variant, coarse_to_fine, refine, shrunk
from tilepipe.psf.blind.confidence import confidence, relief
from tilepipe.psf.blind.scoring import Score, Scorer
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.kernel_ops import align, border_mass, centre_in, core_mass, delta_kernel, extent, fit_to, normalised

__all__ = [
    "ESTIMATOR_VERSION",
    "Estimate",
    "Merit",
    "at_ordinary_contrast",
    "compare",
    "estimate_kernel",
    "likeness",
    "refine_kernel",
]

ESTIMATOR_VERSION = 5
"""Raised whenever the same windows would give another kernel."""

CONTRAST = 0.18
"""Standard deviation that windows are scaled to: the weights below are for pictures of ordinary contrast."""

CANDIDATES = (
    Variant(nonnegative=True, margin=1.0, sparsity=2e-2),
    Variant(nonnegative=False, margin=1.0),
    Variant(nonnegative=True, margin=0.25, sparsity=2e-3, decay=1.07, wider=4),
    Variant(nonnegative=False, margin=0.25, mass=0.1, sparsity=5e-3),
)
"""Complementary: wide margins for windows with much at their border, narrow ones keep edges; projected gradients
are clean in noise, conjugate gradients keep faint tails."""

SCOUT = CANDIDATES[2]
"""The way that finds the width, and what a single window says."""

WIDTHS = (7, 15, 35)
"""Tried when the width is not known, px."""

WIDER = 65
"""Tried as well when the kernel fills more than ROOMY of the last of them, or reaches far at half the scale."""

ROOMY = 0.75

HALVES = (17, 33)
"""Widths tried at half the scale, where a long path with faint stretches is not yet lost, px there."""

HALF_NOISE = 0.28
"""What halving leaves of white noise, 1 / (2 sqrt(pi)): the Gaussian of 1 px before it."""

NEARLY = 1.04
"""Density up to which a wider kernel is taken for as good: too wide is mended later, too narrow is not."""

SHARP_SIZE = 7
"""Kernel width at which a picture is asked whether it is blurred at all, px."""

SHARP_MASS = 0.85
"""Mass within 3 x 3 px from which on it is not."""

NOISE_FLOOR = 1e-3
"""Noise that misfits are compared with is at least this, at the contrast above: no model is more exact."""

POLISH_FROM, POLISH_QUIET_FROM = 1.1, 0.7
"""Misfit over noise from which on polishing pays: below, the noise decides what looks better."""

QUIET = 0.006
"""Noise, at the contrast above, below which the judge smooths more than the noise asks for: the true kernel then
restores far below the noise, and a misfit near it is a reason to go on."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A kernel found blind, with what speaks for it.

    Parameters
    ----------
    kernel : float32 (k, k), sum 1, centred to whole pixels.
    agreement : mean normalised correlation, 0..1, of the kernel with those that other ways and single windows gave.
    border : share of its mass at its border, 0..1; high when it does not fit the width.
    gain : density without deblurring over density with it (:class:`~tilepipe.psf.blind.scoring.Score`); above 1 when
        deblurring makes the picture sparser.
    misfit : misfit over noise; noise below NOISE_FLOOR counts as that.
    relief : how far the windows' structures rise above the noise (:func:`tilepipe.psf.blind.confidence.relief`).
    sharp : the picture is not blurred; the kernel is a delta then.
    """

    kernel: FloatArray
    agreement: float
    border: float
    gain: float
    misfit: float
    relief: float
    sharp: bool

    @property
    def confidence(self) -> float:
        """How far the kernel can be trusted, 0..1."""
        return confidence(self.agreement, self.relief, self.gain, self.misfit, self.border, sharp=self.sharp)


def estimate_kernel(
    windows: Sequence[FloatArray], noise: float, size: int | None = None, *, threads: int = 1
) -> Estimate:
    """Find the kernel k of y = k * x from windows of y.

    Parameters
    ----------
    windows : float32 (h, w) each, linear light, all with the same blur, finite; at least 3 kernels wide.
    noise : standard deviation of their noise.
    size : edge of the kernel, px, odd; None finds it.
    threads : ways gone at a time; the result does not depend on it.
    """
    windows, noise = at_ordinary_contrast(windows, noise)
    with ThreadPoolExecutor(threads) as pool:

        def go(variants: Sequence[Variant], width: int) -> list[FloatArray]:
            return list(pool.map(partial(coarse_to_fine, windows, width, noise), variants))

        if size is None:
            narrow = go(CANDIDATES, SHARP_SIZE)
            if float(np.median([core_mass(kernel) for kernel in narrow])) >= SHARP_MASS:
                return _sharp(windows, noise, narrow)
            size = _width(windows[0], noise)
        kernels = go(CANDIDATES, size)
        alone = [[window] for window in windows] if windows[1:] else []
        single = list(pool.map(lambda one: coarse_to_fine(one, size, noise, SCOUT), alone))
    scorer, best = _judged(windows, noise, kernels)
    kernel = centre_in(best.kernel, size)
    others = [one for one in kernels if one is not best.kernel] + single
    plain = scorer.score(delta_kernel(1))
    return Estimate(
        kernel=kernel,
        agreement=float(np.mean([likeness(one, kernel) for one in others])),
        border=border_mass(best.kernel),
        gain=plain.density / best.density,
        misfit=best.misfit / max(noise, NOISE_FLOOR),
        relief=relief(windows, noise),
        sharp=False,
    )


def refine_kernel(windows: Sequence[FloatArray], noise: float, kernel: FloatArray) -> FloatArray:
    """Return what other windows make of a kernel (k, k) that is nearly right for them; (k, k), sum 1.

    Parameters
    ----------
    windows, noise : as for :func:`estimate_kernel`.
    """
    windows, noise = at_ordinary_contrast(windows, noise)
    refined = [refine(windows, kernel, noise, variant) for variant in CANDIDATES]
    _, best = _judged(windows, noise, [kernel, *refined])
    return best.kernel


@dataclass(frozen=True)
class Merit:
    """What a kernel makes of windows: `gain` and `misfit` as in :class:`Estimate`."""

    gain: float
    misfit: float


def compare(
    windows: Sequence[FloatArray], noise: float, one: FloatArray, other: FloatArray
) -> tuple[float, Merit, Merit]:
    """Return the likeness of two kernels, 0..1, and the merit of each on `windows` (float32 (h, w) each)."""
    windows, noise = at_ordinary_contrast(windows, noise)
    widest = max(one.shape[0], other.shape[0])
    scorer = Scorer([Window(window, widest) for window in windows], noise)
    plain = scorer.score(delta_kernel(1))
    scores = [scorer.score(kernel) for kernel in (one, other)]
    first, second = (Merit(plain.density / v.density, v.misfit / max(noise, NOISE_FLOOR)) for v in scores)
    return likeness(one, other), first, second


def at_ordinary_contrast(windows: Sequence[FloatArray], noise: float) -> tuple[list[FloatArray], float]:
    """Return the windows, and their noise, at the contrast that all weights here are for."""
    scale = CONTRAST / max(float(np.sqrt(np.mean([window.var() for window in windows]))), 1e-9)
    return [np.ascontiguousarray(window * np.float32(scale)) for window in windows], noise * scale


def _sharp(windows: Sequence[FloatArray], noise: float, kernels: Sequence[FloatArray]) -> Estimate:
    delta = delta_kernel(1)
    scorer, best = _judged(windows, noise, kernels, rounds=0)
    return Estimate(
        kernel=delta,
        agreement=float(np.mean([core_mass(kernel) for kernel in kernels])),
        border=0.0,
        gain=scorer.score(delta).density / best.density,
        misfit=best.misfit / max(noise, NOISE_FLOOR),
        relief=relief(windows, noise),
        sharp=True,
    )


def _width(window: FloatArray, noise: float) -> int:
    """Return the width that the kernel needs: the widest whose restoration is nearly as sparse as the sparsest."""
    kernels = _scouted(window, noise, [width for width in WIDTHS if 3 * width <= min(window.shape)] or [WIDTHS[0]])
    if min(window.shape) >= 3 * WIDER and (extent(kernels[-1]) > ROOMY * WIDTHS[-1] or _reaches_far(window, noise)):
        kernels += _scouted(window, noise, [WIDER])
    densities = _densities(window, noise, kernels)
    fitting = [one for one, density in zip(kernels, densities, strict=True) if density <= NEARLY * min(densities)]
    return max(5, extent(fitting[-1]) + 2)


def _reaches_far(window: FloatArray, noise: float) -> bool:
    """Return whether half the scale asks for a kernel wider than WIDTHS hold, and restores no less sparsely by it."""
    half, noise = shrunk(window, 0.5), noise * HALF_NOISE
    kernels = _scouted(half, noise, HALVES)
    near, far = _densities(half, noise, kernels)
    return far <= near and extent(kernels[-1]) > WIDTHS[-1] / 2


def _scouted(window: FloatArray, noise: float, widths: Sequence[int]) -> list[FloatArray]:
    return [coarse_to_fine([window], width, noise, replace(SCOUT, wider=0)) for width in widths]


def _densities(window: FloatArray, noise: float, kernels: Sequence[FloatArray]) -> list[float]:
    scorer = Scorer([Window(window, kernels[-1].shape[0])], noise)
    return [scorer.score(kernel).density for kernel in kernels]


def _judged(
    windows: Sequence[FloatArray], noise: float, kernels: Sequence[FloatArray], rounds: int = 8
) -> tuple[Scorer, Score]:
    widest = max(kernel.shape[0] for kernel in kernels)
    scorer = Scorer([Window(window, widest) for window in windows], noise)
    for kernel in kernels:
        scorer.score(fit_to(kernel, widest))
    best = scorer.best()
    if best.misfit > (POLISH_QUIET_FROM if noise < QUIET else POLISH_FROM) * noise:
        best = _polish(scorer, best, noise, rounds)
    return scorer, best


def _polish(scorer: Scorer, best: Score, noise: float, rounds: int) -> Score:
    """Improve a kernel by small steps, each accepted or refused by the judge; return the best in the end.

    Proposed are: a little sharper, a little softer (edges in the picture are not the ideal steps that sparse
    gradients assume, which biases the width of the kernel), half-way towards the kernel that the restored window
    asks for, half-way towards the one that its sharp edges ask for.
    """
    level = Level(scorer.windows, best.kernel.shape[0])
    threshold = level.threshold(SCOUT.edges * best.kernel.shape[0])
    variant = Variant(nonnegative=True, margin=0.25, floor=0.03)
    sparsity = max(variant.sparsest, SPARSITY_PER_NOISE * noise)
    for _ in range(rounds):
        kernel = best.kernel
        restored = level.solve([scorer.restore(window, kernel) for window in scorer.windows], variant, threshold / 1.5)
        sharp = level.turn(kernel, variant, sparsity, threshold)
        scorer.score(_sharpened(kernel, 0.5))
        scorer.score(normalised(scipy.ndimage.gaussian_filter(kernel, 0.4)))
        scorer.score(normalised(kernel + restored))
        scorer.score(normalised(kernel + sharp))
        if scorer.best() is best:
            break
        best = scorer.best()
    return best


def _sharpened(kernel: FloatArray, amount: float) -> FloatArray:
    soft = scipy.ndimage.gaussian_filter(kernel, 0.7)
    return normalised(np.maximum(kernel + np.float32(amount) * (kernel - soft), 0))


def likeness(one: FloatArray, other: FloatArray) -> float:
    """Return the correlation of two kernels, aligned, and smoothed so that a thin path may lie half a pixel off."""
    soft = [scipy.ndimage.gaussian_filter(np.pad(kernel, 3), 1.0) for kernel in (one, other)]
    return align(soft[0], soft[1])[1]
