r"""Masked ADMM with total variation, in residual form: the solver that tiles can trust.

The model is ``y = k * x + n`` where ``y`` is known; the solver minimises

.. math:: \tfrac12 \| M (k * x - y) \|^2 + \lambda \sum |\nabla x|

with the gradient's norm taken jointly over rows, columns and colours.  Two splits make every update
either pointwise or diagonal in Fourier space: ``v = Kx`` with the known-pixel mask ``M`` (unknown rims
and clipped highlights are then exact: Matakos, Ramani & Fessler 2013, eq. 9-15; Almeida & Figueiredo
2013) and ``w = Dx`` (Goldstein & Osher 2009).  One step with penalties r1, r2 and scaled duals d, e::

    v = (M y + r1 (Kx + d)) / (M + r1)        d <- d + Kx - v
    w = shrink(Dx + e, lambda / r2)           e <- e + Dx - w
    x = argmin of r1 |Kx - v + d|^2 + r2 |Dx - w + e|^2

**Residual form.**  The last line is solved for the *change* of x, from the sources
``a = v - d - Kx`` and ``b = w - e - Dx``.  On an endless picture that is the same step.  On a frame cut
out of a picture it is what makes the frame local: the sources are tapered to zero at the frame's edge,
so the wrap of the Fourier transform has nothing to carry round, and what lies outside is missing rather
than wrong.  The error that a cut leaves behind decays with the distance from it; how fast is measured
by :mod:`tilepipe.deconv.locality`.

No number in here depends on the pixels: penalties, steps and the shrinkage come from the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft

from tilepipe.deconv.kernels import add_step, data_pass, multiply, prior_pass

__all__ = [
    "ALGORITHM_VERSION",
    "TAPER",
    "TRANSIENT_PLANES",
    "Spectrum",
    "TvParameters",
    "Workspace",
    "restore",
    "workspace_planes",
]

FloatArray = npt.NDArray[np.float32]

ALGORITHM_VERSION = 1
"""Part of every fingerprint; raised whenever the same recipe would give other pixels."""

TAPER_ZEROS = 2
"""Pixels at a frame's edge whose sources are exactly zero: differences across the wrap never count."""

TAPER_COSINE = 16
"""Pixels over which the sources rise from zero to full weight (raised cosine)."""

TAPER = TAPER_ZEROS + TAPER_COSINE
"""Width of the outermost band of a frame in which nothing is restored, px."""


TRANSIENT_PLANES = 2
"""Planes of h * w float32 that come and go while a frame is restored: transforms on their way."""


