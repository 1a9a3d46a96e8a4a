"""Masks as pictures: white is restored, black is left alone, gray is in between."""

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
from tilepipe.image.readers import open_image
from tilepipe.image.writers.tiff import TILE, write_beside

__all__ = ["DrawnMask", "mask_bytes", "write_mask"]


class DrawnMask:
    """A mask that somebody drew: any picture of the size of the one to restore, its codes taken as shares.

    Raises
    ------
    SettingsError : the sizes differ.
    InputError, InputNotFoundError : as for any picture.
    """

    def __init__(self, path: str | Path, picture: ImageInfo) -> None:
        self._reader: ImageReader = open_image(path)
        info = self._reader.info
        self.decoded_bytes = info.decoded_bytes
        if (info.height, info.width) != (picture.height, picture.width):
            self.close()
            raise SettingsError(
                f"mask {path} is {info.width} x {info.height}, the picture {picture.width} x {picture.height}: "
                "they must be of one size"
            )

    def rows(self, y0: int, y1: int) -> FloatArray:
        """Return the mask in rows y0..y1, (y1 - y0, width), 0..1: the mean of its colours; NaN counts as 0."""
        info = self._reader.info
        codes: npt.NDArray[Any] = self._reader.rows(y0, y1)[:, :, : info.colours]
        full = 1.0 if info.is_float else float(np.iinfo(info.dtype).max)
        share: FloatArray = (np.nan_to_num(codes.astype(np.float32)) / np.float32(full)).mean(2)
        return np.clip(share, 0, 1)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def mask_bytes(path: str | Path | None, picture: ImageInfo) -> int:
    """Return what reading the drawn mask at `path` holds at once; raises what is wrong with it before work begins."""
    if path is None:
        return 0
    mask = DrawnMask(path, picture)
    mask.close()
    return mask.decoded_bytes


def write_mask(
    path: Path, height: int, width: int, rows: Callable[[int, int], FloatArray], *, overwrite: bool = False
) -> None:
    """Write a mask (0..1 by rows, top to bottom) as 8-bit gray TIFF.

    Raises
    ------
    DoesNotFitError, OutputError, OutputExistsError : see :func:`tilepipe.image.writers.tiff.write_beside`.
    """

    def tiles() -> Iterator[npt.NDArray[np.uint8]]:
        for top in range(0, height, TILE):
            band = np.rint(255 * rows(top, min(top + TILE, height))).astype(np.uint8)
            for left in range(0, width, TILE):
                tile = np.zeros((TILE, TILE), np.uint8)
                piece = band[:, left : left + TILE]
                tile[: piece.shape[0], : piece.shape[1]] = piece
                yield tile

    def write(partial: Path) -> None:
        tifffile.imwrite(
            partial,
            tiles(),
            shape=(height, width),
            dtype="uint8",
            tile=(TILE, TILE),
            photometric="minisblack",
            compression="adobe_deflate",
            metadata=None,
            software=False,
            maxworkers=1,
        )

    write_beside(path, write, overwrite=overwrite)
