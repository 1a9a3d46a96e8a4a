"""What a restoration needs besides pixels and numbers: the PSF prepared for a frame's shape, and reused memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.transforms import forward
from tilepipe.dtypes import FloatArray

__all__ = ["TAPER", "Spectrum", "Workspace", "amplification", "workspace_planes"]

TAPER_ZEROS = 2
"""Pixels at a frame's edge whose sources are exactly zero: differences across the wrap never count."""

TAPER_COSINE = 16
"""Pixels over which the sources rise from zero to full weight (raised cosine)."""

TAPER = TAPER_ZEROS + TAPER_COSINE
"""Width of the outermost band of a frame in which nothing is restored, px."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """A PSF prepared for one frame shape; shared by all tiles and threads.

    ``reach`` is half the PSF's width, px; ``kernels`` the PSF itself, float32 (p, k, k);
    ``otfs`` are the transfer functions, complex64 (p, h, w // 2 + 1), one for all channels or one each;
    ``dy`` (h,) and ``dx`` (w // 2 + 1,) are the eigenvalues of the second differences, float32; ``taper_y`` (h,),
    ``taper_x`` (w,).
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
        padded[:, :size, :size] = kernel
        padded = np.roll(padded, (-(size // 2), -(size // 2)), (1, 2))
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
        own: npt.NDArray[np.complex64] = self.otfs[channel if len(self.otfs) > 1 else 0]
        return own

    def kernel(self, channel: int) -> FloatArray:
        """Return the kernel (k, k) that blurred `channel`."""
        own: FloatArray = self.kernels[channel if len(self.kernels) > 1 else 0]
        return own


def _transfer_functions(kernels: FloatArray) -> npt.NDArray[np.complex64]:
    """Return what each of the centred kernels (p, h, w) does to the waves of an orthonormal transform."""
    planes, height, width = kernels.shape
    otfs = np.empty((planes, height, width // 2 + 1), np.complex64)
    for plane, otf in zip(kernels, otfs, strict=True):
        forward(plane, otf)
        otf *= np.float32(np.sqrt(height * width))
    return otfs


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


HIGHEST, WEAKEST = 0.35, 0.05
"""Frequencies that count in :func:`amplification`, cycles/px, and the power below which a filter does not invert."""


def amplification(kernel: FloatArray) -> float:
    """Return by how much the inverse of a PSF (k, k) amplifies white noise below ``HIGHEST`` cycles/px."""
    size = max(64, kernel.shape[0])
    power = np.abs(np.fft.rfft2(kernel.astype(np.float64), (size, size))) ** 2
    seen = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :]) <= HIGHEST
    return float(np.sqrt(np.mean(1 / np.maximum(power[seen], WEAKEST))))


class Workspace:
    """The arrays of one restoration in flight, allocated once and reused from tile to tile.

    Attributes
    ----------
    y : float32 (c, h, w), the known picture in linear light; NaN where nothing is known, +inf where it is clipped.
    white : float32 (c,), what a clipped sample of each channel is at least; +inf where none is clipped.
    x : float32 (c, h, w), the start on entry, the restored picture on return.
    d, e : float32 (c, h, w) and (2, c, h, w), the solver's own state; spectra : complex64 (c, h, w // 2 + 1), of x.
    product, spare_spectrum : room for transforms on their way.
    """

    def __init__(self, channels: int, shape: tuple[int, int], *, spectra: bool = True) -> None:
        """Allocate; a solver that keeps no spectrum of x (Richardson-Lucy) does without `spectra`."""
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
    """Planes of h * w float32 that a workspace holds: y, x, d, e (two) and the spectrum of x for each channel,
    and two on their way.
    """
    return (6 if spectra else 5) * channels + 2
