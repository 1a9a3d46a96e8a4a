"""Format-independent image description (size, samples, curves, metadata) and reader interface."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError, InputNotFoundError, SettingsError
from tilepipe.image.colour_space import ColourSpace
from tilepipe.image.light import LINEAR, MASK, SRGB, Curve, Light, gamma
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.icc import curves_from_icc, describe_icc
from tilepipe.image.metadata.profiles import coded_curve
from tilepipe.image.selection import WHOLE, Selection

__all__ = ["SUPPORTED_DTYPES", "ImageInfo", "ImageReader", "StoredReader", "choose_light", "interpreted"]

SUPPORTED_DTYPES = ("uint8", "uint16", "float16", "float32")


@dataclass(frozen=True)
class ImageInfo:
    """Description of an image, available before any pixel is read.

    Parameters
    ----------
    path : Path
        The file.
    kind : str
        File format, "TIFF", "BigTIFF", "JPEG", "PNG", "WebP", "AVIF", "JPEG 2000", "JPEG XL", "HEIC", "FITS",
        "OME-Zarr", "zarr", "npy" or "camera raw".
    height, width : int
        Size, px.
    colours : {1, 3}
        Number of colour channels, gray or RGB; these are restored.
    extras : int
        Number of further channels (alpha, mask), copied unchanged.
    dtype : str
        numpy name of the samples.
    layout : str
        Storage of the samples in the file, for display.
    compression : str
        Compression of the file, for display.
    decoded_bytes : int
        Memory held while decoding, bytes.
    metadata : Metadata
        EXIF, ICC profile and other blocks.
    light : Light
        Interpretation of the samples.
    curve_note : str
        Origin of the transfer curves, for display.
    extra_kinds : tuple of int
        TIFF ExtraSamples values, one per extra channel; a mask page is last, as a channel of kind
        :data:`tilepipe.image.light.MASK`.
    quantisation : tuple of tuple of int, optional
        Quantisation steps of a JPEG's coefficients (luminance, chrominance), 64 each, in rows of frequencies, 8-bit
        codes; None for other formats.
    subsampled : bool
        Whether chrominance is stored at half the resolution or less.
    notes : tuple of str
        What reading converts: samples of other types or colours.
    selection : Selection
        Which picture of the file this is; equal for equal pixels.
    mask_is_made : bool
        Whether the mask marks what is missing in a truncated file, and is no page of the file.
    space : ColourSpace, optional
        Colours of the file that are processed as RGB and can be written again; such a reader is a
        :class:`StoredReader`.
    streams : bool, optional
        Whether rows are decoded from the top down: going back starts again at the top, and one process has to read
        them all; False if they would be with the extra ``stream``, None for other images.
    """

    path: Path
    kind: str
    height: int
    width: int
    colours: int
    extras: int
    dtype: str
    layout: str
    compression: str
    decoded_bytes: int
    metadata: Metadata
    light: Light
    curve_note: str
    extra_kinds: tuple[int, ...] = ()
    quantisation: tuple[tuple[int, ...], ...] | None = None
    subsampled: bool = False
    notes: tuple[str, ...] = ()
    selection: Selection = WHOLE
    mask_is_made: bool = False
    space: ColourSpace | None = None
    streams: bool | None = None

    @property
    def channels(self) -> int:
        """Number of channels, including a mask page."""
        return self.colours + self.extras

    @property
    def has_mask(self) -> bool:
        """Whether the file has a page that marks which pixels are part of the image."""
        return MASK in self.extra_kinds

    @property
    def written_channels(self) -> int:
        """Number of channels of the main page."""
        return self.channels - self.has_mask

    @property
    def required_kinds(self) -> tuple[int, ...]:
        """Kinds of the extra channels of the file; a format that cannot hold them is refused."""
        return self.extra_kinds[: len(self.extra_kinds) - self.mask_is_made]

    @property
    def seen_shape(self) -> tuple[int, int]:
        """Height and width of the picture as it is seen, px."""
        return self.metadata.orientation.seen_shape((self.height, self.width))

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all channels, as the file's dtype."""
        return self.channels * np.dtype(self.dtype).itemsize

    @property
    def is_float(self) -> bool:
        """Whether samples are floating point and may contain NaN."""
        return np.dtype(self.dtype).kind == "f"


class ImageReader(Protocol):
    """An open image."""

    info: ImageInfo

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (y1 - y0, width, channels), native byte order; raises InputError if damaged."""

    def close(self) -> None:
        """Close the file and release its memory."""


@runtime_checkable
class StoredReader(ImageReader, Protocol):
    """An open image with a :class:`tilepipe.image.colour_space.ColourSpace`."""

    def stored_colours(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1 of the colours as stored, (y1 - y0, width, ``space.channels``); raises as `rows`."""


