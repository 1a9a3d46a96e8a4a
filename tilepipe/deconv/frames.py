"""Inputs of a restoration besides pixels and parameters: the PSF prepared for a frame shape, and reusable buffers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.transforms import forward
from tilepipe.dtypes import FloatArray

__all__ = ["TAPER", "Spectrum", "Workspace", "amplification", "workspace_planes"]

TAPER_ZEROS = 2
"""Pixels at a frame's edge whose sources are exactly zero, so that differences across the wrap have no effect."""

TAPER_COSINE = 16
"""Pixels over which the sources rise from zero to full weight (raised cosine)."""

TAPER = TAPER_ZEROS + TAPER_COSINE
"""Width of the band along a frame's edge in which nothing is restored, px."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A PSF prepared for one frame shape; shared by all tiles and threads.

    Parameters
    ----------
    shape : tuple of int
        Height and width of the frame, px.
    reach : int
        Half the PSF's width, px.
    kernels : ndarray of float32, shape (p, k, k)
        The PSF, one for all channels or one each.
    otfs : ndarray of complex64, shape (p, h, w // 2 + 1)
        Transfer functions of `kernels`.
    dy : ndarray of float32, shape (h,)
        Eigenvalues of the second difference along y.
    dx : ndarray of float32, shape (w // 2 + 1,)
        Eigenvalues of the second difference along x.
    taper_y : ndarray of float32, shape (h,)
        Weights of the sources along y.
    taper_x : ndarray of float32, shape (w,)
        Weights of the sources along x.
    """

    shape: tuple[int, int]
    reach: int
    kernels: FloatArray
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
        indices = np.arange(size) - size // 2  # the centre at (0, 0), what lies before it at the other end
        padded[:, indices[:, None], indices] = kernel
        return cls(
            shape=shape,
            reach=size // 2,
            kernels=kernel.reshape(-1, size, size),
            otfs=_transfer_functions(padded),
            dy=_second_difference(height, height),
            dx=_second_difference(width, width // 2 + 1),
            taper_y=_taper(height),
            taper_x=_taper(width),
        )

    def otf(self, channel: int) -> npt.NDArray[np.complex64]:
        """Return the transfer function (h, w // 2 + 1) that blurred `channel`."""
        selected: npt.NDArray[np.complex64] = self.otfs[channel if len(self.otfs) > 1 else 0]
        return selected

    def kernel(self, channel: int) -> FloatArray:
        """Return the kernel (k, k) that blurred `channel`."""
        selected: FloatArray = self.kernels[channel if len(self.kernels) > 1 else 0]
        return selected


def _transfer_functions(kernels: FloatArray) -> npt.NDArray[np.complex64]:
    """Return the factors by which the kernels (p, h, w), centred at (0, 0), scale orthonormal spectra."""
    planes, height, width = kernels.shape
    otfs = np.empty((planes, height, width // 2 + 1), np.complex64)
    for plane, otf in zip(kernels, otfs, strict=True):
        forward(plane, otf)
        otf *= np.float32(np.sqrt(height * width))
    return otfs


def _second_difference(length: int, kept: int) -> FloatArray:
    """Return the first `kept` eigenvalues 2 - 2 cos(2 pi i / length) of the periodic D^T D."""
    return (2 - 2 * np.cos(2 * np.pi * np.arange(kept) / length)).astype(np.float32)


def _taper(length: int) -> FloatArray:
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(TAPER_COSINE) + 0.5) / TAPER_COSINE)
    edge = np.concatenate([np.zeros(TAPER_ZEROS), rise])
    taper = np.ones(length)
    taper[:TAPER] *= edge
    taper[-TAPER:] *= edge[::-1]
    return taper.astype(np.float32)


HIGHEST, WEAKEST = 0.35, 0.05
"""Highest frequency in :func:`amplification`, cycles/px, and the lower bound of the power that is inverted."""


def amplification(kernel: FloatArray) -> float:
    """Return the factor by which the inverse of a PSF (k, k) amplifies white noise up to ``HIGHEST`` cycles/px."""
    size = max(64, kernel.shape[0])
    power = np.abs(np.fft.rfft2(kernel.astype(np.float64), (size, size))) ** 2
    counted = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) <= HIGHEST
    return float(np.sqrt(np.mean(1 / np.maximum(power[counted], WEAKEST))))


class Workspace:
    """Arrays of one restoration, allocated once and reused from tile to tile.

    Attributes
    ----------
    shape : tuple of int
        Height and width of the frame, px.
    channels : int
        Number of channels.
    y : ndarray of float32, shape (c, h, w)
        Data in linear light; NaN where unknown, +inf where clipped.
    white : ndarray of float32, shape (c,)
        Lower bound of the clipped samples of each channel; +inf where none is clipped.
    x : ndarray of float32, shape (c, h, w)
        Start on entry, restored image on return.
    d : ndarray of float32, shape (c, h, w)
        State of the solver.
    e : ndarray of float32, shape (2, c, h, w)
        State of the solver.
    spectra : ndarray of complex64, shape (c, h, w // 2 + 1)
        Spectrum of x; no channels if the solver keeps none.
    product, spare_spectrum : ndarray of complex64, shape (h, w // 2 + 1)
        Buffers for transforms.
    """

    def __init__(self, channels: int, shape: tuple[int, int], *, spectra: bool = True) -> None:
        """Allocate the arrays; a solver that keeps no spectrum of x (Richardson-Lucy) needs no `spectra`."""
        height, width = shape
        self.shape = shape
        self.channels = channels
        self.y = np.zeros((channels, height, width), np.float32)
        self.white = np.full(channels, np.inf, np.float32)
        self.x = np.zeros_like(self.y)
        self.d = np.zeros_like(self.y)
        self.e = np.zeros((2, channels, height, width), np.float32)
        self.spectra = np.zeros((channels if spectra else 0, height, width // 2 + 1), np.complex64)
        self.product = np.zeros((height, width // 2 + 1), np.complex64)
        self.spare_spectrum = np.zeros_like(self.product)


def workspace_planes(channels: int, *, spectra: bool = True) -> int:
    """Return the number of float32 planes (h, w) in a workspace: y, x, d, e (two) and the spectrum of x per channel,
    and two transform buffers.
    """
    return (6 if spectra else 5) * channels + 2
