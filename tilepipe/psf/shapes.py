"""PSFs of known form: Gaussian, defocus disk, straight motion."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from tilepipe.errors import PsfError
from tilepipe.psf.model import LARGEST_PSF, PSF

__all__ = ["delta", "disk", "gaussian", "motion"]

OVERSAMPLING = 16
"""Sub-pixels per pixel and axis over which a shape with a hard edge is averaged."""


def delta() -> PSF:
    """Return the PSF of no blur: 1 x 1."""
    return PSF(np.ones((1, 1), np.float32), {"shape": "delta"})


def gaussian(sigma: float, size: int | None = None) -> PSF:
    """Return a round Gaussian of standard deviation `sigma` px, by default cut at 4 sigma."""
    _positive("sigma", sigma)
    size = _odd_size(2 * math.ceil(4 * sigma) + 1, size)
    offsets = np.arange(size) - size // 2
    profile = np.exp(-(offsets**2) / (2 * sigma**2))
    return _made(np.outer(profile, profile), {"shape": "gaussian", "sigma": sigma})


def disk(radius: float, size: int | None = None) -> PSF:
    """Return a uniform disk of `radius` px (defocus), its edge averaged over sub-pixels."""
    _positive("radius", radius)
    size = _odd_size(2 * math.ceil(radius) + 1, size)
    centres = (np.arange(size * OVERSAMPLING) + 0.5) / OVERSAMPLING - size / 2
    inside = (centres[:, None] ** 2 + centres[None, :] ** 2 <= radius**2).astype(np.float64)
    if not inside.any():
        raise PsfError(f"radius is {radius} px; below {0.75 / OVERSAMPLING:.2f} px a disk is no blur: no PSF is needed")
    kernel = inside.reshape(size, OVERSAMPLING, size, OVERSAMPLING).sum((1, 3))
    return _made(kernel, {"shape": "disk", "radius": radius})


def motion(length: float, angle: float, size: int | None = None) -> PSF:
    """Return uniform straight motion over `length` px at `angle` degrees, counter-clockwise from the right.

    The path's points are spread over the four pixels around them (bilinear), so any angle is smooth.
    """
    _positive("length", length)
    if not math.isfinite(angle):
        raise PsfError(f"angle is {angle}; it must be a finite number of degrees")
    reach = max(0.0, (length - 1) / 2)
    size = _odd_size(2 * math.ceil(reach - 1e-9) + 1, size)
    along = np.linspace(-reach, reach, max(1, round(length * 4 * OVERSAMPLING)))
    x = np.round(along * math.cos(math.radians(angle)), 9) + size // 2
    y = np.round(-along * math.sin(math.radians(angle)), 9) + size // 2
    kernel = np.zeros((size + 1, size + 1))
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    for dy, weight_y in ((0, 1 - (y - top)), (1, y - top)):
        for dx, weight_x in ((0, 1 - (x - left)), (1, x - left)):
            np.add.at(kernel, (top + dy, left + dx), weight_y * weight_x)
    return _made(kernel[:size, :size], {"shape": "motion", "length": length, "angle": angle})


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PsfError(f"{name} is {value}; it must be a positive number of px")


def _odd_size(smallest: int, size: int | None) -> int:
    if size is None:
        if smallest > LARGEST_PSF:
            raise PsfError(f"the shape needs {smallest} x {smallest}; the limit is {LARGEST_PSF}")
        return smallest
    if size < smallest:
        raise PsfError(f"size {size} is too small for this shape; it needs at least {smallest}")
    return size


def _made(kernel: npt.NDArray[np.float64], made_by: dict[str, object]) -> PSF:
    return PSF((kernel / kernel.sum()).astype(np.float32), dict(made_by))
