"""Range of an image: clipping level of its samples and its working unit.

Integers are clipped at their largest code.  An image may be clipped below it (12 bits in 16, the saturation of a raw
file, floats): then many samples have the largest value and few lie just below it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import DoubleArray
from tilepipe.image.info import ImageReader
from tilepipe.image.light import Light
from tilepipe.image.linearise import CLIPPED, hidden, known, linearise

__all__ = ["find_unit", "find_white", "measured"]

KEPT = 2048
"""Number of largest samples kept per channel while the image is read."""

PLATEAU = 8
"""Minimum number of samples at the largest value for a plateau."""

PILE, BELOW = 4, 0.01
"""A plateau has more than ``PILE`` times as many samples as the next lower value and as the range of relative width
``BELOW`` below its level."""

BAND = 256
"""Rows read at a time, px."""

USES_WHITE = 0.25
"""Fraction of white that an integer image must reach for its unit to be white."""

BRIGHTEST, OF_PEAK = 0.999, 0.1
"""The unit is this quantile of the brightness, averaged over 3 x 3 px, and at least this fraction of its peak."""


class _Peaks:
    """Largest samples of each colour."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self._top = [np.empty(0, light.dtype) for _ in range(light.colours)]
        self._darker = [0] * light.colours

    def update(self, samples: npt.NDArray[Any]) -> None:
        """Add samples (``channels_read``, h, w), in the file's dtype."""
        outside = hidden(samples, self._light)
        for channel in range(self._light.colours):
            plane = samples[channel] if outside is None else samples[channel][~outside]
            plane = plane[np.isfinite(plane)] if plane.dtype.kind == "f" else plane.reshape(-1)
            top = self._top[channel]
            if len(plane):
                self._darker[channel] += int((plane < max(plane.max(), top.max(initial=plane.max()))).sum())
            if len(top) == KEPT:
                plane = plane[plane >= top.min()]
            joined = np.concatenate([top, plane])
            self._top[channel] = joined if len(joined) <= KEPT else np.partition(joined, -KEPT)[-KEPT:]

    def plateaus(self) -> list[float | None]:
        """Return the sample value at which each colour is clipped; None for colours without clipping."""
        found = [_plateau(np.sort(top)[::-1].astype(np.float64)) for top in self._top]
        return [level if darker else None for level, darker in zip(found, self._darker, strict=True)]


def _plateau(top: DoubleArray) -> float | None:
    """Return the largest value of `top` (descending) if it forms a plateau, else None."""
    if not len(top) or top[0] <= 0:
        return None
    level = float(top[0])
    count = int((top == level).sum())
    below = int(((top < level) & (top >= level * (1 - BELOW))).sum())
    following = top[top < level]
    next_count = int((top == following[0]).sum()) if len(following) else 0
    return level if count >= PLATEAU and count > PILE * max(below, next_count) else None


def find_white(pieces: Iterator[npt.NDArray[Any]], light: Light) -> tuple[float, ...] | None:
    """Return the linear light at which each colour is clipped; None if only the limit of the dtype applies.

    Parameters
    ----------
    pieces : iterator of ndarray, shape (light.channels_read, h, w)
        Samples that together cover the image.
    light : Light
        Interpretation of the samples.

    Returns
    -------
    tuple of float or None
        One level per colour; infinite for float colours without clipping.
    """
    peaks = _Peaks(light)
    for piece in pieces:
        peaks.update(piece)
    full = 1.0 if light.dtype.startswith("float") else float(np.iinfo(light.dtype).max)
    levels = [
        math.inf if plateau is None else float(curve.decode(np.array([plateau / full]))[0])
        for plateau, curve in zip(peaks.plateaus(), light.curves, strict=True)
    ]
    if full > 1:
        levels = [min(level, 1.0) for level in levels]
        return None if min(levels) >= CLIPPED else tuple(levels)
    return None if min(levels) == math.inf else tuple(levels)


def find_unit(windows: list[npt.NDArray[Any]], light: Light) -> float:
    """Return the linear light that is 1 in working units.

    Floats: the brightness that 0.1 % of the image exceeds, at least ``OF_PEAK`` of its peak, so that an image and a
    multiple of it are restored alike.  Integers: 1 if the image reaches ``USES_WHITE``, else a power of two, which
    keeps codes exact.

    Parameters
    ----------
    windows : list of ndarray, shape (light.channels_read, h, w)
        Samples from windows spread over the image.
    light : Light
        Interpretation of the samples.

    Returns
    -------
    float
        The unit; 1 without positive samples.
    """
    light = replace(light, unit=1.0)
    means = []
    for window in windows:
        data = known(linearise(window, light), light, hidden(window, light))
        for channel, plane in enumerate(data):
            plane = np.where(np.isposinf(plane), np.float32(light.clipping(channel)), plane)
            height, width = (length // 3 * 3 for length in plane.shape)
            mean = plane[:height, :width].reshape(height // 3, 3, width // 3, 3).mean((1, 3))
            means.append(np.abs(mean[np.isfinite(mean)]))
    bright = np.concatenate(means) if means else np.empty(0, np.float32)
    if not len(bright) or bright.max() <= 0:
        return 1.0
    level = max(float(np.quantile(bright, BRIGHTEST)), OF_PEAK * float(bright.max()))
    if light.dtype.startswith("float"):
        return level
    return 1.0 if level >= USES_WHITE else 2.0 ** math.ceil(math.log2(level))


def measured(reader: ImageReader, windows: list[npt.NDArray[Any]], *, white_known: bool) -> Light:
    """Return the interpretation of an open image's samples, with measured clipping levels and unit.

    Reads the image once, unless it has 8-bit samples or the user specified the white level.

    Parameters
    ----------
    reader : ImageReader
        The open image.
    windows : list of ndarray, shape (light.channels_read, h, w)
        Samples from windows spread over the image.
    white_known : bool
        Whether the user specified the white level.

    Returns
    -------
    Light
        The image's `light` with `unit` and, if measured, `white` replaced; levels that the file states are kept where
        they are lower.
    """
    light = reader.info.light
    if not white_known and light.dtype != "uint8":
        light = replace(light, white=_lower(find_white(_bands(reader), light), light.white))
    return replace(light, unit=find_unit(windows, light))


def _lower(found: tuple[float, ...] | None, stated: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """Return the lower level of each colour; None is no level."""
    if found is None or stated is None:
        return found or stated
    return tuple(min(pair) for pair in zip(found, stated, strict=True))


def _bands(reader: ImageReader) -> Iterator[npt.NDArray[Any]]:
    info = reader.info
    for top in range(0, info.height, BAND):
        rows = reader.rows(top, min(top + BAND, info.height))
        yield np.moveaxis(rows, -1, 0)[: info.light.channels_read]
