"""Reference solvers for the fast, tiled code: the algorithm in plain numpy, and the image in a single solve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from tilepipe.arrays.in_memory import restore_planes
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.image.linearise import fill
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import Grid

__all__ = ["plain_denoise", "plain_restore", "restore_whole"]


def restore_whole(
    linear: FloatArray,
    known: FloatArray,
    psf: AnyPSF,
    parameters: Parameters,
    halo: int,
    white: Sequence[float] | None = None,
) -> FloatArray:
    """Restore an image in a single solve, without tiles or blocks, with a border of `halo` px without data around it.

    Parameters
    ----------
    linear : ndarray of float32, shape (c, h, w)
        Initial estimate; NaN and Inf are filled.
    known : ndarray of float32, shape (c, h, w)
        Data; NaN where there is none, +inf where clipped.
    psf : PSF or PSFField
        The blur.
    parameters : Parameters
        Solver parameters.
    halo : int
        Width of the border, px.
    white : sequence of float, optional
        Lower bound of clipped samples of each channel.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        The restored image.
    """
    height, width = linear.shape[1:]
    whole = Grid(height, width, max(height, width, 64), halo)
    return restore_planes(fill(linear), known, white or (np.inf,) * len(linear), psf, parameters, whole)


def plain_restore(y: FloatArray, start: FloatArray, psf: PSF, parameters: Parameters) -> DoubleArray:
    """Run masked ADMM in residual form on a frame, float64, one line of numpy per line of the mathematics.

    Reference for :func:`tilepipe.deconv.solvers.restore`.  Covers total variation, signal-dependent noise and closing
    steps; the other priors have separate tests.

    Parameters
    ----------
    y : ndarray of float32, shape (c, h, w)
        Data, NaN where there is none.
    start : ndarray of float32, shape (c, h, w)
        Initial estimate, finite.
    psf : PSF
        The blur.
    parameters : Parameters
        Solver parameters.

    Returns
    -------
    ndarray of float64, shape (c, h, w)
        The restored frame.
    """
    shape = y.shape[1:]
    planes = psf.planes if len(psf.planes) == len(y) else np.repeat(psf.planes, len(y), axis=0)
    otf = np.stack([_transfer_function(plane, shape) for plane in planes])
    differences = _difference_spectrum(shape[0])[:, None] + _difference_spectrum(shape[1])[None, : shape[1] // 2 + 1]
    taper = _edge_taper(shape[0])[:, None] * _edge_taper(shape[1])[None, :]
    known = np.isfinite(y)
    data = np.where(known, y, 0).astype(np.float64)
    mask = known.astype(np.float64)
    x = start.astype(np.float64)
    d = np.zeros_like(x)
    e = np.zeros((2, *x.shape))
    lam, r1, r2 = parameters.lam, parameters.r1, parameters.r2

    def data_source() -> DoubleArray:
        nonlocal d
        kx = np.fft.irfft2(np.fft.rfft2(x) * otf, s=shape)
        weight = mask / _variance(kx, parameters)
        v = (weight * data + r1 * (kx + d)) / (weight + r1)
        d = d + kx - v
        source: DoubleArray = taper * (v - d - kx)
        return source

    for _ in range(parameters.steps):
        a = data_source()
        gradient = _forward_differences(x)
        u = gradient + e
        norm = np.sqrt((u**2).sum((0, 1)) * _variance(x.mean(0), parameters))
        w = u * np.where(norm > lam / r2, 1 - (lam / r2) / np.maximum(norm, 1e-300), 0.0)
        e = u - w
        b = _divergence(taper * (w - e - gradient))
        numerator = r1 * np.conj(otf) * np.fft.rfft2(a) + r2 * np.fft.rfft2(b)
        x = x + np.fft.irfft2(numerator / (r1 * np.abs(otf) ** 2 + r2 * differences), s=shape)
        r2 *= parameters.growth
        e = e / parameters.growth
    for factor in parameters.closing:
        a = data_source()
        b = taper * (plain_denoise(x, parameters, factor) - x)
        rz = parameters.rz / factor**2
        numerator = r1 * np.conj(otf) * np.fft.rfft2(a) + rz * np.fft.rfft2(b)
        x = x + np.fft.irfft2(numerator / (r1 * np.abs(otf) ** 2 + rz), s=shape)
    return plain_denoise(x, parameters) if parameters.closing else x


def plain_denoise(x: DoubleArray, parameters: Parameters, factor: float = 1.0) -> DoubleArray:
    """Denoise (c, h, w) with a sliding 4 x 4 DCT, float64: shrink the coefficients of every patch and average."""
    axes, groups = np.eye(len(x)), [slice(None)]
    if len(x) == 3:
        axes = np.array([[1, 1, 1] / np.sqrt(3), [1, 0, -1] / np.sqrt(2), [1, -2, 1] / np.sqrt(6)])
        groups = [slice(0, 1), slice(1, 3)]
    height, width = x.shape[1:]
    turned = np.tensordot(axes, x, 1)
    total, count = np.zeros_like(turned), np.zeros((height, width))
    low, high = (factor * parameters.low) ** 2, (factor * parameters.high) ** 2
    for i in range(height - 3):
        for j in range(width - 3):
            patch = scipy.fft.dctn(turned[:, i : i + 4, j : j + 4], axes=(1, 2), norm="ortho")
            spread = np.sqrt(_variance(x[:, i : i + 4, j : j + 4].mean(), parameters))
            for group in groups:
                gain = np.clip(((patch[group] ** 2).mean(0) / spread - low) / (high - low), 0, 1)
                gain[0, 0] = 1
                patch[group] *= gain
            total[:, i : i + 4, j : j + 4] += scipy.fft.idctn(patch, axes=(1, 2), norm="ortho")
            count[i : i + 4, j : j + 4] += 1
    return np.tensordot(axes.T, total / count, 1)


def _transfer_function(kernel: FloatArray, shape: tuple[int, ...]) -> npt.NDArray[np.complex128]:
    """Return the transform of a kernel centred at the origin, periodic, shape (h, w // 2 + 1)."""
    placed = np.zeros(shape)
    half = len(kernel) // 2
    for (row, column), tap in np.ndenumerate(kernel.astype(np.float64)):
        placed[(row - half) % shape[0], (column - half) % shape[1]] += tap
    return np.fft.rfft2(placed)


def _difference_spectrum(length: int) -> DoubleArray:
    """Return |1 - exp(-2 pi i f)|^2, the power of a periodic difference, for all frequencies of an axis."""
    spectrum: DoubleArray = np.abs(1 - np.exp(-2j * np.pi * np.arange(length) / length)) ** 2
    return spectrum


def _edge_taper(length: int) -> DoubleArray:
    """Return the weight of the sources along an axis: 1, falling as a cosine over 16 px to 0 at 2 px from both ends."""
    distance = np.minimum(np.arange(length), np.arange(length)[::-1]) - 1.5
    taper: DoubleArray = 0.5 - 0.5 * np.cos(np.pi * np.clip(distance / 16, 0, 1))
    return taper


def _variance(light: Any, parameters: Parameters) -> Any:
    """Return the noise variance at `light`, relative to the one that `lam` is set for."""
    return parameters.base + parameters.slope * np.clip(light, 0, 1)


def _forward_differences(x: DoubleArray) -> DoubleArray:
    """Return D x: periodic forward differences along y and x."""
    return np.stack([np.roll(x, -1, 1) - x, np.roll(x, -1, 2) - x])


def _divergence(p: DoubleArray) -> DoubleArray:
    """Return D^T p, the adjoint of :func:`_forward_differences`."""
    result: DoubleArray = np.roll(p[0], 1, 1) - p[0] + np.roll(p[1], 1, 2) - p[1]
    return result
