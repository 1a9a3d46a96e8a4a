"""Colours of a file that are processed as RGB and written again as they were: the interface."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

__all__ = ["ColourSpace"]


class ColourSpace(Protocol):
    """Conversion of a file's colours to RGB, and of RGB back to samples as the file stores them.

    The RGB is a 16-bit one with a profile of its own.  The way back is not exact, so samples that nothing changes are
    copied from the file.
    """

    @property
    def name(self) -> str:
        """Display name: CMYK, CIELAB or ICCLAB."""

    @property
    def photometric(self) -> str:
        """Name in tifffile of the PhotometricInterpretation."""

    @property
    def channels(self) -> int:
        """Number of samples of a pixel that are colours."""

    @property
    def dtype(self) -> str:
        """Numpy name of the samples: uint8 or uint16."""

    @property
    def profile(self) -> bytes | None:
        """ICC profile of the file, which the output has too."""

    @property
    def rgb_profile(self) -> bytes:
        """ICC profile of the RGB."""

    @property
    def note(self) -> str:
        """What is converted, in words."""

    def to_rgb(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return samples of the file, (h, w, channels), as uint16 RGB, (h, w, 3)."""

    def from_rgb(self, rgb: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return uint16 RGB, (h, w, 3), as samples of the file, (h, w, channels)."""
