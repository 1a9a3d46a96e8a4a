"""One tile through the solver: fill the frame, restore, cut out what is kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.refocus import restore_blurred
from tilepipe.deconv.solvers import restore
from tilepipe.image.linearise import luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["restore_in_frame", "restore_luminance"]

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

    A selective restoration has its mask as one plane more.

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
    floor = _floor(work.y[(slice(None), *place)], spectrum.reach, tile.stored.within(inside))
    stored = (slice(None), *tile.stored.within(frame))
    if not parameters.unexplained:
        return np.maximum(restore(work, spectrum, parameters)[stored], floor, out=floor)
    mask = restore_blurred(work, spectrum, parameters, work.x.copy())
    return np.concatenate([np.maximum(work.x[stored], floor), mask[None][stored]])


def _floor(known: FloatArray, reach: int, stored: tuple[slice, slice]) -> FloatArray:
    """Return what no restored pixel falls below, in the `stored` part of `known` (c, h, w): nothing, but near lamps.

    How bright a clipped lamp is, nobody knows; what it is taken for too little, the pixels round it pay for with a dark
    ring.  Within a PSF of what is clipped nothing becomes darker than the darkest within half a PSF of it.
    """
    floor = np.full((len(known), *known[0][stored].shape), -np.inf, np.float32)
    for channel, plane in enumerate(known):
        unknown = np.isnan(plane)
        if unknown.any():
            near = scipy.ndimage.maximum_filter(unknown, 4 * reach + 1)[stored]
            seen = np.where(unknown, np.float32(np.inf), plane)
            darkest = scipy.ndimage.minimum_filter(seen, 2 * reach + 1)[stored]
            np.copyto(floor[channel], darkest, where=near & np.isfinite(darkest))
    return floor


def restore_luminance(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    spectrum: Spectrum,
    parameters: Parameters,
) -> FloatArray:
    """As :func:`restore_in_frame`, but only the luminance goes through the solver; every colour changes by as much.

    `work` has one channel.  Where one colour is unknown the luminance is.
    """
    starts, knowns = zip(*planes, strict=True)
    start = luminance(starts)
    restored = restore_in_frame(work, tile, inside, [(start, luminance(knowns))], spectrum, parameters)
    stored = tile.stored.within(inside)
    change = restored[0] - start[stored]
    return np.concatenate([np.stack([colour[stored] + change for colour in starts]), restored[1:]])
