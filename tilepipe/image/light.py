"""Transfer curves between code values and linear light.

Blur is linear in light, so all computation is in linear light, 1.0 = white.  Each colour channel has a curve, monotone
on [0, 1]; integer codes are decoded through a table of it, so that decoding and re-encoding reproduces every code
exactly.

Domain and range: encoded values 0..1 (codes / largest code) <-> linear light 0..1; floats may lie outside and are not
clipped.  The solver works in linear light divided by the image's unit, so that an image of any range (counts, an
underexposed scan) is restored as well as one that reaches white.
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
    "saturated",
    "with_positive_slope",
]


JOINT_TOLERANCE = 1e-3
"""Largest decrease of a curve where its two parts meet: profiles round their constants."""


@dataclass(frozen=True)
class Curve:
    """Transfer curve of one channel.

    Parameters
    ----------
    name : str
        Display name.
    parameters : tuple of 7 float, optional
        (g, a, b, c, d, e, f) of ``(a u + b)^g + e`` for u >= d, ``c u + f`` below (ICC.1:2022, 10.18, function type
        4); None if `samples` are given.
    samples : tuple of float, optional
        Linear values at equally spaced u in [0, 1], non-decreasing.
    """

    name: str
    parameters: tuple[float, ...] | None = None
    samples: tuple[float, ...] | None = None

    def decode(self, encoded: DoubleArray) -> DoubleArray:
        """Return linear light; mirrored below 0 if :attr:`is_mirrored`, else extrapolated outside 0..1."""
        if self.samples is not None:
            return _interpolate(encoded, np.linspace(0, 1, len(self.samples)), np.array(self.samples))
        assert self.parameters is not None
        g, a, b, c, d, e, f = self.parameters
        size = np.abs(encoded) if self.is_mirrored else encoded
        with np.errstate(all="ignore"):
            linear = np.where(size >= d, np.maximum(a * size + b, 0) ** g + e, c * size + f)
        return np.copysign(linear, encoded) if self.is_mirrored else linear

    def encode(self, linear: DoubleArray) -> DoubleArray:
        """Return encoded values; the inverse of :meth:`decode`."""
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
        """Whether the curve is parametric with decode(0) = 0, so that it can be mirrored for negative values."""
        if self.parameters is None:
            return False
        g, _, b, _, d, e, f = self.parameters
        return (f if d > 0 else max(b, 0.0) ** g + e) == 0.0


def _interpolate(at: DoubleArray, x: DoubleArray, y: DoubleArray) -> DoubleArray:
    """Interpolate (x, y) linearly at `at`, with linear extrapolation at both ends."""
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
"""TIFF ExtraSamples values: premultiplied alpha, straight alpha (TIFF 6.0, section 18)."""

MASK = -1
"""Kind of an extra channel stored as a separate page: 0 where a pixel is not part of the image."""


@dataclass(frozen=True)
class Light:
    """Interpretation of the samples of an image.

    Working units are linear light divided by `unit`.

    Parameters
    ----------
    curves : tuple of Curve
        One per colour channel.
    dtype : str
        numpy name of the file's samples: uint8, uint16, float16 or float32.
    unit : float
        Linear light that is 1 in working units: 1 if the image uses white, else about its brightest part.
    white : tuple of float, optional
        Linear light at which each colour channel is clipped; None: the largest code for integers, no clipping for
        floats.
    nodata : float, optional
        Sample value of pixels that are not part of the image, if all colours have it.
    extras : tuple of int
        Kind of each extra channel: a TIFF ExtraSamples value, or :data:`MASK`.
    """

    curves: tuple[Curve, ...]
    dtype: str
    unit: float = 1.0
    white: tuple[float, ...] | None = None
    nodata: float | None = None
    extras: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Display name of the curves (the first channel's)."""
        return self.curves[0].name

    @property
    def is_linear(self) -> bool:
        """Whether samples are proportional to light, with the same full scale."""
        values = np.linspace(0, 1, 17)
        return all(np.allclose(curve.decode(values), values, rtol=0, atol=1e-6) for curve in self.curves)

    @property
    def colours(self) -> int:
        """Number of colour channels."""
        return len(self.curves)

    @property
    def channels_read(self) -> int:
        """Number of leading channels needed to decode a pixel: the colours, plus all extras if one is alpha or mask."""
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
        """Whether encoded colours are multiplied by alpha."""
        return ASSOCIATED_ALPHA in self.extras

    def _extra(self, *kinds: int) -> int | None:
        """Return the index of the first extra channel of one of `kinds` among all channels."""
        return next((self.colours + index for index, kind in enumerate(self.extras) if kind in kinds), None)

    def clipping(self, channel: int) -> float:
        """Return the clipping level of a channel, working units; infinite without one."""
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
            with np.errstate(over="ignore"):  # nodata samples may be near the float32 limit
                decoded *= np.float32(1 / self.unit)
        return decoded

    def linear_of_encoded(self, channel: int, encoded: DoubleArray) -> FloatArray:
        """Decode encoded values (0..1 for integers) of one channel to working units, float32."""
        return (self.curves[channel].decode(encoded) / self.unit).astype(np.float32)

    def encoded(self, channel: int, linear: FloatArray, dtype: str) -> npt.NDArray[Any]:
        """Encode working units (any shape) of one channel as `dtype`.

        Integers: the nearest code in encoded space, clipped.  Floats: the encoded value, limited only by the dtype.
        """
        curve = self.curves[channel]
        if self.unit != 1:
            linear = linear * np.float32(self.unit)
        if np.issubdtype(dtype, np.integer):
            return _nearest_codes(curve, dtype, linear)
        if curve == LINEAR:
            return saturated(linear, dtype)
        return saturated(curve.encode(linear.astype(np.float64)), dtype)


