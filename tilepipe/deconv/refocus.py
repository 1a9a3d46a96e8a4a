"""Where the blur is: a picture may be sharp in one place and blurred in another, and only the blur is to be taken out.

Two residuals tell.  ``A = |y - k * x|^2`` is what no sharp picture x seen through the PSF can explain;
``B = |y - k * y|^2`` is what one more pass through the PSF takes away from y.  Where y was blurred by k, both are next
to nothing but noise and A is the noise alone; where y is sharp it holds what k destroys, so B is large and A a good
part of it.  The share

    (A - noise) / (B - noise + 2 noise)

over boxes a little wider than the PSF, with a little of a wider box so that flat places go with what is around them,
is below 0.02 in nearly all of a blurred scene and between 0.04 and 0.5 in a sharp one (Gaussians, lines and disks at
0.2 to 1 % noise).  A PSF that is a little wrong raises it everywhere; from which share on a place is sharp is therefore
read off windows of the picture (:func:`misfit_quantile`) and frozen, so that tiles agree.

What is sharp is no evidence of the blurred picture: a second restoration takes it as unknown, so that its edges, which
no blur explains, do not ring into what lies beside them (+1 to 4 dB there with lines and disks).
"""

from __future__ import annotations

import numpy as np
import scipy.ndimage

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.kernels import multiply
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray

__all__ = ["composite", "misfit_quantile", "reach", "restore_blurred"]

TINY = np.float32(1e-12)

LEAST_UNEXPLAINED, MOST_UNEXPLAINED = 0.01, 0.05
"""Bounds of the share up to which all is blur."""

FADE = 4.0
"""Above so many times that share all is sharp; between them the picture fades."""

WIDE = 97
"""Edge of the wider box, px: larger ones would outgrow the halo."""

WIDE_SHARE = 0.3
"""How much the wider box counts."""

SMALLEST = 41
"""Edge of the smallest place that counts as blurred amid what is sharp, px: a flat patch of it is none."""

MARGIN = 0.1
"""The feather's ends are cut off here, so that it reaches 0 and 1."""


def reach(size: int) -> int:
    """Return from how far a pixel's share is influenced, px, for a PSF of `size` px."""
    return max(WIDE, 2 * size + 1) // 2 + 2 * size + SMALLEST


def restore_blurred(work: Workspace, spectrum: Spectrum, parameters: Parameters, start: FloatArray) -> FloatArray:
    """Restore a frame where it is blurred; return the mask (h, w), 1 where ``work.x`` is to be taken, 0 where not.

    Parameters
    ----------
    work : with y, NaN where unknown, and the start in x; y is unknown afterwards where the picture is sharp.
    start : x again (c, h, w), for the second restoration.
    """
    restore(work, spectrum, parameters)
    mask = _mask(_unexplained(work, spectrum, parameters), parameters.misfit_limit, spectrum.reach)
    work.y[:, mask < 0.5] = np.float32(np.nan)
    work.x[...] = start
    restore(work, spectrum, parameters)
    return mask


def misfit_quantile(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> float:
    """Return up to which share a place counts as blurred: twice what a quarter of a window, restored here, stays below.

    A window in which less than a quarter is blurred gives too much; bounds hold that.
    """
    restore(work, spectrum, parameters)
    share = _unexplained(work, spectrum, parameters)
    return float(np.clip(2 * np.quantile(share, 0.25), LEAST_UNEXPLAINED, MOST_UNEXPLAINED))


def _mask(share: FloatArray, limit: float, reach: int) -> FloatArray:
    """Return how much of the restored picture to take: feathered over the PSF's width, 0 and 1 exactly where sure."""
    taken_over = np.clip((np.float32(FADE) - share / np.float32(limit)) / np.float32(FADE - 1), 0, 1)
    opened = scipy.ndimage.maximum_filter(scipy.ndimage.minimum_filter(taken_over, SMALLEST), SMALLEST)
    feathered = scipy.ndimage.uniform_filter(opened, 2 * reach + 1)
    mask: FloatArray = np.clip((feathered - np.float32(MARGIN)) / np.float32(1 - 2 * MARGIN), 0, 1)
    return mask


def _unexplained(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """Return the share (h, w) of what the PSF takes from the restored frame's data that it does not explain."""
    misfit_limit, taken, noise = (np.zeros(work.shape, np.float32) for _ in range(3))
    for channel in range(work.channels):
        seen = _blurred(work, spectrum, channel, work.x[channel])
        known = np.isfinite(work.y[channel])
        y = np.where(known, work.y[channel], seen)
        misfit_limit += (y - seen) ** 2
        taken += (y - _blurred(work, spectrum, channel, y)) ** 2
        light = np.clip(seen, 0, 1)
        noise += known * np.float32(parameters.sigma**2) * (parameters.base + np.float32(parameters.slope) * light)
    size = 2 * spectrum.reach + 1
    misfit_limit, taken, noise = (_boxes(plane, 2 * size + 1) for plane in (misfit_limit, taken, noise))
    share: FloatArray = np.maximum(misfit_limit - noise, 0) / (np.maximum(taken - noise, 0) + 2 * noise + TINY)
    return share


def composite(restored: FloatArray, original: FloatArray, mask: FloatArray) -> FloatArray:
    """Return `restored` where the mask is 1, exactly `original` where it is 0; float32, shapes that broadcast."""
    mixed: FloatArray = np.where(mask == 0, original, original + mask * (restored - original))
    return np.where(mask == 1, restored, mixed)


def _blurred(work: Workspace, spectrum: Spectrum, channel: int, plane: FloatArray) -> FloatArray:
    multiply(spectrum.otf(channel), forward(plane, work.product), work.product)
    return inverse(work.product, np.empty(work.shape, np.float32))


def _boxes(plane: FloatArray, size: int) -> FloatArray:
    """Return the mean over boxes of `size` px, with a little of the wider one."""
    wide = scipy.ndimage.uniform_filter(plane, max(WIDE, size))
    mean: FloatArray = scipy.ndimage.uniform_filter(plane, size) + np.float32(WIDE_SHARE) * wide
    return mean
