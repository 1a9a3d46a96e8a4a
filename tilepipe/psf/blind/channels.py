"""One kernel per colour, for lenses whose blur differs between them (chromatic aberration)."""

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
"""Added to the shared kernel on each side: one colour may be blurred wider than their mean, px."""


LIKE, WIDER = 0.85, 1.6
"""A refined kernel less like the shared one, or wider by this factor, is a mistake and not taken."""


def kernels_by_channel(windows: Sequence[FloatArray], shared: FloatArray, *, threads: int = 1) -> FloatArray:
    """Refine a kernel that all colours share for each of them.

    From a single colour a kernel is known but for its place, so all are put on the centre of mass of the shared
    one: colours are sharpened each for itself, and never displaced against each other.

    Parameters
    ----------
    windows : float32 (c, h, w) each, linear light, finite.
    shared : float32 (k, k), found in the mean of the colours.
    threads : colours worked on at a time; the result does not depend on it.

    Returns
    -------
    float32 (c, m, m), k <= m <= k + 4, each with sum 1.
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
