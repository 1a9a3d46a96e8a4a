"""Orientation of a picture: how viewers turn what is stored (Exif 2.32, 4.6.4 A; TIFF 6.0, tag 274).

Pixels are processed and written as stored, with the tag.  Coordinates and masks that a person gives are those of the
picture as it is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

__all__ = ["Orientation"]


@dataclass(frozen=True)
class Orientation:
    """A turn or reflection: rows and columns are exchanged if `is_transposed`, then rows or columns are reversed.

    Parameters
    ----------
    is_transposed : bool
        Whether rows become columns.
    reverses_rows, reverses_columns : bool
        Whether the rows, then the columns, of the picture as seen are reversed.
    """

    is_transposed: bool = False
    reverses_rows: bool = False
    reverses_columns: bool = False

    @classmethod
    def of(cls, number: int) -> Orientation:
        """Return the orientation of the tag's value, 1..8; any other value means as stored."""
        return cls(*ORIENTATIONS.get(number, (False, False, False)))

    def seen(self, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of `stored`, (rows, columns, ...), as it is seen."""
        turned = stored.swapaxes(0, 1) if self.is_transposed else stored
        return turned[:: -1 if self.reverses_rows else 1, :: -1 if self.reverses_columns else 1]

    def stored(self, seen: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of `seen` as it is stored: the inverse of :meth:`seen`."""
        turned = seen[:: -1 if self.reverses_rows else 1, :: -1 if self.reverses_columns else 1]
        return turned.swapaxes(0, 1) if self.is_transposed else turned

    def seen_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the shape, px, as seen of a picture stored with `shape`."""
        return (shape[1], shape[0]) if self.is_transposed else shape

    def stored_box(self, box: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return where a box (y0, y1, x0, x1) of the picture as seen is stored; `shape` is that of the stored one."""
        y0, y1, x0, x1 = box
        height, width = self.seen_shape(shape)
        if self.reverses_rows:
            y0, y1 = height - y1, height - y0
        if self.reverses_columns:
            x0, x1 = width - x1, width - x0
        return (x0, x1, y0, y1) if self.is_transposed else (y0, y1, x0, x1)


ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
"""Transposed, rows reversed, columns reversed, by the tag's value."""
