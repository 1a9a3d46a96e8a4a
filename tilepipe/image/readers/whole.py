"""Images that are decoded whole: at the first call for rows, after the plan has counted the memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo
from tilepipe.image.readers.apart import decode_apart

__all__ = ["ApartReader", "WholeReader"]


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
