"""A kernel of up to 101 px, sought at a quarter of the scale first and followed up to the full one.

At full scale a window holds few kernels of 50 px and more, and the alternation of sharp edges and kernel
(:mod:`tilepipe.psf.blind.alternation`) converges to a wrong path about half the time.  At a quarter and at half the
scale the same picture holds many, and some of several widths and variants converge to the right one.  So all of them
start there, and at each scale those continue that explain the ripples of the picture's spectrum
(:mod:`tilepipe.psf.blind.ripples`, Gennery 1973) and make the picture sparse (l1 / l2 norm of its gradients,
Krishnan, Tay & Fergus 2011): the first cannot detect a kernel turned by half a turn, the second not one that is too
narrow; their sum selects the best within 0.2 dB in the mean.
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
"""Edge of the widest kernel that is looked for, px."""

WIDTHS = (27, 43, 63, 87, 111)
"""Frames in which kernels are sought, px: a path is found best in one that is 1.2 to 2 times as wide."""

GROWTH, LAST_GROWTH = 8**0.5, 2.0
"""Of the splitting's weight while edges are predicted, and in the last way.  Larger steps take a fifth of the time less
than those of 2 and give the same kernels within the scatter (twelve photographs 0.1 dB worse in the mean); with 4 some
are lost, and in the last way they show (a made scene: error 0.077 against 0.073)."""

WAYS = (
    Variant(nonnegative=True, margin=1.0, sparsity=2e-2, growth=GROWTH),
    Variant(nonnegative=False, margin=1.0, growth=GROWTH),
    Variant(nonnegative=True, margin=0.25, sparsity=2e-3, decay=1.07, growth=GROWTH),
    Variant(nonnegative=False, margin=0.25, mass=0.1, sparsity=5e-3, growth=GROWTH),
)

QUARTER, HALF, NEARLY_FULL, FULL = 4, 2, 1, 0
"""Steps down the pyramid, by the root of two each, at which the candidates are compared."""

KEPT = {QUARTER: 8, HALF: 3, NEARLY_FULL: 2}
"""Candidates that go on from there."""

THIN = 0.02
"""Share of the peak below which taps are dropped in the last two steps.  A hand that rests for a moment writes a peak;
at 0.05, right for the coarse steps, the faint stretches beside it are lost: 0.3 to 3 dB, even from the true kernel."""

FULL_ROUNDS, LAST_ROUNDS = 4, 8
"""Rounds at full scale, in the candidate's own way, then in another."""

LAST_WAY = {
    nonnegative: replace(WAYS[1 if nonnegative else 2], floor=THIN, rounds=LAST_ROUNDS, growth=LAST_GROWTH)
    for nonnegative in (True, False)
}
"""The way that follows one that is non-negative, or is not: the other kind mends what the first cannot, up to 2 dB, or
spoils it, so both are kept and compared."""

LOST, ROOM = 0.01, 1.25
"""Share of a kernel's mass that may lie outside its extent; frame over extent, from half the scale on."""

LEAST_EDGE = 383
"""Shorter edge of a picture from which on it is large enough at a quarter of the scale, px."""

FRAMES_PER_EDGE = 3
"""The shorter edge of a picture holds at least so many frames."""

Explained = Callable[[FloatArray], float]
"""Kernel (k, k) at full scale -> share of the ripples of the picture's spectrum that it explains."""


