"""Convert stored samples to solver input: working units, with invalid and clipped samples marked."""

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
"""Fraction of the clipping level from which a sample is treated as clipped, i.e. only as a lower bound."""

FILL_WIDTH = 15
"""Window of the local mean that replaces samples without data in the solver's initial estimate, px."""


def linearise(samples: npt.NDArray[Any], light: Light) -> FloatArray:
    """Decode `samples` (``light.channels_read``, h, w), in the file's dtype, to working units, float32 (colours, h, w).

    Premultiplied colours are first divided by alpha; where alpha is 0 they are decoded undivided.
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
    """Return which pixels are not part of the image, bool (h, w): alpha or mask 0, or nodata.

    None if `light` has no alpha, mask or nodata value.
    """
    marks = [samples[channel] == 0 for channel in (light.alpha, light.mask) if channel is not None]
    if light.nodata is not None:
        value = np.asarray(light.nodata).astype(light.dtype)
        same = np.isnan(samples[: light.colours]) if np.isnan(value) else samples[: light.colours] == value
        marks.append(same.all(0))
    return np.logical_or.reduce(marks) if marks else None


def start_and_data(samples: npt.NDArray[Any], light: Light) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield the initial estimate and the data (h, w) of each colour from samples (``channels_read``, h, w)."""
    outside = hidden(samples, light)
    for channel in range(light.colours):
        linear = _channel(samples, light, channel)
        level = np.float32(CLIPPED * light.clipping(channel))
        if outside is None and not (linear >= level).any() and np.isfinite(linear).all():
            yield linear, linear  # all samples are valid: one plane for both
            continue
        data = known(linear[None], light, outside, channel)[0]
        if outside is not None:
            linear[outside] = np.nan
        yield fill(linear[None])[0], data


def known(linear: FloatArray, light: Light, outside: BoolArray | None = None, first: int = 0) -> FloatArray:
    """Return a copy of `linear` with NaN where there is no data and +inf where samples are clipped.

    Each channel is marked separately, so that green is still restored where red is clipped.

    Parameters
    ----------
    linear : ndarray of float32, shape (c, h, w)
        Working units.
    light : Light
        Interpretation of the samples.
    outside : ndarray of bool, shape (h, w), optional
        Result of :func:`hidden`.
    first : int
        Channel index of ``linear[0]`` in the image.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        The marked copy.
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
    """Return the lower bound of clipped samples of each colour, working units."""
    return tuple(CLIPPED * light.clipping(channel) for channel in range(light.colours))


LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Weights of red, green and blue in the luminance (ITU-R BT.709)."""


def luminance(planes: Sequence[FloatArray]) -> FloatArray:
    """Return the luminance (h, w) of one or three colour channels.

    NaN where any channel is NaN or only some are +inf; +inf where all are.
    """
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (np.float32(share) * plane for share, plane in zip(LUMINANCE, planes, strict=True))
    total: FloatArray = red + green + blue
    if np.isposinf(total).any():
        partly_clipped = np.isposinf(total) & ~(np.isposinf(red) & np.isposinf(green) & np.isposinf(blue))
        total[partly_clipped] = np.nan
    return total


def fill(linear: FloatArray) -> FloatArray:
    """Return `linear` (c, h, w) with NaN and Inf replaced by the mean of the finite samples nearby.

    Samples without finite neighbours take the nearest valid value.  A plane without finite samples becomes 0.
    """
    finite = np.isfinite(linear)
    if finite.all():
        return linear
    size = (1, FILL_WIDTH, FILL_WIDTH)
    total = scipy.ndimage.uniform_filter(np.where(finite, linear, np.float32(0)), size)
    share = scipy.ndimage.uniform_filter(finite.astype(np.float32), size)
    has_mean = share > 0.5 / FILL_WIDTH**2
    mean = np.where(has_mean, total / np.maximum(share, np.float32(1e-6)), np.float32(0))
    filled: FloatArray = np.where(finite, linear, mean).astype(np.float32)
    for plane, valid in zip(filled, has_mean | finite, strict=True):
        if valid.any() and not valid.all():
            rows, columns = scipy.ndimage.distance_transform_edt(~valid, return_distances=False, return_indices=True)
            plane[...] = plane[rows, columns]
    return filled
