"""Large JPEG and PNG files, decoded from the top down: memory grows with the width, not with the height."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo
from tilepipe.image.readers.vips import Codec, VipsDecoder, decodes_as_others, is_installed

__all__ = ["StreamReader", "can_stream", "stream_bytes"]

LEAST = 64_000_000
"""Bytes of pixels above which an image is streamed; little is saved below (72 MB, 6000 px wide, take 44 MB)."""

KEPT = 256
"""Rows of the last band that are kept, for bands that overlap."""

HELD = 768
"""Rows held at once, px: the cache of libvips, and ``KEPT`` (measured from above)."""

LIBRARY = 30_000_000
"""Bytes by which the process grows besides: libvips itself, and memory that it freed (26 MB measured when Python
compiles the modules of pyvips, too, as after the installation)."""


def can_stream(height: int, width: int, pixel_bytes: int) -> bool | None:
    """Return whether an image, of a kind that can be streamed, is; see ``ImageInfo.streams``."""
    if height * width * pixel_bytes <= max(LEAST, stream_bytes(width, pixel_bytes)):
        return None
    if not is_installed():
        return False
    return True if decodes_as_others() else None


def stream_bytes(width: int, pixel_bytes: int) -> int:
    """Return what streaming an image of this width holds, bytes (measured from above)."""
    return HELD * width * pixel_bytes + LIBRARY


class StreamReader:
    """An open image that is decoded from the top down; going back by more than ``KEPT`` rows restarts.

    Parameters
    ----------
    info : ImageInfo
        What the header states.
    codec : {"jpeg", "png"}
        Format of the file.
    check : callable
        Called before the first row is decoded; raises InputError if the file is not complete.
    """

    def __init__(self, info: ImageInfo, codec: Codec, check: Callable[[], None] = lambda: None) -> None:
        self.info = info
        self._codec: Codec = codec
        self._check = check
        self._is_checked = False
        self._decoder: VipsDecoder | None = None
        self._next = 0  # row behind the last that was decoded
        self._kept: npt.NDArray[Any] = np.empty((0, info.width, info.channels), info.dtype)

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels); raises InputError if the file is damaged."""
        info = self.info
        if y0 < self._next - len(self._kept):
            self.close()
        band = np.empty((y1 - y0, info.width, info.channels), info.dtype)
        known = self._kept[len(self._kept) - max(0, self._next - y0) :][: y1 - y0]
        band[: len(known)] = known
        if y1 > self._next:
            self._decode(band[len(known) :], y0 + len(known))
            self._next = y1
            self._kept = band if len(band) <= KEPT else band[-KEPT:].copy()
        return band

    def close(self) -> None:
        """Close the file and release the decoder."""
        if self._decoder is not None:
            self._decoder.close()
        self._decoder, self._next, self._kept = None, 0, self._kept[:0].copy()

    def _decode(self, band: npt.NDArray[Any], top: int) -> None:
        """Decode rows from `top` on into `band`; after an error the next call starts at the top."""
        info = self.info
        try:
            if self._decoder is None:
                self._decoder = self._opened()
            self._decoder.read(band, top)
        except OSError as error:
            self.close()
            raise InputError(f"{info.path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            self.close()
            raise InputError(f"{info.path} is a damaged {info.kind}: {error}") from error
        except BaseException:
            self.close()
            raise

    def _opened(self) -> VipsDecoder:
        info = self.info
        if not self._is_checked:
            self._check()
            self._is_checked = True
        decoder = VipsDecoder(info.path, self._codec)
        expected = (info.height, info.width, info.channels)
        if decoder.shape != expected or decoder.dtype != info.dtype:
            found = f"{decoder.shape} {decoder.dtype}"
            decoder.close()
            raise InputError(f"{info.path} decodes to {found}, its header states {expected} {info.dtype}")
        return decoder
