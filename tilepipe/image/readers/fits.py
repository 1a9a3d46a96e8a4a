"""FITS reader: astropy parses the headers and reads or decompresses the rows that are needed (FITS Standard 4.0)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError, SettingsError, TilepipeError
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.fits_header import BLOCK, kept_cards, record_text
from tilepipe.image.metadata.profiles import linear_profile
from tilepipe.image.readers.convert import Conversion
from tilepipe.image.readers.reason import reason_of

__all__ = ["FitsReader"]

INTEGERS = {8: "uint8", 16: "int16", 32: "int32", 64: "int64"}
"""Samples by BITPIX, without a scale (4.4.1.1)."""

UNSIGNED_16 = (16, 1, 1 << 15)
"""BITPIX, BSCALE and BZERO of unsigned samples of 16 bits (table 11)."""

BAND_ROWS, COPIES = 256, 5
"""Rows read at a time, and copies of them, as decoded, that reading holds: from the file, scaled, converted."""

_quiet = Lock()
"""The filters of warnings belong to the process: one thread changes them at a time."""


class FitsReader:
    """The first image of a FITS file: gray, or three planes of RGB, in the primary HDU or an extension.

    Samples are linear light.  NaN and BLANK are pixels without data.
    """

    def __init__(self, path: Path) -> None:
        """Parse the headers.

        Raises
        ------
        InputError
            If the file is damaged or truncated, or has no image of one or three planes.
        SettingsError
            If astropy is not installed.
        """
        fits = _astropy(path)
        self._file = path.open("rb")  # astropy leaves its own open when a header is damaged
        self._whole: npt.NDArray[Any] | None = None
        try:
            with _without_warnings():
                # unsigned samples are found here: astropy ignores their BLANK
                self._hdus = fits.open(self._file, memmap=False, uint=False)
                self._hdu, left_out = _first_image(path, self._hdus)
                self._stored = _stored_dtype(self._hdu.header)
                self.info = self._describe(path, left_out)
        except TilepipeError:
            self.close()
            raise
        except Exception as error:  # on damaged files astropy raises arbitrary exceptions
            self.close()
            raise InputError(f"{path} is a damaged FITS: {reason_of(error, 'header or data')}") from error

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, planes)."""
        if not self._is_whole:
            return self._decoded(y0, y1)
        if self._whole is None:
            self._whole = self._decoded(0, self.info.height)
        return self._whole[y0:y1]

    def close(self) -> None:
        """Close the file and release what was decoded."""
        self._whole = None
        self._file.close()

    @property
    def _tile_rows(self) -> int:
        """Rows of a compressed tile, px; 0 without compression."""
        return int(self._hdu.tile_shape[-2]) if hasattr(self._hdu, "compression_type") else 0

    @property
    def _is_whole(self) -> bool:
        """Whether tiles are so tall that bands would decode each of them several times."""
        return self._tile_rows > BAND_ROWS

    def _decoded(self, y0: int, y1: int) -> npt.NDArray[Any]:
        planes = self._hdu.shape[:-2]
        out = np.empty((y1 - y0, self.info.width, self.info.colours), self._stored)
        try:
            with np.errstate(all="ignore"):  # scales may overflow
                for plane in range(self.info.colours):
                    index = (*(int(i) for i in np.unravel_index(plane, planes)),) if planes else ()
                    out[:, :, plane] = self._hdu.section[(*index, slice(y0, y1))]
        except Exception as error:  # on damaged tiles decoders raise arbitrary exceptions
            raise InputError(
                f"{self.info.path} is damaged in rows {y0}..{y1}: {reason_of(error, 'header or data')}"
            ) from error
        return self._convert(out)

    def _describe(self, path: Path, left_out: tuple[str, ...]) -> ImageInfo:
        hdu, header = self._hdu, self._hdu.header
        _check_extent(path, hdu)
        height, width = int(hdu.shape[-2]), int(hdu.shape[-1])
        colours = math.prod(hdu.shape[:-2])
        self._convert = Conversion(self._stored.name, 8 * self._stored.itemsize, "gray" if colours == 1 else "RGB")
        dtype = self._convert.dtype
        cards, keywords = kept_cards(header, None if hdu is self._hdus[0] else self._hdus[0].header)
        metadata = Metadata(
            # without a profile other formats would show linear integers as sRGB
            icc=linear_profile(colours) if dtype.startswith("uint") else None,
            fits=cards,
            record=record_text(cards),
            lost=(*left_out, *keywords),
        )
        rows = height if self._is_whole else min(height, BAND_ROWS + 2 * self._tile_rows)
        compression = str(getattr(hdu, "compression_type", "none")).lower()
        return ImageInfo(
            path=path,
            kind="FITS",
            height=height,
            width=width,
            colours=colours,
            extras=0,
            dtype=dtype,
            layout=_layout(hdu, colours),
            compression=compression,
            decoded_bytes=COPIES * rows * width * colours * max(4, self._stored.itemsize)
            + (path.stat().st_size if self._tile_rows else 0),
            metadata=metadata,
            light=Light((LINEAR,) * colours, dtype),
            curve_note="linear (FITS)",
            notes=_notes(int(header["BITPIX"]), self._convert),
        )


