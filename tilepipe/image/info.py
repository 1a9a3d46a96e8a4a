"""What a picture is, whatever its file: size, samples, curves, metadata; and what reading one means."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.icc import curves_from_icc, describe_icc
from tilepipe.image.light import LINEAR, SRGB, Light
from tilepipe.image.metadata import Metadata

__all__ = ["SUPPORTED_DTYPES", "ImageInfo", "ImageReader", "choose_light"]

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
    extra_kinds : TIFF ExtraSamples values, one per extra channel.
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

    @property
    def channels(self) -> int:
        """All channels."""
        return self.colours + self.extras

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel, all channels, as the file's dtype."""
        return self.channels * np.dtype(self.dtype).itemsize

    @property
    def is_float(self) -> bool:
        """Whether samples are floating point: then NaN may occur and nothing counts as clipped."""
        return np.dtype(self.dtype).kind == "f"


class ImageReader(Protocol):
    """An open picture."""

    info: ImageInfo

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (y1 - y0, width, channels), native byte order; InputError when damaged."""

    def close(self) -> None:
        """Release file and memory."""


def choose_light(path: Path, metadata: Metadata, colours: int, dtype: str) -> tuple[Light, str]:
    """Return the picture's curves and a note on where they come from.

    The ICC profile's curves; without a profile sRGB for integers and linear light for floats.
    """
    if dtype not in SUPPORTED_DTYPES:
        raise InputError(f"{path} has {dtype} samples; supported are {', '.join(SUPPORTED_DTYPES)}: convert it first")
    fallback = LINEAR if dtype.startswith("float") else SRGB
    if metadata.icc:
        curves = curves_from_icc(metadata.icc, colours)
        name = describe_icc(metadata.icc)
        if curves is not None:
            return Light(curves, dtype), f"{name} (ICC)"
        return Light((fallback,) * colours, dtype), f"{fallback.name}: the ICC profile {name!r} has tables, no curves"
    return Light((fallback,) * colours, dtype), f"{fallback.name} (no ICC profile)"
