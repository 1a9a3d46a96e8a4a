"""From stored samples to what the solver takes: working units, what is known, and what is only known to be bright."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.image.light import Light

__all__ = [
    "CLIPPED",
    "FILL_WIDTH",
    "LUMINANCE",
    "fill",
    "hidden",
    "known",
    "linearise",
    "luminance",
    "start_and_data",
    "whites",
]

CLIPPED = 0.98
"""Share of the clipping level from which a sample counts as clipped: it says "at least this", nothing more."""

FILL_WIDTH = 15
"""Window of the local mean that stands in for unknown samples at the solver's start, px."""


def linearise(samples: npt.NDArray[Any], light: Light) -> FloatArray:
    """Decode `samples` (``light.channels_read``, h, w), in the file's dtype, to working units, float32 (colours, h, w).

    Colours that are multiplied by their alpha are divided by it first; hidden ones come out as they stand.
    """
    return np.stack([_channel(samples, light, channel) for channel in range(light.colours)])


def _channel(samples: npt.NDArray[Any], light: Light, channel: int) -> FloatArray:
    if not light.is_premultiplied or light.alpha is None:
        return light.linear(channel, samples[channel])
    alpha = samples[light.alpha].astype(np.float64)
    full = float(np.iinfo(samples.dtype).max) if samples.dtype.kind == "u" else 1.0
    colour = samples[channel].astype(np.float64)
    return light.linear_of_encoded(channel, np.where(alpha > 0, colour / np.where(alpha > 0, alpha, 1), colour / full))


def hidden(samples: npt.NDArray[Any], light: Light) -> BoolArray | None:
    """Return where pixels are not part of the picture, bool (h, w): alpha or mask 0, nodata; None if that cannot be."""
    marks = [samples[channel] == 0 for channel in (light.alpha, light.mask) if channel is not None]
    if light.nodata is not None:
        value = np.asarray(light.nodata).astype(light.dtype)
        same = np.isnan(samples[: light.colours]) if np.isnan(value) else samples[: light.colours] == value
        marks.append(same.all(0))
    return np.logical_or.reduce(marks) if marks else None


def start_and_data(samples: npt.NDArray[Any], light: Light) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield for each colour the solver's start and what is known, (h, w), from samples (``channels_read``, h, w)."""
    outside = hidden(samples, light)
    for channel in range(light.colours):
        linear = _channel(samples, light, channel)
        level = np.float32(CLIPPED * light.clipping(channel))
        if outside is None and not (linear >= level).any() and np.isfinite(linear).all():
            yield linear, linear  # everything is known: one plane serves as both
            continue
        seen = known(linear[None], light, outside, channel)[0]
        if outside is not None:
            linear[outside] = np.nan
        yield fill(linear[None])[0], seen


def known(linear: FloatArray, light: Light, outside: BoolArray | None = None, first: int = 0) -> FloatArray:
    """Return a copy of `linear` (c, h, w) with NaN where nothing is known, +inf where it is clipped.

    Channel by channel, so that a clipped red still leaves green to be restored.

    Parameters
    ----------
    outside : from :func:`hidden`.
    first : channel of the picture that ``linear[0]`` is.
    """
    out = np.array(linear, np.float32)
    for channel, plane in enumerate(out):
        if light.dtype.startswith("float"):
            plane[~np.isfinite(plane)] = np.nan
        if outside is not None:
            plane[outside] = np.nan
        clipped = plane >= np.float32(CLIPPED * light.clipping(first + channel))
        if clipped.any():
            plane[clipped] = np.inf
    return out


def whites(light: Light) -> tuple[float, ...]:
    """Return what a clipped sample of each colour is at least, working units."""
    return tuple(CLIPPED * light.clipping(channel) for channel in range(light.colours))


LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Share of red, green and blue in the light that the eye sees (ITU-R BT.709)."""


def luminance(planes: Sequence[FloatArray]) -> FloatArray:
    """Return the luminance (h, w) of one or three colour channels; NaN where any of them is, +inf where all are."""
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (np.float32(share) * plane for share, plane in zip(LUMINANCE, planes, strict=True))
    seen: FloatArray = red + green + blue
    if np.isposinf(seen).any():
        some = np.isposinf(seen) & ~(np.isposinf(red) & np.isposinf(green) & np.isposinf(blue))
        seen[some] = np.nan
    return seen


def fill(linear: FloatArray) -> FloatArray:
    """Return `linear` (c, h, w) with NaN and Inf replaced by the mean of what is near, further away by the nearest.

    A plane without a finite sample becomes black.
    """
    finite = np.isfinite(linear)
    if finite.all():
        return linear
    size = (1, FILL_WIDTH, FILL_WIDTH)
    total = scipy.ndimage.uniform_filter(np.where(finite, linear, np.float32(0)), size)
    share = scipy.ndimage.uniform_filter(finite.astype(np.float32), size)
    some = share > 0.5 / FILL_WIDTH**2
    near = np.where(some, total / np.maximum(share, np.float32(1e-6)), np.float32(0))
    filled: FloatArray = np.where(finite, linear, near).astype(np.float32)
    for plane, reached in zip(filled, some | finite, strict=True):
        if reached.any() and not reached.all():
            rows, columns = scipy.ndimage.distance_transform_edt(~reached, return_distances=False, return_indices=True)
            plane[...] = plane[rows, columns]
    return filled
