"""Samples as the pipeline has them: gray or RGB in 8 or 16 bits or floats, from all that files contain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.image.colour_space import ColourSpace
from tilepipe.image.inks import BAND, bands, ink_to_rgb

__all__ = ["COLUMN_BYTES", "Conversion", "scaled", "working_dtype", "ycbcr_to_rgb"]


def working_dtype(stored: np.dtype[Any], bits: int) -> str:
    """Return the dtype in which samples are processed: integers of up to 16 bits in 8 or 16, all others as float32.

    Integers of up to 24 bits are exact in float32; larger ones, and float64, are rounded.
    """
    if stored.kind in "ub" and bits <= 16:
        return "uint8" if bits <= 8 else "uint16"
    return stored.name if stored.kind == "f" and stored.itemsize <= 4 else "float32"


COLUMN_BYTES = 48 * BAND
"""Memory for converting a band, bytes for each px of its width: inks as 32-bit integers, and their products."""


@dataclass(frozen=True)
class Conversion:
    """How the samples of a TIFF page become those of the pipeline.

    Parameters
    ----------
    stored : str
        numpy name of the samples as decoded.
    bits : int
        Bits of a sample in the file.
    colour : {"gray", "white is zero", "RGB", "palette", "CMYK", "YCbCr", "CIELAB", "ICCLAB"}
        Meaning of the samples.
    palette : ndarray of uint8 or uint16, shape (2**bits, 3), optional
        The colours of a palette.
    profile : bytes, optional
        ICC profile of the inks, a usable one.
    space : ColourSpace, optional
        The colours of the file, if samples can be converted back.
    """

    stored: str
    bits: int
    colour: str
    palette: npt.NDArray[Any] | None = None
    profile: bytes | None = None
    space: ColourSpace | None = None

    @property
    def dtype(self) -> str:
        """Numpy name of the converted samples."""
        if self.space is not None:
            return "uint16"
        return self.palette.dtype.name if self.palette is not None else working_dtype(np.dtype(self.stored), self.bits)

    @property
    def colours(self) -> int:
        """Number of colour channels after the conversion."""
        return 1 if self.colour in ("gray", "white is zero") else 3

    @property
    def stored_colours(self) -> int:
        """Number of samples of a pixel that are colours in the file."""
        return {"palette": 1, "CMYK": 4}.get(self.colour, self.colours)

    @property
    def is_plain(self) -> bool:
        """Whether the samples need no conversion."""
        whole_bytes = self.bits == np.dtype(self.stored).itemsize * 8
        return self.colour in ("gray", "RGB") and self.stored == self.dtype and whole_bytes

    @property
    def is_in_range(self) -> bool:
        """Whether full scale is the largest code, or 1 of a float: not for integers that become floats."""
        return self.dtype.startswith("uint") or self.stored.startswith("float")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is converted, in words."""
        if self.space is not None:
            return (self.space.note,)
        notes = []
        if self.palette is not None:
            notes.append("the palette is expanded to RGB")
        elif self.dtype.startswith("float") and self.stored != self.dtype:
            notes.append(f"{self.bits}-bit {np.dtype(self.stored).name} samples are computed and written as float32")
        elif self.bits != np.dtype(self.dtype).itemsize * 8:
            notes.append(f"{self.bits}-bit samples are scaled to {np.dtype(self.dtype).itemsize * 8} bits")
        if self.colour == "white is zero":
            notes.append("white is 0 in the file, and the largest value in the output")
        if self.colour == "YCbCr":
            notes.append("YCbCr is converted to RGB")
        if self.colour == "CMYK":
            how = "by its profile" if self.profile else "without a usable profile"
            notes.append(f"CMYK is converted {how} to Adobe RGB")
        return tuple(notes)

    def nodata(self, value: float) -> float | None:
        """Return the converted sample of a stored `value`; None if it is not a sample, or not one of a colour."""
        if self.space is not None or self.colour in ("palette", "CMYK", "YCbCr"):
            return None
        if self.dtype.startswith("float"):
            return float(np.float32(np.clip(value, *np.finfo(np.float32).max * np.array([-1, 1]))))
        if not 0 <= value <= 2**self.bits - 1 or value % 1:
            return value if self.is_plain else None
        code = int(scaled(np.array([value], np.uint16), self.bits)[0])
        return float(np.iinfo(self.dtype).max - code if self.colour == "white is zero" else code)

    def __call__(self, samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Convert samples, shape (h, w, channels), colours first."""
        if self.is_plain:
            return samples
        if self.space is not None:
            return _in_rgb(samples, self.space)
        if self.palette is not None:
            expanded: npt.NDArray[Any] = self.palette[samples[..., 0].astype(np.uint16)]
            return expanded
        if self.dtype.startswith("float"):
            with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
                samples = samples.astype(self.dtype)
        else:
            samples = scaled(samples, self.bits)
        number = self.stored_colours
        colours, extras = samples[..., :number], samples[..., number:]
        if self.colour == "white is zero":
            colours = np.iinfo(self.dtype).max - colours
        elif self.colour == "YCbCr":
            colours = ycbcr_to_rgb(colours)
        elif self.colour == "CMYK":
            colours = ink_to_rgb(colours, self.profile, is_inverted=False)
        return np.concatenate([colours, extras], -1) if extras.shape[-1] else colours


def _in_rgb(samples: npt.NDArray[Any], space: ColourSpace) -> npt.NDArray[Any]:
    """Convert the colours of `samples` to 16-bit RGB, and scale further channels to 16 bits."""
    samples = samples.view(space.dtype)  # signed ones have the same bits
    out = np.empty((*samples.shape[:2], 3 + samples.shape[2] - space.channels), np.uint16)
    out[..., :3] = space.to_rgb(samples[..., : space.channels])
    np.multiply(samples[..., space.channels :], 257 if space.dtype == "uint8" else 1, out=out[..., 3:], dtype=np.uint16)
    return out


def scaled(samples: npt.NDArray[Any], bits: int) -> npt.NDArray[Any]:
    """Return unsigned samples of `bits` bits, 1..16, in all 8 or 16: the largest becomes the largest.

    Exact and invertible: every sample has a code of its own.
    """
    dtype = np.uint8 if bits <= 8 else np.uint16
    if bits == 8 * np.dtype(dtype).itemsize:
        return samples  # of this dtype already
    top, full = 2**bits - 1, int(np.iinfo(dtype).max)
    table = ((np.arange(top + 1) * full + top // 2) // top).astype(dtype)
    out = np.empty(samples.shape, dtype)
    for rows in bands(len(samples)):
        out[rows] = table[np.minimum(samples[rows].astype(np.uint16), top)]
    return out


def ycbcr_to_rgb(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return full-range YCbCr as RGB of the same dtype (Rec. ITU-R BT.601; TIFF 6.0, section 21, its defaults)."""
    top = int(np.iinfo(samples.dtype).max)
    y, cb, cr = (samples[..., index].astype(np.float32) for index in range(3))
    cb, cr = cb - (top + 1) / 2, cr - (top + 1) / 2
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
    rounded: npt.NDArray[Any] = np.clip(np.rint(rgb), 0, top).astype(samples.dtype)
    return rounded
