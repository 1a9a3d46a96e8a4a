"""Images that are decoded whole: at the first call for rows, after the plan has counted the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, choose_light
from tilepipe.image.light import UNASSOCIATED_ALPHA
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.readers.apart import CHILD_BYTES, decode_apart

__all__ = ["ApartReader", "WholeReader", "info_of_decoded"]


class WholeReader:
    """An open image that is decoded at the first call of :meth:`rows`, and released by :meth:`close`.

    Parameters
    ----------
    info : ImageInfo
        What the header states.
    decode : callable
        ``decode(content)`` returns the pixels of the file's bytes, (height, width[, channels]).
    """

    def __init__(self, info: ImageInfo, decode: Callable[[bytes], npt.NDArray[Any]]) -> None:
        self.info = info
        self._decode = decode
        self._pixels: npt.NDArray[Any] | None = None

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels); raises InputError if the file is damaged."""
        if self._pixels is None:
            self._pixels = self._decoded()
        return self._pixels[y0:y1]

    def close(self) -> None:
        """Release the decoded image."""
        self._pixels = None

    def _decoded(self) -> npt.NDArray[Any]:
        info = self.info
        try:
            pixels = self._read_pixels()
        except (InputError, MemoryError):
            raise
        except Exception as error:  # imagecodecs has an error class per codec
            raise InputError(f"{info.path} is a damaged {info.kind}: {error}") from error
        expected = (info.height, info.width, info.channels)
        if pixels.shape != expected or pixels.dtype.name != info.dtype:
            raise InputError(
                f"{info.path} decodes to {pixels.shape} {pixels.dtype}, its header states {expected} {info.dtype}"
            )
        return pixels

    def _read_pixels(self) -> npt.NDArray[Any]:
        """Return the pixels, (height, width, channels)."""
        return np.atleast_3d(self._decode(self.info.path.read_bytes()))


class ApartReader(WholeReader):
    """An image that is decoded whole in a child process: for decoders that have crashed, or may.

    Parameters
    ----------
    info : ImageInfo
        What the header states.
    decode : functools.partial
        As for :func:`tilepipe.image.readers.apart.decode_apart`.
    """

    def __init__(self, info: ImageInfo, decode: partial[npt.NDArray[Any]]) -> None:
        super().__init__(info, decode)
        self._parts = decode

    def _read_pixels(self) -> npt.NDArray[Any]:
        info = self.info
        return decode_apart(info.path, (info.height, info.width, info.channels), info.dtype, self._parts)


def info_of_decoded(
    path: Path,
    kind: str,
    shape: tuple[int, int],
    channels: tuple[int, int],
    bits: int,
    metadata: Metadata,
    *,
    copies: int,
    subsampled: bool = False,
) -> ImageInfo:
    """Return the description of an image that is decoded by a child process.

    Parameters
    ----------
    path : Path
        The image.
    kind : str
        Its format.
    shape : (int, int)
        Height and width, px.
    channels : (int, int)
        Number of colours, and of straight alpha channels.
    bits : int
        Bits of a sample: integers up to 16, floats of 32.
    metadata : Metadata
        What it carries besides pixels.
    copies : int
        Memory for decoding, as a multiple of the pixels.
    subsampled : bool
        Whether chrominance is stored at half the resolution or less.
    """
    dtype = "uint8" if bits <= 8 else "uint16" if bits <= 16 else "float32"
    kinds = (UNASSOCIATED_ALPHA,) * channels[1]
    light, note = choose_light(path, metadata, channels[0], dtype, kinds)
    samples, itemsize = shape[0] * shape[1] * sum(channels), np.dtype(dtype).itemsize
    return ImageInfo(
        path=path,
        kind=kind,
        height=shape[0],
        width=shape[1],
        colours=channels[0],
        extras=channels[1],
        dtype=dtype,
        layout="decoded whole",
        compression=kind.lower(),
        decoded_bytes=copies * samples * itemsize + CHILD_BYTES + path.stat().st_size,
        metadata=metadata,
        light=light,
        curve_note=note,
        extra_kinds=kinds,
        subsampled=subsampled,
        notes=() if bits in (8, 16, 32) else (f"{bits}-bit samples are scaled to {8 * itemsize} bits",),
    )