@dataclass(frozen=True, slots=True)
class TvParameters:
    """Everything that one restoration needs besides pixels and PSF.

    Parameters
    ----------
    lam : weight of the total variation, linear light squared over gradient (about 8 sigma^2).
    r1 : penalty of the data split (about 30 sigma).
    r2 : penalty of the gradient split at the first step (about 10 lam).
    growth : factor of r2 from step to step.
    steps : number of steps; the method is stopped early on purpose.
    """

    lam: float
    r1: float
    r2: float
    growth: float
    steps: int


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A PSF prepared for one frame shape; shared by all tiles and threads.

    ``otfs`` are the transfer functions, complex64 (p, h, w // 2 + 1), one for all channels or one each;
    ``dy`` (h,) and ``dx`` (w // 2 + 1,) are the eigenvalues of the second differences, float32; ``taper_y`` (h,),
    ``taper_x`` (w,).
    """

    shape: tuple[int, int]
    otfs: npt.NDArray[np.complex64]
    dy: FloatArray
    dx: FloatArray
    taper_y: FloatArray
    taper_x: FloatArray

    @classmethod
    def of(cls, kernel: FloatArray, shape: tuple[int, int]) -> Spectrum:
        """Prepare the PSF, (k, k) or (p, k, k), centred, for frames of `shape` (h, w), both at least k."""
        height, width = shape
        size = kernel.shape[-1]
        padded = np.zeros((kernel.size // size**2, height, width), np.float32)
        padded[:, :size, :size] = kernel
        padded = np.roll(padded, (-(size // 2), -(size // 2)), (1, 2))
        return cls(
            shape=shape,
            otfs=scipy.fft.rfft2(padded).astype(np.complex64, copy=False),
            dy=_second_difference(height, height),
            dx=_second_difference(width, width // 2 + 1),
            taper_y=_taper(height),
            taper_x=_taper(width),
        )

    def otf(self, channel: int) -> npt.NDArray[np.complex64]:
        """Return the transfer function (h, w // 2 + 1) that blurred `channel`."""
        own: npt.NDArray[np.complex64] = self.otfs[channel if len(self.otfs) > 1 else 0]
        return own


def _second_difference(length: int, kept: int) -> FloatArray:
    """Eigenvalues 2 - 2 cos(2 pi i / length) of D^T D on a ring, the first `kept` of them."""
    return (2 - 2 * np.cos(2 * np.pi * np.arange(kept) / length)).astype(np.float32)


def _taper(length: int) -> FloatArray:
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(TAPER_COSINE) + 0.5) / TAPER_COSINE)
    edge = np.concatenate([np.zeros(TAPER_ZEROS), rise])
    taper = np.ones(length)
    taper[:TAPER] *= edge
    taper[-TAPER:] *= edge[::-1]
    return taper.astype(np.float32)


class Workspace:
    """The arrays of one restoration in flight, allocated once and reused from tile to tile.

    Attributes
    ----------
    y : float32 (c, h, w), the known picture in linear light; NaN where nothing is known.
    x : float32 (c, h, w), the start on entry, the restored picture on return.
    """

    def __init__(self, channels: int, shape: tuple[int, int]) -> None:
        height, width = shape
        self.shape = shape
        self.channels = channels
        self.y = np.zeros((channels, height, width), np.float32)
        self.x = np.zeros_like(self.y)
        self.d = np.zeros_like(self.y)
        self.e = np.zeros((2, channels, height, width), np.float32)
        self.spectra = np.zeros((channels, height, width // 2 + 1), np.complex64)
        self.product = np.zeros((height, width // 2 + 1), np.complex64)


def workspace_planes(channels: int) -> int:
    """Planes of h * w float32 that a workspace holds: y, x, d, e (two) and the spectrum of x for each channel,
    and the product K X.
    """
    return 6 * channels + 1


def restore(work: Workspace, spectrum: Spectrum, parameters: TvParameters) -> FloatArray:
    """Restore ``work.x`` from ``work.y`` in place and return it.

    Parameters
    ----------
    work : workspace with ``y`` (NaN = unknown) and the start ``x`` filled in, finite everywhere.
    spectrum : the PSF prepared for this frame shape.
    parameters : frozen numbers from the recipe.

    Returns
    -------
    ``work.x``, float32 (c, h, w), linear light.  Its outermost ``TAPER`` pixels are the start's.

    Raises
    ------
    ValueError : `work` and `spectrum` have different shapes.
    """
    if work.shape != spectrum.shape:
        raise ValueError(f"workspace {work.shape} and PSF spectrum {spectrum.shape} differ in shape")
    work.d[...] = 0
    work.e[...] = 0
    for channel in range(work.channels):
        work.spectra[channel] = _forward(work.x[channel])
    r2 = parameters.r2
    for _ in range(parameters.steps):
        _step(work, spectrum, parameters.lam, parameters.r1, r2, parameters.growth)
        r2 *= parameters.growth
    return work.x


def _step(work: Workspace, spectrum: Spectrum, lam: float, r1: float, r2: float, growth: float) -> None:
    """One ADMM step; r2 grows afterwards, and the scaled dual e shrinks with it."""
    f32 = np.float32
    prior_pass(work.x, work.e, f32(lam / r2), f32(1 / growth), spectrum.taper_y, spectrum.taper_x)
    for channel in range(work.channels):
        state, otf = work.spectra[channel], spectrum.otf(channel)
        multiply(otf, state, work.product)
        source = _inverse_of(work.product, work.shape)
        data_pass(work.y[channel], work.d[channel], source, f32(r1), spectrum.taper_y, spectrum.taper_x)
        data_source = _forward(source)
        del source
        prior_source = _forward(work.x[channel])
        add_step(state, data_source, prior_source, otf, spectrum.dy, spectrum.dx, f32(r1), f32(r2))
        del data_source, prior_source
        work.product[...] = state
        work.x[channel] = _inverse_of(work.product, work.shape)


def _forward(plane: FloatArray) -> npt.NDArray[np.complex64]:
    transformed: Any = scipy.fft.rfft2(plane, workers=1)
    return transformed  # type: ignore[no-any-return]  # scipy.fft carries no types


def _inverse_of(product: npt.NDArray[np.complex64], shape: tuple[int, int]) -> FloatArray:
    """Invert axis by axis, the first in place: half the time of irfft2, which copies its input.

    `product` is destroyed.
    """
    columns = scipy.fft.ifft(product, axis=0, workers=1, overwrite_x=True)
    plane: Any = scipy.fft.irfft(columns, n=shape[1], axis=1, workers=1)
    return plane  # type: ignore[no-any-return]  # scipy.fft carries no types
