"""From stored samples to what the solver takes: linear light, and where it is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.image.light import Light

__all__ = ["CLIPPED", "FILL_WIDTH", "fill", "known", "linearise", "luminance", "start_and_known"]

FloatArray = npt.NDArray[np.float32]

CLIPPED = 0.98
"""Linear light from which an integer sample counts as clipped: it says "at least this", nothing more."""

FILL_WIDTH = 15
"""Window of the local mean that stands in for NaN at the solver's start, px."""


def linearise(samples: npt.NDArray[Any], light: Light) -> FloatArray:
    """Decode `samples` (c, h, w), the colour channels in the file's dtype, to linear light, float32."""
    return np.stack([light.linear(channel, plane) for channel, plane in enumerate(samples)])


def start_and_known(samples: npt.NDArray[Any], light: Light) -> Iterator[tuple[FloatArray, FloatArray]]:
    """Yield for each colour channel of `samples` (c, h, w) the solver's start and what is known, (h, w)."""
    for channel in range(len(samples)):
        linear = light.linear(channel, samples[channel])
        yield fill(linear[None])[0], known(linear[None], light)[0]


def known(linear: FloatArray, light: Light) -> FloatArray:
    """Return a copy with NaN where nothing is known.

    Integers: clipped samples and their neighbours, channel by channel, so that a clipped red still leaves
    green to be restored.  Floats: samples that are not finite; nothing counts as clipped.
    """
    if light.dtype.startswith("float"):
        unknown = ~np.isfinite(linear)
    else:
        clipped = linear >= np.float32(CLIPPED)
        unknown = scipy.ndimage.maximum_filter(clipped, size=(1, 3, 3)) if clipped.any() else clipped
    return np.where(unknown, np.float32(np.nan), linear)


LUMINANCE = (0.2126, 0.7152, 0.0722)
"""Share of red, green and blue in the light that the eye sees (ITU-R BT.709)."""


def luminance(planes: Sequence[FloatArray]) -> FloatArray:
    """Return the luminance (h, w) of one or three colour channels, linear light; NaN where any of them is."""
    if len(planes) == 1:
        return planes[0]
    red, green, blue = (np.float32(share) * plane for share, plane in zip(LUMINANCE, planes, strict=True))
    seen: FloatArray = red + green + blue
    return seen


def fill(linear: FloatArray) -> FloatArray:
    """Return `linear` (c, h, w) with NaN and Inf replaced by the mean of what is near, else by black."""
    finite = np.isfinite(linear)
    if finite.all():
        return linear
    size = (1, FILL_WIDTH, FILL_WIDTH)
    total = scipy.ndimage.uniform_filter(np.where(finite, linear, np.float32(0)), size)
    share = scipy.ndimage.uniform_filter(finite.astype(np.float32), size)
    near = np.where(share > 0.5 / FILL_WIDTH**2, total / np.maximum(share, np.float32(1e-6)), np.float32(0))
    return np.where(finite, linear, near).astype(np.float32)
