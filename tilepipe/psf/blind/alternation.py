"""One way from a blurred window to its kernel: sharp edges and kernel in turn, coarse to fine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.edges import edge_threshold, gradients, select_edges
from tilepipe.psf.blind.equations import BlurredEdges, KernelEquations
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.kernel_ops import centre, prune, resize

__all__ = [
    "COARSEST",
    "SCALE",
    "SPARSITY_PER_NOISE",
    "Level",
    "Variant",
    "coarse_to_fine",
    "refine",
    "shrunk",
    "two_taps",
]

SCALE = math.sqrt(0.5)
"""Each scale of the pyramid to the next finer one."""

COARSEST = 5
"""Width of the kernel at the coarsest scale, px."""

FINEST_FLOOR = 1 / 20
"""Taps below this share of the peak are noise in a finished kernel."""

THRESHOLD_DECAY = 1.1
"""The gradient that selects edges is divided by it each round: faint edges come in when the kernel is nearly right."""

REFINED_THRESHOLD = 1 / 3
"""Share of the first threshold that refining starts with: what two scales of rounds leave of it."""

SPARSITY_PER_NOISE = 0.1
"""mu never falls below this many standard deviations of the noise: below it noise counts as edges."""


@dataclass(frozen=True)
class Variant:
    """One set of numbers for the alternation.

    Parameters
    ----------
    nonnegative : solve for k >= 0; otherwise conjugate gradients, cut at 0 afterwards.
    margin : edges closer to the border than this many kernel widths do not count.
    mass : pieces of the kernel with less than this share are dropped.
    sparsity : mu at the start, the weight of a gradient in the sharp image.
    decay : mu is divided by it each round.
    sparsest : mu does not fall below.
    floor : taps below this share of the peak are dropped each round.
    edges : pixels wanted per direction and px of kernel width.
    wider : px added to the kernel's width while it is sought.
    rounds : at each scale.
    gamma : weight of the kernel's energy in its equations.
    growth : factor of the splitting's weight from step to step while sharp edges are predicted.
    """

    nonnegative: bool
    margin: float
    mass: float = 0.02
    sparsity: float = 1e-2
    decay: float = 1.1
    sparsest: float = 1e-4
    floor: float = 0.05
    edges: int = 80
    wider: int = 2
    rounds: int = 6
    gamma: float = 2.0
    growth: float = 2.0


def coarse_to_fine(windows: Sequence[FloatArray], size: int, noise: float, variant: Variant) -> FloatArray:
    """Return the kernel that one way ends at.

    Parameters
    ----------
    windows : float32 (h, w) each, all with the same blur; estimated from jointly.
    size : edge of the kernel, px, odd; the way's ``wider`` is added.
    noise : standard deviation of the windows' noise.

    Returns
    -------
    float32 (k, k), k = size + way.wider, sum 1.
    """
    size += variant.wider
    sparsest = _sparsest(variant, noise)
    sparsity = variant.sparsity
    kernel = None
    for scale, width in _pyramid(size):
        kernel = two_taps(width) if kernel is None else resize(kernel, width, 1 / SCALE)
        level = Level([Window(shrunk(window, scale), width) for window in windows], width)
        threshold = level.threshold(variant.edges * width)
        kernel, sparsity = level.rounds(kernel, variant, sparsity, sparsest, threshold)
        kernel = centre(kernel, whole=scale == 1)
    assert kernel is not None
    return prune(kernel, FINEST_FLOOR)


def refine(windows: Sequence[FloatArray], kernel: FloatArray, noise: float, variant: Variant) -> FloatArray:
    """Return what the finest scale alone makes of a `kernel` (k, k) that is nearly right; (k, k), sum 1."""
    size = kernel.shape[0]
    level = Level([Window(window, size) for window in windows], size)
    threshold = REFINED_THRESHOLD * level.threshold(variant.edges * size)
    sparsest = _sparsest(variant, noise)
    refined, _ = level.rounds(kernel, variant, sparsest, sparsest, threshold)
    return prune(centre(refined, whole=True), FINEST_FLOOR)


def _sparsest(variant: Variant, noise: float) -> float:
    return max(variant.sparsest, SPARSITY_PER_NOISE * noise)


class Level:
    """The windows at one scale, with everything that all rounds there share."""

    def __init__(self, windows: Sequence[Window], size: int) -> None:
        self.windows = windows
        self.size = size
        self.equations = [BlurredEdges(window.blurred, size) for window in windows]

    def threshold(self, count: int) -> float:
        """Return the gradient that selects edges at first, from the blurred windows."""
        return min(edge_threshold(*gradients(window.blurred), count) for window in self.windows)

    def rounds(
        self, kernel: FloatArray, variant: Variant, sparsity: float, sparsest: float, threshold: float
    ) -> tuple[FloatArray, float]:
        """Return the kernel after the way's rounds at this scale, and the weight of gradients that is left."""
        for _ in range(variant.rounds):
            kernel = self.turn(kernel, variant, max(sparsity, sparsest), threshold)
            sparsity, threshold = sparsity / variant.decay, threshold / THRESHOLD_DECAY
        return kernel, sparsity

    def turn(self, kernel: FloatArray, variant: Variant, sparsity: float, threshold: float) -> FloatArray:
        """Return the next kernel: sharp edges from this one, then the kernel from them."""
        return self.solve(
            [window.sharp_edges(kernel, sparsity, growth=variant.growth) for window in self.windows], variant, threshold
        )

    def solve(self, sharp: Sequence[FloatArray], variant: Variant, threshold: float) -> FloatArray:
        """Return the pruned kernel that turns the edges of `sharp` into the blurred ones."""
        margin = int(variant.margin * self.size)
        edges = [select_edges(*gradients(image), threshold, margin) for image in sharp]
        equations = KernelEquations(self.equations, edges, variant.gamma)
        raw = equations.nonnegative(60) if variant.nonnegative else equations.conjugate_gradients(20)
        return prune(raw, variant.floor, variant.mass)


def _pyramid(size: int) -> list[tuple[float, int]]:
    """Return (scale, kernel width) from coarse to fine; the finest is (1, size)."""
    levels = [(1.0, size)]
    while levels[-1][1] > COARSEST:
        scale = levels[-1][0] * SCALE
        levels.append((scale, max(3, round(size * scale) // 2 * 2 + 1)))
    return levels[::-1]


def two_taps(size: int) -> FloatArray:
    """Return (size, size) with two equal taps beside each other: where every way starts."""
    kernel = np.zeros((size, size), np.float32)
    kernel[size // 2, size // 2 : size // 2 + 2] = 0.5
    return kernel


def shrunk(window: FloatArray, scale: float) -> FloatArray:
    """Return the window scaled down by `scale`, smoothed against aliasing first."""
    if scale == 1:
        return window
    smooth = scipy.ndimage.gaussian_filter(window, 0.5 / scale)
    places = [(np.arange(round(length * scale)) + 0.5) / scale - 0.5 for length in window.shape]
    grid = np.meshgrid(*places, indexing="ij")
    shrunk: FloatArray = scipy.ndimage.map_coordinates(smooth, grid, order=3, mode="nearest").astype(np.float32)
    return shrunk
