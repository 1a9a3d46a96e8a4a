"""Parametric PSFs: Gaussian, defocus disk, straight motion."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import scipy.special

from tilepipe.dtypes import DoubleArray
from tilepipe.errors import PsfError
from tilepipe.psf.model import LARGEST_PSF, PSF

__all__ = ["cubic", "delta", "disk", "elliptical_gaussian", "gaussian", "motion"]

FINENESS = 16
"""Samples per pixel along the path of a motion."""

LEAST_TAP = 1e-5
"""Taps below this share of the peak are set to 0: residual ripple of the transform."""


def delta() -> PSF:
    """Return the identity PSF: 1 x 1."""
    return PSF(np.ones((1, 1), np.float32), {"shape": "delta"})


def gaussian(sigma: float, size: int | None = None) -> PSF:
    """Return an isotropic Gaussian of standard deviation `sigma` px, truncated at 4 sigma by default.

    Taps are computed from the transform ``exp(-sigma^2 w^2 / 2)`` within the band of the pixel grid, negative taps
    clipped, because point samples of a Gaussian below 0.7 px are far too narrow.
    """
    _check_positive("sigma", sigma)
    reach = max(2, math.ceil(4 * sigma))
    size = _odd_size(2 * reach + 1, size)
    frequencies = 2 * np.pi * np.fft.fftfreq(8 * (2 * reach + 1))
    profile = np.fft.ifft(np.exp(-0.5 * (sigma * frequencies) ** 2)).real
    taps = _clipped(np.concatenate([profile[-reach:], profile[: reach + 1]]))
    return _psf(_padded(np.outer(taps, taps), size), {"shape": "gaussian", "sigma": sigma})


def elliptical_gaussian(major: float, minor: float, angle: float) -> PSF:
    """Return a Gaussian of standard deviations `major` px along `angle` degrees (as :func:`motion`), `minor` across.

    Equal ones give :func:`gaussian`; `minor` may be 0.
    """
    if major == minor:
        return gaussian(major)
    _check_positive("major", major)
    reach = max(2, math.ceil(4 * max(major, minor)))
    _odd_size(2 * reach + 1, None)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))

    def transfer(wy: DoubleArray, wx: DoubleArray) -> DoubleArray:
        along, across = wx * cosine - wy * sine, wx * sine + wy * cosine
        return np.asarray(np.exp(-0.5 * ((major * along) ** 2 + (minor * across) ** 2)))

    made_by = {"shape": "gaussian", "sigma": [major, minor], "angle": angle}
    return _psf(_from_transfer(transfer, reach), made_by)


def disk(radius: float, size: int | None = None, *, target: float = 0.0) -> PSF:
    """Return a uniform disk of `radius` px (defocus).

    Taps are computed from the transform ``2 J1(radius w) / (radius w)`` within the band of the pixel grid, negative
    taps clipped.

    Parameters
    ----------
    radius : float
        Radius, px.
    size : int, optional
        Size of the kernel, px, odd; by default the smallest that holds the disk.
    target : float
        Standard deviation, px, of a Gaussian by which the transform is divided; deconvolution leaves that much blur.
    """
    _check_positive("radius", radius)
    reach = math.ceil(radius) + 1
    size = _odd_size(2 * reach + 1, size)

    def transfer(wy: DoubleArray, wx: DoubleArray) -> DoubleArray:
        w = np.hypot(wy, wx)
        phase = np.maximum(radius * w, 1e-9)
        return np.asarray(2 * scipy.special.j1(phase) / phase * np.exp(0.5 * (target * w) ** 2))

    return _psf(_padded(_from_transfer(transfer, reach), size), {"shape": "disk", "radius": radius})


def motion(length: float, angle: float, size: int | None = None) -> PSF:
    """Return uniform straight motion over `length` px at `angle` degrees, counter-clockwise from the right.

    Path samples are distributed with the cubic convolution kernel of Keys (IEEE Trans. ASSP 29, 1981), a = -1/2, and
    negative taps clipped.  This preserves the band nearly as well as the transform of the path.  The taps of that
    transform are negative over long stretches beside a slanted path: clipping them costs 2 to 8 dB.  Bilinear
    distribution costs up to 1 dB.
    """
    _check_positive("length", length)
    if not math.isfinite(angle):
        raise PsfError(f"angle is {angle}; it must be a finite number of degrees")
    reach = max(0.0, (length - 1) / 2)
    size = _odd_size(2 * math.ceil(reach - 1e-9) + 1, size)
    along = np.linspace(-reach, reach, max(1, round(length * FINENESS)))
    margin = 2  # reach of the cubic kernel around the outermost samples, px; cropped at the end
    y = size // 2 + margin - np.round(along * math.sin(math.radians(angle)), 9)
    x = size // 2 + margin + np.round(along * math.cos(math.radians(angle)), 9)
    kernel = np.zeros((size + 2 * margin, size + 2 * margin))
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    for dy in range(-1, 3):
        weights = cubic(top + dy - y)
        for dx in range(-1, 3):
            np.add.at(kernel, (top + dy, left + dx), weights * cubic(left + dx - x))
    inner = _clipped(kernel[margin:-margin, margin:-margin])
    return _psf(inner, {"shape": "motion", "length": length, "angle": angle})


def cubic(x: DoubleArray) -> DoubleArray:
    """Return the cubic convolution kernel of Keys (IEEE Trans. ASSP 29, 1981), a = -1/2, at distances `x` px."""
    x = np.abs(x)
    inner, outer = (1.5 * x - 2.5) * x**2 + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights: DoubleArray = np.where(x < 1, inner, np.where(x < 2, outer, 0))
    return weights


Transfer = Callable[[DoubleArray, DoubleArray], DoubleArray]
"""(wy, wx) in radians per pixel, y down -> real transfer function."""


def _from_transfer(transfer: Transfer, reach: int) -> DoubleArray:
    """Return the taps up to `reach` px from the centre of a symmetric PSF with this transfer function."""
    frequencies = 2 * np.pi * np.fft.fftfreq(4 * (2 * reach + 1)).astype(np.float64)
    taps = np.fft.ifft2(transfer(frequencies[:, None], frequencies[None, :])).real
    return _clipped(np.roll(taps, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1])


def _padded(kernel: DoubleArray, size: int) -> DoubleArray:
    """Return `kernel` zero-padded to (size, size)."""
    padded = np.zeros((size, size))
    margin = (size - len(kernel)) // 2
    padded[margin : margin + len(kernel), margin : margin + len(kernel)] = kernel
    return padded


def _clipped(taps: DoubleArray) -> DoubleArray:
    """Return `taps` with negative and negligible ones set to 0."""
    return np.where(taps > LEAST_TAP * taps.max(), taps, 0.0)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PsfError(f"{name} is {value}; it must be a positive, finite number of px")


def _odd_size(smallest: int, size: int | None) -> int:
    if size is None:
        if smallest > LARGEST_PSF:
            raise PsfError(f"the shape needs {smallest} x {smallest}; the limit is {LARGEST_PSF}")
        return smallest
    if size < smallest:
        raise PsfError(f"size {size} is too small for this shape; use at least {smallest}")
    return size


def _psf(kernel: DoubleArray, made_by: dict[str, object]) -> PSF:
    return PSF((kernel / kernel.sum()).astype(np.float32), dict(made_by))