def saturated(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    """Convert to a float `dtype`; finite values beyond its range become its largest, infinite ones are kept."""
    limit = np.finfo(dtype).max
    if np.finfo(values.dtype).max <= limit:
        return values.astype(dtype)
    return np.where(np.isinf(values), values, np.clip(values, -limit, limit)).astype(dtype)


@lru_cache(maxsize=16)
def _decoding_table(curve: Curve, dtype: str) -> FloatArray:
    """Return the linear light of every code, float32, strictly increasing.

    Where a curve is flat, or falls by rounding at a joint, consecutive codes differ in the last bit: floats of equal
    sign sort like the integers with the same bits.
    """
    top = int(np.iinfo(dtype).max)
    bits = np.maximum(curve.decode(np.arange(top + 1) / top), 0).astype(np.float32).view(np.int32).astype(np.int64)
    steps = np.arange(top + 1)
    table = (np.maximum.accumulate(bits - steps) + steps).astype(np.int32).view(np.float32)
    table.flags.writeable = False
    return table


@lru_cache(maxsize=16)
def _encoding_tables(curve: Curve, dtype: str) -> tuple[FloatArray, npt.NDArray[np.int32]]:
    """Return thresholds between adjacent codes, and the first candidate code for the upper 16 bits of a float32.

    The upper 16 bits of a positive float (sign, exponent, 7 bits of mantissa) increase with its value, so they index a
    table of initial codes; the search then covers a few dozen codes instead of 65,536.
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
    """Return `curve` if it can be inverted.

    Raises
    ------
    InputError
        If the curve decreases by more than ``JOINT_TOLERANCE``, is not finite, or does not increase overall.
    """
    values = curve.decode(np.linspace(0, 1, 4096))
    rising = np.isfinite(values).all() and (np.diff(values) >= -JOINT_TOLERANCE).all() and values[-1] > values[0]
    if not rising:
        raise InputError(f"the colour profile's curve {curve.name!r} is not increasing and cannot be inverted")
    return curve


def with_positive_slope(curve: Curve) -> Curve:
    """Return a sampled curve as its running maximum plus a ramp of 1e-6, so that it is invertible; else `curve`."""
    if curve.samples is None:
        return curve
    rising = np.maximum.accumulate(np.asarray(curve.samples)) + np.linspace(0, 1e-6, len(curve.samples))
    return Curve(curve.name, samples=tuple(float(value) for value in rising / rising[-1]))
