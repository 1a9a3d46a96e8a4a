"""Geometry of tiles: core, stored box and frame.

::

      frame (pixels a tile reads; all frames of a grid have the same shape)
    ┌───────────────────────────────────────┐
    │  halo: context, discarded             │
    │   ┌───────────────────────────────┐   │
    │   │  stored = core + overlap / 2  │   │      cores tile the image exactly, their edge
    │   │   ┌───────────────────────┐   │   │      lengths differ by at most 1 px;
    │   │   │  core                 │   │   │      stored boxes overlap their neighbours by `overlap`
    │   │   └───────────────────────┘   │   │      px and end at the image's border;
    │   └───────────────────────────────┘   │      a frame may reach past the border: data there
    └───────────────────────────────────────┘      are unknown, and the solver treats them so.

Boxes are half-open, (y0, y1, x0, x1), rows first.  The geometry depends on the image's size, the requested core edge
and the halo, never on memory or the number of jobs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import scipy.fft

__all__ = [
    "FRAME_EDGE",
    "OVERLAP",
    "SMALLEST_CORE",
    "Box",
    "Grid",
    "Tile",
    "core_in_frame",
    "default_core",
    "has_seams",
]

FRAME_EDGE = 1152
"""Largest default frame edge, px; the default core is what the halo and overlap leave.

The wider the halo, the more a larger frame pays: at 128 px, 1152 computes 1.8 pixels per pixel, 1024 computed 2.0.  The
workspace of a frame of three colours takes 110 MB; two of them and the process stay below 512 MB.
"""

LEAST_DEFAULT_CORE = 256
"""Smallest default core edge, px, for excessive halos."""

SMALLEST_CORE = 64
"""Smallest core edge that may be requested, px."""

OVERLAP = 16
"""Width of the band in which two neighbours are blended, px; half of it is on either side of the core's edge."""


def default_core(halo: int, height: int, width: int) -> int:
    """Return the default core edge of an image, px.

    It is the image's longer edge if one frame holds the image.
    """
    if _one_frame_holds(height, width, halo):
        return max(height, width, SMALLEST_CORE)
    return core_in_frame(halo)


def core_in_frame(halo: int) -> int:
    """Return the largest core edge, px, whose frame is at most ``FRAME_EDGE``, but at least ``LEAST_DEFAULT_CORE``."""
    return max(FRAME_EDGE - OVERLAP - 2 * halo, LEAST_DEFAULT_CORE)


def has_seams(height: int, width: int, core: int | None, halo: int) -> bool:
    """Return whether the parameters must suit seams: the image is cut into tiles, or would be with another core.

    A larger core than the default changes where the seams are, not what is restored.
    """
    return not _one_frame_holds(height, width, halo) or max(height, width) > (core or max(height, width))


