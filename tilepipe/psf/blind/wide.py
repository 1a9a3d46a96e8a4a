"""Estimation of a kernel of up to 101 px, from a quarter of the scale to full scale.

At full scale a window is only a few kernels of 50 px and more wide, and the alternation of sharp edges and kernel
(:mod:`tilepipe.psf.blind.alternation`) converges to a wrong path about half the time.  At a quarter and at half the
scale the same image is many kernels wide, and some of several widths and variants converge to the right path.  So all
of them start there, and at each scale those continue that explain the ripples of the image's spectrum
(:mod:`tilepipe.psf.blind.ripples`, Gennery 1973) and make the image sparse (l1 / l2 norm of its gradients, Krishnan,
Tay & Fergus 2011).  Ripples cannot detect a kernel rotated by 180 degrees, sparsity cannot detect one that is too
narrow; their sum selects the best within 0.2 dB on average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from tilepipe.deconv.noise import estimate_noise
from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.alternation import COARSEST, SCALE, SPARSITY_PER_NOISE, Level, Variant, shrunk, two_taps
from tilepipe.psf.blind.scoring import Scorer
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.kernel_ops import centre, delta_kernel, extent, fit_to, prune, resize

__all__ = ["LEAST_EDGE", "WIDEST", "Candidate", "Explained", "WideSearch"]

WIDEST = 101
"""Size of the widest kernel that is estimated, px."""

WIDTHS = (27, 43, 63, 87, 111)
"""Sizes of the frames in which kernels are estimated, px; best is a frame 1.2 to 2 times as wide as the path."""

GROWTH, LAST_GROWTH = 8**0.5, 2.0
"""Growth of the splitting weight in the prediction of edges, in general and in the last variant.  Larger steps take
20 % less time than steps of 2 and give the same kernels within the scatter (twelve photographs, 0.1 dB worse on
average).  Steps of 4 lose some kernels; in the last variant larger steps increase the error (0.077 against 0.073 for a
synthetic scene)."""

VARIANTS = (
    Variant(nonnegative=True, margin=1.0, sparsity=2e-2, growth=GROWTH),
    Variant(nonnegative=False, margin=1.0, growth=GROWTH),
    Variant(nonnegative=True, margin=0.25, sparsity=2e-3, decay=1.07, growth=GROWTH),
    Variant(nonnegative=False, margin=0.25, mass=0.1, sparsity=5e-3, growth=GROWTH),
)

QUARTER, HALF, NEARLY_FULL, FULL = 4, 2, 1, 0
"""Steps down the pyramid, a factor sqrt(2) each, at which candidates are compared."""

KEPT = {QUARTER: 8, HALF: 3, NEARLY_FULL: 2}
"""Number of candidates that continue from there."""

THIN = 0.02
"""Share of the peak below which taps are dropped in the last two steps.  A camera at rest for a moment causes a peak;
0.05, right for coarse steps, drops the faint stretches beside it and costs 0.3 to 3 dB, even with the true kernel."""

FULL_ROUNDS, LAST_ROUNDS = 4, 8
"""Rounds at full scale with the candidate's own variant, then with another."""

LAST_VARIANT = {
    nonnegative: replace(VARIANTS[1 if nonnegative else 2], floor=THIN, rounds=LAST_ROUNDS, growth=LAST_GROWTH)
    for nonnegative in (True, False)
}
"""Last variant, by whether the candidate's variant is nonnegative.  The other kind of solver corrects errors of the
first by up to 2 dB, or makes the kernel worse, so both kernels are kept and compared."""

LOST, ROOM = 0.01, 1.25
"""Share of a kernel's mass that may lie outside its extent; frame over extent from half the scale on."""

LEAST_EDGE = 383
"""Shorter edge of an image, px, at or above which it is large enough at a quarter of the scale."""

FRAMES_PER_EDGE = 3
"""Least ratio of the shorter edge of an image to a frame."""

