"""What the fast, tiled code is held against: the textbook in plain numpy, and the picture in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.fft

from tilepipe.arrays.in_memory import restore_planes
from tilepipe.deconv.frames import Spectrum
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.image.linearise import fill
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import Grid

__all__ = ["plain_denoise", "plain_restore", "restore_whole"]


def restore_whole(
    linear: FloatArray,
    known: FloatArray,
    psf: PSF,
    parameters: Parameters,
    halo: int,
    white: Sequence[float] | None = None,
) -> FloatArray:
    """Restore (c, h, w) in ONE solve, no tiles, no blocks; unknown rim of `halo` px outside the picture.

    `white` is what clipped samples (+inf in `known`) of each channel are at least.
    """
    height, width = linear.shape[1:]
    whole = Grid(height, width, max(height, width, 64), halo)
    return restore_planes(fill(linear), known, white or (np.inf,) * len(linear), psf, parameters, whole)


def plain_restore(y: FloatArray, start: FloatArray, psf: PSF, parameters: Parameters) -> DoubleArray:
    """Masked ADMM in residual form on a frame, float64, one line of numpy per line of the mathematics.

    Total variation, noise that grows with the light, closing steps; the other priors have their own tests.

    Parameters
    ----------
    y : (c, h, w), NaN where unknown.
    start : (c, h, w), finite.
    psf, parameters : as for :func:`tilepipe.deconv.solvers.restore`, of which this is the reference.
    """
    shape = y.shape[1:]
    spectrum = Spectrum.of(psf.planes, (shape[0], shape[1]))
    otf = np.stack([spectrum.otf(channel) for channel in range(len(y))]).astype(np.complex128)
    differences = spectrum.dy[:, None].astype(np.float64) + spectrum.dx[None, :]
    taper = spectrum.taper_y[:, None].astype(np.float64) * spectrum.taper_x[None, :]
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
    for _ in range(parameters.closing):
        a = data_source()
        b = taper * (plain_denoise(x, parameters) - x)
        numerator = r1 * np.conj(otf) * np.fft.rfft2(a) + parameters.rz * np.fft.rfft2(b)
        x = x + np.fft.irfft2(numerator / (r1 * np.abs(otf) ** 2 + parameters.rz), s=shape)
    return plain_denoise(x, parameters) if parameters.closing else x


def plain_denoise(x: DoubleArray, parameters: Parameters) -> DoubleArray:
    """Sliding 4 x 4 cosines, float64: every patch transformed, shrunk, put back and averaged (c, h, w)."""
    height, width = x.shape[1:]
    total, count = np.zeros_like(x), np.zeros((height, width))
    for i in range(height - 3):
        for j in range(width - 3):
            patch = scipy.fft.dctn(x[:, i : i + 4, j : j + 4], axes=(1, 2), norm="ortho")
            spread = np.sqrt(_variance(patch[:, 0, 0].mean() / 4, parameters))
            low, high = parameters.low**2, parameters.high**2
            keep = np.clip(((patch**2).mean(0) / spread - low) / (high - low), 0, 1)
            keep[0, 0] = 1
            total[:, i : i + 4, j : j + 4] += scipy.fft.idctn(keep * patch, axes=(1, 2), norm="ortho")
            count[i : i + 4, j : j + 4] += 1
    return total / count


def _variance(light: Any, parameters: Parameters) -> Any:
    """Return the noise's variance at `light` over the one that lam is for."""
    return parameters.base + parameters.slope * np.clip(light, 0, 1)


def _forward_differences(x: DoubleArray) -> DoubleArray:
    return np.stack([np.roll(x, -1, 1) - x, np.roll(x, -1, 2) - x])


def _divergence(p: DoubleArray) -> DoubleArray:
    """D^T p for the differences above."""
    result: DoubleArray = np.roll(p[0], 1, 1) - p[0] + np.roll(p[1], 1, 2) - p[1]
    return result