class Pyramid:
    """A picture at scales 1, 1/sqrt 2, 1/2 ..., each made once.

    Parameters
    ----------
    picture : float32 (h, w).
    """

    def __init__(self, picture: FloatArray) -> None:
        self._planes = {FULL: picture, HALF: _halved(picture)}

    def at(self, step: int) -> FloatArray:
        """Return the picture at scale 2^(-step/2); half the scale is an average of 2 x 2 px, the others are cubic."""
        if step not in self._planes:
            nearest = FULL if step < HALF else HALF
            self._planes[step] = shrunk(self._planes[nearest], SCALE ** (step - nearest))
        return self._planes[step]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A kernel on its way up the pyramid.

    Parameters
    ----------
    way, frame : numbers of the alternation; edge at full scale, px, odd.
    sparsity : weight of gradients that is left.
    kernel : (k, k) at the step reached, sum 1; empty at the start.
    """

    variant: Variant
    frame: int
    sparsity: float
    kernel: FloatArray = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    @property
    def extent(self) -> int:
        """Edge, px at full scale, outside which next to nothing lies."""
        edge: int = self.kernel.shape[0]
        return 2 * round(extent(self.kernel, LOST) * self.frame / edge / 2) + 1

    def reframed(self) -> Candidate:
        """Return it in a frame that fits: in one much too wide, a carpet of noise takes part."""
        frame = min(self.frame, round(ROOM * self.extent) // 2 * 2 + 1)
        edge = round(frame * self.kernel.shape[0] / self.frame) // 2 * 2 + 1
        return replace(self, frame=frame, kernel=fit_to(self.kernel, edge))

    def climbed(self, pyramid: Pyramid, steps: Sequence[int], noise: float) -> Candidate:
        """Return it after the rounds of these steps, where the picture has this noise; two taps are the start."""
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
        """Return what the last way makes of it at full scale."""
        edge: int = self.kernel.shape[0]
        variant = LAST_WAY[self.variant.nonnegative]
        sparsest = max(variant.sparsest, SPARSITY_PER_NOISE * noise)
        level = Level([Window(pyramid.at(FULL), edge)], edge)
        kernel, _ = level.rounds(self.kernel, variant, sparsest, sparsest, level.threshold(variant.edges * edge))
        return replace(self, kernel=prune(centre(kernel, whole=True), THIN))


class WideSearch:
    """The search for the kernel of one picture.

    Parameters
    ----------
    picture : float32 (h, w), linear light, finite, at the contrast that the ways' weights are for; as large as there
        is, up to about a megapixel, both edges at least ``LEAST_EDGE``.
    explained : what the spectrum of the whole picture says of a kernel.
    executor : runs the candidates; the result does not depend on it.
    """

    def __init__(self, picture: FloatArray, explained: Explained, executor: Executor) -> None:
        self.pyramid = Pyramid(picture)
        self.explained = explained
        self.executor = executor

    def at_half_scale(self, size: int | None = None) -> list[Candidate]:
        """Return the best candidates at half the scale, best first.

        Parameters
        ----------
        size : edge of the kernel at full scale, px, odd, when it is known.
        """
        frames = _frames(min(self.pyramid.at(FULL).shape), size)
        candidates = [Candidate(variant, frame, variant.sparsity) for frame in frames for variant in WAYS]
        first = _first_step(max(frames))
        return self._climb(self._climb(candidates, range(first, QUARTER - 1, -1)), range(QUARTER - 1, HALF - 1, -1))

    def at_full_scale(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Return what becomes of candidates of half the scale, before and after the last way, best first."""
        full = self._climbed(self._climb([one.reframed() for one in candidates], [NEARLY_FULL]), [FULL])
        finish = partial(Candidate.finished, pyramid=self.pyramid, noise=self._noise(FULL))
        return self._best_first(full + list(self.executor.map(finish, full)), FULL)

    def _climb(self, candidates: Sequence[Candidate], steps: Sequence[int]) -> list[Candidate]:
        """Return those of the candidates, best first, that go on after the rounds of these steps."""
        return self._best_first(self._climbed(candidates, steps), steps[-1])[: KEPT[steps[-1]]]

    def _climbed(self, candidates: Sequence[Candidate], steps: Sequence[int]) -> list[Candidate]:
        for step in steps:  # made here once, not by every thread
            self.pyramid.at(step)
        climb = partial(Candidate.climbed, pyramid=self.pyramid, steps=steps, noise=self._noise(steps[-1]))
        return list(self.executor.map(climb, candidates))

    def _best_first(self, candidates: Sequence[Candidate], step: int) -> list[Candidate]:
        scores = self._scores([one.kernel for one in candidates], step)
        return [candidates[at] for at in sorted(range(len(candidates)), key=lambda at: -scores[at])]

    def _noise(self, step: int) -> float:
        return estimate_noise([self.pyramid.at(step)[None]])

    def _scores(self, kernels: Sequence[FloatArray], step: int) -> list[float]:
        """Return what speaks for each kernel (k, k) of a step: the ripples it explains plus its gain in sparsity."""
        here = self.pyramid.at(step)
        widest = max(kernel.shape[0] for kernel in kernels)
        scorer = Scorer([Window(here, widest)], self._noise(step), widest)
        plain = scorer.score(delta_kernel(1)).density
        factor = SCALE**-step

        def score(kernel: FloatArray) -> float:
            at_full_scale = resize(kernel, round(factor * kernel.shape[0]) | 1, factor)
            return self.explained(at_full_scale) + plain / scorer.score(kernel).density

        return list(self.executor.map(score, kernels))


def _frames(edge: int, size: int | None) -> list[int]:
    """Return the frames to try in a picture of this shorter edge; the two just above a known size."""
    fitting = [frame for frame in WIDTHS if FRAMES_PER_EDGE * frame <= edge]
    return fitting if size is None else ([frame for frame in fitting if frame > size] or fitting[-1:])[:2]


def _first_step(frame: int) -> int:
    """Return the step at which a frame is as narrow as it may be."""
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
