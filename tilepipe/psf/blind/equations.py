"""Linear equations for the kernel, given the sharp edges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.edges import gradients
from tilepipe.system.jit import contracting_kernel, kernel

__all__ = ["BlurredEdges", "KernelEquations"]

DIRECT = 23
"""Largest kernel, px, for which the product with a matrix takes less time than transforms."""

Array = Any
Edges = tuple[FloatArray, FloatArray]


class BlurredEdges:
    """Gradients of a blurred window, transformed for correlation with sharp edges.

    Parameters
    ----------
    blurred : ndarray of float32, shape (h, w)
    size : int
        Size of the kernel, px, odd.
    """

    def __init__(self, blurred: FloatArray, size: int) -> None:
        self.size = size
        height, width = (int(scipy.fft.next_fast_len(length + 2 * size, real=True)) for length in blurred.shape)
        self.frame = height, width
        across, down = gradients(blurred)
        self._spectra = self._transformed(across), self._transformed(down)

    def correlate(self, edges: Edges) -> tuple[FloatArray, FloatArray]:
        """Return the autocorrelation of `edges` at (2k-1)^2 lags and their correlation with the blurred ones at k^2.

        Both are linear (zero-padded) and summed over the two gradient directions.
        """
        across, down = (self._transformed(edge) for edge in edges)
        power, product = np.empty_like(across), np.empty_like(across)
        _correlate(across, down, *self._spectra, power, product)
        plane = np.empty(self.frame, np.float32)
        lags = np.arange(1 - self.size, self.size)
        itself = inverse(power, plane)[np.ix_(lags, lags)]
        taps = np.arange(self.size) - self.size // 2
        return itself, inverse(product, plane)[np.ix_(taps, taps)]

    def _transformed(self, plane: FloatArray) -> npt.NDArray[np.complex64]:
        """Return the spectrum of a plane, zero-padded; scaled such that products have orthonormal inverses."""
        padded = np.zeros(self.frame, np.float32)
        padded[: plane.shape[0], : plane.shape[1]] = plane
        spectrum = forward(padded, np.empty((self.frame[0], self.frame[1] // 2 + 1), np.complex64))
        spectrum *= np.float32(padded.size**0.25)
        return spectrum


@kernel
def _correlate(across: Array, down: Array, seen_across: Array, seen_down: Array, power: Array, product: Array) -> None:
    """Compute power <- sum of |edges|^2 and product <- sum of conj(edges) seen, over both directions."""
    height, width = power.shape
    for i in range(height):
        for j in range(width):
            a, d = across[i, j], down[i, j]
            power[i, j] = a.real * a.real + a.imag * a.imag + d.real * d.real + d.imag * d.imag
            product[i, j] = a.conjugate() * seen_across[i, j] + d.conjugate() * seen_down[i, j]


class KernelEquations:
    """Normal equations (A + gamma I) k = b of min ||k * g - grad y||^2 + gamma ||k||^2 over one or more windows.

    A is a convolution with the autocorrelation of the edges g, independent of the windows' size (Cho & Lee 2009, eq. 9,
    with correlations that do not wrap around): a matrix up to ``DIRECT`` px, else two transforms of about (2k)^2.

    Parameters
    ----------
    windows : sequence of BlurredEdges
        Blurred windows, all for one kernel size.
    edges : sequence of tuple of ndarray
        Sharp edges of each window, as returned by :func:`tilepipe.psf.blind.edges.select_edges`.
    gamma : float
        Weight of the kernel's energy.
    """

    def __init__(self, windows: Sequence[BlurredEdges], edges: Sequence[Edges], gamma: float) -> None:
        self.size = windows[0].size
        self._lags = np.zeros((2 * self.size - 1, 2 * self.size - 1), np.float32)
        self._right = np.zeros((self.size, self.size), np.float32)
        for window, sharp in zip(windows, edges, strict=True):
            autocorrelation, right = window.correlate(sharp)
            self._lags += autocorrelation
            self._right += right
        self._lags[self.size - 1, self.size - 1] += np.float32(gamma)
        self._edge = int(scipy.fft.next_fast_len(2 * self.size - 1, real=True))
        at = np.arange(1 - self.size, self.size) % self._edge
        wrapped = np.zeros((self._edge, self._edge), np.float32)
        wrapped[np.ix_(at, at)] = self._lags
        self._transfer = scipy.fft.rfft2(wrapped)
        self._matrix = self._dense() if self.size <= DIRECT else None

    def _dense(self) -> FloatArray:
        """Return A + gamma I, (k^2, k^2)."""
        taps = np.arange(self.size)
        apart = taps[:, None] - taps + self.size - 1
        matrix: FloatArray = self._lags[apart[:, None, :, None], apart[None, :, None, :]]
        return matrix.reshape(self.size**2, self.size**2)

    def _times(self, kernel: FloatArray) -> FloatArray:
        if self._matrix is not None:
            product = np.zeros_like(kernel)
            _multiply(self._matrix, kernel.ravel(), product.ravel())
            return product
        shape = (self._edge, self._edge)
        whole: FloatArray = scipy.fft.irfft2(self._transfer * scipy.fft.rfft2(kernel, shape), shape)
        return whole[: self.size, : self.size]

    def _flat(self) -> FloatArray:
        return np.full((self.size, self.size), 1 / self.size**2, np.float32)

    def conjugate_gradients(self, steps: int) -> FloatArray:
        """Return the kernel after `steps` from a flat start, negative taps set to 0; early stopping regularises."""
        kernel = self._flat()
        residual = self._right - self._times(kernel)
        direction = residual
        energy = float(np.vdot(residual, residual))
        for _ in range(steps):
            if energy == 0:
                break
            image = self._times(direction)
            length = np.float32(energy / float(np.vdot(direction, image)))
            kernel = kernel + length * direction
            residual = residual - length * image
            before, energy = energy, float(np.vdot(residual, residual))
            direction = residual + np.float32(energy / before) * direction
        return np.maximum(kernel, 0)

    def nonnegative(self, steps: int) -> FloatArray:
        """Return the kernel with k >= 0 after `steps` of accelerated projected gradients (Beck & Teboulle 2009)."""
        kernel = momentum = self._flat()
        rate = np.float32(1 / float(np.abs(self._transfer).max()))
        t = 1.0
        for _ in range(steps):
            moved = np.maximum(momentum - rate * (self._times(momentum) - self._right), 0)
            t_next = (1 + math.sqrt(1 + 4 * t * t)) / 2
            momentum = moved + np.float32((t - 1) / t_next) * (moved - kernel)
            kernel, t = moved, t_next
        return kernel


@contracting_kernel
def _multiply(matrix: Array, vector: Array, product: Array) -> None:
    """Add to `product` that of a symmetric matrix and a vector, most of whose values are 0."""
    for row in range(vector.shape[0]):
        value = vector[row]
        if value != 0:
            for column in range(product.shape[0]):
                product[column] += value * matrix[row, column]
