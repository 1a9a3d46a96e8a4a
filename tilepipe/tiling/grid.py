"""Tiles as values: core, stored box and frame.

::

      frame (what a tile reads; all frames of a grid have one shape)
    ┌───────────────────────────────────────┐
    │  halo: context, thrown away           │
    │   ┌───────────────────────────────┐   │
    │   │  stored = core + overlap / 2  │   │      cores tile the picture exactly, their edges
    │   │   ┌───────────────────────┐   │   │      differ by at most 1 px;
    │   │   │  core                 │   │   │      stored boxes overlap their neighbours by `overlap`
    │   │   └───────────────────────┘   │   │      px and end at the picture's border;
    │   └───────────────────────────────┘   │      a frame may reach past the border: there nothing
    └───────────────────────────────────────┘      is known, which the solver is told.

Boxes are half-open, (y0, y1, x0, x1), rows first.  Geometry follows from the picture's size, the core
edge asked for and the halo, never from memory or jobs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import scipy.fft

__all__ = ["FRAME_EDGE", "ONE_TILE", "OVERLAP", "SMALLEST_CORE", "Box", "Grid", "Tile", "default_core", "has_seams"]

FRAME_EDGE = 1152
"""Largest frame edge by default, px: what is not halo is core.

The wider the halo the more pays a larger frame: at 128 px, 1152 computes 1.8 pixels for one, 1024 did 2.0.  A frame of
three colours is 110 MB of work; two of them and the process stay below 512 MB.
"""

ONE_TILE = 768
"""Largest edge of a picture that is restored as one tile, px: with the widest halo it is a frame."""

LEAST_DEFAULT_CORE = 256
"""Core edge that halos beyond reason leave, px."""

SMALLEST_CORE = 64
"""Smallest core edge that may be asked for, px."""

OVERLAP = 16
"""Width of the band in which two neighbours are blended, px; half of it lies on either side of the edge."""


def default_core(halo: int) -> int:
    """Return the largest core edge, px, whose frame is at most ``FRAME_EDGE``."""
    return max(FRAME_EDGE - OVERLAP - 2 * halo, LEAST_DEFAULT_CORE)


def has_seams(height: int, width: int, core: int | None) -> bool:
    """Return whether a picture is cut into tiles, or might be with another core: its numbers are then for seams.

    A core larger than ``ONE_TILE`` does not count: it changes where the seams are, not what is restored.
    """
    return max(height, width) > min(core or ONE_TILE, ONE_TILE)


@dataclass(frozen=True, slots=True)
class Box:
    """A half-open rectangle; may reach outside the picture."""

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
    """One tile: its place in the grid and its three boxes."""

    row: int
    column: int
    core: Box
    stored: Box
    frame: Box


@dataclass(frozen=True)
class Grid:
    """All tiles of a picture.

    Parameters
    ----------
    height, width : picture, px.
    core : largest core edge, px; a value beyond the picture gives one tile.
    halo : context on every side of a stored box, px.
    """

    height: int
    width: int
    core: int
    halo: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 1 or self.core < SMALLEST_CORE or self.halo < 0:
            raise ValueError(f"no grid: picture {self.height} x {self.width}, core {self.core}, halo {self.halo}")

    @cached_property
    def row_edges(self) -> tuple[int, ...]:
        """Where cores begin and end along y, first 0, last the height."""
        return _balanced(self.height, self.core)

    @cached_property
    def column_edges(self) -> tuple[int, ...]:
        """Where cores begin and end along x, first 0, last the width."""
        return _balanced(self.width, self.core)

    @property
    def rows(self) -> int:
        """Rows of tiles."""
        return len(self.row_edges) - 1

    @property
    def columns(self) -> int:
        """Columns of tiles."""
        return len(self.column_edges) - 1

    @property
    def tiles(self) -> int:
        """How many tiles there are."""
        return self.rows * self.columns

    @property
    def seam_length(self) -> int:
        """Length of all edges between cores, px."""
        return (self.rows - 1) * self.width + (self.columns - 1) * self.height

    @cached_property
    def stored_shape(self) -> tuple[int, int]:
        """Shape that holds every stored box: one chunk of the tiles array."""
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
        """Pixels computed per pixel of the picture."""
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
        """Yield the tiles whose stored box meets `box`, row by row."""
        for row in _meeting(self.row_edges, box.y0, box.y1):
            for column in _meeting(self.column_edges, box.x0, box.x1):
                yield self.tile(row, column)


def _balanced(length: int, core: int) -> tuple[int, ...]:
    count = -(-length // core)
    return tuple(index * length // count for index in range(count + 1))


def _stored(edges: tuple[int, ...], index: int) -> tuple[int, int]:
    start, stop = edges[index], edges[index + 1]
    half = OVERLAP // 2
    return start - half * (index > 0), stop + half * (index < len(edges) - 2)


def _largest_stored(edges: tuple[int, ...]) -> int:
    return max(stop - start for start, stop in (_stored(edges, i) for i in range(len(edges) - 1)))


def _meeting(edges: tuple[int, ...], start: int, stop: int) -> list[int]:
    spans = ((index, _stored(edges, index)) for index in range(len(edges) - 1))
    return [index for index, (low, high) in spans if low < stop and high > start]