def _one_frame_holds(height: int, width: int, halo: int) -> bool:
    """Return whether the image fits in a frame with the area, and so the memory, of the largest default frame."""
    return (height + 2 * halo) * (width + 2 * halo) <= FRAME_EDGE**2


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle; may reach outside the image."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width, px."""
        return self.y1 - self.y0, self.x1 - self.x0

    def intersection(self, other: Box) -> Box:
        """Return the common part; may be empty (y1 <= y0 or x1 <= x0)."""
        return Box(max(self.y0, other.y0), min(self.y1, other.y1), max(self.x0, other.x0), min(self.x1, other.x1))

    def within(self, origin: Box) -> tuple[slice, slice]:
        """Return this box as slices into an array that covers `origin`."""
        return (
            slice(self.y0 - origin.y0, self.y1 - origin.y0),
            slice(self.x0 - origin.x0, self.x1 - origin.x0),
        )


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile: its position in the grid and its three boxes."""

    row: int
    column: int
    core: Box
    stored: Box
    frame: Box


@dataclass(frozen=True)
class Grid:
    """All tiles of an image.

    Parameters
    ----------
    height, width : int
        Size of the image, px.
    core : int
        Largest core edge, px; a value beyond the image's size gives one tile.
    halo : int
        Context on every side of a stored box, px.
    """

    height: int
    width: int
    core: int
    halo: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.core < SMALLEST_CORE or self.halo < 0:
            raise ValueError(f"invalid grid: image {self.height} x {self.width}, core {self.core}, halo {self.halo}")

    @cached_property
    def row_edges(self) -> tuple[int, ...]:
        """Edges of the cores along y, from 0 to the height."""
        return _balanced_edges(self.height, self.core)

    @cached_property
    def column_edges(self) -> tuple[int, ...]:
        """Edges of the cores along x, from 0 to the width."""
        return _balanced_edges(self.width, self.core)

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return len(self.row_edges) - 1

    @property
    def columns(self) -> int:
        """Number of columns of tiles."""
        return len(self.column_edges) - 1

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return self.rows * self.columns

    @property
    def seam_length(self) -> int:
        """Length of all edges between cores, px."""
        return (self.rows - 1) * self.width + (self.columns - 1) * self.height

    @cached_property
    def stored_shape(self) -> tuple[int, int]:
        """Shape that holds every stored box; the tiles array stores each as a few chunks of rows."""
        return _largest_stored(self.row_edges), _largest_stored(self.column_edges)

    @cached_property
    def frame_shape(self) -> tuple[int, int]:
        """Shape of every frame: stored box and halos, rounded up to a good transform length."""
        height, width = self.stored_shape
        return (
            int(scipy.fft.next_fast_len(height + 2 * self.halo, real=True)),
            int(scipy.fft.next_fast_len(width + 2 * self.halo, real=True)),
        )

    @property
    def amplification(self) -> float:
        """Pixels computed per pixel of the image."""
        height, width = self.frame_shape
        return self.tiles * height * width / (self.height * self.width)

    def tile(self, row: int, column: int) -> Tile:
        """Return the tile at (row, column)."""
        y0, y1 = self.row_edges[row : row + 2]
        x0, x1 = self.column_edges[column : column + 2]
        top, bottom = _stored(self.row_edges, row)
        left, right = _stored(self.column_edges, column)
        height, width = self.frame_shape
        frame = Box(top - self.halo, top - self.halo + height, left - self.halo, left - self.halo + width)
        return Tile(row, column, Box(y0, y1, x0, x1), Box(top, bottom, left, right), frame)

    def row_of_tiles(self, row: int) -> Iterator[Tile]:
        """Yield the tiles of one row, left to right."""
        return (self.tile(row, column) for column in range(self.columns))

    def touching(self, box: Box) -> Iterator[Tile]:
        """Yield the tiles whose stored box intersects `box`, row by row."""
        for row in _intersecting(self.row_edges, box.y0, box.y1):
            for column in _intersecting(self.column_edges, box.x0, box.x1):
                yield self.tile(row, column)


def _balanced_edges(length: int, core: int) -> tuple[int, ...]:
    count = -(-length // core)
    return tuple(index * length // count for index in range(count + 1))


def _stored(edges: tuple[int, ...], index: int) -> tuple[int, int]:
    start, stop = edges[index], edges[index + 1]
    half = OVERLAP // 2
    return start - half * (index > 0), stop + half * (index < len(edges) - 2)


def _largest_stored(edges: tuple[int, ...]) -> int:
    return max(stop - start for start, stop in (_stored(edges, i) for i in range(len(edges) - 1)))


def _intersecting(edges: tuple[int, ...], start: int, stop: int) -> range:
    """Return the indices of the stored spans that intersect start..stop; they overlap by less than a core."""
    count, half = len(edges) - 1, OVERLAP // 2
    first = min(max(0, bisect_right(edges, start - half) - 1), count - 1)
    last = max(0, min(count, bisect_left(edges, stop + half)) - 1)
    return range(first, last + 1)