def choose_light(
    path: Path, metadata: Metadata, colours: int, dtype: str, extras: tuple[int, ...] = (), nodata: float | None = None
) -> tuple[Light, str]:
    """Return the interpretation of an image's samples and a note on the origin of its curves.

    Uses code points, then the curves of the ICC profile; without them sRGB for integers and linear light for floats.
    A damaged profile counts as none.
    """
    if dtype not in SUPPORTED_DTYPES:
        raise InputError(f"{path} has {dtype} samples; supported: {', '.join(SUPPORTED_DTYPES)}; convert it first")
    fallback = LINEAR if dtype.startswith("float") else SRGB
    if metadata.cicp and (coded := coded_curve(metadata.cicp[1])) is not None:
        return Light((coded,) * colours, dtype, nodata=nodata, extras=extras), f"{coded.name} (cICP)"
    if metadata.icc:
        try:
            curves = curves_from_icc(metadata.icc, colours)
        except InputError as error:
            note = f"{fallback.name}: {error}"
            return Light((fallback,) * colours, dtype, nodata=nodata, extras=extras), note
        name = describe_icc(metadata.icc)
        if curves is not None:
            return Light(curves, dtype, nodata=nodata, extras=extras), f"{name} (ICC)"
        note = f"{fallback.name}: the ICC profile {name!r} has no curves (table-based)"
    else:
        note = f"{fallback.name} (no ICC profile)"
    return Light((fallback,) * colours, dtype, nodata=nodata, extras=extras), note


def interpreted(info: ImageInfo, curve: str | None, white: str | None, nodata: float | None) -> ImageInfo:
    """Return `info` with the user's interpretation of the samples.

    Parameters
    ----------
    info : ImageInfo
        The image.
    curve : str, optional
        "linear", "srgb", "gamma:EXPONENT" or the path of an ICC profile; None keeps the file's curves.
    white : str, optional
        Sample value at which samples are clipped, or one per colour, "15000,16383,14800"; None leaves it unspecified.
    nodata : float, optional
        Sample value of pixels that are not part of the image; None keeps the file's value.

    Returns
    -------
    ImageInfo
        Copy with `light` and `curve_note` replaced.

    Raises
    ------
    SettingsError
        If a value is not valid for this image.
    InputNotFoundError, InputError
        If the ICC profile cannot be read or is damaged.
    """
    light, note = info.light, info.curve_note
    if curve is not None:
        curves, note = _curves(curve, info.colours)
        light = replace(light, curves=curves)
    if white is not None:
        light = replace(light, white=_white(white, light, info))
    if nodata is not None:
        light = replace(light, nodata=nodata)
    return replace(info, light=light, curve_note=note)


def _curves(curve: str, colours: int) -> tuple[tuple[Curve, ...], str]:
    simple = {"linear": LINEAR, "srgb": SRGB}.get(curve.lower())
    if simple is None and curve.lower().startswith("gamma:"):
        try:
            exponent = float(curve[6:])
        except ValueError:
            exponent = 0.0
        if not 0.2 <= exponent <= 5:
            raise SettingsError(f"input_curve is {curve!r}; the exponent must be in 0.2..5, e.g. gamma:2.2")
        simple = gamma(exponent)
    if simple is not None:
        return (simple,) * colours, f"{simple.name} (input_curve)"
    try:
        profile = Path(curve).read_bytes()
    except OSError as error:
        raise InputNotFoundError(
            f"input_curve {curve!r} is neither linear, srgb, gamma:EXPONENT nor a readable ICC profile"
        ) from error
    curves = curves_from_icc(profile, colours)
    if curves is None:
        raise SettingsError(f"the ICC profile {curve} has no curves (table-based); use linear, srgb or gamma:EXPONENT")
    return curves, f"{describe_icc(profile)} (input_curve)"


def _white(white: str, light: Light, info: ImageInfo) -> tuple[float, ...]:
    try:
        levels = [float(part) for part in str(white).split(",")]
    except ValueError:
        levels = []
    if len(levels) not in (1, info.colours) or not all(np.isfinite(level) and level > 0 for level in levels):
        raise SettingsError(
            f"white is {white!r}; give a sample value above 0, or one per colour, e.g. 15000 or 15000,16383,14800"
        )
    full = 1.0 if info.is_float else float(np.iinfo(info.dtype).max)
    if max(levels) > full and not info.is_float:
        raise SettingsError(f"white is {max(levels):g}; the largest {info.dtype} sample is {full:.0f}")
    each = levels * (info.colours // len(levels))
    return tuple(
        float(curve.decode(np.array([level / full]))[0]) for curve, level in zip(light.curves, each, strict=True)
    )
