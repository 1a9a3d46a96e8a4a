"""Restoration of one tile with every component of the PSF that counts there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import FloatArray
from tilepipe.psf.field import AnyPSF
from tilepipe.tiling.frame import restore_in_frame, restore_luminance
from tilepipe.tiling.grid import Box, Grid, Tile

__all__ = ["Spectra", "mean_components", "restore_tile"]

COUNTED_TILES, COUNTED_PLACES = 8, 16
"""Tiles along each axis of the grid, and places along each edge of a tile, at which components are counted."""


class Spectra:
    """The components of a PSF, prepared for frames of one shape.

    A PSF that is the same everywhere is prepared once and shared by all threads.  Of a field every tile prepares its
    components itself, in a fraction of the time in which they restore it: memory does not grow with their number.
    """

    def __init__(self, psf: AnyPSF, grid: Grid) -> None:
        self._psf, self._grid = psf, grid
        self._shared = Spectrum.of(psf.planes, grid.frame_shape) if len(psf.components) == 1 else None

    @property
    def is_uniform(self) -> bool:
        """Whether the PSF is the same everywhere."""
        return self._shared is not None

    def on(self, stored: Box) -> Iterable[tuple[Spectrum, FloatArray | None]]:
        """Yield the components that count in a box of the image, and their weights there; None: fully."""
        shape = self._grid.height, self._grid.width
        for index, weight in self._psf.weights(range(stored.y0, stored.y1), range(stored.x0, stored.x1), shape):
            planes = self._psf.components[index].planes
            yield self._shared or Spectrum.of(planes, self._grid.frame_shape), weight


def mean_components(psf: AnyPSF, grid: Grid) -> float:
    """Return the mean number of components with which a tile is restored, from tiles all over the image."""
    if len(psf.components) == 1:
        return 1.0
    shape = grid.height, grid.width
    rows, columns = (
        np.unique(np.linspace(0, last - 1, COUNTED_TILES).astype(int)) for last in (grid.rows, grid.columns)
    )
    counts = []
    for row in rows:
        for column in columns:
            box = grid.tile(int(row), int(column)).stored
            down, across = (
                range(low, high, max(1, (high - low) // COUNTED_PLACES))
                for low, high in ((box.y0, box.y1), (box.x0, box.x1))
            )
            counts.append(sum(1 for _ in psf.weights(down, across, shape)))
    return float(np.mean(counts))


def restore_tile(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Callable[[], Iterable[tuple[FloatArray, FloatArray]]],
    white: Sequence[float],
    spectra: Spectra,
    parameters: Parameters,
    *,
    luminance_only: bool,
) -> FloatArray:
    """Restore `tile` with each component of the PSF, and return the weighted sum in its stored box.

    Parameters
    ----------
    work, tile, inside, white, parameters
        See :func:`tilepipe.tiling.frame.restore_in_frame`.
    planes : callable
        Returns the start and the data of each channel in `inside`, likewise; called once for each component.
    spectra : Spectra
        The PSF.
    luminance_only : bool
        Restore the luminance only.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        Linear light.  A selective restoration appends its mask as one more plane.
    """
    restore = restore_luminance if luminance_only else restore_in_frame
    total: FloatArray | None = None
    for spectrum, weight in spectra.on(tile.stored):
        restored = restore(work, tile, inside, planes(), white, spectrum, parameters)
        if weight is not None:
            restored *= weight
        total = restored if total is None else np.add(total, restored, out=total)
    if total is None:
        raise ValueError(f"no component of the PSF counts in tile {tile.row}-{tile.column}")
    return total
