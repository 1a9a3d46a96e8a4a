"""Operations on raw kernels: prune noise, centre, resize, align, crop."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.ndimage

from tilepipe.dtypes import FloatArray

__all__ = [
    "align",
    "border_mass",
    "centre",
    "centre_in",
    "centroid",
    "core_mass",
    "delta_kernel",
    "extent",
    "fit_to",
    "normalised",
    "place_at",
    "prune",
    "resize",
    "spread",
]

TOUCHING = np.ones((3, 3), int)
"""Structuring element for connected pieces of a kernel: 8-connectivity."""


def normalised(kernel: npt.NDArray[np.floating]) -> FloatArray:
    """Return the kernel scaled to sum 1; a delta if the sum is not positive and finite."""
    total = float(kernel.sum())
    if not (total > 0 and np.isfinite(total)):
        return delta_kernel(kernel.shape[0])
    return (kernel / total).astype(np.float32)


def delta_kernel(size: int) -> FloatArray:
    """Return the (size, size) identity kernel."""
    kernel = np.zeros((size, size), np.float32)
    kernel[size // 2, size // 2] = 1
    return kernel


def prune(kernel: FloatArray, floor: float, mass: float = 0.0) -> FloatArray:
    """Set taps below `floor` times the peak to 0, then connected pieces with less than `mass` of the total; sum 1."""
    kernel = normalised(np.where(kernel < floor * kernel.max(), np.float32(0), kernel))
    pieces, count = scipy.ndimage.label(kernel > 0, TOUCHING)
    if mass and count > 1:
        masses = np.asarray(scipy.ndimage.sum(kernel, pieces, np.arange(count + 1)))
        keep = (masses >= mass) & (np.arange(count + 1) > 0)
        if keep.any():
            kernel = kernel * keep[pieces]
    return normalised(kernel)


def centroid(kernel: FloatArray) -> tuple[float, float]:
    """Return (y, x) of the kernel's centre of mass relative to its middle, px."""
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    return float((kernel.sum(1) * offsets).sum()), float((kernel.sum(0) * offsets).sum())


def spread(kernel: FloatArray) -> float:
    """Return the root mean square distance of the kernel's mass from its centre of mass, px."""
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    y, x = centroid(kernel)
    down, across = (kernel.sum(1) * (offsets - y) ** 2).sum(), (kernel.sum(0) * (offsets - x) ** 2).sum()
    return math.sqrt(down + across)


def centre(kernel: FloatArray, *, whole: bool) -> FloatArray:
    """Move the centre of mass to the middle; by `whole` pixels only if a sub-pixel shift would blur the kernel."""
    y, x = centroid(kernel)
    if whole:
        return normalised(_shifted(kernel, -round(y), -round(x)))
    return normalised(np.maximum(scipy.ndimage.shift(kernel, (-y, -x), order=1), 0))


def place_at(kernel: FloatArray, place: tuple[float, float]) -> FloatArray:
    """Move the centre of mass to `place`, (y, x) relative to the middle, px, with sub-pixel accuracy; sum 1.

    The cubic shift is iterated because clipping the overshoot at 0 moves the centre of mass again.
    """
    for _ in range(4):
        y, x = centroid(kernel)
        step = place[0] - y, place[1] - x
        if max(map(abs, step)) < 0.01:
            break
        kernel = normalised(np.maximum(scipy.ndimage.shift(kernel, step, order=3), 0))
    return kernel


def _shifted(kernel: FloatArray, down: int, right: int) -> FloatArray:
    """Return the kernel shifted by whole pixels; taps that leave the frame are dropped."""
    size = kernel.shape[0]
    wide = np.zeros((3 * size, 3 * size), np.float32)
    wide[size + down : 2 * size + down, size + right : 2 * size + right] = kernel
    return wide[size : 2 * size, size : 2 * size]


def resize(kernel: FloatArray, size: int, factor: float) -> FloatArray:
    """Scale the kernel about its middle by `factor` (cubic) onto (size, size); overshoot clipped at 0; sum 1."""
    places = (np.arange(size) - size // 2) / factor + kernel.shape[0] // 2
    grid = np.meshgrid(places, places, indexing="ij")
    return normalised(np.maximum(scipy.ndimage.map_coordinates(kernel, grid, order=3, mode="constant"), 0))


def fit_to(kernel: FloatArray, size: int) -> FloatArray:
    """Crop or pad the kernel about its middle to (size, size); sum 1."""
    have = kernel.shape[0]
    if have >= size:
        edge = (have - size) // 2
        return normalised(kernel[edge : edge + size, edge : edge + size])
    return normalised(np.pad(kernel, (size - have) // 2))


def centre_in(kernel: FloatArray, size: int, lost: float = 0.005) -> FloatArray:
    """Return the kernel on (size, size), centred to whole pixels; off centre where centring would cut off a tail.

    Crops are tried from the centre outwards; one replaces the best so far if it keeps over `lost` more of the mass.
    """
    middle = np.pad(centre(kernel, whole=True), size)
    start = (middle.shape[0] - size) // 2
    reach = size // 4
    best, kept = middle[start : start + size, start : start + size], -1.0
    for y, x in sorted(np.ndindex(2 * reach + 1, 2 * reach + 1), key=lambda at: math.dist(at, (reach, reach))):
        top, left = start + y - reach, start + x - reach
        crop = middle[top : top + size, left : left + size]
        mass = float(crop.sum())
        if mass > kept + lost:
            best, kept = crop, mass
    return normalised(best)


def align(kernel: FloatArray, other: FloatArray) -> tuple[FloatArray, float]:
    """Shift `kernel` by whole pixels to align it with `other`; return it and their normalised correlation, 0..1.

    Parameters
    ----------
    kernel, other : ndarray of float32, shape (k, k) and (m, m)
    """
    size = max(kernel.shape[0], other.shape[0])
    first, second = fit_to(kernel, size), fit_to(other, size)
    shape = (2 * size, 2 * size)
    product = scipy.fft.irfft2(scipy.fft.rfft2(second, shape) * scipy.fft.rfft2(first, shape).conj(), shape)
    y, x = np.unravel_index(int(product.argmax()), shape)
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    moved = _shifted(first, *((int(at) + size) % (2 * size) - size for at in (y, x)))
    return normalised(moved), min(1.0, float(product.max()) / scale)


def border_mass(kernel: FloatArray) -> float:
    """Return the share of mass in the outermost ring of taps (in two rings if the kernel is 15 px or larger)."""
    rim = 1 if kernel.shape[0] < 15 else 2
    return max(0.0, float(1 - kernel[rim:-rim, rim:-rim].sum() / kernel.sum()))


def extent(kernel: FloatArray, share: float = 0.005) -> int:
    """Return the smallest odd width of a centred square outside which at most `share` of the mass lies."""
    size: int = kernel.shape[0]
    for width in range(1, size, 2):
        edge = (size - width) // 2
        if 1 - float(kernel[edge : edge + width, edge : edge + width].sum()) <= share:
            return width
    return size


def core_mass(kernel: FloatArray) -> float:
    """Return the share of mass in the 3 x 3 px around the centre of mass, 0..1."""
    middle = centre(np.pad(kernel, 1), whole=True)
    at = middle.shape[0] // 2
    return float(middle[at - 1 : at + 2, at - 1 : at + 2].sum())
