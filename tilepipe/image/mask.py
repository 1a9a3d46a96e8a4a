"""Mask images: white is restored, black is left unchanged, gray is blended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.dtypes import FloatArray
from tilepipe.errors import SettingsError
from tilepipe.image.info import ImageInfo, ImageReader
from tilepipe.image.metadata.blocks import ORIENTATION
from tilepipe.image.readers import open_image
from tilepipe.image.writers.beside import write_beside
from tilepipe.image.writers.tiff import TILE

__all__ = ["DrawnMask", "mask_bytes", "write_mask"]


class DrawnMask:
    """A user-supplied mask: an image of the same size as the input, its samples read as weights 0..1.

    Both are compared as they are seen: each may have an orientation of its own.

    Parameters
    ----------
    path : str or Path
        File of the mask.
    picture : ImageInfo
        The image to restore.

    Raises
    ------
    SettingsError
        If the sizes differ.
    InputError, InputNotFoundError
        As :func:`tilepipe.image.readers.open_image`.
    """

    def __init__(self, path: str | Path, picture: ImageInfo) -> None:
        self._reader: ImageReader = open_image(path)
        self._turned: FloatArray | None = None
        if self._reader.info.is_float and self._reader.info.notes:
            self.close()
            raise SettingsError(f"mask {path} has other samples than 8 or 16 bits, or floats 0..1; save it as those")
        info, (height, width) = self._reader.info, picture.seen_shape
        self._own, self._picture = info.metadata.orientation, picture.metadata.orientation
        self._is_as_stored = self._own == self._picture
        self.decoded_bytes = info.decoded_bytes
        if not self._is_as_stored:
            self.decoded_bytes += 2 * 4 * info.height * info.width
        if info.seen_shape != (height, width):
            seen = info.seen_shape
            self.close()
            turned = "" if (height, width) == (picture.height, picture.width) else " as it is seen (its orientation)"
            raise SettingsError(
                f"mask {path} is {seen[1]} x {seen[0]}, the image {width} x {height}{turned}: "
                "both must have the same size"
            )

    def rows(self, y0: int, y1: int) -> FloatArray:
        """Return the mask for the stored rows y0..y1, (y1 - y0, width), 0..1: the mean of its colours, NaN as 0."""
        if self._is_as_stored:
            return self._own_rows(y0, y1)
        if self._turned is None:
            info = self._reader.info
            own = np.empty((info.height, info.width), np.float32)
            for top in range(0, info.height, TILE):
                own[top : top + TILE] = self._own_rows(top, min(top + TILE, info.height))
            self._turned = np.ascontiguousarray(self._picture.stored(self._own.seen(own)))
        return self._turned[y0:y1]

    def _own_rows(self, y0: int, y1: int) -> FloatArray:
        """Return rows of the mask's file."""
        info = self._reader.info
        codes: npt.NDArray[Any] = self._reader.rows(y0, y1)[:, :, : info.colours]
        full = 1.0 if info.is_float else float(np.iinfo(info.dtype).max)
        share = np.zeros(codes.shape[:2], np.float32)
        for colour in range(info.colours):
            share += np.nan_to_num(codes[:, :, colour].astype(np.float32, copy=False))
        return np.clip(share, 0, np.float32(full * info.colours), out=share) / np.float32(full * info.colours)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def mask_bytes(path: str | Path | None, picture: ImageInfo) -> int:
    """Return the memory for decoding the mask at `path`, bytes; raises before any processing if the mask is invalid."""
    if path is None:
        return 0
    mask = DrawnMask(path, picture)
    mask.close()
    return mask.decoded_bytes


def write_mask(
    path: Path, picture: ImageInfo, rows: Callable[[int, int], FloatArray], *, overwrite: bool = False
) -> None:
    """Write a mask as an 8-bit gray TIFF with the orientation of the picture.

    Parameters
    ----------
    path : Path
        Output file.
    picture : ImageInfo
        The image, whose size the mask has.
    rows : callable
        ``rows(y0, y1)`` returns these rows, 0..1; called top to bottom.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    DoesNotFitError, OutputError, OutputExistsError
        As :func:`tilepipe.image.writers.beside.write_beside`.
    """
    height, width = picture.height, picture.width
    orientation = picture.metadata.orientation_number

    def tiles() -> Iterator[npt.NDArray[np.uint8]]:
        for top in range(0, height, TILE):
            band = np.rint(255 * rows(top, min(top + TILE, height))).astype(np.uint8)
            for left in range(0, width, TILE):
                tile = np.zeros((TILE, TILE), np.uint8)
                piece = band[:, left : left + TILE]
                tile[: piece.shape[0], : piece.shape[1]] = piece
                yield tile

    def write(partial: Path) -> None:
        with partial.open("w+b") as file:  # tifffile leaves its own file open when its first or last write fails
            tifffile.imwrite(
                file,
                tiles(),
                shape=(height, width),
                dtype="uint8",
                tile=(TILE, TILE),
                photometric="minisblack",
                compression="adobe_deflate",
                metadata=None,
                software=False,
                maxworkers=1,
                extratags=[(ORIENTATION, 3, 1, orientation, True)],
            )

    write_beside(path, write, overwrite=overwrite)
