"""JPEG and PNG files decoded by libvips, row by row from the top down (pip install 'tilepipe[stream]')."""

from __future__ import annotations

import os
import threading
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tilepipe.system.files import read_at

__all__ = ["Codec", "VipsDecoder", "decodes_as_others", "is_installed"]

Codec = Literal["jpeg", "png"]

STRIP = 8
"""Rows that libvips is asked for at a time, px: it caches them in strips of 8 rows."""

PIECE = 1 << 16
"""Bytes that libvips is asked for at a time.  Larger pieces are fresh pages each (glibc's threshold is 128 KiB), which
doubled the time.
"""

SETTINGS = threading.Lock()
"""Held while settings of libvips, which are those of the process, differ from what they were."""


def is_installed() -> bool:
    """Return whether libvips can be loaded."""
    try:
        from pyvips import concurrency_set  # noqa: F401  (new in 3.2)
    except (ImportError, OSError):  # OSError: the package without the library
        return False
    return True


@cache
def decodes_as_others() -> bool:
    """Return whether this libvips decodes a JPEG to the pixels of the decoder for smaller images.

    It may be linked to any libjpeg of the system; versions 7 and later upsample colours differently.
    """
    import imagecodecs
    import pyvips

    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for subsampling in ("444", "422", "420"):
        content = imagecodecs.jpeg8_encode(noise, level=80, subsampling=subsampling)
        decoded = np.frombuffer(pyvips.Image.jpegload_buffer(content).write_to_memory(), np.uint8)
        if not np.array_equal(decoded, imagecodecs.jpeg8_decode(content).reshape(-1)):
            return False
    return True


class _Input:
    """A file that libvips reads by calls: it would map one of its own, and mapped pages count as memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
        self._at = 0
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; an error, or Ctrl-C, is kept, as libvips cannot pass it on."""
        try:
            content = read_at(self._file.fileno(), size, self._at)
        except BaseException as error:
            self.error = error
            return b""
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int) -> int:
        """Set the position as :meth:`io.IOBase.seek` does, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        self._at = os.fstat(self._file.fileno()).st_size + offset if start is None else start + offset
        return self._at

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class VipsDecoder:
    """A file that is being decoded; calls may come from any thread, one at a time.

    Parameters
    ----------
    path : Path
        The file.
    codec : {"jpeg", "png"}
        Its format.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is damaged.
    """

    def __init__(self, path: Path, codec: Codec) -> None:
        import pyvips

        self._input = _Input(path)
        self._source = pyvips.SourceCustom()  # calls `_input`, and has to live as long as the image
        self._source.on_read(self._input.read)
        self._source.on_seek(self._input.seek)
        self._image: Any = None
        try:
            self._open(codec)
        except pyvips.Error as error:
            self.close()
            raise self._reason(error) from error

    def _open(self, codec: Codec) -> None:
        """Load the image; libvips sizes its cache by the number of its threads when the first row is decoded."""
        import pyvips

        load = {"jpeg": pyvips.Image.jpegload_source, "png": pyvips.Image.pngload_source}[codec]
        # rows that are missing in the data of a JPEG are gray, and cause no more than a warning
        fail_on = {"jpeg": "warning", "png": "error"}[codec]
        with SETTINGS:
            threads, operations = pyvips.concurrency_get(), pyvips.cache_get_max()
            pyvips.concurrency_set(1)
            pyvips.cache_set_max(0)  # a cached operation would hold rows of a file that is closed
            try:
                self._image = load(self._source, access="sequential", fail_on=fail_on)
                pyvips.Region.new(self._image).fetch(0, 0, 1, 1)
            finally:
                pyvips.concurrency_set(threads)
                pyvips.cache_set_max(operations)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        return self._image.height, self._image.width, self._image.bands

    @property
    def dtype(self) -> str:
        """Name of numpy of the samples, or that of libvips of types that the formats do not have."""
        return {"uchar": "uint8", "ushort": "uint16"}.get(self._image.format, str(self._image.format))

    def read(self, band: npt.NDArray[Any], top: int) -> None:
        """Decode the rows from `top` on into `band`, (rows, width, channels); rows only ascend.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged.
        """
        import pyvips

        columns = max(1, PIECE // (STRIP * band.itemsize * band.shape[2]))
        region = pyvips.Region.new(self._image)  # it belongs to the thread
        try:
            for y in range(0, len(band), STRIP):
                for x in range(0, band.shape[1], columns):
                    piece = band[y : y + STRIP, x : x + columns]
                    samples = region.fetch(x, top + y, piece.shape[1], piece.shape[0])
                    piece[:] = np.frombuffer(samples, band.dtype).reshape(piece.shape)
        except pyvips.Error as error:
            raise self._reason(error) from error

    def close(self) -> None:
        """Release the decoder and close the file."""
        self._image = None
        self._source = None
        self._input.close()

    def _reason(self, error: Any) -> BaseException:
        """Return the error that stopped reading, or else one with the first line of what libvips says."""
        return self._input.error or ValueError(error.detail.partition("\n")[0] or error.message)
