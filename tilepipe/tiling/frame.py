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
from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.image.linearise import LUMINANCE, fill, luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["restore_in_frame", "restore_luminance"]

Lamps = tuple[npt.NDArray[np.intp], FloatArray]
"""Flat places of clipped samples, in order, and their own values."""

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
    bright: list[Lamps] = []
    for channel, (y, x, (start, known)) in enumerate(zip(work.y, work.x, planes, strict=True)):
        outlying = find_outliers(known, spectrum.kernel(channel), parameters)
        if outlying is not None:
            aside.append((outlying[kept], start[kept].copy()))
            known, start = without(known, outlying), fill(without(start, outlying)[None])[0]
        else:
            aside.append((NONE, start[:0]))
        where = np.flatnonzero(np.isposinf(known))
        bright.append((where, start.reshape(-1)[where]))
        y[place] = known
        x[...] = start[rows[:, None], columns]
    stored = (slice(None), *tile.stored.within(frame))
    mask = None
    if parameters.misfit_limit:
        mask = restore_blurred(work, spectrum, parameters, work.x.copy())
    else:
        restore(work, spectrum, parameters)
    fade_to_input(work, spectrum, parameters)
    restored = work.x[stored].copy() if mask is None else np.concatenate([work.x[stored], mask[None][stored]])
    for plane, known, lamps in zip(restored, work.y[(slice(None), *place)], bright, strict=False):
        _bound(plane, known, lamps, spectrum.reach, kept)
    for plane, (outlying, original) in zip(restored, aside, strict=False):
        if outlying.size:
            plane[outlying] = original[outlying]
    return restored


def _bound(restored: FloatArray, known: FloatArray, lamps: Lamps, reach: int, stored: tuple[slice, slice]) -> None:
    """Keep a restored plane within what a clipped lamp allows beside it.

    A clipped sample is at least what it is.  How bright the lamp is, nobody knows; by what it is estimated too dark or
    too bright, the pixels round it become bright or dark rings.  Within four PSFs of what is clipped nothing becomes
    darker than the darkest within half a PSF of it, and nothing brighter than what was seen beside it: the lamp's glow
    only adds light.

    Parameters
    ----------
    restored : float32 (h, w), the `stored` part of the frame's inside; changed in place.
    known : float32, the frame's inside, not finite where clipped or unknown.
    lamps : where samples are clipped there, and their own values.
    """
    where, values = lamps
    if not len(where):
        return
    clipped = np.zeros(known.shape, bool)
    clipped.reshape(-1)[where] = True
    finite = np.isfinite(known)
    near = scipy.ndimage.maximum_filter(clipped, 2 * REACHES * reach + 1)[stored]
    seen = np.where(finite, known, np.float32(np.inf))
    darkest = scipy.ndimage.minimum_filter(seen, 2 * reach + 1)[stored]
    np.maximum(restored, darkest, out=restored, where=near & np.isfinite(darkest))
    seen[~finite] = -np.inf
    seen[clipped] = values
    brightest = scipy.ndimage.maximum_filter(seen, 3)[stored]
    np.minimum(restored, brightest, out=restored, where=near & ~clipped[stored] & np.isfinite(brightest))
    np.maximum(restored, seen[stored], out=restored, where=clipped[stored])


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
