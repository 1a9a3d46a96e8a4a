"""Reader of numpy's ``.npy``: rows are read where they lie; pickled objects are refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, choose_light
from tilepipe.image.light import UNASSOCIATED_ALPHA
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.readers.convert import Conversion
from tilepipe.system.files import read_at

__all__ = ["NpyReader"]

CHANNELS = {1: (1, 0), 2: (1, 1), 3: (3, 0), 4: (3, 1)}
"""Length of the last axis -> (colours, alpha)."""


CONVERTED_ROWS, CONVERTED_COPIES = 256, 5
"""Rows read at a time, and copies of them, as stored, that a conversion holds."""


class NpyReader:
    """An array (height, width) or (height, width, 1..4): gray or RGB, with or without straight alpha."""

    def __init__(self, path: Path) -> None:
        """Read the header; raises InputError if it is damaged or the array is no image."""
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, is_transposed, dtype = read(file)
                self._start = file.tell()
        except (ValueError, EOFError) as error:
            raise InputError(f"{path} is a damaged .npy: {error}") from error
        channels = shape[2] if len(shape) == 3 else 1
        if len(shape) not in (2, 3) or channels not in CHANNELS or not all(shape) or dtype.kind not in "buif":
            raise InputError(f"{path} holds an array of shape {shape} and dtype {dtype}; an image is (h, w[, 1..4])")
        if is_transposed:
            raise InputError(f"{path} is in Fortran order; save numpy.ascontiguousarray(image) instead")
        self._stored, self._row = dtype, int(shape[1]) * channels * dtype.itemsize
        needed, size = self._start + self._row * int(shape[0]), path.stat().st_size
        if size < needed:
            raise InputError(f"{path} is truncated: its pixel data ends at byte {needed}, the file at byte {size}")
        colours, alpha = CHANNELS[channels]
        bits = 1 if dtype.kind == "b" else 8 * dtype.itemsize
        self._convert = Conversion(dtype.newbyteorder("=").name, bits, "gray" if colours == 1 else "RGB")
        kinds = (UNASSOCIATED_ALPHA,) * alpha
        light, note = choose_light(path, Metadata(), colours, self._convert.dtype, kinds)
        self.info = ImageInfo(
            path=path,
            kind="npy",
            height=int(shape[0]),
            width=int(shape[1]),
            colours=colours,
            extras=alpha,
            dtype=self._convert.dtype,
            layout="rows",
            compression="none",
            decoded_bytes=0 if self._convert.is_plain else CONVERTED_ROWS * CONVERTED_COPIES * self._row,
            metadata=Metadata(),
            light=light,
            curve_note=note,
            extra_kinds=kinds,
            notes=self._convert.notes,
        )
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels)."""
        raw = read_at(self._descriptor, (y1 - y0) * self._row, self._start + y0 * self._row)
        if len(raw) < (y1 - y0) * self._row:
            raise InputError(f"{self.info.path} is truncated: rows {y0}..{y1} are incomplete")
        stored = np.frombuffer(raw, self._stored).astype(self._stored.newbyteorder("="), copy=False)
        return self._convert(stored.reshape(y1 - y0, self.info.width, -1))

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
