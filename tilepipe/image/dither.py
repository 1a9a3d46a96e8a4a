"""Dither: 16-bit codes to 8 bits by thresholds that differ from pixel to pixel, so that smooth ramps keep their values.

Rounding makes steps in a sky or a wall that had 16 bits.  With a uniform threshold the mean of many pixels is the value
itself, and the error has no structure (Roberts 1962, "Picture coding using pseudo-random noise").
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["dithered"]

MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x7FEB352D)
"""Odd numbers whose products mix all bits (xxHash's primes; the last from Wellons, "hash-prospector")."""


def dithered(codes: npt.NDArray[np.uint16], y0: int, x0: int, channel: int) -> npt.NDArray[np.uint8]:
    """Return 16-bit codes in 8 bits.

    Parameters
    ----------
    codes : ndarray of uint16, shape (height, width)
        Part of a channel; multiples of 257 (what 8 bits hold) are exact.
    y0, x0 : int
        Its place in the image, px: thresholds depend on it, so parts of an image fit together.
    channel : int
        Number of the channel.

    Returns
    -------
    ndarray of uint8, shape (height, width)
    """
    height, width = codes.shape
    rows = np.arange(y0, y0 + height, dtype=np.uint32) * np.uint32(MULTIPLIERS[0])
    columns = np.arange(x0, x0 + width, dtype=np.uint32) * np.uint32(MULTIPLIERS[1])
    offset = np.array(channel + 1, np.uint32) * np.uint32(MULTIPLIERS[2])
    mixed = (rows[:, None] + offset) ^ columns
    mixed ^= mixed >> np.uint32(15)
    mixed *= np.uint32(MULTIPLIERS[3])
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(MULTIPLIERS[0])
    mixed >>= np.uint32(16)  # 0..65535
    np.minimum(mixed, np.uint32(65534), out=mixed)
    mixed += codes.astype(np.uint32) * np.uint32(255)
    mixed //= np.uint32(65535)
    return mixed.astype(np.uint8)
