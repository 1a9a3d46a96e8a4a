"""Restoration of one tile: fill the frame, run the solver, cut out the stored box."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.highlights import REACHES, fade_to_input
from tilepipe.deconv.outliers import find_outliers, without_outliers
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.refocus import restore_blurred
from tilepipe.deconv.solvers import restore
from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.image.linearise import LUMINANCE, fill, luminance
from tilepipe.tiling.grid import Box, Tile

__all__ = ["restore_in_frame", "restore_luminance"]

Lamps = tuple[npt.NDArray[np.intp], FloatArray]
"""Sorted flat indices of clipped samples, and their values."""

NONE = np.zeros((0, 0), bool)
"""Empty mask: no outliers in a channel."""


def restore_in_frame(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    white: Sequence[float],
    spectrum: Spectrum,
    parameters: Parameters,
) -> FloatArray:
    """Restore `tile` and return its stored box.

    Beyond the image's border the data are unknown, and the start repeats the edge pixels.

    Parameters
    ----------
    work : Workspace
        Workspace of the frame's shape; overwritten.
    tile : Tile
        Tile to restore.
    inside : Box
        Part of the frame inside the image.
    planes : iterable of (ndarray of float32, ndarray of float32), shape (h, w) each
        Start and data of each channel in `inside`, linear light; the start is finite, the data are NaN where unknown
        and +inf where clipped.  Consumed one at a time, so that they can be computed lazily.
    white : sequence of float
        Lower bound of the clipped samples of each channel, working units.
    spectrum : Spectrum
        The PSF prepared for the frame's shape.
    parameters : Parameters
        Frozen parameters from the recipe.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        Linear light.  A selective restoration appends its mask as one more plane.
    """
    frame = tile.frame
    work.y[...] = np.float32(np.nan)
    work.white[...] = white
    place = inside.within(frame)
    rows = np.clip(np.arange(frame.y0, frame.y1), inside.y0, inside.y1 - 1) - inside.y0
    columns = np.clip(np.arange(frame.x0, frame.x1), inside.x0, inside.x1 - 1) - inside.x0
    kept = tile.stored.within(inside)
    originals: list[tuple[BoolArray, FloatArray]] = []
    clipped_samples: list[Lamps] = []
    for channel, (y, x, (start, known)) in enumerate(zip(work.y, work.x, planes, strict=True)):
        outlying = find_outliers(known, spectrum.kernel(channel), parameters)
        if outlying is not None:
            originals.append((outlying[kept], start[kept].copy()))
            known, start = without_outliers(known, outlying), fill(without_outliers(start, outlying)[None])[0]
        else:
            originals.append((NONE, start[:0]))
        where = np.flatnonzero(np.isposinf(known))
        clipped_samples.append((where, start.reshape(-1)[where]))
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
    inside_data = work.y[(slice(None), *place)]
    near = _near_lamps(inside_data, clipped_samples, spectrum.reach, kept)
    if near is not None:
        for plane, known, lamps in zip(restored, inside_data, clipped_samples, strict=False):
            _bound(plane, known, lamps, near, spectrum.reach, kept)
    for plane, (outlying, original) in zip(restored, originals, strict=False):
        if outlying.size:
            plane[outlying] = original[outlying]
    return restored


def _near_lamps(known: FloatArray, lamps: Sequence[Lamps], reach: int, stored: tuple[slice, slice]) -> BoolArray | None:
    """Return where a clipped sample of any colour of `known` (c, h, w) is near, in the stored box; None if none is."""
    if not any(len(where) for where, _ in lamps):
        return None
    clipped = np.zeros(known.shape[1:], bool)
    for where, _ in lamps:
        clipped.reshape(-1)[where] = True
    near: BoolArray = scipy.ndimage.maximum_filter(clipped, 2 * REACHES * reach + 1)[stored]
    return near


def _bound(
    restored: FloatArray, known: FloatArray, lamps: Lamps, near: BoolArray, reach: int, stored: tuple[slice, slice]
) -> None:
    """Limit a restored plane beside clipped lamps.

    A clipped sample is only a lower bound.  The lamp's brightness is unknown; if it is estimated too dark or too
    bright, bright or dark rings appear around it.  Within four PSF widths of a clipped sample of any colour, no pixel
    becomes darker than the darkest data within half a PSF of it; where the colour itself is clipped, the pixels around
    it become no brighter than the data next to them: the glow only adds light.

    Parameters
    ----------
    restored : ndarray of float32, shape (h, w)
        The `stored` part of the frame's inside; changed in place.
    known : ndarray of float32
        Data of the frame's inside, not finite where clipped or unknown.
    lamps : tuple of ndarray
        Indices of the clipped samples in `known`, and their values.
    near : ndarray of bool
        Where a clipped sample of any colour is near, in the stored box.
    reach : int
        Half the PSF's width, px.
    stored : tuple of slice
        The stored box inside `known`.
    """
    where, values = lamps
    finite = np.isfinite(known)
    bounds = np.where(finite, known, np.float32(np.inf))
    darkest = scipy.ndimage.minimum_filter(bounds, 2 * reach + 1)[stored]
    np.maximum(restored, darkest, out=restored, where=near & np.isfinite(darkest))
    if not len(where):
        return
    del darkest
    clipped = np.zeros(known.shape, bool)
    clipped.reshape(-1)[where] = True
    own = scipy.ndimage.maximum_filter(clipped, 2 * REACHES * reach + 1)[stored]
    bounds[~finite] = -np.inf
    bounds[clipped] = values
    brightest = scipy.ndimage.maximum_filter(bounds, 3)[stored]
    np.minimum(restored, brightest, out=restored, where=own & ~clipped[stored] & np.isfinite(brightest))
    np.maximum(restored, bounds[stored], out=restored, where=clipped[stored])


def restore_luminance(
    work: Workspace,
    tile: Tile,
    inside: Box,
    planes: Iterable[tuple[FloatArray, FloatArray]],
    white: Sequence[float],
    spectrum: Spectrum,
    parameters: Parameters,
) -> FloatArray:
    """Restore as :func:`restore_in_frame`, but solve for the luminance only and add its change to every colour.

    `work` has one channel.  Where any colour is unknown, so is the luminance.
    """
    starts, knowns = zip(*planes, strict=True)
    start, level = luminance(starts), float(np.dot(LUMINANCE if len(white) == 3 else (1.0,), white))
    restored = restore_in_frame(work, tile, inside, [(start, luminance(knowns))], [level], spectrum, parameters)
    stored = tile.stored.within(inside)
    change = restored[0] - start[stored]
    colours = np.stack([colour[stored] + change for colour in starts])
    for colour, known, original in zip(colours, knowns, starts, strict=True):
        clipped = np.isposinf(known[stored])
        np.maximum(colour, original[stored], out=colour, where=clipped)
    return np.concatenate([colours, restored[1:]])
