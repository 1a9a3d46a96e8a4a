"""Blind estimation of a kernel from windows of an image: width, several variants, selection and refinement by score.

Sharp edges are predicted by a restoration with few gradients (Xu, Zheng & Jia, CVPR 2013) and the kernel is computed
from them by least squares (Cho & Lee 2009), alternately, from a 5 px kernel on a small image up to the full size (Pan
et al., CVPR 2014): :mod:`tilepipe.psf.blind.alternation`.  No single set of parameters suits every image, so a few
variants run to completion and are scored by their restorations (:mod:`tilepipe.psf.blind.scoring`); the best kernel is
refined by steps that the same score accepts or rejects.  Arrays only: no files, no dask.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.alternation import SPARSITY_PER_NOISE, Level, Variant, coarse_to_fine, refine, shrunk
from tilepipe.psf.blind.confidence import confidence, relief
from tilepipe.psf.blind.scoring import Each, Score, Scorer
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

ESTIMATOR_VERSION = 7
"""Incremented whenever the same windows would give a different kernel."""

CONTRAST = 0.18
"""Standard deviation to which windows are scaled: the weights below assume images of ordinary contrast."""

CANDIDATES = (
    Variant(nonnegative=True, margin=1.0, sparsity=2e-2),
    Variant(nonnegative=False, margin=1.0),
    Variant(nonnegative=True, margin=0.25, sparsity=2e-3, decay=1.07, wider=4),
    Variant(nonnegative=False, margin=0.25, mass=0.1, sparsity=5e-3),
)
"""Complementary variants: wide margins suit windows with much structure at the border, narrow ones keep more edges;
projected gradients are robust to noise, conjugate gradients preserve faint tails."""

FIRST_VARIANT = CANDIDATES[2]
"""Variant that determines the width and estimates kernels from single windows."""

WIDTHS = (7, 15, 35)
"""Kernel widths tried if the size is not given, px."""

WIDER = 65
"""Also tried, px, if the kernel fills more than ROOMY of the last of WIDTHS, or is wide at half the scale."""

ROOMY = 0.75
"""Share of the last of WIDTHS; see WIDER."""

HALVES = (17, 33)
"""Kernel widths tried at half the scale, px there: a long path with faint stretches is still detected."""

HALF_NOISE = 0.28
"""Factor by which halving the scale reduces white noise, 1 / (2 sqrt(pi)): that of the preceding 1 px Gaussian."""

NEARLY = 1.04
"""Ratio to the lowest density up to which a wider kernel counts as equally good: too wide a kernel is corrected later,
too narrow a kernel is not."""

SHARP_SIZE = 7
"""Kernel width at which the image is tested for any blur, px."""

SHARP_MASS = 0.85
"""Median mass within 3 x 3 px at or above which the image counts as sharp."""

NOISE_FLOOR = 1e-3
"""Least noise with which misfits are compared, at the contrast above: no model is more accurate."""

POLISH_FROM, POLISH_QUIET_FROM = 1.1, 0.7
"""Misfit over noise above which the kernel is polished, in general and below QUIET; for smaller misfits the noise
decides which kernel scores better."""

QUIET = 0.006
"""Noise, at the contrast above, below which the scorer smooths more than the noise requires: the misfit of the true
kernel is then far below the noise, and a misfit near the noise justifies polishing."""


@dataclass(frozen=True, eq=False)
class Estimate:
    """A blindly estimated kernel and its quality measures.

    Parameters
    ----------
    kernel : ndarray of float32, shape (k, k)
        Sum 1, centred to whole pixels.
    agreement : float
        Mean normalised correlation with the kernels of other variants and of single windows, 0..1.
    border : float
        Share of the mass at the kernel's border, 0..1; high if the kernel does not fit its width.
    gain : float
        Density without deblurring over density with it (:class:`~tilepipe.psf.blind.scoring.Score`); above 1 if
        deblurring makes the image sparser.
    misfit : float
        Misfit over noise, the noise being at least NOISE_FLOOR.
    relief : float
        Height of the windows' structures over the noise (:func:`tilepipe.psf.blind.confidence.relief`).
    sharp : bool
        Whether the image is not blurred; the kernel is then a delta.
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
        """Confidence in the kernel, 0..1."""
        return confidence(self.agreement, self.relief, self.gain, self.misfit, self.border, sharp=self.sharp)


