"""Whether a kernel is the one that blurred a picture, from the fine structure of the picture's spectrum.

The logarithm of the power of y = k * x is that of x plus log |K|^2.  The first is smooth when it is averaged over many
blocks; the second is not, unless k is small and round: the zeros of a line, a disk or a path write ripples into the
spectrum (Gennery 1973; Cannon 1976).  So ripples show that there is a blur of some extent, and the right kernel takes
them away, while a wrong one adds its own.  Neither needs the truth, nor the windows that a kernel was estimated from.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.psf.spectrum import BLOCK, Power

__all__ = ["explained", "ripple", "rippled_from"]

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

LOWEST, LEAST_HIGHEST, HIGHEST = 0.04, 0.12, 0.25
"""Frequencies that count, cycles/px, up to where the picture rises above its noise within the last two."""

FINE, COARSE = 0.8, 5.0
"""Gaussians, in steps of 1 / BLOCK cycles/px, between which a ripple lies: one is the blocks' resolution."""

SMEAR = 0.7
"""Gaussian, in the same steps, by which the blocks' window smears a transfer function."""

LEAST_TRANSFER = 3e-3
"""Added to a kernel's power: the noise fills its zeros."""

LEAST_RIPPLE = 0.02
"""Ripple above that of a calm picture that is never divided by less."""

RIPPLED, RIPPLED_SCATTER = 0.29, 0.25
"""Ripple above which a picture is blurred by more than something small and round; scatter over the root of the number
of blocks is added.  Twelve photographs, sharp or softened up to 1 px: 0.17 to 0.29 of 50 to 130 blocks, up to 0.37
of 9; behind shakes of 31 to 75 px: 0.33 to 0.57."""

CALM, CALM_SCATTER = 0.2, 0.45
"""Ripple of a picture whose blur is accounted for; scatter over the root of the number of blocks is added.  Behind true
kernels, of 32 pictures and 16 captures: 0.19 to 0.27 of 120 to 165 blocks, 0.39 to 0.46 of 4."""

OVERSAMPLING = 4
"""Of a kernel's transfer function over the blocks'."""


def rippled_from(power: Power) -> float:
    """Return the ripple from which on a picture of this many blocks is rippled."""
    return RIPPLED + RIPPLED_SCATTER / math.sqrt(max(power.logged, 1))


def explained(power: Power, simple: float, left: float) -> float:
    """Return the share of a picture's ripples that a kernel takes away, about 1 for the right one.

    Parameters
    ----------
    simple, left : ripple without the kernel, and with it.
    """
    calm = CALM + CALM_SCATTER / math.sqrt(max(power.logged, 1))
    return (simple - left) / max(simple - calm, LEAST_RIPPLE)


def ripple(power: Power, kernel: FloatArray | None = None, reach: float = HIGHEST) -> float | None:
    """Return the ripple that is left of a picture's spectrum when `kernel` (k, k) is accounted for, natural logarithms.

    None when too few blocks show anything.

    Parameters
    ----------
    reach : frequency up to which the picture rises above its noise, cycles/px.
    """
    if power.logs is None:
        return None
    half = power.logs
    # the other half of the plane, as the picture is real: F(-y, -x) = conj F(y, x)
    mirrored = np.roll(half[::-1], 1, 0)[:, BLOCK // 2 - 1 : 0 : -1]
    logs = np.concatenate([half, mirrored], 1)
    if kernel is not None:
        size = OVERSAMPLING * max(BLOCK, -(-kernel.shape[0] // BLOCK) * BLOCK)
        step = size // BLOCK
        transfer = np.abs(np.fft.fft2(kernel.astype(np.float64), (size, size))) ** 2
        smeared = scipy.ndimage.gaussian_filter(transfer, SMEAR * step, mode="wrap")[::step, ::step]
        logs = logs - np.log(smeared + LEAST_TRANSFER)
    frequency = np.fft.fftfreq(BLOCK)
    off_axes = np.abs(frequency) > 1.5 / BLOCK
    counts = (off_axes[:, None] & off_axes[None, :]).astype(np.float64)
    radius = np.hypot(frequency[:, None], frequency[None, :])
    band = (radius > LOWEST) & (radius < min(max(reach, LEAST_HIGHEST), HIGHEST)) & (counts > 0)
    fine, coarse = (_smooth(logs, counts, sigma) for sigma in (FINE, COARSE))
    return float((fine - coarse)[band].std())


def _smooth(values: Doubles, counts: Doubles, sigma: float) -> Doubles:
    """Return the mean of `values` around each frequency; those with no count are left out."""
    total = scipy.ndimage.gaussian_filter(values * counts, sigma, mode="wrap")
    smooth: Doubles = total / np.maximum(scipy.ndimage.gaussian_filter(counts, sigma, mode="wrap"), 1e-3)
    return smooth
