"""Truncated files, read as far as they go: a mask marks the pixels that are not in the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import BoolArray
from tilepipe.errors import InputError
from tilepipe.image.info import ImageReader, StoredReader
from tilepipe.image.light import MASK
from tilepipe.image.selection import Selection

__all__ = ["WAY_OUT", "SalvagedReader", "first_rows"]

WAY_OUT = "--salvage restores the part that is there"
"""End of the message about a truncated file."""

MOST_NAMED = 3
"""Ranges of rows that a note names."""


class SalvagedReader:
    """A picture of which pixels are missing, with a mask that has 0 there: they are neither restored nor used.

    Parameters
    ----------
    reader : ImageReader
        Reads the picture, with any values where pixels are missing.
    present : callable
        ``present(y0, y1)`` returns which pixels of these rows are in the file, bool (y1 - y0, width).
    band : int
        Rows for which `present` is called at a time, to find those that are not complete.

    Raises
    ------
    InputError
        If no pixel is in the file.
    """

    def __init__(self, reader: ImageReader, present: Callable[[int, int], BoolArray], band: int = 256) -> None:
        self._reader, self._present = reader, present
        info = reader.info
        self._adds = not info.has_mask
        kinds = info.extra_kinds + (MASK,) * self._adds
        complete, pixels = [], 0
        for top in range(0, info.height, band):
            rows = present(top, min(top + band, info.height))
            complete.append(rows.all(1))
            pixels += int(np.count_nonzero(rows))
        if not pixels:
            raise InputError(f"{info.path} is truncated: it contains no complete row of the picture")
        selection = info.selection
        self.info = replace(
            info,
            extras=len(kinds),
            extra_kinds=kinds,
            light=replace(info.light, extras=kinds),
            notes=(*info.notes, _note(np.concatenate(complete))),
            selection=Selection(page=selection.page, plane=selection.plane, salvage=True),
            mask_is_made=self._adds,
        )

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels); the last channel is the mask."""
        rows, present = self._reader.rows(y0, y1), self._present(y0, y1)
        if not self._adds:
            return np.concatenate([rows[:, :, :-1], np.where(present[:, :, None], rows[:, :, -1:], 0)], -1)
        full = 1 if self.info.is_float else np.iinfo(rows.dtype).max
        return np.concatenate([rows, np.where(present, full, 0).astype(rows.dtype)[:, :, None]], -1)

    def stored_colours(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1 of the colours of ``info.space``, see :class:`tilepipe.image.info.StoredReader`."""
        assert isinstance(self._reader, StoredReader)
        return self._reader.stored_colours(y0, y1)

    def close(self) -> None:
        """Close the file."""
        self._reader.close()


def first_rows(number: int, width: int) -> Callable[[int, int], BoolArray]:
    """Return the function that marks the first `number` rows of a picture as present, see `SalvagedReader`."""
    return lambda y0, y1: np.repeat((np.arange(y0, y1) < number)[:, None], width, 1)


def _note(complete: BoolArray) -> str:
    """Return a note on the rows that are not complete."""
    steps = np.flatnonzero(np.diff(np.concatenate([[True], complete, [True]]).astype(np.int8)))
    ranges = [f"{first}..{behind - 1}" for first, behind in zip(steps[::2], steps[1::2], strict=True)]
    if not ranges:
        return "the file is truncated behind its last row"
    named = ", ".join(ranges[:MOST_NAMED]) + (" and others" if len(ranges) > MOST_NAMED else "")
    return f"the file is truncated: rows {named} of 0..{len(complete) - 1} are incomplete; what is missing is masked"
