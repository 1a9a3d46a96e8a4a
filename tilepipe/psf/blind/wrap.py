"""Periodic extension of a window without discontinuities at its borders, for Fourier solvers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.fft

from tilepipe.dtypes import DoubleArray, FloatArray

__all__ = ["wrap_smoothly"]


def wrap_smoothly(image: FloatArray, shape: tuple[int, int]) -> FloatArray:
    """Extend `image` to `shape` by a membrane that joins its opposite borders (Liu & Jia, ICIP 2008).

    The strip below solves Laplace's equation between the last and the first row, with free ends; the strip at the
    right joins the columns of the result, including the strip below.  The solutions have a closed form in the cosine
    basis and the Fourier basis along the strip, respectively.

    Parameters
    ----------
    image : ndarray of float32, shape (h, w)
    shape : tuple of int
        (H, W), at least (h, w).

    Returns
    -------
    ndarray of float32, shape (H, W)
        The first h x w pixels are `image`.
    """
    height, width = shape
    tall = np.empty((height, image.shape[1]), np.float64)
    tall[: image.shape[0]] = image
    gap = height - image.shape[0]
    if gap:
        ends = scipy.fft.dct(np.stack([image[-1], image[0]]).astype(np.float64), norm="ortho")
        angles = np.pi * np.arange(image.shape[1]) / image.shape[1]
        tall[image.shape[0] :] = scipy.fft.idct(_membrane(ends, angles, gap), norm="ortho")
    whole = np.empty(shape, np.float64)
    whole[:, : image.shape[1]] = tall
    gap = width - image.shape[1]
    if gap:
        ends = scipy.fft.rfft(np.stack([tall[:, -1], tall[:, 0]]))
        angles = 2 * np.pi * np.arange(ends.shape[1]) / height
        whole[:, image.shape[1] :] = scipy.fft.irfft(_membrane(ends, angles, gap), height).T
    return whole.astype(np.float32)


def _membrane(ends: npt.NDArray[np.generic], angles: DoubleArray, gap: int) -> npt.NDArray[np.generic]:
    """Return the (gap, m) coefficients of the discrete harmonic strip between the two rows `ends` (2, m).

    Per frequency, u[j-1] - (4 - 2 cos) u[j] + u[j+1] = 0 with u[0], u[gap + 1] given: the sum of two decaying powers.
    """
    middle = 2 - np.cos(angles)
    decay = middle - np.sqrt(np.maximum(middle**2 - 1, 0))
    steps = np.arange(1, gap + 1)[:, None]
    span = gap + 1
    with np.errstate(invalid="ignore", divide="ignore"):
        first = (decay**steps - decay ** (2 * span - steps)) / (1 - decay ** (2 * span))
        last = (decay ** (span - steps) - decay ** (span + steps)) / (1 - decay ** (2 * span))
    straight = np.isclose(decay, 1)
    first = np.where(straight, 1 - steps / span, first)
    last = np.where(straight, steps / span, last)
    strip: npt.NDArray[np.generic] = first * ends[0] + last * ends[1]
    return strip
