"""Test of a kernel against the fine structure of the image's spectrum.

The log power of y = k * x is that of x plus log |K|^2.  The first is smooth when averaged over many blocks; the second
is not, unless k is small and round: the zeros of a line, a disk or a path cause ripples in the spectrum (Gennery 1973;
Cannon 1976).  Ripples therefore indicate a blur of some extent; the correct kernel removes them, while a wrong one adds
its own.  Neither test needs the truth or the windows from which a kernel was estimated.
"""

from __future__ import annotations

import math

import numpy as np
import scipy.ndimage

from tilepipe.dtypes import BoolArray, DoubleArray, FloatArray
from tilepipe.psf.blind.spectrum import BLOCK, Power

__all__ = ["Ripples"]

LOWEST, LEAST_HIGHEST, HIGHEST = 0.04, 0.12, 0.25
"""Band of frequencies used, cycles/px.  Residual ripple is measured up to where the image rises above its noise,
clipped to the last two; likeness up to the last, as noise masks the ripples of image and kernel alike."""

FINE, COARSE = 0.8, 5.0
"""Standard deviations of the Gaussians whose difference extracts ripples, in steps of 1 / BLOCK cycles/px; 1 step is
the resolution of the blocks."""

SMEAR = 0.7
"""Standard deviation, in the same steps, of the Gaussian by which the blocks' window smooths a transfer function."""

FINEST, LEAST_SIGNAL = 0.45, 1e-3
"""Frequency, cycles/px, above which an image is treated as noise; least power of an image over its noise."""

LEAST_TRANSFER = 1e-3
"""Least power added to a kernel's transfer function, because the image itself differs from block to block."""

LEAST_RIPPLE = 0.1
"""Least excess of ripple over that of a calm image used as a divisor."""

RIPPLED, RIPPLED_SCATTER = 0.29, 0.25
"""Ripple above which the blur is more than small and round; the second value over the square root of the number of
blocks is added.  Twelve photographs, sharp or softened by up to 1 px: 0.17 to 0.29 for 50 to 130 blocks, up to 0.37 for
9; with camera shakes of 31 to 75 px: 0.33 to 0.57."""

CALM, CALM_SCATTER = 0.2, 0.45
"""Residual ripple after removal of the blur; the second value over the square root of the number of blocks is added.
With the true kernels of 32 images and 16 captures: 0.19 to 0.27 for 120 to 165 blocks, 0.39 to 0.46 for 4."""

LEAST_COMMON = 1e-4
"""Least variance of ripples used as a divisor."""

OVERSAMPLING = 4
"""Sampling of a kernel's transfer function relative to the blocks' spectrum."""


class Ripples:
    """The ripples of an image, for comparison with those of kernels.

    Parameters
    ----------
    power : Power
        Power of the image, with ``logs``.
    reach : float
        Frequency up to which the image rises above its noise, cycles/px.
    slight : ndarray of float32, shape (k, k), optional
        Kernel of a slight blur that may explain the image by itself.
    """

    def __init__(self, power: Power, reach: float, slight: FloatArray | None = None) -> None:
        assert power.logs is not None
        self.power, self.reach = power, reach
        logs = _whole(power.logs)
        self._signal = _signal(logs)
        self._own = _ripples(logs)
        self._parts = [_ripples(_whole(part))[_band(HIGHEST)] for part, _ in power.parts]
        self.simple = self.left() if slight is None else min(self.left(), self.left(slight))
        """Residual ripple without a kernel or with the slight blur, whichever is less, natural logarithms."""

    @property
    def limit(self) -> float:
        """Ripple above which the blur of an image with this number of blocks is more than small and round."""
        return RIPPLED + RIPPLED_SCATTER / math.sqrt(max(self.power.logged, 1))

    def left(self, kernel: FloatArray | None = None) -> float:
        """Return the residual ripple after removing that of `kernel` (k, k), natural logarithms."""
        left = self._own if kernel is None else self._own - self._kernel_ripples(kernel)
        return float(left[_band(self.reach)].std())

    def explained(self, kernel: FloatArray) -> float:
        """Return the share of the ripples that `kernel` (k, k) removes, about 1 for the correct one."""
        calm = CALM + CALM_SCATTER / math.sqrt(max(self.power.logged, 1))
        return (self.simple - self.left(kernel)) / max(self.simple - calm, LEAST_RIPPLE)

    def likeness(self, kernel: FloatArray) -> float | None:
        """Return the likeness of the ripples of `kernel` (k, k) to those shared by all parts of the image, up to 1.

        A correlation, corrected for noise and the parts' own structure: the covariance of the parts with each other is
        that of their common blur.  About 0 for a kernel unrelated to it.  None if fewer than two quarters of the image
        have enough blocks with structure.
        """
        if len(self._parts) < 2:
            return None
        counts = np.array([count for _, count in self.power.parts], np.float64)
        covariance = np.cov([*self._parts, self._kernel_ripples(kernel)[_band(HIGHEST)]], bias=True)
        pairs = np.triu(np.sqrt(np.outer(counts, counts)), 1)
        common = float((pairs * covariance[:-1, :-1]).sum() / pairs.sum())
        shared = float(counts @ covariance[:-1, -1] / counts.sum())
        return shared / math.sqrt(max(common, LEAST_COMMON) * max(float(covariance[-1, -1]), LEAST_COMMON))

    def _kernel_ripples(self, kernel: FloatArray) -> DoubleArray:
        """Return the ripples that `kernel` (k, k) causes in the spectrum of this image."""
        return _ripples(_log_power(kernel, self._signal))


