"""What the fast, tiled code is held against: the textbook in plain numpy, and the picture in one piece."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tilepipe.arrays import restore_planes
from tilepipe.deconv.tv import Spectrum, TvParameters
from tilepipe.image.linearise import fill
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import Grid

__all__ = ["plain_restore", "restore_whole"]

FloatArray = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


def restore_whole(linear: FloatArray, known: FloatArray, psf: PSF, parameters: TvParameters, halo: int) -> FloatArray:
    """Restore (c, h, w) in ONE solve, no tiles, no blocks; unknown rim of `halo` px outside the picture."""
    height, width = linear.shape[1:]
    return restore_planes(fill(linear), known, psf, parameters, Grid(height, width, max(height, width, 64), halo))


def plain_restore(y: FloatArray, start: FloatArray, psf: PSF, parameters: TvParameters) -> Doubles:
    """Masked ADMM-TV in residual form on a frame, float64, one line of numpy per line of the mathematics.

    Parameters
    ----------
    y : (c, h, w), NaN where unknown.
    start : (c, h, w), finite.
    psf, parameters : as for :func:`tilepipe.deconv.tv.restore`, of which this is the reference.
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
    for _ in range(parameters.steps):
        kx = np.fft.irfft2(np.fft.rfft2(x) * otf, s=shape)
        v = (mask * data + r1 * (kx + d)) / (mask + r1)
        d = d + kx - v
        gradient = _forward_differences(x)
        u = gradient + e
        norm = np.sqrt((u**2).sum((0, 1)))
        w = u * np.where(norm > lam / r2, 1 - (lam / r2) / np.maximum(norm, 1e-300), 0.0)
        e = u - w
        a = taper * (v - d - kx)
        b = _divergence(taper * (w - e - gradient))
        numerator = r1 * np.conj(otf) * np.fft.rfft2(a) + r2 * np.fft.rfft2(b)
        x = x + np.fft.irfft2(numerator / (r1 * np.abs(otf) ** 2 + r2 * differences), s=shape)
        r2 *= parameters.growth
        e = e / parameters.growth
    return x


def _forward_differences(x: Doubles) -> Doubles:
    return np.stack([np.roll(x, -1, 1) - x, np.roll(x, -1, 2) - x])


def _divergence(p: Doubles) -> Doubles:
    """D^T p for the differences above."""
    result: Doubles = np.roll(p[0], 1, 1) - p[0] + np.roll(p[1], 1, 2) - p[1]
    return result
