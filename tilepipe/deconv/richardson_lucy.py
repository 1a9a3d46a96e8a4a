r"""Richardson-Lucy with total variation, accelerated: for light that is counted.

Where the noise is Poisson's (few photons, a dark background, linear data as microscopes and telescopes give), the
likely picture x minimises

.. math:: \sum (k * x - y \log (k * x)) + \lambda \sum |\nabla x|, \qquad x \ge 0

One step multiplies (Dey et al. 2006, eq. 12), with a mask M of known pixels in both transforms (Anconelli et al.
2006)::

    x = p / (1 + lambda D^T (Dp / |Dp|)) * K^T (M y / Kp) / K^T M        p = x + a (x - x before)

The prediction p is Biggs & Andrews' (1997, eq. 9); their a follows from two successive changes of the whole picture,
which tiles do not have: the series of a is found once, on a window, and frozen (:func:`find_momentum`).

All updates are local and positive; what a cut leaves behind moves on by one PSF a step, and fades.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.compiled import kernel
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.kernels import multiply
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.transforms import forward, inverse

__all__ = ["find_momentum", "restore"]

FloatArray = npt.NDArray[np.float32]
Array = Any

DARK = 1e-5
"""Light below which Kx is not divided by; y and x are at least this."""

LEAST_KNOWN = 0.02
"""Share K^T M of a pixel's light that must be seen; below it the pixel follows its neighbours only."""


def restore(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """As :func:`tilepipe.deconv.solvers.restore`; within half a PSF of the frame's edge nothing counts as known."""
    _begin(work, spectrum)
    for momentum in parameters.momentum:
        _step(work, spectrum, parameters.lam, momentum)
    return work.x


def find_momentum(work: Workspace, spectrum: Spectrum, lam: float, steps: int) -> tuple[float, ...]:
    """Return Biggs & Andrews' series for `steps` steps on what is in `work`, three digits each, the first 0.

    ``a = sum(g g') / sum(g' g')``, g and g' the last two changes of x from its prediction; within 0..0.99.
    """
    _begin(work, spectrum)
    series, momentum = [], 0.0
    last: FloatArray | None = None
    for _ in range(steps):
        series.append(momentum)
        predicted = np.maximum(work.x + np.float32(momentum) * (work.x - work.d), np.float32(DARK))
        _step(work, spectrum, lam, momentum)
        change = work.x - predicted
        if last is not None:
            share = float((change * last).sum(dtype=np.float64) / max((last * last).sum(dtype=np.float64), 1e-30))
            momentum = float(f"{min(max(share, 0.0), 0.99):.3g}")
        last = change
    return tuple(series)


def _begin(work: Workspace, spectrum: Spectrum) -> None:
    """Clip what is negative, take the frame's rim as unknown, and blur the mask back: e[1] <- K^T M."""
    reach = spectrum.reach
    work.x[...] = np.maximum(work.x, np.float32(DARK))
    work.d[...] = work.x
    for channel in range(work.channels):
        y = work.y[channel]
        if reach:
            y[:reach], y[-reach:], y[:, :reach], y[:, -reach:] = (np.float32(np.nan),) * 4
        np.maximum(y, np.float32(DARK), out=y)
        known = forward(np.isfinite(y).astype(np.float32))
        _times_conjugate(spectrum.otf(channel), known)
        work.e[1, channel] = inverse(known, work.shape)


def _step(work: Workspace, spectrum: Spectrum, lam: float, momentum: float) -> None:
    """One accelerated step; x <- the next one, d <- this one, by way of the prediction."""
    _predict(work.x, work.d, np.float32(momentum))
    for channel in range(work.channels):
        state, otf = work.spectra[channel], spectrum.otf(channel)
        state[...] = forward(work.x[channel], work.spare_spectra[0])
        multiply(otf, state, work.product)
        ratio = inverse(work.product, work.shape, work.spare_plane)
        _ratio(work.y[channel], ratio)
        seen = forward(ratio, work.spare_spectra[0])
        del ratio
        _times_conjugate(otf, seen)
        work.e[0, channel] = inverse(seen, work.shape, work.spare_plane)
    _apply(work.x, work.e[0], work.e[1], np.float32(lam))


@kernel
def _predict(x: Array, last: Array, momentum: Array) -> None:
    """``last, x <- x, max(x + momentum (x - last), DARK)`` for float32 (c, h, w)."""
    channels, height, width = x.shape
    for c in range(channels):
        for i in range(height):
            for j in range(width):
                here = x[c, i, j]
                x[c, i, j] = max(here + momentum * (here - last[c, i, j]), np.float32(DARK))
                last[c, i, j] = here


@kernel
def _ratio(y: Array, kx: Array) -> None:
    """``kx <- M y / kx``; M is 0 where y is NaN."""
    height, width = y.shape
    for i in range(height):
        for j in range(width):
            y_ij = y[i, j]
            kx[i, j] = y_ij / max(kx[i, j], np.float32(DARK)) if y_ij == y_ij else np.float32(0)


@kernel
def _times_conjugate(otf: Array, spectrum: Array) -> None:
    """``spectrum <- conj(otf) spectrum``, complex64 (h, w)."""
    height, width = spectrum.shape
    for i in range(height):
        for j in range(width):
            spectrum[i, j] *= np.conj(otf[i, j])


@kernel
def _apply(x: Array, seen: Array, share: Array, lam: Array) -> None:
    """``x <- x / (1 + lam D^T (Dx / |Dx|)) seen / share``, |Dx| joint over the colours; float32 (c, h, w).

    Differences across the frame's edge count as none; the denominator is at least a quarter.
    """
    channels, height, width = x.shape
    flow_y = np.zeros((channels, width), np.float32)
    above = np.zeros((channels, width), np.float32)
    flow_x = np.zeros(width + 1, np.float32)
    norm = np.zeros(width, np.float32)
    for i in range(height):
        below = min(i + 1, height - 1)
        norm[:] = np.float32(1e-8)
        for c in range(channels):
            for j in range(width - 1):
                gy = x[c, below, j] - x[c, i, j]
                gx = x[c, i, j + 1] - x[c, i, j]
                norm[j] += gy * gy + gx * gx
        for j in range(width):
            norm[j] = lam / np.sqrt(norm[j])
        for c in range(channels):
            for j in range(width - 1):
                flow_y[c, j] = (x[c, below, j] - x[c, i, j]) * norm[j]
                flow_x[j + 1] = (x[c, i, j + 1] - x[c, i, j]) * norm[j]
            flow_y[c, width - 1] = np.float32(0)
            flow_x[width] = np.float32(0)
            for j in range(width):
                pull = above[c, j] - flow_y[c, j] + flow_x[j] - flow_x[j + 1]
                factor = seen[c, i, j] / share[c, i, j] if share[c, i, j] > np.float32(LEAST_KNOWN) else np.float32(1)
                x[c, i, j] *= max(factor, np.float32(0)) / max(np.float32(1) + pull, np.float32(0.25))
                above[c, j] = flow_y[c, j]
