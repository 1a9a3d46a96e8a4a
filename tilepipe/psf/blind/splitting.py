"""Half-quadratic splitting on a periodic window: restorations with sharp edges (L0) and with total variation.

Fast (one pair of real transforms per step, into existing memory) and accurate enough to estimate and score PSFs.  The
operators are not local and therefore unsuitable for tiles, for which :mod:`tilepipe.deconv.admm` is used.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.wrap import wrap_smoothly
from tilepipe.system.jit import kernel

__all__ = ["Window"]

ComplexArray = npt.NDArray[np.complex64]
Array = Any


class Window:
    """A blurred window, extended smoothly to a torus, that can be restored with any number of kernels.

    Parameters
    ----------
    blurred : ndarray of float32, shape (h, w)
    widest : int
        Size of the widest kernel that will be used, px; the periodic extension is at least this wide.
    """

    def __init__(self, blurred: FloatArray, widest: int) -> None:
        self.blurred = blurred
        self.height, self.width = blurred.shape
        self.frame = (_fast(self.height + widest), _fast(self.width + widest))
        self._wrapped = wrap_smoothly(blurred, self.frame)
        self._spectrum = self._transformed(self._wrapped)
        self._laplacian = _laplacian(self.frame)

    def sharp_edges(self, kernel: npt.NDArray[Any], mu: float, last: float = 1e3, growth: float = 2.0) -> FloatArray:
        """Return the window restored with few gradients: min ||k*S - y||^2 + mu ||grad S||_0.

        Xu, Zheng & Jia (CVPR 2013), eq. 7..10: gradients with |g|^2 < mu/beta are set to 0; beta grows by a factor of
        `growth` from 2 mu to `last`.

        Parameters
        ----------
        kernel : ndarray, shape (k, k)
            k odd.
        mu : float
            Weight of a nonzero gradient.
        last : float
            Upper limit of beta.
        growth : float
            Factor of beta from step to step.

        Returns
        -------
        ndarray of float32, shape (h, w)
        """
        data, power = self._data_term(kernel)
        image = self._wrapped.copy()
        divergence, sources = np.empty_like(image), np.empty_like(data)
        beta = 2 * mu
        while beta < last:
            _hard(image, np.float32(mu / beta), divergence)
            self._solve(data, power, forward(divergence, sources), beta, image)
            beta *= growth
        return self._cut(image)

    def total_variation(
        self, kernel: npt.NDArray[Any], lam: float, first: float = 1.0, last: float = 256.0, ratio: float = 2.8284271
    ) -> FloatArray:
        """Minimise 1/2 ||k*x - y||^2 + lam sum |grad x| by six steps of splitting (Krishnan & Fergus 2009, p = 1).

        Parameters
        ----------
        kernel : ndarray, shape (k, k)
            k odd.
        lam : float
            Weight of the total variation.
        first, last, ratio : float
            First and largest splitting weight, in units of `lam`, and its factor from step to step; the defaults give
            six steps.

        Returns
        -------
        ndarray of float32, shape (h, w)
        """
        data, power = self._data_term(kernel)
        image = self._wrapped.copy()
        divergence, sources = np.empty_like(image), np.empty_like(data)
        b = first
        while b <= last * 1.0001:
            _soft(image, np.float32(1 / b), divergence)
            self._solve(data, power, forward(divergence, sources), lam * b, image)
            b *= ratio
        return self._cut(image)

    def blur(self, image: FloatArray, kernel: npt.NDArray[Any]) -> FloatArray:
        """Return k*x of an (h, w) image, periodically extended like the window."""
        spectrum = self._transformed(wrap_smoothly(image, self.frame))
        spectrum *= self._transfer(kernel)
        return self._cut(inverse(spectrum, np.empty(self.frame, np.float32)))

    def _transformed(self, plane: FloatArray) -> ComplexArray:
        """Return the orthonormal half spectrum of a plane of the frame's shape."""
        return forward(plane, np.empty((self.frame[0], self.frame[1] // 2 + 1), np.complex64))

    def _transfer(self, kernel: npt.NDArray[Any]) -> ComplexArray:
        """Return the factors by which a kernel (k, k), centred, scales orthonormal spectra."""
        size = kernel.shape[0]
        plane = np.zeros(self.frame, np.float32)
        plane[:size, :size] = kernel
        transfer = self._transformed(np.roll(plane, (-(size // 2), -(size // 2)), (0, 1)))
        transfer *= np.float32(math.sqrt(plane.size))
        return transfer

    def _data_term(self, kernel: npt.NDArray[Any]) -> tuple[ComplexArray, FloatArray]:
        transfer = self._transfer(kernel)
        return np.conj(transfer) * self._spectrum, (transfer.real**2 + transfer.imag**2)

    def _solve(
        self, data: ComplexArray, power: FloatArray, sources: ComplexArray, weight: float, image: FloatArray
    ) -> None:
        """Compute image <- F^-1[(data + weight sources) / (power + weight |D|^2)]; `sources` is overwritten."""
        _combine(sources, data, power, self._laplacian, np.float32(weight))
        inverse(sources, image)

    def _cut(self, image: FloatArray) -> FloatArray:
        return np.ascontiguousarray(image[: self.height, : self.width])


def _fast(length: int) -> int:
    return int(scipy.fft.next_fast_len(length, real=True))


def _laplacian(shape: tuple[int, int]) -> FloatArray:
    """Return |D|^2 = |Dx|^2 + |Dy|^2 of periodic forward differences, on the half spectrum."""
    rows = 2 - 2 * np.cos(2 * np.pi * np.arange(shape[0]) / shape[0])
    columns = 2 - 2 * np.cos(2 * np.pi * np.arange(shape[1] // 2 + 1) / shape[1])
    laplacian: FloatArray = (rows[:, None] + columns[None, :]).astype(np.float32)
    return laplacian


@kernel
def _combine(sources: Array, data: Array, power: Array, laplacian: Array, weight: Array) -> None:
    """Compute sources <- (data + weight sources) / (power + weight laplacian) in place."""
    height, width = power.shape
    for i in range(height):
        for j in range(width):
            scale = np.float32(1) / (power[i, j] + weight * laplacian[i, j])
            sources[i, j] = (data[i, j] + weight * sources[i, j]) * scale


@kernel
def _hard(image: Array, threshold: Array, divergence: Array) -> None:
    """Compute divergence <- D^T g, g = periodic forward differences where |g|^2 >= threshold, else 0."""
    height, width = image.shape
    flow_x = np.empty(width + 1, np.float32)
    flow_y = np.empty((2, width), np.float32)
    _hard_row(image[height - 1], image[0], threshold, flow_x, flow_y[1])
    for i in range(height):
        above, here = flow_y[(i + 1) % 2], flow_y[i % 2]
        _hard_row(image[i], image[(i + 1) % height], threshold, flow_x, here)
        for j in range(width):
            divergence[i, j] = flow_x[j] - flow_x[j + 1] + above[j] - here[j]


@kernel
def _hard_row(row: Array, below: Array, threshold: Array, flow_x: Array, flow_y: Array) -> None:
    """Store the thresholded differences at pixel j in flow_x[j + 1], flow_y[j]; flow_x[0] is that of the last pixel."""
    width = row.shape[0]
    for j in range(width - 1):
        across = row[j + 1] - row[j]
        down = below[j] - row[j]
        keep = across * across + down * down >= threshold
        flow_x[j + 1] = across if keep else np.float32(0)
        flow_y[j] = down if keep else np.float32(0)
    across = row[0] - row[width - 1]
    down = below[width - 1] - row[width - 1]
    keep = across * across + down * down >= threshold
    flow_x[width] = across if keep else np.float32(0)
    flow_y[width - 1] = down if keep else np.float32(0)
    flow_x[0] = flow_x[width]


@kernel
def _soft(image: Array, threshold: Array, divergence: Array) -> None:
    """Compute divergence <- D^T w, w = periodic forward differences, their length reduced by threshold."""
    height, width = image.shape
    flow_x = np.empty(width + 1, np.float32)
    flow_y = np.empty((2, width), np.float32)
    _soft_row(image[height - 1], image[0], threshold, flow_x, flow_y[1])
    for i in range(height):
        above, here = flow_y[(i + 1) % 2], flow_y[i % 2]
        _soft_row(image[i], image[(i + 1) % height], threshold, flow_x, here)
        for j in range(width):
            divergence[i, j] = flow_x[j] - flow_x[j + 1] + above[j] - here[j]


@kernel
def _soft_row(row: Array, below: Array, threshold: Array, flow_x: Array, flow_y: Array) -> None:
    """Store differences as `_hard_row` does, scaled by max(n - T, 0) / max(n, T), n their length, without a branch."""
    width = row.shape[0]
    for j in range(width - 1):
        across = row[j + 1] - row[j]
        down = below[j] - row[j]
        length = np.sqrt(across * across + down * down)
        scale = max(length - threshold, np.float32(0)) / max(length, threshold)
        flow_x[j + 1] = across * scale
        flow_y[j] = down * scale
    across = row[0] - row[width - 1]
    down = below[width - 1] - row[width - 1]
    length = np.sqrt(across * across + down * down)
    scale = max(length - threshold, np.float32(0)) / max(length, threshold)
    flow_x[width] = across * scale
    flow_y[width - 1] = down * scale
    flow_x[0] = flow_x[width]