Explained = Callable[[FloatArray], float]
"""Kernel (k, k) at full scale -> share of the ripples of the image's spectrum that it explains."""


class Pyramid:
    """An image at scales 1, 1/sqrt(2), 1/2 ..., each computed once.

    Parameters
    ----------
    picture : ndarray of float32, shape (h, w)
    """

    def __init__(self, picture: FloatArray) -> None:
        self._planes = {FULL: picture, HALF: _halved(picture)}

    def at(self, step: int) -> FloatArray:
        """Return the image at scale 2^(-step/2): half the scale by averaging 2 x 2 px, the others by cubic splines."""
        if step not in self._planes:
            nearest = FULL if step < HALF else HALF
            self._planes[step] = shrunk(self._planes[nearest], SCALE ** (step - nearest))
        return self._planes[step]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel during coarse-to-fine estimation.

    Parameters
    ----------
    variant : Variant
        Parameters of the alternation.
    frame : int
        Size of its frame at full scale, px, odd.
    sparsity : float
        Current gradient weight.
    kernel : ndarray of float32, shape (k, k)
        Kernel at the current step, sum 1; empty at the start.
    """

    variant: Variant
    frame: int
    sparsity: float
    kernel: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def extent(self) -> int:
        """Size, px at full scale, of the square outside which at most ``LOST`` of the mass lies."""
        edge: int = self.kernel.shape[0]
        return 2 * round(extent(self.kernel, LOST) * self.frame / edge / 2) + 1

    def reframed(self) -> Candidate:
        """Return the candidate cropped to a frame that fits; a frame much too wide admits noise taps everywhere."""
        frame = min(self.frame, round(ROOM * self.extent) // 2 * 2 + 1)
        edge = round(frame * self.kernel.shape[0] / self.frame) // 2 * 2 + 1
        return replace(self, frame=frame, kernel=fit_to(self.kernel, edge))

    def climbed(self, pyramid: Pyramid, steps: Sequence[int], noise: float) -> Candidate:
        """Return the candidate after the rounds of `steps` on an image of this noise; the first kernel is two taps."""
        sparsest = max(self.variant.sparsest, SPARSITY_PER_NOISE * noise)
        kernel, sparsity = self.kernel, self.sparsity
        for step in steps:
            edge = _edge_at(self.frame, step)
            if step > _first_step(self.frame):
                continue
            variant = self.variant
            if step <= NEARLY_FULL:
                variant = replace(variant, floor=THIN, rounds=FULL_ROUNDS if step == FULL else variant.rounds)
            level = Level([Window(pyramid.at(step), edge)], edge)
            kernel = resize(kernel, edge, 1 / SCALE) if kernel.size else two_taps(edge)
            kernel, sparsity = level.rounds(kernel, variant, sparsity, sparsest, level.threshold(variant.edges * edge))
            kernel = centre(kernel, whole=step == FULL)
        return replace(self, kernel=prune(kernel, THIN) if steps[-1] == FULL else kernel, sparsity=sparsity)

    def finished(self, pyramid: Pyramid, noise: float) -> Candidate:
        """Return the candidate refined by the last variant at full scale."""
        edge: int = self.kernel.shape[0]
        variant = LAST_VARIANT[self.variant.nonnegative]
        sparsest = max(variant.sparsest, SPARSITY_PER_NOISE * noise)
        level = Level([Window(pyramid.at(FULL), edge)], edge)
        kernel, _ = level.rounds(self.kernel, variant, sparsest, sparsest, level.threshold(variant.edges * edge))
        return replace(self, kernel=prune(centre(kernel, whole=True), THIN))


class WideSearch:
    """The search for the kernel of one image.

    Parameters
    ----------
    picture : ndarray of float32, shape (h, w)
        Linear light, finite, at the contrast that the variants' weights assume; as large as available, up to about a
        megapixel, both edges at least ``LEAST_EDGE``.
    explained : Explained
        Share of the ripples of the whole image's spectrum that a kernel explains.
    executor : Executor
        Runs the candidates; the result does not depend on it.
    """

    def __init__(self, picture: FloatArray, explained: Explained, executor: Executor) -> None:
        self.pyramid = Pyramid(picture)
        self.explained = explained
        self.executor = executor

    def at_half_scale(self, size: int | None = None) -> list[Candidate]:
        """Return the best candidates at half the scale, best first.

        Parameters
        ----------
        size : int, optional
            Size of the kernel at full scale, px, odd, if known.
        """
        frames = _frames(min(self.pyramid.at(FULL).shape), size)
        candidates = [Candidate(variant, frame, variant.sparsity) for frame in frames for variant in VARIANTS]
        first = _first_step(max(frames))
        return self._climb(self._climb(candidates, range(first, QUARTER - 1, -1)), range(QUARTER - 1, HALF - 1, -1))

    def at_full_scale(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return candidates of half the scale at full scale, before and after the last variant, best first."""
        full = self._climbed(self._climb([one.reframed() for one in candidates], [NEARLY_FULL]), [FULL])
        finish = partial(Candidate.finished, pyramid=self.pyramid, noise=self._noise(FULL))
        return self._best_first(full + list(self.executor.map(finish, full)), FULL)

    def _climb(self, candidates: Sequence[Candidate], steps: Sequence[int]) -> list[Candidate]:
        """Return the candidates that continue after the rounds of these steps, best first."""
        return self._best_first(self._climbed(candidates, steps), steps[-1])[: KEPT[steps[-1]]]

    def _climbed(self, candidates: Sequence[Candidate], steps: Sequence[int]) -> list[Candidate]:
        for step in steps:  # computed once here rather than in every thread
            self.pyramid.at(step)
        climb = partial(Candidate.climbed, pyramid=self.pyramid, steps=steps, noise=self._noise(steps[-1]))
        return list(self.executor.map(climb, candidates))

    def _best_first(self, candidates: Sequence[Candidate], step: int) -> list[Candidate]:
        scores = self._scores([one.kernel for one in candidates], step)
        return [candidates[at] for at in sorted(range(len(candidates)), key=lambda at: -scores[at])]

    def _noise(self, step: int) -> float:
        return estimate_noise([self.pyramid.at(step)[None]])

    def _scores(self, kernels: Sequence[FloatArray], step: int) -> list[float]:
        """Return the score of each kernel (k, k) of a step: the share of ripples it explains plus its sparsity gain."""
        here = self.pyramid.at(step)
        widest = max(kernel.shape[0] for kernel in kernels)
        scorer = Scorer([Window(here, widest)], self._noise(step), widest)
        plain = scorer.score(delta_kernel(1)).density
        factor = SCALE**-step

        def explained(kernel: FloatArray) -> float:
            return self.explained(resize(kernel, round(factor * kernel.shape[0]) | 1, factor))

        scores = scorer.score_all(kernels, self.executor.map)
        shares = self.executor.map(explained, kernels)
        return [share + plain / score.density for share, score in zip(shares, scores, strict=True)]


def _frames(edge: int, size: int | None) -> list[int]:
    """Return the frames to try for an image of shorter edge `edge`; if `size` is known, the two just above it."""
    fitting = [frame for frame in WIDTHS if FRAMES_PER_EDGE * frame <= edge]
    return fitting if size is None else ([frame for frame in fitting if frame > size] or fitting[-1:])[:2]


def _first_step(frame: int) -> int:
    """Return the first step at which a frame is at most COARSEST wide."""
    step = 0
    while _edge_at(frame, step) > COARSEST:
        step += 1
    return step


def _edge_at(frame: int, step: int) -> int:
    return max(3, round(frame * SCALE**step) // 2 * 2 + 1)


def _halved(picture: FloatArray) -> FloatArray:
    height, width = (length // 2 * 2 for length in picture.shape)
    squares = picture[:height, :width].reshape(height // 2, 2, width // 2, 2)
    halved: FloatArray = squares.mean((1, 3), dtype=np.float32)
    return halved
