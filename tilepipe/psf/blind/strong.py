"""Estimation of a strong blur: wide kernels from coarse to full scale, narrow kernels in windows, and selection.

Kernels are selected first by the spectrum of the whole image: those whose ripples are clearly less like the image's
than the best one's are dropped.  Of those that then explain the pixels of the image, the one that makes it sparsest is
selected.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from tilepipe.deconv.noise import estimate_noise
from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.confidence import relief, strong_confidence
from tilepipe.psf.blind.narrow import NOISE_FLOOR, Estimate, at_ordinary_contrast, estimate_kernel, likeness
from tilepipe.psf.blind.ripples import Ripples
from tilepipe.psf.blind.scoring import Scorer
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.blind.wide import WIDEST, Candidate, WideSearch
from tilepipe.psf.kernel_ops import border_mass, centre_in, delta_kernel, extent, resize

__all__ = ["estimate_strong_blur"]

NARROW = 35
"""Extent, px, up to which kernels are also estimated in windows at full scale, where their finest detail is determined
best."""

SURE = 0.9
"""Confidence in the best wide kernel at or above which no narrow one is estimated."""

LESS_LIKE = 0.06
"""Largest difference between a kernel's ripple likeness and the best one's at which the kernel stays eligible."""

SHAKE, SHAKE_SURE = 25, 0.6
"""If a slight blur explains the image: least extent, px, of all candidates at half the scale, and least confidence in
the best one, at which a strong blur is accepted.  With camera shakes of 25 to 90 px all candidates have 29 px or more;
for five images softened by 2 px, which a slight blur explains, the best one has at most 19 px."""

SPARE = 2
"""Margin added to an extent for the frame of a kernel, px."""


def estimate_strong_blur(
    windows: Sequence[FloatArray],
    noise: float,
    large: FloatArray,
    ripples: Ripples,
    size: int | None = None,
    *,
    doubted: bool = False,
    threads: int = 1,
) -> Estimate | None:
    """Estimate the kernel k of y = k * x, 3 to 101 px, of an image whose spectrum has ripples.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (h, w)
        Windows for narrow kernels, as for :func:`~tilepipe.psf.blind.narrow.estimate_kernel`.
    noise : float
        Standard deviation of their noise.
    large : ndarray of float32, shape (h, w)
        Window for wide kernels, finite, both edges at least ``LEAST_EDGE``.
    ripples : Ripples
        Ripples of the whole image.
    size : int, optional
        Size of the kernel, px, odd; estimated by default.
    doubted : bool
        Whether the blur may be only slight.  Then the search stops at half the scale and returns None unless all
        candidates there are wide and agree and the best one's ripples are like the image's; it also returns None if
        the final kernel is not wide.
    threads : int
        Number of candidates processed in parallel; the result does not depend on it.

    Returns
    -------
    Estimate or None
    """
    (picture,), _ = at_ordinary_contrast([large], 0.0)
    with ThreadPoolExecutor(threads) as pool:
        search = WideSearch(picture, ripples.explained, pool)
        halves = search.at_half_scale(size)
        if doubted and not _is_shake(halves, ripples):
            return None
        widest = max(one.extent for one in halves)
        wide = search.at_full_scale(halves) if widest > NARROW else []
    kernels = [one.kernel for one in wide[:1]]
    narrow = None
    is_wide = bool(wide) and min(extent(one.kernel) for one in wide) > NARROW
    if not is_wide or _confidence(kernels[0], wide, halves, ripples) < SURE:
        width = size if size or wide else widest + SPARE
        narrow = estimate_kernel(windows, noise, width, threads=threads)
        kernels.append(narrow.kernel)
    scorer, best = _best(picture, kernels, ripples)
    if doubted and extent(best) < SHAKE:
        return None
    agreement = _agreement(best, wide, halves)
    if narrow is not None and best is narrow.kernel:
        return replace(narrow, agreement=max(narrow.agreement, agreement))
    score = next(one for one in scorer.scores if one.kernel is best)
    return Estimate(
        kernel=centre_in(best, min(size or extent(best, 0.002) + SPARE, WIDEST)),
        agreement=agreement,
        border=border_mass(best),
        gain=scorer.score(delta_kernel(1)).density / score.density,
        misfit=score.misfit / max(scorer.noise, NOISE_FLOOR),
        relief=relief([picture], scorer.noise),
        sharp=False,
    )


def _is_shake(halves: Sequence[Candidate], ripples: Ripples) -> bool:
    """Return whether candidates at half the scale, best first, show a strong blur although a slight one is likely."""
    best, *others = halves
    confidence = _confidence(_doubled(best), [], others, ripples)
    return confidence >= SHAKE_SURE and min(one.extent for one in halves) >= SHAKE


def _confidence(kernel: FloatArray, wide: Sequence[Candidate], halves: Sequence[Candidate], ripples: Ripples) -> float:
    """Return the confidence in one kernel among others, 0..1; 0 if the likeness of its ripples cannot be measured."""
    alike = ripples.likeness(kernel)
    return 0.0 if alike is None else strong_confidence(alike, _agreement(kernel, wide, halves))


def _agreement(kernel: FloatArray, wide: Sequence[Candidate], halves: Sequence[Candidate]) -> float:
    """Return the mean likeness of `kernel` to all other candidates at full scale and at half the scale."""
    others = [one.kernel for one in wide if one.kernel is not kernel] + [_doubled(one) for one in halves]
    return float(np.mean([likeness(one, kernel) for one in others]))


def _doubled(candidate: Candidate) -> FloatArray:
    """Return the kernel of a candidate at half the scale, upsampled to full scale."""
    return resize(candidate.kernel, 2 * candidate.kernel.shape[0] + 1, 2)


def _best(picture: FloatArray, kernels: Sequence[FloatArray], ripples: Ripples) -> tuple[Scorer, FloatArray]:
    """Return the scorer with the scores of all kernels whose ripples are like the image's, and the best kernel."""
    alike = [ripples.likeness(kernel) or 0.0 for kernel in kernels]
    eligible = [kernel for kernel, one in zip(kernels, alike, strict=True) if one >= max(alike) - LESS_LIKE]
    widest = max(kernel.shape[0] for kernel in eligible)
    scorer = Scorer([Window(picture, widest)], estimate_noise([picture[None]]), widest)
    for kernel in eligible:
        scorer.score(kernel)
    return scorer, scorer.best().kernel
