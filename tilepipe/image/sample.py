"""A few windows of a picture, read in bands: what the recipe is derived from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.noise import Noise, fit_noise
from tilepipe.image.info import ImageReader
from tilepipe.image.light import Light
from tilepipe.image.linearise import fill, known, linearise, luminance

__all__ = ["Sample", "read_sample"]

FloatArray = npt.NDArray[np.float32]

POSITIONS = (0.2, 0.5, 0.8)
"""Where windows are centred along each axis, as shares of it."""

BAND = 64
"""Rows read at a time while windows are cut out of them, px."""

BLOCK = 100
"""Edge of the blocks by which windows are compared, px."""

NOISE_EDGE = 384
"""The noise is estimated in the middle of every window, this many px an edge."""


@dataclass(frozen=True)
class Sample:
    """Windows as they stand in the file: (colours, h, w), the file's dtype.

    With `luminance_only` what is derived from them is for their luminance, (1, h, w).
    """

    windows: tuple[npt.NDArray[Any], ...]
    light: Light
    luminance_only: bool = False

    def noise(self) -> Noise:
        """Return the picture's noise, see :func:`tilepipe.deconv.noise.fit_noise`."""
        return fit_noise(
            self._solved(known(linearise(_middle(window), self.light), self.light)) for window in self.windows
        )

    def clipped(self) -> float:
        """Return the share of pixels of which a colour is clipped; of floats nothing counts as clipped."""
        if not np.issubdtype(self.windows[0].dtype, np.integer):
            return 0.0
        unknown = [np.isnan(known(linearise(window, self.light), self.light)).any(0) for window in self.windows]
        return float(np.mean([plane.mean() for plane in unknown]))

    def blocks(self) -> tuple[str, ...]:
        """Return a digest of every block of ``BLOCK`` px in the windows: which parts of a picture an edit changed."""
        return tuple(
            hashlib.blake2b(window[:, y : y + BLOCK, x : x + BLOCK].tobytes(), digest_size=8).hexdigest()
            for window in self.windows
            for y in range(0, window.shape[1], BLOCK)
            for x in range(0, window.shape[2], BLOCK)
        )

    def liveliest(self, count: int) -> list[FloatArray]:
        """Return the `count` windows with most to see in them, as linear light, NaN and Inf filled in.

        Ranked by the mean gradient of the square root, which is roughly what the eye gets.
        """

        def activity(window: npt.NDArray[Any]) -> float:
            seen = np.sqrt(np.clip(fill(linearise(_middle(window), self.light)), 0, 1))
            return float(np.abs(np.diff(seen, axis=1)).mean() + np.abs(np.diff(seen, axis=2)).mean())

        best = sorted(self.windows, key=activity, reverse=True)[:count]
        return [self._solved(fill(linearise(window, self.light))) for window in best]

    def _solved(self, linear: FloatArray) -> FloatArray:
        """Return the planes that go through the solver."""
        return luminance(list(linear))[None] if self.luminance_only else linear


def _middle(window: npt.NDArray[Any]) -> npt.NDArray[Any]:
    height, width = window.shape[1:]
    top, left = max(0, (height - NOISE_EDGE) // 2), max(0, (width - NOISE_EDGE) // 2)
    return window[:, top : top + NOISE_EDGE, left : left + NOISE_EDGE]


def read_sample(reader: ImageReader, size: int, *, luminance_only: bool = False) -> Sample:
    """Cut up to nine windows out of the picture, edges up to `size` px; equal ones come once."""
    info = reader.info
    height, width = min(size, info.height), min(size, info.width)
    lefts = _starts(info.width, width)
    windows = []
    for top in _starts(info.height, height):
        row = [np.empty((info.colours, height, width), info.dtype) for _ in lefts]
        for low in range(0, height, BAND):
            high = min(low + BAND, height)
            band = np.moveaxis(reader.rows(top + low, top + high), -1, 0)[: info.colours]
            for window, left in zip(row, lefts, strict=True):
                window[:, low:high] = band[:, :, left : left + width]
        windows.extend(row)
    return Sample(tuple(windows), info.light, luminance_only and info.colours > 1)


def _starts(length: int, size: int) -> list[int]:
    """Return where windows start along an axis: one in the middle where three would be more or less the same."""
    if length < size + size // 2:
        return [(length - size) // 2]
    return [round(min(max(length * position - size / 2, 0), length - size)) for position in POSITIONS]
