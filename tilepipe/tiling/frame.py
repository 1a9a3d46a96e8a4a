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

FAINT, BRIGHT = 0.02, 0.05
"""Mean excess over white, as a share of it, at the rims of clipped regions: up to the first they count as a white
ground, from the second as lamps.  A ground at 1 to 1.02 times white has up to 0.02, lamps at 1.2 times from 0.05."""

MOST_EXCESS = 0.5
"""Largest excess of a sample that counts in this mean."""

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
    if any(len(where) for where, _ in clipped_samples):
        weight = _lamp_weight(work, place, clipped_samples, white, spectrum.reach)[kept]
        for plane, known, lamps in zip(restored, inside_data, clipped_samples, strict=False):
            _bound(plane, known, lamps, weight, spectrum.reach, kept)
    for plane, (outlying, original) in zip(restored, originals, strict=False):
        if outlying.size:
            plane[outlying] = original[outlying]
    return restored


def _lamp_weight(
    work: Workspace, place: tuple[slice, slice], lamps: Sequence[Lamps], white: Sequence[float], reach: int
) -> FloatArray:
    """Return how far the pixels at `place` of a restored frame are beside lamps, 0 to 1, float32 (h, w).

    Pixels within ``REACHES`` half PSF widths of a clipped sample of any colour are beside a lamp if what was restored
    at the rims of the clipped regions there exceeds white.  A white ground, as of paper, is clipped as well, but no
    brighter than white: marks on it may become darker than the data.

    The weight lies in ``work.d``; ``work.e`` is overwritten as well.
    """
    box = 2 * REACHES * reach + 1
    weight: FloatArray = work.d[0][place]  # the solver's state is no longer needed
    excess, count = work.e[0, 0][place], work.e[1, 0][place]
    weight[...] = 0
    near = np.zeros(weight.shape, bool)
    for plane, (where, _), level in zip(work.x, lamps, white, strict=True):
        if not len(where):
            continue
        clipped = np.zeros(near.shape, bool)
        clipped.reshape(-1)[where] = True
        near |= clipped
        clipped &= scipy.ndimage.maximum_filter(~clipped, 2 * reach + 1)  # the rim
        np.divide(plane[place], np.float32(level), out=excess)
        excess -= np.float32(1)
        np.clip(excess, 0, np.float32(MOST_EXCESS), out=excess)
        excess *= clipped
        count[...] = clipped
        scipy.ndimage.uniform_filter(excess, box, output=excess)
        scipy.ndimage.uniform_filter(count, box, output=count)
        excess /= np.maximum(count, np.float32(1 / box**2), out=count)
        excess -= np.float32(FAINT)
        excess *= np.float32(1 / (BRIGHT - FAINT))
        np.maximum(weight, excess, out=weight)
    np.minimum(weight, 1, out=weight)
    weight *= scipy.ndimage.maximum_filter(near, box)
    return weight


def _bound(
    restored: FloatArray, known: FloatArray, lamps: Lamps, weight: FloatArray, reach: int, stored: tuple[slice, slice]
) -> None:
    """Limit a restored plane beside clipped lamps.

    A clipped sample is only a lower bound.  The lamp's brightness is unknown; if it is estimated too dark or too
    bright, bright or dark rings appear around it.  Beside a lamp no pixel becomes darker than the darkest data within
    half a PSF of it; where the colour itself is clipped, the pixels around it become no brighter than the data next to
    them: the glow only adds light.

    Parameters
    ----------
    restored : ndarray of float32, shape (h, w)
        The `stored` part of the frame's inside; changed in place.
    known : ndarray of float32
        Data of the frame's inside, not finite where clipped or unknown.
    lamps : tuple of ndarray
        Indices of the clipped samples in `known`, and their values.
    weight : ndarray of float32, shape (h, w)
        How far the pixels of the stored box are beside a lamp, see :func:`_lamp_weight`.
    reach : int
        Half the PSF's width, px.
    stored : tuple of slice
        The stored box inside `known`.
    """
    where, values = lamps
    finite = np.isfinite(known)
    bounds = np.where(finite, known, np.float32(np.inf))
    darkest = scipy.ndimage.minimum_filter(bounds, 2 * reach + 1)[stored]
    darkest[~np.isfinite(darkest)] = -np.inf
    _draw_to(restored, np.maximum(darkest, restored, out=darkest), weight)
    if not len(where):
        return
    del darkest
    clipped = np.zeros(known.shape, bool)
    clipped.reshape(-1)[where] = True
    own = scipy.ndimage.maximum_filter(clipped, 2 * REACHES * reach + 1)[stored]
    bounds[~finite] = -np.inf
    bounds[clipped] = values
    brightest = scipy.ndimage.maximum_filter(bounds, 3)[stored]
    brightest[~(own & ~clipped[stored] & np.isfinite(brightest))] = np.inf
    _draw_to(restored, np.minimum(brightest, restored, out=brightest), weight)
    np.maximum(restored, bounds[stored], out=restored, where=clipped[stored])


def _draw_to(restored: FloatArray, bounded: FloatArray, weight: FloatArray) -> None:
    """Compute ``restored <- restored + weight (bounded - restored)``; overwrites `bounded`."""
    bounded -= restored
    bounded *= weight
    restored += bounded


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
