"""One kernel per channel, for lenses whose blur differs between colours (chromatic aberration)."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tilepipe.deconv.noise import estimate_noise
from tilepipe.dtypes import FloatArray
from tilepipe.psf.blind.narrow import likeness, refine_kernel
from tilepipe.psf.kernel_ops import centroid, extent, fit_to, place_at, spread

__all__ = ["kernels_by_channel"]

ROOM = 2
"""Padding of the shared kernel on each side, px: the blur of one channel may be wider than that of the mean."""

LIKE, WIDER = 0.85, 1.6
"""Least likeness of a refined kernel to the shared one, and its largest relative spread; otherwise it is rejected."""


def kernels_by_channel(windows: Sequence[FloatArray], shared: FloatArray, *, threads: int = 1) -> FloatArray:
    """Refine a kernel shared by all channels for each channel.

    A single channel determines a kernel only up to a shift, so all kernels are moved to the centre of mass of the
    shared one: channels are sharpened separately but never displaced against each other.

    Parameters
    ----------
    windows : sequence of ndarray of float32, shape (c, h, w)
        Linear light, finite.
    shared : ndarray of float32, shape (k, k)
        Kernel estimated from the mean of the channels.
    threads : int
        Number of channels processed in parallel; the result does not depend on it.

    Returns
    -------
    ndarray of float32, shape (c, m, m)
        k <= m <= k + 4; each kernel has sum 1.
    """
    start = fit_to(shared, shared.shape[0] + 2 * ROOM)
    place = centroid(start)

    def one(channel: int) -> FloatArray:
        planes = [np.ascontiguousarray(window[channel]) for window in windows]
        refined = refine_kernel(planes, estimate_noise(plane[None] for plane in planes), start)
        alike = likeness(refined, start) >= LIKE and spread(refined) <= WIDER * spread(start)
        return place_at(refined, place) if alike else start

    with ThreadPoolExecutor(threads) as pool:
        kernels = list(pool.map(one, range(len(windows[0]))))
    size = max(shared.shape[0], *(extent(kernel) for kernel in kernels))
    return np.stack([fit_to(kernel, size) for kernel in kernels])
