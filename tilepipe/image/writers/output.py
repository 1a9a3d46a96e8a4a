"""What a writer is given: the picture in blocks, the input's description, the processing record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe import __version__
from tilepipe.image.colour_space import ColourSpace
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import SRGB, Light
from tilepipe.image.metadata.blocks import Metadata, srgb_profile
from tilepipe.image.metadata.exif import Directory, Entry
from tilepipe.image.metadata.icc import gray_srgb_profile
from tilepipe.image.metadata.record import with_record

__all__ = ["BLOCK_ROWS", "Blocks", "Output", "output_bytes", "output_light"]

BLOCK_ROWS = 256
"""Rows of a block, px; a multiple of 16, as the tiles of a TIFF must be."""

SOFTWARE, ASCII = 305, 2
"""Tag of the software, and the type of its value (TIFF 6.0, section 8)."""

Blocks = Iterator[npt.NDArray[Any]]
"""The image in blocks of ``BLOCK_ROWS`` rows, row by row and left to right: (rows, columns, channels).

All but the last of a row have a multiple of ``BLOCK_ROWS`` columns; a block may be a whole row.
"""


@dataclass(frozen=True)
class Output:
    """A picture to write.

    Parameters
    ----------
    info : ImageInfo
        The input, whose metadata is copied.
    dtype : str
        dtype of the output.
    blocks : iterator of ndarray, shape (rows, columns, channels)
        The pixels.
    record : bytes
        Processing record, ASCII JSON; may be empty.
    mask : iterator of ndarray of bool, shape (rows, width, 1), optional
        Which pixels belong to the image, in bands of ``BLOCK_ROWS`` rows; for formats that can hold it.
    compression : {"none", "deflate", "lzw", "zstd"}, optional
        Compression, for formats with a choice; by default that of the input if it is lossless.
    space : ColourSpace, optional
        Colours of the blocks if they are not gray or RGB; for formats that can hold them.
    """

    info: ImageInfo
    dtype: str
    blocks: Blocks
    record: bytes = b""
    mask: Blocks | None = None
    compression: str | None = None
    space: ColourSpace | None = None

    @property
    def channels(self) -> int:
        """Number of channels of the main page."""
        return _channels(self.info, self.space)

    @property
    def metadata(self) -> Metadata:
        """The input's metadata, with the record in the XMP, and tilepipe as the software if none is named."""
        metadata = self.info.metadata
        if not self.record:
            return metadata
        if metadata.tags.get(SOFTWARE) is None:
            name = f"tilepipe {__version__}".encode() + b"\0"
            entries = (*metadata.tags.entries, Entry(SOFTWARE, ASCII, len(name), name))
            metadata = replace(metadata, tags=Directory(tuple(sorted(entries, key=lambda entry: entry.code))))
        return replace(metadata, xmp=with_record(metadata.xmp, self.record))

    def placed(self) -> Iterator[tuple[int, int, npt.NDArray[Any]]]:
        """Yield each block behind the row and the column of its first pixel."""
        top = left = 0
        for block in self.blocks:
            yield top, left, block
            left += block.shape[1]
            if left == self.info.width:
                top, left = top + len(block), 0

    def whole(self, channels: int) -> npt.NDArray[Any]:
        """Return the first `channels` channels of the whole picture, for encoders that need it at once.

        Returns
        -------
        ndarray, shape (height, width) if `channels` is 1, else (height, width, channels)
        """
        picture = np.empty((self.info.height, self.info.width, channels), self.dtype)
        for top, left, block in self.placed():
            picture[top : top + len(block), left : left + block.shape[1]] = block[:, :, :channels]
        return picture if channels > 1 else picture[:, :, 0]

    @property
    def profile(self) -> bytes | None:
        """The input's ICC profile; sRGB for floats from integers without one, as those would be read as linear."""
        info = self.info
        if self.space is not None:
            return self.space.profile
        if info.metadata.icc is None and np.dtype(self.dtype).kind == "f" and not info.is_float:
            return srgb_profile() if info.colours == 3 else gray_srgb_profile()
        return info.metadata.icc


def output_light(info: ImageInfo, dtype: str) -> Light:
    """Return the curves of the output: those of the input.

    Exception: floats without a profile that are written as integers get sRGB, because integers without a profile
    are read as sRGB.
    """
    if info.is_float and info.metadata.icc is None and np.dtype(dtype).kind == "u":
        return Light((SRGB,) * info.colours, info.dtype)
    return info.light


def output_bytes(info: ImageInfo, dtype: str, space: ColourSpace | None = None) -> int:
    """Return the size of the output's uncompressed pixels, bytes, padded to whole tiles."""
    padded = -(-info.height // BLOCK_ROWS) * BLOCK_ROWS * -(-info.width // BLOCK_ROWS) * BLOCK_ROWS
    return padded * _channels(info, space) * np.dtype(dtype).itemsize


def _channels(info: ImageInfo, space: ColourSpace | None) -> int:
    return info.written_channels if space is None else info.written_channels - info.colours + space.channels
