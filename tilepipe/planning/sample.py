"""A few windows of an image, read in bands, from which the recipe is derived."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.noise import (
    Noise,
    estimate_noise,
    fit_noise,
    hidden_noise,
    noise_steepness,
    quantisation_noise,
    white_equivalent,
)
from tilepipe.dtypes import FloatArray
from tilepipe.image.info import ImageReader
from tilepipe.image.light import Light
from tilepipe.image.linearise import fill, hidden, known, linearise, luminance, start_and_data
from tilepipe.psf.blind.spectrum import PowerAccumulator, fit_spectrum

__all__ = ["Sample", "read_sample"]

POSITIONS = (0.2, 0.5, 0.8)
"""Centres of the windows along each axis, as shares of its length."""

LEAST_EDGE = 64
"""Least edge of a window, px."""

BAND = 64
"""Rows read at a time while windows are cut out of them, px."""

BLOCK = 100
"""Edge of the blocks by which windows are compared, px."""

NOISE_EDGE = 384
"""Edge of the central part of every window in which the noise is estimated, px."""


@dataclass(frozen=True)
class Probe:
    """A window in linear light.

    Parameters
    ----------
    pixels : ndarray of float32, shape (c, h, w)
        The planes that go through the solver, NaN and Inf filled in.
    centre : tuple of int
        Its middle in the image, (y, x), px.
    """

    pixels: FloatArray
    centre: tuple[int, int]


@dataclass(frozen=True)
class Sample:
    """Windows of an image.

    Parameters
    ----------
    windows : tuple of ndarray, each of shape (``light.channels_read``, h, w)
        Samples as stored, in the file's dtype.
    light : Light
        Meaning of the samples.
    centres : tuple of tuple of int
        Middle of each window in the image, (y, x), px.
    shape : tuple of int
        Height and width of the image, px.
    luminance_only : bool
        Whether noise and textured windows are those of the luminance, (1, h, w).
    quantisation : tuple of tuple of int, or None
        Of a JPEG, see :class:`tilepipe.image.info.ImageInfo`.
    """

    windows: tuple[npt.NDArray[Any], ...]
    light: Light
    centres: tuple[tuple[int, int], ...]
    shape: tuple[int, int]
    luminance_only: bool = False
    quantisation: tuple[tuple[int, ...], ...] | None = None

    @cached_property
    def noise(self) -> Noise:
        """The noise of the image: that of its pixels, and what correlation or JPEG compression hides from them.

        See :func:`tilepipe.deconv.noise.fit_noise` and :func:`tilepipe.deconv.noise.hidden_noise`.
        """
        unclipped = [self._unclipped(_middle(window)) for window in self.windows]
        pixels = fit_noise(self._solved(plane) for plane in unclipped)
        means = [plane.mean(0) for plane in unclipped]
        of_mean = estimate_noise(mean[None] for mean in means)
        accumulator = PowerAccumulator()
        for mean in means:
            accumulator.add(fill(mean[None])[0], np.isfinite(mean))
        power = accumulator.power()
        fit = None if power is None else fit_spectrum(power, of_mean)
        correlated = 0.0 if fit is None else white_equivalent(fit.floor, pixels.sigma, of_mean)
        light = float(np.mean([np.nanmean(mean) for mean in means if np.isfinite(mean).any()] or [0.0]))
        steepness = noise_steepness(self._solved(plane) for plane in unclipped)
        hidden = hidden_noise(pixels.sigma, correlated, self._quantisation_noise(light), steepness)
        return replace(pixels, hidden=hidden)

    def _quantisation_noise(self, light: float) -> float:
        """Return the noise equivalent of JPEG quantisation at the mean `light`; working units, 0 without."""
        if self.quantisation is None:
            return 0.0
        unit, curve = self.light.unit, self.light.curves[0]
        at = float(np.clip(curve.encode(np.array([max(light * unit, 0.0)]))[0], 0.02, 0.98))
        low, high = curve.decode(np.array([at - 0.01, at + 0.01]))
        return quantisation_noise(self.quantisation[0]) * float(high - low) / 0.02 / unit

    def _unclipped(self, window: npt.NDArray[Any]) -> FloatArray:
        """Return a window with NaN where it has no data or is clipped at either end: noise is not visible there."""
        valid = self._valid(window)
        valid[np.isposinf(valid)] = np.nan
        if np.issubdtype(window.dtype, np.integer):
            valid[window[: self.light.colours] == 0] = np.nan
        return valid

    def _valid(self, window: npt.NDArray[Any]) -> FloatArray:
        """Return a window in working units, NaN where it has no data, +inf where it is clipped."""
        return known(linearise(window, self.light), self.light, hidden(window, self.light))

    def clipped(self) -> float:
        """Return the share of pixels with at least one clipped colour."""
        return float(np.mean([np.isposinf(self._valid(window)).any(0).mean() for window in self.windows]))

    def blocks(self) -> tuple[str, ...]:
        """Return a digest of every block of ``BLOCK`` px in the windows; they show which parts an edit changed."""
        return tuple(
            hashlib.blake2b(window[:, y : y + BLOCK, x : x + BLOCK].tobytes(), digest_size=8).hexdigest()
            for window in self.windows
            for y in range(0, window.shape[1], BLOCK)
            for x in range(0, window.shape[2], BLOCK)
        )

    def most_textured(self, count: int) -> list[Probe]:
        """Return the `count` most textured windows.

        Ranked by the mean gradient of the square root, which roughly approximates perception.
        """

        def activity(window: npt.NDArray[Any]) -> float:
            encoded = np.sqrt(np.clip(self.filled(_middle(window)), 0, 1))
            return float(np.abs(np.diff(encoded, axis=1)).mean() + np.abs(np.diff(encoded, axis=2)).mean())

        best = sorted(zip(self.windows, self.centres, strict=True), key=lambda pair: activity(pair[0]), reverse=True)
        return [Probe(self._solved(self.filled(window)), centre) for window, centre in best[:count]]

    def filled(self, window: npt.NDArray[Any]) -> FloatArray:
        """Return the colours of a window in working units, with gaps filled from their surroundings."""
        return np.stack([start for start, _ in start_and_data(window, self.light)])

    def _solved(self, linear: FloatArray) -> FloatArray:
        """Return the planes that go through the solver."""
        return luminance(list(linear))[None] if self.luminance_only else linear


def _middle(window: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the central ``NOISE_EDGE`` px of a window (c, h, w)."""
    height, width = window.shape[1:]
    top, left = max(0, (height - NOISE_EDGE) // 2), max(0, (width - NOISE_EDGE) // 2)
    return window[:, top : top + NOISE_EDGE, left : left + NOISE_EDGE]


def read_sample(reader: ImageReader, size: int, *, luminance_only: bool = False) -> Sample:
    """Cut up to nine distinct windows, with edges of up to `size` px, out of the image.

    An image smaller than ``LEAST_EDGE`` is mirrored at its edges up to this size: the solver's frames have wide edges.
    """
    info = reader.info
    height, width, channels = min(size, info.height), min(size, info.width), info.light.channels_read
    lefts = _starts(info.width, width)
    windows: list[npt.NDArray[Any]] = []
    centres: list[tuple[int, int]] = []
    for top in _starts(info.height, height):
        row = [np.empty((channels, height, width), info.dtype) for _ in lefts]
        for low in range(0, height, BAND):
            high = min(low + BAND, height)
            band = np.moveaxis(reader.rows(top + low, top + high), -1, 0)[:channels]
            for window, left in zip(row, lefts, strict=True):
                window[:, low:high] = band[:, :, left : left + width]
        windows.extend(_mirrored(window) for window in row)
        centres.extend((top + height // 2, left + width // 2) for left in lefts)
    return Sample(
        windows=tuple(windows),
        light=info.light,
        centres=tuple(centres),
        shape=(info.height, info.width),
        luminance_only=luminance_only and info.colours > 1,
        quantisation=info.quantisation,
    )


def _mirrored(window: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a window (c, h, w) of at least ``LEAST_EDGE`` px on each side, mirrored beyond its edges."""
    missing = [max(0, LEAST_EDGE - length) for length in window.shape[1:]]
    return np.pad(window, [(0, 0), *((lack // 2, lack - lack // 2) for lack in missing)], "symmetric")


def _starts(length: int, size: int) -> list[int]:
    """Return where windows start along an axis: one in the middle where three would nearly coincide."""
    if length < size + size // 2:
        return [(length - size) // 2]
    return [round(min(max(length * position - size / 2, 0), length - size)) for position in POSITIONS]
