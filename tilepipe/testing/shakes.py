"""Free-form camera shakes as PSFs: smooth random paths, each the same for ever by its seed."""

from __future__ import annotations

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.errors import PsfError
from tilepipe.psf.model import LARGEST_PSF, PSF

__all__ = ["shake"]

WAVES = 6
"""Cosines that a path is made of: up to six half waves in the time of the exposure."""

ROUGHNESS = 1.5
"""Amplitudes fall with this power of a wave's number: less is more wriggled."""

POINTS_PER_PIXEL = 64
"""Points of the path per px of its extent."""


def shake(length: int, seed: int) -> PSF:
    """Return a free-form shake whose longer side spans `length` px, with its centre of mass in the middle.

    The path is a sum of cosines in time with random amplitudes, so it is smooth and its speed varies; another
    length is the same path, scaled.  Its points are spread over the four pixels around them (bilinear).  The
    kernel is square, just wide enough, and so a little wider than `length` when the path lies unevenly round its
    centre of mass (which is in the middle to half a pixel: the shake does not move the picture).

    Parameters
    ----------
    length : px, from 1 on (1 is no blur).
    seed : another seed, another path.

    Raises
    ------
    PsfError : `length` is out of range.
    """
    if not 1 <= length <= LARGEST_PSF // 2:
        raise PsfError(f"length is {length} px; it must be in 1..{LARGEST_PSF // 2}")
    path = _path(seed, POINTS_PER_PIXEL * length)
    path -= path.min(0)
    path *= (length - 1) / path.max()
    kernel = _centred(_rasterised(path, length))
    return PSF((kernel / kernel.sum()).astype(np.float32), {"shape": "shake", "length": length, "seed": seed})


def _path(seed: int, points: int) -> DoubleArray:
    """Return (points, 2), y and x of the path at even steps of time, of no particular scale."""
    number = np.arange(1, WAVES + 1)
    amplitudes = np.random.default_rng(seed).standard_normal((WAVES, 2)) / number[:, None] ** ROUGHNESS
    time = (np.arange(points) + 0.5) / points
    path: DoubleArray = np.cos(np.pi * time[:, None] * number) @ amplitudes
    return path


def _rasterised(path: DoubleArray, length: int) -> DoubleArray:
    """Return (length, length): how much of the path lies at each pixel."""
    kernel = np.zeros((length + 1, length + 1))
    corner = np.floor(path).astype(int)
    part = path - corner
    for dy, weight_y in ((0, 1 - part[:, 0]), (1, part[:, 0])):
        for dx, weight_x in ((0, 1 - part[:, 1]), (1, part[:, 1])):
            np.add.at(kernel, (corner[:, 0] + dy, corner[:, 1] + dx), weight_y * weight_x)
    return kernel[:length, :length]


def _centred(kernel: DoubleArray) -> DoubleArray:
    """Return the kernel on the smallest odd square that has its centre of mass, to whole pixels, in the middle."""
    offsets = np.arange(kernel.shape[0])
    middle = [round(float((kernel.sum(1 - axis) * offsets).sum() / kernel.sum())) for axis in (0, 1)]
    used = [np.flatnonzero(kernel.sum(1 - axis)) for axis in (0, 1)]
    reach = max(max(at - rows[0], rows[-1] - at) for at, rows in zip(middle, used, strict=True))
    wide = np.pad(kernel, reach)
    return wide[middle[0] : middle[0] + 2 * reach + 1, middle[1] : middle[1] + 2 * reach + 1]