def _astropy(path: Path) -> ModuleType:
    try:
        from astropy.io import fits
    except ImportError as error:
        message = f"{path} is a FITS, which needs astropy ({error}): pip install 'tilepipe[astro]'"
        raise SettingsError(message) from error
    module: ModuleType = fits
    return module


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Do not print astropy's warnings of headers: what makes a file unreadable is an error."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_image(path: Path, hdus: Any) -> tuple[Any, tuple[str, ...]]:
    """Return the first HDU with an image, and what is left out, in words."""
    images = [index for index, hdu in enumerate(hdus) if hdu.is_image and len(hdu.shape) >= 2 and all(hdu.shape)]
    if not images:
        raise InputError(f"{path} has no image: none of its {len(hdus)} HDUs has two axes or more")
    hdu = hdus[images[0]]
    if math.prod(hdu.shape[:-2]) not in (1, 3):
        sizes = " x ".join(str(length) for length in reversed(hdu.shape))
        raise InputError(f"{path} is a cube of {sizes}; supported: one plane, or three of RGB; save one plane first")
    others = [index for index, other in enumerate(hdus) if other is not hdu and other.header.get("NAXIS", 0)]
    return hdu, (f"all but HDU {images[0]} of {len(hdus)}",) if others else ()


def _stored_dtype(header: Any) -> np.dtype[Any]:
    """Return the dtype of the samples after BSCALE, BZERO and BLANK, as astropy applies them."""
    bits, scale, zero = int(header["BITPIX"]), float(header.get("BSCALE", 1)), float(header.get("BZERO", 0))
    if bits < 0:
        return np.dtype(f"float{-bits}")
    if "BLANK" not in header:
        if (scale, zero) == (1, 0):
            return np.dtype(INTEGERS[bits])
        if (bits, scale, zero) == UNSIGNED_16:
            return np.dtype("uint16")
    return np.dtype("float32" if bits <= 16 else "float64")


def _notes(bits: int, convert: Conversion) -> tuple[str, ...]:
    """Return what is converted, in words."""
    if bits > 0 and convert.dtype.startswith("float"):
        return (f"{bits}-bit integers that are signed, scaled or have BLANK are computed and written as float32",)
    return convert.notes


def _check_extent(path: Path, hdu: Any) -> None:
    """Raise InputError if the file ends before the samples; the last block need not be filled."""
    place, size = hdu.fileinfo(), path.stat().st_size
    if hasattr(hdu, "compression_type"):
        needed = place["datLoc"] + place["datSpan"] - BLOCK + 1
    else:
        needed = place["datLoc"] + math.prod(hdu.shape) * abs(int(hdu.header["BITPIX"])) // 8
    if size < needed:
        raise InputError(f"{path} is truncated: its pixel data ends at byte {needed}, the file at byte {size}")


def _layout(hdu: Any, colours: int) -> str:
    if hasattr(hdu, "compression_type"):
        return f"tiles of {hdu.tile_shape[-1]} x {hdu.tile_shape[-2]}"
    return "rows" if colours == 1 else "planes of rows"
