"""PSFs of camera shake: smooth random paths, reproducible from a seed."""

from __future__ import annotations

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.errors import PsfError
from tilepipe.psf.model import LARGEST_PSF, PSF

__all__ = ["shake"]

WAVES = 6
"""Number of cosines in a path: up to six half waves during the exposure."""

ROUGHNESS = 1.5
"""Amplitudes decrease with this power of the wave number; smaller values give rougher paths."""

POINTS_PER_PIXEL = 64
"""Path points per px of its length."""


def shake(length: int, seed: int) -> PSF:
    """Return a random camera shake whose longer side spans `length` px.

    The path is a sum of cosines in time with random amplitudes, so it is smooth and its speed varies; `length` only
    scales the path.  Each point is distributed bilinearly over the four pixels around it.  The kernel is the smallest
    square centred on the centre of mass to within half a pixel, so that the shake does not shift the image; it is
    wider than `length` if the path is asymmetric about its centre of mass.

    Parameters
    ----------
    length : int
        Extent of the path, px; 1 means no blur.
    seed : int
        Seed of the random path.

    Returns
    -------
    PSF
        Sum 1.

    Raises
    ------
    PsfError
        If `length` is out of range.
    """
    if not 1 <= length <= LARGEST_PSF // 2:
        raise PsfError(f"length is {length} px; it must be in 1..{LARGEST_PSF // 2}")
    path = _path(seed, POINTS_PER_PIXEL * length)
    path -= path.min(0)
    path *= (length - 1) / path.max()
    kernel = _centre(_rasterise(path, length))
    return PSF((kernel / kernel.sum()).astype(np.float32), {"shape": "shake", "length": length, "seed": seed})


def _path(seed: int, points: int) -> DoubleArray:
    """Return y and x of the path at equal time steps, (points, 2), in arbitrary units."""
    number = np.arange(1, WAVES + 1)
    amplitudes = np.random.default_rng(seed).standard_normal((WAVES, 2)) / number[:, None] ** ROUGHNESS
    time = (np.arange(points) + 0.5) / points
    path: DoubleArray = np.cos(np.pi * time[:, None] * number) @ amplitudes
    return path


def _rasterise(path: DoubleArray, length: int) -> DoubleArray:
    """Return the weight of the path at each pixel, (length, length)."""
    kernel = np.zeros((length + 1, length + 1))
    corner = np.floor(path).astype(int)
    part = path - corner
    for dy, weight_y in ((0, 1 - part[:, 0]), (1, part[:, 0])):
        for dx, weight_x in ((0, 1 - part[:, 1]), (1, part[:, 1])):
            np.add.at(kernel, (corner[:, 0] + dy, corner[:, 1] + dx), weight_y * weight_x)
    return kernel[:length, :length]


def _centre(kernel: DoubleArray) -> DoubleArray:
    """Return the kernel on the smallest odd square centred on its centre of mass, rounded to whole pixels."""
    offsets = np.arange(kernel.shape[0])
    middle = [round(float((kernel.sum(1 - axis) * offsets).sum() / kernel.sum())) for axis in (0, 1)]
    used = [np.flatnonzero(kernel.sum(1 - axis)) for axis in (0, 1)]
    reach = max(max(at - rows[0], rows[-1] - at) for at, rows in zip(middle, used, strict=True))
    padded = np.pad(kernel, reach)
    return padded[middle[0] : middle[0] + 2 * reach + 1, middle[1] : middle[1] + 2 * reach + 1]