def estimate_kernel(
    windows: Sequence[FloatArray], noise: float, size: int | None = None, *, threads: int = 1
) -> Estimate:
    """Estimate the kernel k of y = k * x from windows of y.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (h, w)
        Linear light, finite, all with the same blur; at least 3 kernels wide.
    noise : float
        Standard deviation of their noise.
    size : int, optional
        Size of the kernel, px, odd; estimated by default.
    threads : int
        Number of variants run in parallel; the result does not depend on it.

    Returns
    -------
    Estimate
    """
    windows, noise = at_ordinary_contrast(windows, noise)
    with ThreadPoolExecutor(threads) as pool:

        def run(variants: Sequence[Variant], width: int) -> list[FloatArray]:
            return list(pool.map(partial(coarse_to_fine, windows, width, noise), variants))

        if size is None:
            narrow = run(CANDIDATES, SHARP_SIZE)
            if float(np.median([core_mass(kernel) for kernel in narrow])) >= SHARP_MASS:
                return _sharp_estimate(windows, noise, narrow, pool.map)
            size = _width(windows[0], noise)
        kernels = run(CANDIDATES, size)
        singles = [[window] for window in windows] if windows[1:] else []
        single = list(pool.map(lambda one: coarse_to_fine(one, size, noise, FIRST_VARIANT), singles))
        scorer, best = _scored(windows, noise, kernels, each=pool.map)
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
    """Refine an approximate kernel on other windows.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (h, w)
    noise : float
        As for :func:`estimate_kernel`.
    kernel : ndarray of float32, shape (k, k)
        Kernel that is nearly right for the windows.

    Returns
    -------
    ndarray of float32, shape (k, k)
        Sum 1.
    """
    windows, noise = at_ordinary_contrast(windows, noise)
    refined = [refine(windows, kernel, noise, variant) for variant in CANDIDATES]
    _, best = _scored(windows, noise, [kernel, *refined])
    return best.kernel


@dataclass(frozen=True)
class Merit:
    """Quality of a kernel on given windows: `gain` and `misfit` as in :class:`Estimate`."""

    gain: float
    misfit: float


def compare(
    windows: Sequence[FloatArray], noise: float, one: FloatArray, other: FloatArray
) -> tuple[float, Merit, Merit]:
    """Return the likeness of two kernels, 0..1, and the merit of each on `windows` (float32, (h, w) each)."""
    windows, noise = at_ordinary_contrast(windows, noise)
    widest = max(one.shape[0], other.shape[0])
    scorer = Scorer([Window(window, widest) for window in windows], noise)
    plain = scorer.score(delta_kernel(1))
    scores = [scorer.score(kernel) for kernel in (one, other)]
    first, second = (Merit(plain.density / s.density, s.misfit / max(noise, NOISE_FLOOR)) for s in scores)
    return likeness(one, other), first, second


def at_ordinary_contrast(windows: Sequence[FloatArray], noise: float) -> tuple[list[FloatArray], float]:
    """Return the windows and their noise scaled to the contrast that all weights here assume."""
    scale = CONTRAST / max(float(np.sqrt(np.mean([window.var() for window in windows]))), 1e-9)
    return [np.ascontiguousarray(window * np.float32(scale)) for window in windows], noise * scale


def _sharp_estimate(windows: Sequence[FloatArray], noise: float, kernels: Sequence[FloatArray], each: Each) -> Estimate:
    delta = delta_kernel(1)
    scorer, best = _scored(windows, noise, kernels, rounds=0, each=each)
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
    """Return the width of the kernel: that of the widest one whose restoration is nearly as sparse as the sparsest."""
    kernels = _kernels_at(window, noise, [width for width in WIDTHS if 3 * width <= min(window.shape)] or [WIDTHS[0]])
    if min(window.shape) >= 3 * WIDER and (
        extent(kernels[-1]) > ROOMY * WIDTHS[-1] or _is_wide_at_half_scale(window, noise)
    ):
        kernels += _kernels_at(window, noise, [WIDER])
    densities = _densities(window, noise, kernels)
    fitting = [one for one, density in zip(kernels, densities, strict=True) if density <= NEARLY * min(densities)]
    return max(5, extent(fitting[-1]) + 2)


