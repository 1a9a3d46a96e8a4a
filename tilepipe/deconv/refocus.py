"""Selective restoration: detect which regions of an image are blurred and restore only those.

Two residuals are compared.  ``A = |y - k * x|^2`` is what no sharp image x blurred by the PSF can explain;
``B = |y - k * y|^2`` is what one more blur by the PSF removes from y.  Where y was blurred by k, both are little more
than noise, and A is the noise alone; where y is sharp, it contains what k destroys, so B is large and A a good part of
it.  The unexplained share

    (A - noise) / (B - noise + 2 noise)

is averaged over boxes about twice as wide as the PSF, plus a fraction of a wider box so that flat regions follow their
surroundings.  It is below 0.02 in nearly all of a blurred scene and between 0.04 and 0.5 in a sharp one (Gaussians,
lines and disks at 0.2 to 1 % noise).  A slightly wrong PSF raises it everywhere; the share from which a region counts
as sharp is therefore measured on windows of the image (:func:`misfit_quantile`) and frozen, so that tiles agree.

Sharp regions carry no information on the blurred ones: a second restoration treats them as unknown, so that their
edges, which no blur explains, do not cause ringing beside them (+1 to 4 dB there with lines and disks).
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
"""Bounds of the limit, the unexplained share up to which a region counts as blurred."""

FADE = 4.0
"""From this multiple of the limit a region counts as sharp; in between, the restored image fades out."""

WIDE = 97
"""Edge of the wider box, px; a larger one would exceed the halo."""

WIDE_SHARE = 0.3
"""Weight of the wider box."""

SMALLEST = 41
"""Edge of the smallest blurred region inside a sharp one, px; smaller ones are flat patches of the sharp region."""

MARGIN = 0.1
"""Margin clipped off both ends of the feathered mask, so that it reaches 0 and 1."""


def reach(size: int) -> int:
    """Return the distance, px, from which pixels influence the mask at a pixel, for a PSF of `size` px."""
    return max(WIDE, 2 * size + 1) // 2 + 2 * size + SMALLEST


def restore_blurred(work: Workspace, spectrum: Spectrum, parameters: Parameters, start: FloatArray) -> FloatArray:
    """Restore a frame where it is blurred.

    Parameters
    ----------
    work : Workspace
        With y, NaN where unknown, and the start in x.  On return y is also NaN where the image is sharp.
    spectrum : Spectrum
        The PSF prepared for this frame shape.
    parameters : Parameters
        With `misfit_limit`.
    start : ndarray of float32, shape (c, h, w)
        Copy of the start, for the second restoration.

    Returns
    -------
    ndarray of float32, shape (h, w)
        Mask: weight of ``work.x`` in the output, 1 where blurred, 0 where sharp.
    """
    restore(work, spectrum, parameters)
    mask = _mask(_unexplained(work, spectrum, parameters), parameters.misfit_limit, spectrum.reach)
    work.y[:, mask < 0.5] = np.float32(np.nan)
    work.x[...] = start
    restore(work, spectrum, parameters)
    return mask


def misfit_quantile(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> float:
    """Return the limit of the unexplained share: twice its 25 % quantile over the window in `work`, which is restored.

    A window of which less than a quarter is blurred gives too high a limit, which is therefore bounded.
    """
    restore(work, spectrum, parameters)
    share = _unexplained(work, spectrum, parameters)
    return float(np.clip(2 * np.quantile(share, 0.25), LEAST_UNEXPLAINED, MOST_UNEXPLAINED))


def _mask(share: FloatArray, limit: float, reach: int) -> FloatArray:
    """Return the weight of the restored image, feathered over the PSF's width, exactly 0 or 1 away from borders."""
    blurred = np.clip((np.float32(FADE) - share / np.float32(limit)) / np.float32(FADE - 1), 0, 1)
    opened = scipy.ndimage.maximum_filter(scipy.ndimage.minimum_filter(blurred, SMALLEST), SMALLEST)
    feathered = scipy.ndimage.uniform_filter(opened, 2 * reach + 1)
    mask: FloatArray = np.clip((feathered - np.float32(MARGIN)) / np.float32(1 - 2 * MARGIN), 0, 1)
    return mask


def _unexplained(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """Return the unexplained share (h, w) of the restored frame's data."""
    misfit, removed, noise = (np.zeros(work.shape, np.float32) for _ in range(3))
    for channel in range(work.channels):
        predicted = _blur(work, spectrum, channel, work.x[channel])
        known = np.isfinite(work.y[channel])
        y = np.where(known, work.y[channel], predicted)
        misfit += (y - predicted) ** 2
        removed += (y - _blur(work, spectrum, channel, y)) ** 2
        light = np.clip(predicted, 0, 1)
        noise += known * np.float32(parameters.sigma**2) * (parameters.base + np.float32(parameters.slope) * light)
    size = 2 * spectrum.reach + 1
    misfit, removed, noise = (_box_means(plane, 2 * size + 1) for plane in (misfit, removed, noise))
    share: FloatArray = np.maximum(misfit - noise, 0) / (np.maximum(removed - noise, 0) + 2 * noise + TINY)
    return share


def composite(restored: FloatArray, original: FloatArray, mask: FloatArray) -> FloatArray:
    """Blend by the mask: exactly `restored` where it is 1, `original` where it is 0; float32, broadcastable shapes."""
    mixed: FloatArray = np.where(mask == 0, original, original + mask * (restored - original))
    return np.where(mask == 1, restored, mixed)


def _blur(work: Workspace, spectrum: Spectrum, channel: int, plane: FloatArray) -> FloatArray:
    multiply(spectrum.otf(channel), forward(plane, work.product), work.product)
    return inverse(work.product, np.empty(work.shape, np.float32))


def _box_means(plane: FloatArray, size: int) -> FloatArray:
    """Return the mean over boxes of `size` px, plus ``WIDE_SHARE`` times that over the wider box."""
    wide = scipy.ndimage.uniform_filter(plane, max(WIDE, size))
    mean: FloatArray = scipy.ndimage.uniform_filter(plane, size) + np.float32(WIDE_SHARE) * wide
    return mean
