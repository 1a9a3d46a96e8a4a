"""Transfer curves: from code values to linear light and back.

Blur adds up light, so everything is computed in linear light, 1.0 = white.  Each colour channel has a
curve, monotone on [0, 1]; integer codes go through a table of it, so that decoding and encoding again
gives every code back exactly.

Domain and range: encoded values 0..1 (codes / largest code) <-> linear light 0..1; floats may lie outside
and are carried through.  Linear light over the picture's unit is what the solver works in, so that a picture of any
range (counts, an underexposed scan) is restored as well as one that reaches white.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.errors import InputError

__all__ = [
    "ASSOCIATED_ALPHA",
    "LINEAR",
    "MASK",
    "SRGB",
    "UNASSOCIATED_ALPHA",
    "Curve",
    "Light",
    "check_monotone",
    "gamma",
    "with_positive_slope",
]


JOINT_TOLERANCE = 1e-3
"""How far a curve may fall where its two parts meet: profiles round their constants."""


@dataclass(frozen=True)
class Curve:
    """One channel's transfer curve.

    Parameters
    ----------
    name : what a person calls it.
    parameters : (g, a, b, c, d, e, f) of ``(a u + b)^g + e`` for u >= d, ``c u + f`` below
        (ICC.1:2022, 10.18, function type 4); None when `samples` are given.
    samples : linear values at equally spaced u in [0, 1], not falling.
    """

    name: str
    parameters: tuple[float, ...] | None = None
    samples: tuple[float, ...] | None = None

    def decode(self, encoded: DoubleArray) -> DoubleArray:
        """Return linear light; below 0 mirrored (power laws) and beyond 1 continued."""
        if self.samples is not None:
            return _interpolate(encoded, np.linspace(0, 1, len(self.samples)), np.array(self.samples))
        assert self.parameters is not None
        g, a, b, c, d, e, f = self.parameters
        size = np.abs(encoded) if self.is_mirrored else encoded
        with np.errstate(all="ignore"):
            linear = np.where(size >= d, np.maximum(a * size + b, 0) ** g + e, c * size + f)
        return np.copysign(linear, encoded) if self.is_mirrored else linear

    def encode(self, linear: DoubleArray) -> DoubleArray:
        """Return the encoded value; the inverse of :meth:`decode`."""
        if self.samples is not None:
            return _interpolate(linear, np.array(self.samples), np.linspace(0, 1, len(self.samples)))
        assert self.parameters is not None
        g, a, b, c, d, e, f = self.parameters
        size = np.abs(linear) if self.is_mirrored else linear
        threshold = max(a * d + b, 0) ** g + e
        with np.errstate(all="ignore"):
            power = (np.maximum(size - e, 0) ** (1 / g) - b) / a
            encoded = np.where(size >= threshold, power, (size - f) / c if c else 0.0)
        return np.copysign(encoded, linear) if self.is_mirrored else encoded

    @property
    def is_mirrored(self) -> bool:
        """Whether decode(0) = 0, so that the curve may be mirrored for values below it."""
        if self.parameters is None:
            return False
        g, _, b, _, d, e, f = self.parameters
        return (f if d > 0 else max(b, 0.0) ** g + e) == 0.0


def _interpolate(at: DoubleArray, x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """Piecewise linear through (x, y), continued in a straight line at both ends."""
    inside = np.interp(at, x, y)
    low = y[0] + (at - x[0]) * (y[1] - y[0]) / (x[1] - x[0])
    high = y[-1] + (at - x[-1]) * (y[-1] - y[-2]) / (x[-1] - x[-2])
    return np.where(at < x[0], low, np.where(at > x[-1], high, inside))


SRGB = Curve("sRGB", (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0))
"""IEC 61966-2-1."""

LINEAR = Curve("linear", (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0))


def gamma(exponent: float) -> Curve:
    """Return the power law u^exponent."""
    return Curve(f"gamma {exponent:g}", (exponent, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))


ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA = 1, 2
"""TIFF ExtraSamples values: colours are multiplied by their alpha, or not (TIFF 6.0, section 18)."""

MASK = -1
"""Kind of an extra channel that is a page of its own in the file: 0 where a pixel is not part of the picture."""


@dataclass(frozen=True)
class Light:
    """What the samples of a picture mean.

    Everything is computed in working units: linear light over `unit`.

    Parameters
    ----------
    curves : one a colour channel.
    dtype : numpy name of the file's samples: uint8, uint16, float16 or float32.
    unit : linear light that is 1 in working units: 1 where the picture uses white, else about its brightest part.
    white : linear light from which each colour channel is clipped; None: the largest code, nothing for floats.
    nodata : sample value that marks pixels that are not part of the picture, when all colours have it.
    extras : kind of each extra channel: a TIFF ExtraSamples value, or :data:`MASK`.
    """

    curves: tuple[Curve, ...]
    dtype: str
    unit: float = 1.0
    white: tuple[float, ...] | None = None
    nodata: float | None = None
    extras: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The curves' name, for people."""
        return self.curves[0].name

    @property
    def colours(self) -> int:
        """Number of colour channels."""
        return len(self.curves)

    @property
    def channels_read(self) -> int:
        """Channels that decide what light a pixel is: the colours, and extra channels that hide pixels."""
        return self.colours + (len(self.extras) if self.alpha is not None or self.mask is not None else 0)

    @property
    def alpha(self) -> int | None:
        """Index of the alpha channel among all channels."""
        return self._extra(ASSOCIATED_ALPHA, UNASSOCIATED_ALPHA)

    @property
    def mask(self) -> int | None:
        """Index of the mask among all channels."""
        return self._extra(MASK)

    @property
    def is_premultiplied(self) -> bool:
        """Whether encoded colours are multiplied by their alpha."""
        return ASSOCIATED_ALPHA in self.extras

    def _extra(self, *kinds: int) -> int | None:
        return next((self.colours + index for index, kind in enumerate(self.extras) if kind in kinds), None)

    def clipping(self, channel: int) -> float:
        """Return the working level from which samples of a channel say "at least this"; infinite when none does."""
        if self.white is not None:
            return self.white[channel] / self.unit
        return 1.0 / self.unit if np.issubdtype(self.dtype, np.integer) else float("inf")

    def linear(self, channel: int, samples: npt.NDArray[Any]) -> FloatArray:
        """Decode `samples` (any shape, the file's dtype) of one channel to working units, float32."""
        curve = self.curves[channel]
        if np.issubdtype(self.dtype, np.integer):
            from tilepipe.image.lut import look_up

            decoded = np.empty(samples.shape, np.float32)
            look_up(_decoding_table(curve, self.dtype), np.ascontiguousarray(samples).reshape(-1), decoded.reshape(-1))
        elif curve == LINEAR:
            decoded = samples.astype(np.float32)
        else:
            decoded = curve.decode(samples.astype(np.float64)).astype(np.float32)
        if self.unit != 1:
            with np.errstate(over="ignore"):  # of samples that are none, as far as a float goes
                decoded *= np.float32(1 / self.unit)
        return decoded

    def linear_of_encoded(self, channel: int, encoded: DoubleArray) -> FloatArray:
        """Decode encoded values (0..1 for integers) of one channel to working units, float32."""
        return (self.curves[channel].decode(encoded) / self.unit).astype(np.float32)

    def encoded(self, channel: int, linear: FloatArray, dtype: str) -> npt.NDArray[Any]:
        """Encode working units (any shape) of one channel as `dtype`.

        Integers: the nearest code in encoded space, clipped.  Floats: the curve's value, unclipped.
        """
        curve = self.curves[channel]
        if self.unit != 1:
            linear = linear * np.float32(self.unit)
        if np.issubdtype(dtype, np.integer):
            return _nearest_codes(curve, dtype, linear)
        if curve == LINEAR:
            return linear.astype(dtype)
        return curve.encode(linear.astype(np.float64)).astype(dtype)


