"""CIE L*a*b* of a TIFF as RGB with wide primaries, and back; Little CMS computes in floats.

Encodings, by PhotometricInterpretation and bits.  L* is 0..100, white is the perfect diffuser in D50:

- 8 CIELAB (TIFF 6.0, section 23; 16 bits as in libtiff): L* from 0 to the largest code; a* and b* are signed, in steps
  of 1, or of 1/256 for 16 bits.
- 9 ICCLAB (Adobe TIFF Technical Note 4, with the encodings of ICC.1:2001-04, 6.3.4): L* from 0 to 255, or to 65280 for
  16 bits; a* and b* have an offset of 128, in the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import FloatArray
from tilepipe.image.inks import RELATIVE_COLORIMETRIC, bands
from tilepipe.image.metadata.profiles import wide_rgb_profile

__all__ = ["Lab"]

WHITE = {("CIELAB", "uint8"): 255, ("CIELAB", "uint16"): 65535, ("ICCLAB", "uint8"): 255, ("ICCLAB", "uint16"): 65280}
"""Code of L* = 100."""


@dataclass(frozen=True)
class Lab:
    """L*a*b* in one of its encodings, see :class:`tilepipe.image.colour_space.ColourSpace`.

    Parameters
    ----------
    name : {"CIELAB", "ICCLAB"}
        The encoding.
    dtype : {"uint8", "uint16"}
        Type of the samples; that of signed ones without the sign.
    profile : bytes, optional
        ICC profile of the file, which is not needed to convert.
    """

    name: str
    dtype: str
    profile: bytes | None
    channels: int = 3

    @property
    def photometric(self) -> str:
        """Name in tifffile of the PhotometricInterpretation."""
        return self.name.lower()

    @property
    def rgb_profile(self) -> bytes:
        """ICC profile of the RGB."""
        return wide_rgb_profile()

    @property
    def note(self) -> str:
        """What is converted, in words."""
        return f"{self.name} is converted to 16-bit RGB with the primaries of ProPhoto"

    def to_rgb(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return samples, (h, w, 3), as uint16 RGB; colours outside its gamut are clipped."""
        out = np.empty((*samples.shape[:2], 3), np.uint16)
        for rows in bands(len(samples)):
            rgb = _converted(self._decoded(samples[rows]), to_rgb=True)
            out[rows] = np.rint(np.clip(rgb, 0, 1) * np.float32(65535))
        return out

    def from_rgb(self, rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return uint16 RGB, (h, w, 3), as samples."""
        out = np.empty((*rgb.shape[:2], 3), self.dtype)
        for rows in bands(len(rgb)):
            out[rows] = self._encoded(_converted(rgb[rows], to_rgb=False))
        return out

    @property
    def _steps(self) -> FloatArray:
        """Codes per unit of L*, a* and b*."""
        chroma = 1 if self.dtype == "uint8" else 256
        return np.array([WHITE[self.name, self.dtype] / 100, chroma, chroma], np.float32)

    @property
    def _signs(self) -> npt.NDArray[Any]:
        """Bits that differ between signed samples and those with an offset."""
        sign = (np.iinfo(self.dtype).max + 1) // 2 if self.name == "CIELAB" else 0
        return np.array([0, sign, sign], self.dtype)

    def _decoded(self, samples: npt.NDArray[Any]) -> FloatArray:
        offset = np.array([0, 128, 128], np.float32)
        lab: FloatArray = ((samples ^ self._signs) / self._steps - offset).astype(np.float32)
        return lab

    def _encoded(self, lab: FloatArray) -> npt.NDArray[Any]:
        codes = np.rint((lab + np.array([0, 128, 128], np.float32)) * self._steps)
        samples: npt.NDArray[Any] = np.clip(codes, 0, np.iinfo(self.dtype).max).astype(self.dtype) ^ self._signs
        return samples


def _converted(colours: npt.NDArray[Any], *, to_rgb: bool) -> FloatArray:
    """Return L*a*b* as RGB, 0..1, or RGB as L*a*b*."""
    from imagecodecs import cms_profile, cms_transform

    spaces = (("lab", cms_profile("lab4")), ("rgb", wide_rgb_profile()))
    (source, profile), (target, target_profile) = spaces if to_rgb else spaces[::-1]
    return np.asarray(
        cms_transform(
            np.ascontiguousarray(colours),
            profile,
            target_profile,
            colorspace=source,
            outcolorspace=target,
            outdtype="float32",
            intent=RELATIVE_COLORIMETRIC,
        )
    )
