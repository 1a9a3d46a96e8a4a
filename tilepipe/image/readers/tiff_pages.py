"""Pages of a TIFF: which is the largest, which a mask, and what their samples mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.errors import InputError
from tilepipe.image.inks import inks_of, is_usable
from tilepipe.image.lab import Lab
from tilepipe.image.light import ASSOCIATED_ALPHA
from tilepipe.image.metadata.blocks import ICC
from tilepipe.image.readers.convert import Conversion

__all__ = [
    "conversion_of",
    "is_mask",
    "is_reduced",
    "largest_page",
    "left_out_beside",
    "mask_page",
    "name_of",
]

SUBIFDS = 330

INKS_AND_LAB = ("CMYK", "CIELAB", "ICCLAB")

COLOURS = {0: "white is zero", 1: "gray", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB"}
"""Meaning of the samples by PhotometricInterpretation (TIFF 6.0; 9: Adobe TIFF Technical Note 4)."""

DECODED_TO_RGB = {6, 7, 33003, 33004, 33005, 34712, 50001, 50002, 52546}
"""Compressions whose decoders convert YCbCr to RGB: JPEG, JPEG 2000, WebP, JPEG XL."""

REDUCED_IMAGE, TRANSPARENCY_MASK = 1, 4
"""Bits of NewSubfileType for a thumbnail, and for a page that marks which pixels are part of the image."""


def is_reduced(page: tifffile.TiffPage) -> bool:
    """Return whether a page is a thumbnail or an overview."""
    return bool(int(page.subfiletype or 0) & REDUCED_IMAGE)


def is_mask(page: tifffile.TiffPage) -> bool:
    """Return whether a page marks which pixels of another one are part of the image."""
    return bool(int(page.subfiletype or 0) & TRANSPARENCY_MASK)


def largest_page(path: Path, pages: list[tifffile.TiffPage]) -> tifffile.TiffPage:
    """Return the first of the largest full-size pages.

    Raises
    ------
    InputError
        If there is none.
    """
    full = [page for page in pages if not (is_reduced(page) or is_mask(page))]
    if not full:
        raise InputError(f"{path} has no full-size page: all its {len(pages)} pages are thumbnails or masks")
    return max(full, key=lambda page: int(page.imagelength) * int(page.imagewidth))


def left_out_beside(pages: list[tifffile.TiffPage], picture: tifffile.TiffPage) -> tuple[str, ...]:
    """Return what a file contains beside the page `picture` and its mask, in words."""
    others = [page for page in pages if page is not picture]
    left_out = []
    if any(not (is_reduced(page) or is_mask(page)) for page in others):
        left_out.append(f"all pages but page {picture.index} of 0..{len(pages) - 1}")
    if any(is_reduced(page) for page in others) or any(SUBIFDS in page.tags for page in pages):
        left_out.append("reduced-size images")
    return tuple(left_out)


def mask_page(pages: list[tifffile.TiffPage], picture: tifffile.TiffPage) -> tifffile.TiffPage | None:
    """Return the mask page: same size as `picture`, one sample per pixel (TIFF 6.0, NewSubfileType 4).

    It is the next one behind `picture`; if there is none, the first in the file.
    """
    size = (picture.imagelength, picture.imagewidth)
    at = next(index for index, page in enumerate(pages) if page is picture)
    for page in (*pages[at + 1 :], *pages[:at]):
        fits = (page.imagelength, page.imagewidth) == size and int(page.samplesperpixel) == 1
        if is_mask(page) and not is_reduced(page) and fits:
            return page
    return None


def conversion_of(path: Path, page: tifffile.TiffPage) -> Conversion:
    """Return how the samples of `page` are converted; raises InputError for what is not supported."""
    samples, bits = int(page.samplesperpixel), int(page.bitspersample)
    colour = COLOURS.get(int(page.photometric), "")
    if colour == "YCbCr" and int(page.compression) in DECODED_TO_RGB:
        colour = "RGB"
    if page.dtype is None or page.dtype.kind not in "uifb":
        raise InputError(f"{path} has {bits}-bit samples of an unknown type; convert it first")
    conversion = _with_space(Conversion(page.dtype.name, bits, colour), _block_of(page, ICC))
    subsampled = colour == "YCbCr" and tuple(page.subsampling or (2, 2)) != (1, 1)
    if not colour or samples < conversion.stored_colours or page.imagedepth > 1 or subsampled:
        raise InputError(
            f"{path} is {name_of(page.photometric)}{' with subsampled colours' if subsampled else ''} with {samples} "
            "samples per pixel; supported: gray, RGB, palette, CMYK, Lab, YCbCr, with or without alpha; convert it"
        )
    if conversion.colour in INKS_AND_LAB and ASSOCIATED_ALPHA in page.extrasamples:
        raise InputError(
            f"{path} is {name_of(page.photometric)} with premultiplied alpha; save it with straight alpha, or without"
        )
    if not _is_convertible(conversion):
        raise InputError(f"{path} is {name_of(page.photometric)} of {bits}-bit {page.dtype.name}; convert it first")
    return replace(conversion, palette=_palette(path, page, bits)) if colour == "palette" else conversion


def _is_convertible(conversion: Conversion) -> bool:
    """Return whether samples of this type can have this colour: Lab of 8 or 16 bits, inks and indices of up to 16."""
    if conversion.colour in ("CIELAB", "ICCLAB"):
        return conversion.space is not None
    is_small = np.dtype(conversion.stored).kind in "ub" and conversion.bits <= 16
    return is_small or conversion.colour in ("gray", "RGB")


def _with_space(conversion: Conversion, profile: bytes | None) -> Conversion:
    """Return `conversion` with its way back, if there is one, and with the profile of inks."""
    dtype, bits = np.dtype(conversion.stored), conversion.bits
    has_whole_bytes = dtype.kind in "ui" and dtype.itemsize <= 2 and bits == 8 * dtype.itemsize
    if conversion.colour in ("CIELAB", "ICCLAB") and has_whole_bytes:
        return replace(conversion, space=Lab(conversion.colour, f"uint{bits}", profile))
    if conversion.colour != "CMYK" or profile is None or not is_usable(profile):
        return conversion
    return replace(
        conversion,
        profile=profile,
        space=inks_of(profile, dtype.name) if has_whole_bytes and dtype.kind == "u" else None,
    )


def _palette(path: Path, page: tifffile.TiffPage, bits: int) -> npt.NDArray[Any]:
    """Return the colours of a palette, (2**bits, 3), in 8 bits if its 16 hold no more."""
    colours = None if page.colormap is None else np.asarray(page.colormap, np.uint16)
    if colours is None or colours.shape != (3, 2**bits) or int(page.samplesperpixel) != 1:
        raise InputError(f"{path} is a PALETTE image of {page.samplesperpixel} samples, or its palette is damaged")
    repeated, shifted = not (colours % 257).any(), not (colours & 255).any()
    return (colours.T >> 8).astype(np.uint8) if repeated or shifted else colours.T.copy()


def _block_of(page: tifffile.TiffPage, code: int) -> bytes | None:
    tag = page.tags.get(code)
    return bytes(tag.value) if tag is not None and isinstance(tag.value, bytes) else None


def name_of(value: Any) -> str:
    """Return the name of one of tifffile's enumerations, or the number that is none of it."""
    return str(getattr(value, "name", value))