def _whole(half: DoubleArray) -> DoubleArray:
    """Return the full plane from its stored `half`; as the image is real, F(-y, -x) = conj F(y, x)."""
    mirrored = np.roll(half[::-1], 1, 0)[:, BLOCK // 2 - 1 : 0 : -1]
    return np.concatenate([half, mirrored], 1)


def _signal(logs: DoubleArray) -> DoubleArray:
    """Return the power of the image over that of its noise at each frequency, from means over rings."""
    noise = logs[(_RADIUS > FINEST) & (_COUNTS > 0)].mean()
    signal: DoubleArray = np.maximum(np.exp(_ring_means(logs) - noise) - 1, LEAST_SIGNAL)
    return signal


def _log_power(kernel: FloatArray, signal: DoubleArray) -> DoubleArray:
    """Return the contribution of a kernel to the log power of blocks, shape (BLOCK, BLOCK).

    Noise fills the zeros of its transfer function: the ring mean of |K|^2 S + N, divided by N, is `signal` + 1.
    """
    size = OVERSAMPLING * max(BLOCK, -(-kernel.shape[0] // BLOCK) * BLOCK)
    step = size // BLOCK
    transfer = np.abs(np.fft.fft2(kernel.astype(np.float64), (size, size))) ** 2
    smeared = scipy.ndimage.gaussian_filter(transfer, SMEAR * step, mode="wrap")[::step, ::step]
    logs: DoubleArray = np.log(smeared + np.maximum(_ring_means(smeared) / signal, LEAST_TRANSFER))
    return logs


def _ring_means(values: DoubleArray) -> DoubleArray:
    """Return `values` (BLOCK, BLOCK) replaced by their mean over each ring of frequency."""
    sums, counts = (np.bincount(_RINGS, (part * _COUNTS).ravel()) for part in (values, np.ones_like(values)))
    means: DoubleArray = (sums / np.maximum(counts, 1))[_RINGS].reshape(values.shape)
    return means


def _band(reach: float) -> BoolArray:
    """Return the mask of frequencies used."""
    highest = min(max(reach, LEAST_HIGHEST), HIGHEST)
    band: BoolArray = (_RADIUS > LOWEST) & (_COUNTS > 0) & (highest > _RADIUS)
    return band


def _ripples(logs: DoubleArray) -> DoubleArray:
    """Return the difference of finely and coarsely smoothed logarithms (BLOCK, BLOCK)."""
    fine, coarse = (_smooth(logs, sigma) for sigma in (FINE, COARSE))
    return fine - coarse


def _smooth(values: DoubleArray, sigma: float) -> DoubleArray:
    """Return the local mean of `values` around each frequency, excluding the axes."""
    total = scipy.ndimage.gaussian_filter(values * _COUNTS, sigma, mode="wrap")
    smooth: DoubleArray = total / np.maximum(scipy.ndimage.gaussian_filter(_COUNTS, sigma, mode="wrap"), 1e-3)
    return smooth


_FREQUENCY = np.fft.fftfreq(BLOCK)
_RADIUS = np.hypot(_FREQUENCY[:, None], _FREQUENCY[None, :])
_RINGS = np.rint(_RADIUS * BLOCK).astype(int).ravel()
_OFF_AXES = np.abs(_FREQUENCY) > 1.5 / BLOCK
_COUNTS = (_OFF_AXES[:, None] & _OFF_AXES[None, :]).astype(np.float64)
"""1 at the frequencies used, 0 near the axes, where horizons and JPEG blocks dominate."""