@lru_cache(maxsize=16)
def _decoding_table(curve: Curve, dtype: str) -> FloatArray:
    """Linear light of every code, float32, strictly increasing.

    Where a curve is flat, or falls by rounding at a joint, codes are told apart by the last bit: floats of
    one sign order as the integers that share their bits.
    """
    top = int(np.iinfo(dtype).max)
    bits = np.maximum(curve.decode(np.arange(top + 1) / top), 0).astype(np.float32).view(np.int32).astype(np.int64)
    steps = np.arange(top + 1)
    table = (np.maximum.accumulate(bits - steps) + steps).astype(np.int32).view(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=16)
def _encoding_tables(curve: Curve, dtype: str) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Thresholds between neighbouring codes, and for every upper half of a float32 the first candidate code.

    The upper 16 bits of a float (sign, exponent, 7 bits of mantissa) grow with its value, so they index a
    table of where to begin; the search then has a few dozen codes left instead of 65,536.
    """
    top = int(np.iinfo(dtype).max)
    table = _decoding_table(curve, dtype)
    halfway = curve.decode((np.arange(top) + 0.5) / top).astype(np.float32)
    thresholds = np.clip(halfway, np.nextafter(table[:-1], table[1:]), table[1:])
    starts = (np.arange(2**15 + 1, dtype=np.uint32) << 16).view(np.float32)
    starts = np.where(np.isnan(starts), np.float32(np.inf), starts)
    first = np.searchsorted(thresholds, starts, side="right").astype(np.int32)
    return thresholds, first


def _nearest_codes(curve: Curve, dtype: str, linear: FloatArray) -> npt.NDArray[Any]:
    from tilepipe.image.lut import search_codes

    thresholds, first = _encoding_tables(curve, dtype)
    flat = np.ascontiguousarray(linear, np.float32).reshape(-1)
    out = np.empty(flat.size, dtype)
    search_codes(flat, flat.view(np.uint32), thresholds, first, out)
    return out.reshape(linear.shape)


def check_monotone(curve: Curve) -> Curve:
    """Return `curve` if it can be undone.

    Raises
    ------
    InputError : it falls by more than rounding can explain, or does not rise at all.
    """
    values = curve.decode(np.linspace(0, 1, 4096))
    rising = np.isfinite(values).all() and (np.diff(values) >= -JOINT_TOLERANCE).all() and values[-1] > values[0]
    if not rising:
        raise InputError(f"the colour profile's curve {curve.name!r} is not increasing and cannot be undone")
    return curve


def with_positive_slope(curve: Curve) -> Curve:
    """Return a sampled curve with flat stretches raised by a millionth, so that it has an inverse; else `curve`."""
    if curve.samples is None:
        return curve
    rising = np.maximum.accumulate(np.asarray(curve.samples)) + np.linspace(0, 1e-6, len(curve.samples))
    return Curve(curve.name, samples=tuple(float(value) for value in rising / rising[-1]))
