"""Measurement of the seam error, from which the halo is chosen.

A tile has no data beyond its halo, so its pixels differ from those of the untiled result, most at the edge of the
frame and less with every pixel of distance.  How fast that error decays depends on the PSF (zeros of its spectrum cause
long ringing), on the noise (it sets the penalties), on the number of steps and on the image (repeated straight edges
ring in phase); no formula in PSF widths holds: a Gaussian needs 32 px where a line of the same width needs 170.  The
error is therefore measured with the solver itself, on windows of the image and on a synthetic scene: the middle is cut
out of a window, both are restored, and the largest difference inside halos of 16, 32 ... px is the *profile*.

The profile is measured on encoded values (those that are written), which weight dark regions most.  ``SAFETY`` covers
what an image of many megapixels holds beyond its windows; ``benchmarks/seams.py`` measures both.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import scipy.fft

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = [
    "HALO_STEP",
    "MAX_HALO",
    "SEAM_LIMIT",
    "WINDOW",
    "Profile",
    "SyntheticScene",
    "measure_profile",
    "restore_window",
]

HALO_STEP = 16
"""Halos are multiples of this, px, so that the last digit of the noise does not change the geometry."""

MAX_HALO = 192
"""Widest halo that a plan chooses, px: beyond it a tile is mostly halo, and softer penalties are cheaper."""

SEAM_LIMIT = 1 / 255
"""Largest difference to the untiled result that a plan may predict, encoded 0..1."""

SAFETY = 13.0
"""Predicted error over that in the windows: they hold 4,500 px of seams, an image many more."""

SEAM_REFERENCE = 13_500
"""Length of seams to which predictions refer, px (2000 x 1500 in tiles of 384; SAFETY is from tiles of 700)."""

SEAM_EXPONENT = 0.5
"""Exponent of the largest error over the length of the seams, below the reference: from 384 to 700 px tiles the length
halves; in 18 cases the error falls by a factor of 1.3 in the median, 2.5 at most, and sometimes rises."""

ROUNDING = 1.2e-4
"""Encoded error of float32 transforms of different sizes at any halo (measured 0.5e-5..6.6e-5)."""

WINDOW = 720
"""Edge of a probe window, px: inside the widest halo 176 px remain to be compared."""

BEYOND = 80
"""Rim of a window beyond the cut, px on each side."""

SMALLEST_WINDOW = 2 * BEYOND + 6 * HALO_STEP
"""Smallest useful window, px: it must extend some depth inside its cut."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Seam error against distance from a cut.

    ``error[i]`` is the predicted largest encoded difference (0..1) with a halo of ``i * HALO_STEP`` px; it never rises.
    """

    error: tuple[float, ...]

    @classmethod
    def of(cls, worst: DoubleArray) -> Profile:
        """Return the profile of the largest differences `worst`, with rounding added."""
        return cls(tuple(float(error) + ROUNDING for error in worst))

    def halo(self, limit: float = SEAM_LIMIT) -> int | None:
        """Return the smallest halo, px, whose predicted error is within `limit`; None if there is none."""
        for index, error in enumerate(self.error):
            if index and error <= limit:
                return index * HALO_STEP
        return None

    def predict(self, halo: int, seam_length: int) -> float:
        """Return the predicted largest encoded difference.

        Parameters
        ----------
        halo : int
            Width of the halo, px; rounded down to a multiple of 16.
        seam_length : int
            Length of the seams in the image, px.  The largest of many errors grows with their number, up to the value
            that :meth:`halo` assumes.  Without seams only rounding remains.
        """
        worst = self.error[min(halo // HALO_STEP, len(self.error) - 1)]
        return ROUNDING + (worst - ROUNDING) * float(min(1.0, (seam_length / SEAM_REFERENCE) ** SEAM_EXPONENT))


def measure_profile(
    kernels: FloatArray,
    parameters: Parameters,
    windows: Sequence[FloatArray],
    scene: SyntheticScene,
    overlap: int,
    threads: int = 1,
) -> Profile:
    """Measure the seam error of `parameters` for a PSF.

    Parameters
    ----------
    kernels : ndarray of float32, shape (k, k) or (p, k, k)
        Planes of the PSF.
    parameters : Parameters
        As used on the image.
    windows : sequence of ndarray of float32, shape (c, h, w)
        Parts of the blurred image, linear light, edges up to ``WINDOW`` px; those with an edge below
        ``SMALLEST_WINDOW`` px are skipped.
    scene : SyntheticScene
        Guards against windows without structure.
    overlap : int
        Distance over which a tile fades in inside its halo, px.
    threads : int
        Number of threads that restore windows and their cuts; the result does not depend on it.
    """
    large = [window for window in windows if min(window.shape[1:]) >= SMALLEST_WINDOW]
    with ThreadPoolExecutor(threads) as pool:
        restored = [
            [pool.submit(restore_window, piece, kernels, parameters) for piece in (window, _middle(window))]
            for window in large
        ]
        on_scene = pool.submit(scene.errors, parameters, overlap)
        errors = [pool.submit(_errors, whole.result(), cut.result(), overlap) for whole, cut in restored]
        return Profile.of(np.max([on_scene.result(), *(SAFETY * one.result() for one in errors)], axis=0))


def _middle(window: FloatArray) -> FloatArray:
    """Return a window (c, h, w) without its outermost ``BEYOND`` px."""
    return np.ascontiguousarray(window[:, BEYOND:-BEYOND, BEYOND:-BEYOND])


def _errors(whole: FloatArray, cut: FloatArray, overlap: int) -> DoubleArray:
    """Return the largest encoded differences between a restored window and its middle, cut out and restored alone.

    For halos of 0, 16 ... MAX_HALO px.  Inside the halo the difference is weighted as in a tile, which fades in over
    `overlap` px.  A halo too wide for the window repeats the value of the widest that fits.
    """
    height, width = cut.shape[1:]
    difference = np.abs(_encoded(_middle(whole)) - _encoded(cut)).max(0)
    depth = np.minimum(_distance_to_ends(height)[:, None], _distance_to_ends(width)[None, :])
    deepest = min(height, width) // 2 - HALO_STEP
    halos = np.minimum(np.arange(0, MAX_HALO + 1, HALO_STEP), deepest)
    return np.array([_largest(difference, depth, int(halo), overlap) for halo in halos])


def _largest(difference: FloatArray, depth: FloatArray, halo: int, overlap: int) -> float:
    """Return the largest `difference` inside a halo, faded in over the outermost `overlap` px there."""
    height, width = difference.shape
    difference, depth = (plane[halo : height - halo, halo : width - halo] for plane in (difference, depth))
    rim = max(1, min(overlap, min(difference.shape) // 2))
    strips = [np.s_[:rim, :], np.s_[-rim:, :], np.s_[rim:-rim, :rim], np.s_[rim:-rim, -rim:]]
    faded = [(difference[strip] * _fade_in(depth[strip] - halo, overlap)).max(initial=0) for strip in strips]
    return float(max(*faded, difference[rim:-rim, rim:-rim].max(initial=0)))


def _distance_to_ends(length: int) -> FloatArray:
    """Return the distance, px, of each of `length` pixel centres from the nearer end."""
    position = np.arange(length, dtype=np.float32) + np.float32(0.5)
    distance: FloatArray = np.minimum(position, length - position)
    return distance


def _fade_in(distance: FloatArray, overlap: int) -> FloatArray:
    """Return the weight of a tile `distance` px inside its stored box: a raised cosine over `overlap` px."""
    share = np.clip(distance / np.float32(max(overlap, 1)), 0, 1)
    weight: FloatArray = np.float32(0.5) - np.float32(0.5) * np.cos(np.float32(np.pi) * share)
    return weight


def restore_window(window: FloatArray, kernel: FloatArray, parameters: Parameters) -> FloatArray:
    """Return a window (c, h, w) restored with the PSF (k, k) or (p, k, k)."""
    work = Workspace(window.shape[0], (window.shape[1], window.shape[2]), spectra=parameters.keeps_spectra)
    work.y[...] = window
    work.x[...] = window
    return restore(work, Spectrum.of(kernel, work.shape), parameters)


class SyntheticScene:
    """Dead leaves (Lee, Mumford & Huang 2001), blurred and noisy: a scene with large seam errors.

    Occluding disks and bars of all sizes and grays; blacks beside whites, because encoding is steepest there; long
    straight edges along and across the PSF's main axis, because they ring in phase where the response to a corner
    disperses.
    """

    def __init__(self, kernel: FloatArray, noise: float, size: int = WINDOW, seed: int = 1) -> None:
        """Draw the scene, blur it with `kernel` and add `noise` (standard deviation, linear light 0..1)."""
        generator = np.random.default_rng(seed)
        self.kernel = kernel
        self.sharp = _dead_leaves(_main_axis(kernel), size, generator)
        otf = Spectrum.of(kernel, (size, size)).otf(0)
        blurred = scipy.fft.irfft2(scipy.fft.rfft2(self.sharp) * otf, s=self.sharp.shape)
        noisy = blurred + generator.normal(0, noise, self.sharp.shape)
        self.blurred: FloatArray = np.clip(noisy, 0, 1).astype(np.float32)
        self._restored: dict[Parameters, FloatArray] = {}
        self._errors: dict[tuple[Parameters, int], DoubleArray] = {}

    def restored(self, parameters: Parameters) -> FloatArray:
        """Return the scene (1, h, w) restored with `parameters`; cached, as errors and PSNR need it."""
        if parameters not in self._restored:
            self._restored[parameters] = restore_window(self.blurred[None], self.kernel, parameters)
        return self._restored[parameters]

    def errors(self, parameters: Parameters, overlap: int) -> DoubleArray:
        """Return the largest encoded difference caused by a cut, inside halos of 0, 16 ... MAX_HALO px."""
        if (parameters, overlap) not in self._errors:
            cut = restore_window(_middle(self.blurred[None]), self.kernel, parameters)
            self._errors[parameters, overlap] = _errors(self.restored(parameters), cut, overlap)
        return self._errors[parameters, overlap]


def _dead_leaves(axis: float, size: int, generator: np.random.Generator) -> FloatArray:
    """Draw disks and bars; a third of them are bars along or across `axis`."""
    scene = np.zeros((size, size), np.float32)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    for index in range(600):
        disk = index % 3 == 0
        length = 4.0 / generator.uniform(0.03, 1.0)
        width = length * generator.uniform(0.05, 0.6)
        angle = generator.uniform(0, np.pi) if index % 3 == 1 else axis + np.pi / 2 * (index % 2)
        y, x = generator.uniform(0, size, 2)
        reach = int(length) + 2
        box = np.s_[max(0, int(y) - reach) : int(y) + reach, max(0, int(x) - reach) : int(x) + reach]
        along = (columns[box] - x) * np.cos(angle) + (rows[box] - y) * np.sin(angle)
        across = (rows[box] - y) * np.cos(angle) - (columns[box] - x) * np.sin(angle)
        bar = (np.abs(along) < length) & (np.abs(across) < width)
        inside = along**2 + across**2 < length**2 if disk else bar
        scene[box][inside] = generator.uniform(0.03, 1) ** 2.2
    return scene


def _main_axis(kernel: FloatArray) -> float:
    """Return the angle (radians, rows down) of the PSF's longest axis, from its second moments."""
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    xx = float((kernel * offsets[None, :] ** 2).sum())
    yy = float((kernel * offsets[:, None] ** 2).sum())
    xy = float((kernel * offsets[None, :] * offsets[:, None]).sum())
    return 0.5 * float(np.arctan2(2 * xy, xx - yy))


def _encoded(linear: FloatArray) -> FloatArray:
    """Encode as sRGB, whose slope near black is the steepest of common curves, clipped to 0..1."""
    clipped = np.clip(linear, 0, 1)
    return np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** np.float32(1 / 2.4) - 0.055)
