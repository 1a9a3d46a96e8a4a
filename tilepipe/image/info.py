"""What a picture is, whatever its file: size, samples, curves, metadata; and what reading one means."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError, InputNotFoundError, SettingsError
from tilepipe.image.light import LINEAR, MASK, SRGB, Curve, Light, gamma
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.icc import curves_from_icc, describe_icc

__all__ = ["SUPPORTED_DTYPES", "ImageInfo", "ImageReader", "choose_light", "interpreted"]

SUPPORTED_DTYPES = ("uint8", "uint16", "float16", "float32")


@dataclass(frozen=True)
class ImageInfo:
    """What is known of a picture before a pixel is read.

    Parameters
    ----------
    path, kind : the file; "TIFF", "JPEG" or "PNG".
    height, width : px.
    colours : 1 (gray) or 3 (RGB); these are restored.
    extras : further channels (alpha), carried over as they are.
    dtype : numpy name of the samples.
    layout : how the file stores them, for people.
    compression : the file's compression, for people.
    decoded_bytes : what decoding holds in memory at once.
    extra_kinds : TIFF ExtraSamples values, one per extra channel; a mask page comes last, as a channel of kind
        :data:`tilepipe.image.light.MASK`.
    quantisation : steps of a JPEG's coefficients, (luminance, chrominance), 64 each, row by row of frequencies, 8-bit
        codes; None for other files.
    subsampled : colour differences are stored at half the resolution or less.
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

    @property
    def channels(self) -> int:
        """All channels, a mask page among them."""
        return self.colours + self.extras

    @property
    def has_mask(self) -> bool:
        """Whether the file has a page that says which pixels are part of the picture."""
        return MASK in self.extra_kinds

    @property
    def written_channels(self) -> int:
        """Channels of the main page."""
        return self.channels - self.has_mask

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all channels, as the file's dtype."""
        return self.channels * np.dtype(self.dtype).itemsize

    @property
    def is_float(self) -> bool:
        """Whether samples are floating point: then NaN may occur."""
        return np.dtype(self.dtype).kind == "f"


class ImageReader(Protocol):
    """An open picture."""

    info: ImageInfo

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (y1 - y0, width, channels), native byte order; InputError when damaged."""

    def close(self) -> None:
        """Release file and memory."""


def choose_light(
    path: Path, metadata: Metadata, colours: int, dtype: str, extras: tuple[int, ...] = (), nodata: float | None = None
) -> tuple[Light, str]:
    """Return what the picture's samples mean and a note on where its curves come from.

    The ICC profile's curves; without a profile sRGB for integers and linear light for floats.
    """
    if dtype not in SUPPORTED_DTYPES:
        raise InputError(f"{path} has {dtype} samples; supported are {', '.join(SUPPORTED_DTYPES)}: convert it first")
    fallback = LINEAR if dtype.startswith("float") else SRGB
    if metadata.icc:
        curves = curves_from_icc(metadata.icc, colours)
        name = describe_icc(metadata.icc)
        if curves is not None:
            return Light(curves, dtype, nodata=nodata, extras=extras), f"{name} (ICC)"
        note = f"{fallback.name}: the ICC profile {name!r} has tables, no curves"
    else:
        note = f"{fallback.name} (no ICC profile)"
    return Light((fallback,) * colours, dtype, nodata=nodata, extras=extras), note


def interpreted(info: ImageInfo, curve: str | None, white: str | None, nodata: float | None) -> ImageInfo:
    """Return `info` with what the user says of the samples.

    Parameters
    ----------
    curve : "linear", "srgb", "gamma:EXPONENT" or an ICC profile's file; None: what the file says.
    white : sample value from which samples are clipped, or one for each colour, "15000,16383,14800"; None: not said.
    nodata : sample value that marks pixels that are not part of the picture; None: what the file says.

    Raises
    ------
    SettingsError : a value that makes no sense for this picture.
    InputNotFoundError, InputError : the ICC profile.
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
            raise SettingsError(f"input_curve is {curve!r}; the exponent must lie in 0.2..5, as in gamma:2.2")
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
        raise SettingsError(f"the ICC profile {curve} has tables, no curves: give linear, srgb or gamma:EXPONENT")
    return curves, f"{describe_icc(profile)} (input_curve)"


def _white(white: str, light: Light, info: ImageInfo) -> tuple[float, ...]:
    try:
        levels = [float(part) for part in str(white).split(",")]
    except ValueError:
        levels = []
    if len(levels) not in (1, info.colours) or not all(np.isfinite(level) and level > 0 for level in levels):
        raise SettingsError(
            f"white is {white!r}; give a sample value above 0, or one for each colour, as in 15000 or 15000,16383,14800"
        )
    full = 1.0 if info.is_float else float(np.iinfo(info.dtype).max)
    if max(levels) > full and not info.is_float:
        raise SettingsError(f"white is {max(levels):g}; the largest {info.dtype} sample is {full:.0f}")
    each = levels * (info.colours // len(levels))
    return tuple(
        float(curve.decode(np.array([level / full]))[0]) for curve, level in zip(light.curves, each, strict=True)
    )