def _is_wide_at_half_scale(window: FloatArray, noise: float) -> bool:
    """Return whether the kernel at half the scale exceeds WIDTHS and its restoration is at least as sparse."""
    half, noise = shrunk(window, 0.5), noise * HALF_NOISE
    kernels = _kernels_at(half, noise, HALVES)
    near, far = _densities(half, noise, kernels)
    return far <= near and extent(kernels[-1]) > WIDTHS[-1] / 2


def _kernels_at(window: FloatArray, noise: float, widths: Sequence[int]) -> list[FloatArray]:
    return [coarse_to_fine([window], width, noise, replace(FIRST_VARIANT, wider=0)) for width in widths]


def _densities(window: FloatArray, noise: float, kernels: Sequence[FloatArray]) -> list[float]:
    scorer = Scorer([Window(window, kernels[-1].shape[0])], noise)
    return [scorer.score(kernel).density for kernel in kernels]


def _scored(
    windows: Sequence[FloatArray], noise: float, kernels: Sequence[FloatArray], rounds: int = 8, each: Each = map
) -> tuple[Scorer, Score]:
    widest = max(kernel.shape[0] for kernel in kernels)
    scorer = Scorer([Window(window, widest) for window in windows], noise)
    scorer.score_all([fit_to(kernel, widest) for kernel in kernels], each)
    best = scorer.best()
    if best.misfit > (POLISH_QUIET_FROM if noise < QUIET else POLISH_FROM) * noise:
        best = _polish(scorer, best, noise, rounds, each)
    return scorer, best


def _polish(scorer: Scorer, best: Score, noise: float, rounds: int, each: Each) -> Score:
    """Improve a kernel by small steps that the scorer accepts or rejects; return the best score.

    Proposals: slightly sharper; slightly softer (edges in the image are not the ideal steps that sparse gradients
    assume, which biases the width of the kernel); the mean with the kernel computed from the restored windows; the
    mean with the kernel computed from their predicted sharp edges.
    """
    level = Level(scorer.windows, best.kernel.shape[0])
    threshold = level.threshold(FIRST_VARIANT.edges * best.kernel.shape[0])
    variant = Variant(nonnegative=True, margin=0.25, floor=0.03)
    sparsity = max(variant.sparsest, SPARSITY_PER_NOISE * noise)

    def with_restored(kernel: FloatArray) -> FloatArray:
        restored = [scorer.restore(window, kernel) for window in scorer.windows]
        return normalised(kernel + level.solve(restored, variant, threshold / 1.5))

    def with_sharp_edges(kernel: FloatArray) -> FloatArray:
        return normalised(kernel + level.turn(kernel, variant, sparsity, threshold))

    for _ in range(rounds):
        kernel = best.kernel
        proposals = [_sharpened(kernel, 0.5), normalised(scipy.ndimage.gaussian_filter(kernel, 0.4))]
        proposals += each(operator.call, [partial(with_restored, kernel), partial(with_sharp_edges, kernel)])
        scorer.score_all(proposals, each)
        if scorer.best() is best:
            break
        best = scorer.best()
    return best


def _sharpened(kernel: FloatArray, amount: float) -> FloatArray:
    soft = scipy.ndimage.gaussian_filter(kernel, 0.7)
    return normalised(np.maximum(kernel + np.float32(amount) * (kernel - soft), 0))


def likeness(one: FloatArray, other: FloatArray) -> float:
    """Return the correlation of two aligned kernels, smoothed to tolerate offsets of thin paths by half a pixel."""
    soft = [scipy.ndimage.gaussian_filter(np.pad(kernel, 3), 1.0) for kernel in (one, other)]
    return align(soft[0], soft[1])[1]
