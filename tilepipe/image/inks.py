"""CMYK as Adobe RGB, by the profile of the inks and back, or without one; Little CMS computes in 16 bits.

The conversion is relative colorimetric without black point compensation: RGB then has the colours of the print, and
over all inks the round trip is the closest (docs/formats.md, "CMYK and Lab").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.image.metadata.profiles import adobe_rgb_profile

__all__ = ["BAND", "Inks", "bands", "ink_to_rgb", "inks_of", "is_usable"]

BAND = 64
"""Rows converted at a time where a conversion takes temporary arrays, px."""

PROFILE_BAND = 192
"""Rows converted at a time by a profile, whose transform takes a tenth of a second to set up, px."""

RELATIVE_COLORIMETRIC = 1
"""Rendering intent (ICC.1:2022, 7.2.15)."""


@dataclass(frozen=True)
class Inks:
    """CMYK with a profile that converts in both directions, see :class:`tilepipe.image.colour_space.ColourSpace`.

    Parameters
    ----------
    dtype : {"uint8", "uint16"}
        Type of the samples.
    profile : bytes
        ICC profile of the inks.
    """

    dtype: str
    profile: bytes
    name: str = "CMYK"
    photometric: str = "separated"
    channels: int = 4

    @property
    def rgb_profile(self) -> bytes:
        """ICC profile of the RGB."""
        return adobe_rgb_profile()

    @property
    def note(self) -> str:
        """What is converted, in words."""
        return "CMYK is converted by its profile to 16-bit Adobe RGB"

    def to_rgb(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return amounts of ink, (h, w, 4), as uint16 Adobe RGB, (h, w, 3)."""
        return _rgb_of(samples, self.profile, "uint16")

    def from_rgb(self, rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return uint16 Adobe RGB, (h, w, 3), as amounts of ink, (h, w, 4); the profile chooses the amount of black."""
        return _inks_of_rgb(rgb, self.profile, self.dtype)


def inks_of(profile: bytes | None, dtype: str) -> Inks | None:
    """Return the inks of `profile`; None if it is damaged, of other colours, or has no tables of the way back."""
    if profile is None or not is_usable(profile):
        return None
    try:
        _inks_of_rgb(np.zeros((1, 1, 3), np.uint16), profile, dtype)
    except Exception:  # imagecodecs has its own error class
        return None
    return Inks(dtype, profile)


def is_usable(profile: bytes) -> bool:
    """Return whether `profile` converts CMYK to RGB; not if it is damaged, or of other colours."""
    try:
        _rgb_of(np.zeros((1, 1, 4), np.uint8), profile, "uint8")
    except Exception:  # imagecodecs has its own error class
        return False
    return True


def ink_to_rgb(inks: npt.NDArray[Any], profile: bytes | None, *, is_inverted: bool) -> npt.NDArray[Any]:
    """Return CMYK samples as Adobe RGB of the same dtype.

    Parameters
    ----------
    inks : ndarray of uint8 or uint16, shape (h, w, 4)
        Amounts of ink.
    profile : bytes or None
        ICC profile of the inks, a usable one; without one each ink absorbs its colour.
    is_inverted : bool
        Whether 0 is the most ink, as Adobe stores it in JPEG.
    """
    out = np.empty((*inks.shape[:2], 3), inks.dtype)
    for rows in bands(len(inks), BAND if profile is None else PROFILE_BAND):
        band = np.iinfo(inks.dtype).max - inks[rows] if is_inverted else inks[rows]
        out[rows] = _absorbed(band) if profile is None else _rgb_of(band, profile, inks.dtype.name)
    return out


def bands(height: int, rows: int = BAND) -> Iterator[slice]:
    """Yield the rows of a picture in bands, so that a whole one takes few temporary arrays."""
    for first in range(0, height, rows):
        yield slice(first, first + rows)


def _rgb_of(inks: npt.NDArray[Any], profile: bytes, dtype: str) -> npt.NDArray[Any]:
    from imagecodecs import cms_transform

    return np.asarray(
        cms_transform(
            np.ascontiguousarray(inks),
            profile,
            adobe_rgb_profile(),
            colorspace="cmyk",
            outcolorspace="rgb",
            outdtype=dtype,
            intent=RELATIVE_COLORIMETRIC,
        )
    )


def _inks_of_rgb(rgb: npt.NDArray[Any], profile: bytes, dtype: str) -> npt.NDArray[Any]:
    from imagecodecs import cms_transform

    return np.asarray(
        cms_transform(
            np.ascontiguousarray(rgb),
            adobe_rgb_profile(),
            profile,
            colorspace="rgb",
            outcolorspace="cmyk",
            outdtype=dtype,
            intent=RELATIVE_COLORIMETRIC,
        )
    )


def _absorbed(inks: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what light is left if each ink, and black, absorbs its share."""
    top = np.iinfo(inks.dtype).max
    amounts = inks.astype(np.uint32)
    light: npt.NDArray[Any] = (top - amounts[..., :3]) * (top - amounts[..., 3:]) // top
    return light.astype(inks.dtype)
