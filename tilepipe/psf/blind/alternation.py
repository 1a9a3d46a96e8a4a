"""Kernel estimation from blurred windows: sharp edges and kernel are updated alternately, coarse to fine."""

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
"""Ratio of a scale of the pyramid to the next finer one."""

COARSEST = 5
"""Width of the kernel at the coarsest scale, px."""

FINEST_FLOOR = 1 / 20
"""Taps below this share of the peak count as noise in the final kernel."""

THRESHOLD_DECAY = 1.1
"""Divisor of the edge threshold after each round: faint edges are added when the kernel is nearly right."""

REFINED_THRESHOLD = 1 / 3
"""Initial edge threshold of a refinement relative to that of a full run: about its value after two scales of rounds."""

SPARSITY_PER_NOISE = 0.1
"""Least mu in standard deviations of the noise: with a smaller mu, noise counts as edges."""


@dataclass(frozen=True)
class Variant:
    """One set of parameters of the alternation.

    Parameters
    ----------
    nonnegative : bool
        Solve with k >= 0; otherwise by conjugate gradients, with negative taps set to 0 afterwards.
    margin : float
        Width of the border in which edges are ignored, in kernel widths.
    mass : float
        Connected pieces of the kernel with less than this share of the mass are dropped.
    sparsity : float
        Initial mu, the weight of a nonzero gradient in the sharp image.
    decay : float
        Divisor of mu after each round.
    sparsest : float
        Lower limit of mu.
    floor : float
        Taps below this share of the peak are dropped each round.
    edges : int
        Pixels required per direction and px of kernel width.
    wider : int
        Px added to the kernel's width during estimation.
    rounds : int
        Rounds at each scale.
    gamma : float
        Weight of the kernel's energy in its equations.
    growth : float
        Factor of the splitting weight from step to step in the prediction of sharp edges.
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
    """Return the kernel estimated by one variant.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (h, w)
        Windows with the same blur, used jointly.
    size : int
        Size of the kernel, px, odd; ``variant.wider`` is added.
    noise : float
        Standard deviation of the windows' noise.
    variant : Variant
        Parameters of the alternation.

    Returns
    -------
    ndarray of float32, shape (k, k)
        k = size + variant.wider, sum 1.
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
    """Refine an approximate `kernel` (k, k) at the finest scale only; return (k, k), sum 1."""
    size = kernel.shape[0]
    level = Level([Window(window, size) for window in windows], size)
    threshold = REFINED_THRESHOLD * level.threshold(variant.edges * size)
    sparsest = _sparsest(variant, noise)
    refined, _ = level.rounds(kernel, variant, sparsest, sparsest, threshold)
    return prune(centre(refined, whole=True), FINEST_FLOOR)


def _sparsest(variant: Variant, noise: float) -> float:
    return max(variant.sparsest, SPARSITY_PER_NOISE * noise)


class Level:
    """The windows at one scale, with the data shared by all rounds."""

    def __init__(self, windows: Sequence[Window], size: int) -> None:
        self.windows = windows
        self.size = size
        self.equations = [BlurredEdges(window.blurred, size) for window in windows]

    def threshold(self, count: int) -> float:
        """Return the initial edge threshold, computed from the blurred windows."""
        return min(edge_threshold(*gradients(window.blurred), count) for window in self.windows)

    def rounds(
        self, kernel: FloatArray, variant: Variant, sparsity: float, sparsest: float, threshold: float
    ) -> tuple[FloatArray, float]:
        """Return the kernel after the variant's rounds at this scale, and the remaining gradient weight."""
        for _ in range(variant.rounds):
            kernel = self.turn(kernel, variant, max(sparsity, sparsest), threshold)
            sparsity, threshold = sparsity / variant.decay, threshold / THRESHOLD_DECAY
        return kernel, sparsity

    def turn(self, kernel: FloatArray, variant: Variant, sparsity: float, threshold: float) -> FloatArray:
        """Run one round: predict sharp edges with `kernel`, then solve for the next kernel."""
        return self.solve(
            [window.sharp_edges(kernel, sparsity, growth=variant.growth) for window in self.windows], variant, threshold
        )

    def solve(self, sharp: Sequence[FloatArray], variant: Variant, threshold: float) -> FloatArray:
        """Return the pruned kernel that maps the edges of `sharp` to the blurred ones."""
        margin = int(variant.margin * self.size)
        edges = [select_edges(image, threshold, margin) for image in sharp]
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
    """Return a (size, size) kernel of two equal adjacent taps, the initial kernel of all variants."""
    kernel = np.zeros((size, size), np.float32)
    kernel[size // 2, size // 2 : size // 2 + 2] = 0.5
    return kernel


def shrunk(window: FloatArray, scale: float) -> FloatArray:
    """Return the window downscaled by `scale` after anti-aliasing."""
    if scale == 1:
        return window
    smooth = scipy.ndimage.gaussian_filter(window, 0.5 / scale)
    places = [(np.arange(round(length * scale)) + 0.5) / scale - 0.5 for length in window.shape]
    grid = np.meshgrid(*places, indexing="ij")
    shrunk: FloatArray = scipy.ndimage.map_coordinates(smooth, grid, order=3, mode="nearest").astype(np.float32)
    return shrunk
