"""Whether a kernel is the one that blurred a picture, from the fine structure of the picture's spectrum.

The logarithm of the power of y = k * x is that of x plus log |K|^2.  The first is smooth when it is averaged over many
blocks; the second is not, unless k is small and round: the zeros of a line, a disk or a path write ripples into the
spectrum (Gennery 1973; Cannon 1976).  So ripples show that there is a blur of some extent, and the right kernel takes
them away, while a wrong one adds its own.  Neither needs the truth, nor the windows that a kernel was estimated from.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import BoolArray, DoubleArray, FloatArray
from tilepipe.psf.blind.spectrum import BLOCK, Power

__all__ = ["Ripples"]

LOWEST, LEAST_HIGHEST, HIGHEST = 0.04, 0.12, 0.25
"""Frequencies that count, cycles/px.  What is left of ripples is measured up to where the picture rises above its noise
within the last two; likeness up to the last, where noise hides ripples of picture and kernel alike."""

FINE, COARSE = 0.8, 5.0
"""Gaussians, in steps of 1 / BLOCK cycles/px, between which a ripple lies: one is the blocks' resolution."""

SMEAR = 0.7
"""Gaussian, in the same steps, by which the blocks' window smears a transfer function."""

FINEST, LEAST_SIGNAL = 0.45, 1e-3
"""Frequency, cycles/px, beyond which a picture is noise; least power of a picture over its noise."""

LEAST_TRANSFER = 1e-3
"""A kernel's power never falls below, as the picture itself differs from block to block."""

LEAST_RIPPLE = 0.1
"""Ripple above that of a calm picture that is never divided by less."""

RIPPLED, RIPPLED_SCATTER = 0.29, 0.25
"""Ripple above which a picture is blurred by more than something small and round; scatter over the root of the number
of blocks is added.  Twelve photographs, sharp or softened up to 1 px: 0.17 to 0.29 of 50 to 130 blocks, up to 0.37
of 9; behind shakes of 31 to 75 px: 0.33 to 0.57."""

CALM, CALM_SCATTER = 0.2, 0.45
"""Ripple of a picture whose blur is accounted for; scatter over the root of the number of blocks is added.  Behind true
kernels, of 32 pictures and 16 captures: 0.19 to 0.27 of 120 to 165 blocks, 0.39 to 0.46 of 4."""

LEAST_COMMON = 1e-4
"""Variance of ripples that is never divided by less."""

OVERSAMPLING = 4
"""Of a kernel's transfer function over the blocks'."""


class Ripples:
    """The ripples of a picture, and what kernels have to do with them.

    Parameters
    ----------
    power : of the picture; its ``logs`` are known.
    reach : frequency up to which the picture rises above its noise, cycles/px.
    slight : (k, k), the kernel of a slight blur that may be all; None: there is none.
    """

    def __init__(self, power: Power, reach: float, slight: FloatArray | None = None) -> None:
        assert power.logs is not None
        self.power, self.reach = power, reach
        logs = _whole(power.logs)
        self._signal = _signal(logs)
        self._own = _ripples(logs)
        self._parts = [_ripples(_whole(part))[_band(HIGHEST)] for part, _ in power.parts]
        self.simple = self.left() if slight is None else min(self.left(), self.left(slight))
        """Ripple without any kernel, or with a slight blur, natural logarithms."""

    @property
    def limit(self) -> float:
        """Ripple above which a picture of so many blocks is blurred by more than something small and round."""
        return RIPPLED + RIPPLED_SCATTER / math.sqrt(max(self.power.logged, 1))

    def left(self, kernel: FloatArray | None = None) -> float:
        """Return the ripple that is left when `kernel` (k, k) is accounted for, natural logarithms."""
        left = self._own if kernel is None else self._own - self._of(kernel)
        return float(left[_band(self.reach)].std())

    def explained(self, kernel: FloatArray) -> float:
        """Return the share of the ripples that `kernel` (k, k) takes away, about 1 for the right one."""
        calm = CALM + CALM_SCATTER / math.sqrt(max(self.power.logged, 1))
        return (self.simple - self.left(kernel)) / max(self.simple - calm, LEAST_RIPPLE)

    def likeness(self, kernel: FloatArray) -> float | None:
        """Return how like the ripples of `kernel` (k, k) are to those that all parts of the picture share, up to 1.

        A correlation, divided by what noise and the parts' own structure leave of it: the covariance of the parts with
        each other is that of their common blur.  About 0 for a kernel that has nothing to do with it.  None when fewer
        than two quarters of the picture show anything.
        """
        if len(self._parts) < 2:
            return None
        counts = np.array([count for _, count in self.power.parts], np.float64)
        covariance = np.cov([*self._parts, self._of(kernel)[_band(HIGHEST)]], bias=True)
        pairs = np.triu(np.sqrt(np.outer(counts, counts)), 1)
        common = float((pairs * covariance[:-1, :-1]).sum() / pairs.sum())
        shared = float(counts @ covariance[:-1, -1] / counts.sum())
        return shared / math.sqrt(max(common, LEAST_COMMON) * max(float(covariance[-1, -1]), LEAST_COMMON))

    def _of(self, kernel: FloatArray) -> DoubleArray:
        """Return the ripples that `kernel` (k, k) writes into the spectrum of this picture."""
        return _ripples(_log_power(kernel, self._signal))


