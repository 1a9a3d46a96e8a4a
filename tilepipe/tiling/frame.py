"""One tile through the solver: fill the frame, restore, cut out what is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.tiling.grid import Box, Tile

__all__ = ["restore_in_frame"]

FloatArray = npt.NDArray[np.float32]


def restore_in_frame(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    spectrum: Spectrum,
    parameters: Parameters,
) -> FloatArray:
    """Restore `tile` and return its stored box, float32 (c, h, w), linear light.

    Parameters
    ----------
    work : workspace of the frame's shape; overwritten.
    inside : the part of the frame that lies in the picture.
    planes : for each channel the start and the known picture in `inside`, (h, w), linear light; the start
        finite, the known NaN where nothing is known.  Taken one at a time, so that they can be made so.

    Beyond the picture's border nothing is known, and the start repeats the edge.
    """
    frame = tile.frame
    work.y[...] = np.float32(np.nan)
    place = inside.within(frame)
    rows = np.clip(np.arange(frame.y0, frame.y1), inside.y0, inside.y1 - 1) - inside.y0
    columns = np.clip(np.arange(frame.x0, frame.x1), inside.x0, inside.x1 - 1) - inside.x0
    for y, x, (start, known) in zip(work.y, work.x, planes, strict=True):
        y[place] = known
        x[...] = start[rows[:, None], columns]
    restore(work, spectrum, parameters)
    return work.x[(slice(None), *tile.stored.within(frame))].copy()
