"""One tile through the solver: fill the frame, restore, cut out what is kept."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.highlights import REACHES, fade_to_input
from tilepipe.deconv.outliers import find_outliers, without
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.refocus import restore_blurred
from tilepipe.deconv.solvers import restore
from tilepipe.image.linearise import LUMINANCE, fill, luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["restore_in_frame", "restore_luminance"]

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

NONE = np.zeros((0, 0), bool)
"""No outlier in a channel."""


def restore_in_frame(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    white: Sequence[float],
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
        finite, the known NaN where nothing is known, +inf where it is clipped.  Taken one at a time, so that they can
        be made so.
    white : what a clipped sample of each channel is at least, working units.

    Beyond the picture's border nothing is known, and the start repeats the edge.
    """
    frame = tile.frame
    work.y[...] = np.float32(np.nan)
    work.white[...] = white
    place = inside.within(frame)
    rows = np.clip(np.arange(frame.y0, frame.y1), inside.y0, inside.y1 - 1) - inside.y0
    columns = np.clip(np.arange(frame.x0, frame.x1), inside.x0, inside.x1 - 1) - inside.x0
    kept = tile.stored.within(inside)
    aside: list[tuple[BoolArray, FloatArray]] = []
    for channel, (y, x, (start, known)) in enumerate(zip(work.y, work.x, planes, strict=True)):
        outlying = find_outliers(known, spectrum.kernel(channel), parameters)
        if outlying is not None:
            aside.append((outlying[kept], start[kept].copy()))
            known, start = without(known, outlying), fill(without(start, outlying)[None])[0]
        else:
            aside.append((NONE, start[:0]))
        y[place] = known
        x[...] = start[rows[:, None], columns]
    low, high = _bounds(work.y[(slice(None), *place)], work.x[(slice(None), *place)], spectrum.reach, kept)
    stored = (slice(None), *tile.stored.within(frame))
    if not parameters.unexplained:
        restore(work, spectrum, parameters)
        fade_to_input(work, spectrum, parameters)
        restored = np.clip(work.x[stored], low, high, out=low)
    else:
        mask = restore_blurred(work, spectrum, parameters, work.x.copy())
        fade_to_input(work, spectrum, parameters)
        restored = np.concatenate([np.clip(work.x[stored], low, high), mask[None][stored]])
    for plane, (outlying, original) in zip(restored, aside, strict=False):
        if outlying.size:
            plane[outlying] = original[outlying]
    return restored


def _bounds(
    known: FloatArray, start: FloatArray, reach: int, stored: tuple[slice, slice]
) -> tuple[FloatArray, FloatArray]:
    """Return what no restored pixel falls below and rises above, in the `stored` part of `known` (c, h, w).

    A clipped sample is at least what it is.  How bright the lamp is, nobody knows; by what it is estimated too dark or
    too bright, the pixels round it become bright or dark rings.  Within four PSFs of what is clipped nothing becomes
    darker than the darkest within half a PSF of it, and nothing brighter than what was seen beside it: the lamp's glow
    only adds light.
    """
    shape = (len(known), *known[0][stored].shape)
    low, high = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
    for channel, plane in enumerate(known):
        clipped = np.isposinf(plane)
        if clipped.any():
            near = scipy.ndimage.maximum_filter(clipped, 2 * REACHES * reach + 1)[stored]
            seen = np.where(np.isfinite(plane), plane, np.float32(np.inf))
            darkest = scipy.ndimage.minimum_filter(seen, 2 * reach + 1)[stored]
            np.copyto(low[channel], darkest, where=near & np.isfinite(darkest))
            brightest = scipy.ndimage.maximum_filter(start[channel], 3)[stored]
            np.copyto(high[channel], brightest, where=near & ~clipped[stored])
            np.copyto(low[channel], start[channel][stored], where=clipped[stored])
    return low, high


def restore_luminance(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    white: Sequence[float],
    spectrum: Spectrum,
    parameters: Parameters,
) -> FloatArray:
    """As :func:`restore_in_frame`, but only the luminance goes through the solver; every colour changes by as much.

    `work` has one channel.  Where one colour is unknown the luminance is.
    """
    starts, knowns = zip(*planes, strict=True)
    start, level = luminance(starts), float(np.dot(LUMINANCE if len(white) == 3 else (1.0,), white))
    restored = restore_in_frame(work, tile, inside, [(start, luminance(knowns))], [level], spectrum, parameters)
    stored = tile.stored.within(inside)
    change = restored[0] - start[stored]
    colours = np.stack([colour[stored] + change for colour in starts])
    for colour, known, seen in zip(colours, knowns, starts, strict=True):
        clipped = np.isposinf(known[stored])
        np.maximum(colour, seen[stored], out=colour, where=clipped)
    return np.concatenate([colours, restored[1:]])