def _whole(half: DoubleArray) -> DoubleArray:
    """Return the plane of which `half` is kept, as the picture is real: F(-y, -x) = conj F(y, x)."""
    mirrored = np.roll(half[::-1], 1, 0)[:, BLOCK // 2 - 1 : 0 : -1]
    return np.concatenate([half, mirrored], 1)


def _signal(logs: DoubleArray) -> DoubleArray:
    """Return the power of the picture over that of its noise at each frequency, from the mean of rings."""
    noise = logs[(_RADIUS > FINEST) & (_COUNTS > 0)].mean()
    signal: DoubleArray = np.maximum(np.exp(_ring_means(logs) - noise) - 1, LEAST_SIGNAL)
    return signal


def _log_power(kernel: FloatArray, signal: DoubleArray) -> DoubleArray:
    """Return what a kernel adds to the logarithm of the power of blocks, (BLOCK, BLOCK).

    Noise fills the zeros of its transfer function: of |K|^2 S + N the ring's mean over N is `signal` + 1.
    """
    size = OVERSAMPLING * max(BLOCK, -(-kernel.shape[0] // BLOCK) * BLOCK)
    step = size // BLOCK
    transfer = np.abs(np.fft.fft2(kernel.astype(np.float64), (size, size))) ** 2
    smeared = scipy.ndimage.gaussian_filter(transfer, SMEAR * step, mode="wrap")[::step, ::step]
    logs: DoubleArray = np.log(smeared + np.maximum(_ring_means(smeared) / signal, LEAST_TRANSFER))
    return logs


def _ring_means(values: DoubleArray) -> DoubleArray:
    """Return the mean of `values` (BLOCK, BLOCK) over each ring of frequency, at every frequency of it."""
    sums, counts = (np.bincount(_RINGS, (part * _COUNTS).ravel()) for part in (values, np.ones_like(values)))
    means: DoubleArray = (sums / np.maximum(counts, 1))[_RINGS].reshape(values.shape)
    return means


def _band(reach: float) -> BoolArray:
    """Return which frequencies count."""
    highest = min(max(reach, LEAST_HIGHEST), HIGHEST)
    band: BoolArray = (_RADIUS > LOWEST) & (_COUNTS > 0) & (highest > _RADIUS)
    return band


def _ripples(logs: DoubleArray) -> DoubleArray:
    """Return the logarithms (BLOCK, BLOCK) smoothed finely, less coarsely."""
    fine, coarse = (_smooth(logs, sigma) for sigma in (FINE, COARSE))
    return fine - coarse


def _smooth(values: DoubleArray, sigma: float) -> DoubleArray:
    """Return the mean of `values` around each frequency; the axes are left out."""
    total = scipy.ndimage.gaussian_filter(values * _COUNTS, sigma, mode="wrap")
    smooth: DoubleArray = total / np.maximum(scipy.ndimage.gaussian_filter(_COUNTS, sigma, mode="wrap"), 1e-3)
    return smooth


_FREQUENCY = np.fft.fftfreq(BLOCK)
_RADIUS = np.hypot(_FREQUENCY[:, None], _FREQUENCY[None, :])
_RINGS = np.rint(_RADIUS * BLOCK).astype(int).ravel()
_OFF_AXES = np.abs(_FREQUENCY) > 1.5 / BLOCK
_COUNTS = (_OFF_AXES[:, None] & _OFF_AXES[None, :]).astype(np.float64)
"""1 at the frequencies that count: horizons and the blocks of a JPEG lie on the axes."""
