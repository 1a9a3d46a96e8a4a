"""Size of a pixel as a length: from a TIFF's resolution or OME-XML, and back to a resolution."""

from __future__ import annotations

import re
from fractions import Fraction

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.descriptions import DESCRIPTION

__all__ = ["MICROMETRES", "PixelSize", "pixel_size", "resolution_of"]

PixelSize = tuple[float, float]
"""Height and width of a pixel, micrometres."""

MICROMETRES = {
    "angstrom": 1e-4,
    "nanometer": 1e-3,
    "micrometer": 1.0,
    "millimeter": 1e3,
    "centimeter": 1e4,
    "decimeter": 1e5,
    "meter": 1e6,
    "inch": 25_400.0,
    "foot": 304_800.0,
    "yard": 914_400.0,
}
"""Lengths by the names of UDUNITS-2, which OME-Zarr recommends (version 0.5, section 2.2)."""

OME_UNITS = {
    "Å": "angstrom",
    "nm": "nanometer",
    "µm": "micrometer",
    "mm": "millimeter",
    "cm": "centimeter",
    "dm": "decimeter",
    "m": "meter",
    "in": "inch",
    "ft": "foot",
    "yd": "yard",
}
"""Values of PhysicalSizeXUnit in OME-XML (schema 2016-06, UnitsLength); µm without one."""

RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
"""Values of the TIFF tag ResolutionUnit; with 1 the resolution is an aspect ratio."""

LARGEST_DENOMINATOR = 10**5
"""Of a resolution, so that its numerator has at most 32 bits for pixels of 0.3 nm and more."""


def pixel_size(metadata: Metadata) -> PixelSize | None:
    """Return the size of a pixel by OME-XML, else by the resolution; None if neither states a length."""
    entry = metadata.tags.get(DESCRIPTION)
    text = entry.data.decode("utf-8", "replace") if entry is not None else ""
    found = _length(text, "Y"), _length(text, "X")
    if found[0] and found[1]:
        return found[0], found[1]
    if metadata.resolution is None or metadata.resolution[2] not in RESOLUTION_UNITS:
        return None
    (across, across_parts), (down, down_parts), unit = metadata.resolution
    if not across or not down:
        return None
    length = MICROMETRES[RESOLUTION_UNITS[unit]]
    return length * down_parts / down, length * across_parts / across


def _length(text: str, axis: str) -> float | None:
    """Return PhysicalSizeX or Y of OME-XML, micrometres; None if it is absent or not positive."""
    value = re.search(rf'\bPhysicalSize{axis}="([0-9.eE+-]+)"', text)
    unit = re.search(rf'\bPhysicalSize{axis}Unit="([^"]+)"', text)
    if value is None or "<OME" not in text:
        return None
    try:
        length = float(value[1]) * MICROMETRES[OME_UNITS[unit[1].replace("μ", "µ") if unit else "µm"]]
    except (ValueError, KeyError):
        return None
    return length if 0 < length < float("inf") else None


def resolution_of(size: PixelSize) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Return the resolution in pixels per centimetre, as :class:`Metadata` has it; None if 32 bits do not hold it."""
    down, across = (
        Fraction(MICROMETRES["centimeter"] / length).limit_denominator(LARGEST_DENOMINATOR) for length in size
    )
    if not all(0 < one.numerator < 2**32 for one in (down, across)):
        return None
    return (across.numerator, across.denominator), (down.numerator, down.denominator), 3
