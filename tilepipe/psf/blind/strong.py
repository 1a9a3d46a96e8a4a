"""The kernel of a strong blur: wide ones followed up from small scales, narrow ones sought in windows, the best of all.

Which is best the spectrum of the whole picture says first: kernels whose ripples are less like its own than the best
one's drop out.  Of the others those stay that explain the picture's pixels, and the one that makes it sparsest wins.
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
"""Extent up to which a kernel is sought in windows at full scale, too, px: there its finest detail is known best."""

SURE = 0.9
"""Confidence in the best wide kernel from which on no narrow one is sought."""

LESS_LIKE = 0.06
"""By so much the likeness of ripples may fall short of the best kernel's."""

SHAKE, SHAKE_SURE = 25, 0.6
"""Where a slight blur explains a picture: extent of all candidates of half the scale, px, and confidence in the best,
from which on a strong one is believed.  Behind shakes of 25 to 90 px all are 29 px and wider; of five
pictures softened by 2 px, which a slight blur explains, the best one is 19 px at most."""

SPARE = 2
"""Added to the extent at half the scale for the frame of a narrow kernel, px."""


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
    """Find the kernel k of y = k * x, 3 to 101 px, of a picture whose spectrum has ripples.

    Parameters
    ----------
    windows, noise : as for :func:`~tilepipe.psf.blind.narrow.estimate_kernel`; narrow kernels are sought in them.
    large : float32 (h, w), the window for wide ones, finite, both edges at least ``LEAST_EDGE``.
    ripples : of the whole picture.
    size : edge of the kernel, px, odd; None finds it.
    doubted : a slight blur may be all; the search then ends at half the scale, and None is returned, unless all
        candidates there are wide and alike, and the best one's ripples are like the picture's, and in the end unless
        the best kernel is wide.
    threads : candidates that are followed at a time; the result does not depend on it.
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
    """Return whether candidates of half the scale, best first, show a strong blur where a slight one was likely."""
    best, *others = halves
    sure = _confidence(_doubled(best), [], others, ripples)
    return sure >= SHAKE_SURE and min(one.extent for one in halves) >= SHAKE


def _confidence(kernel: FloatArray, wide: Sequence[Candidate], halves: Sequence[Candidate], ripples: Ripples) -> float:
    """Return the confidence in one kernel among others, 0..1; 0 where the likeness of its ripples is not known."""
    alike = ripples.likeness(kernel)
    return 0.0 if alike is None else strong_confidence(alike, _agreement(kernel, wide, halves))


def _agreement(kernel: FloatArray, wide: Sequence[Candidate], halves: Sequence[Candidate]) -> float:
    """Return the mean likeness of `kernel` to all other candidates of the full and of half the scale."""
    others = [one.kernel for one in wide if one.kernel is not kernel] + [_doubled(one) for one in halves]
    return float(np.mean([likeness(one, kernel) for one in others]))


def _doubled(candidate: Candidate) -> FloatArray:
    """Return the kernel of a candidate of half the scale at the full one."""
    return resize(candidate.kernel, 2 * candidate.kernel.shape[0] + 1, 2)


def _best(picture: FloatArray, kernels: Sequence[FloatArray], ripples: Ripples) -> tuple[Scorer, FloatArray]:
    """Return the best kernel, and the judge that heard all that are like the picture's ripples."""
    alike = [ripples.likeness(kernel) or 0.0 for kernel in kernels]
    eligible = [kernel for kernel, one in zip(kernels, alike, strict=True) if one >= max(alike) - LESS_LIKE]
    widest = max(kernel.shape[0] for kernel in eligible)
    scorer = Scorer([Window(picture, widest)], estimate_noise([picture[None]]), widest)
    for kernel in eligible:
        scorer.score(kernel)
    return scorer, scorer.best().kernel
