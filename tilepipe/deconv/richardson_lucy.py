r"""Accelerated Richardson-Lucy with total variation, for photon counts.

For Poisson noise (few photons, dark background, linear data as from microscopes and telescopes), the most likely image
x minimises

.. math:: \sum (k * x - y \log (k * x)) + \lambda \sum |\nabla x|, \qquad x \ge 0

One step multiplies (Dey et al. 2006, eq. 12), with a mask M of known pixels in both transforms (Anconelli et al.
2006)::

    x = p / (1 + lambda D^T (Dp / |Dp|)) * K^T (M y / Kp) / K^T M        p = x + a (x - x before)

The prediction p is that of Biggs & Andrews (1997, eq. 9); their a depends on two successive changes of the whole image,
which tiles do not have, so the series of a is computed once on a window and frozen (:func:`find_momentum`).

A clipped sample, at least white, counts as max(white, Kp): where Kp reaches white it causes no change.

All updates are local and positive; the error caused by a cut spreads by one PSF per step and fades.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.deconv.convolution import DARK, Convolution, convolve_known, divide, select_convolution
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.kernels import multiply
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray
from tilepipe.system.jit import kernel

__all__ = ["back_project", "find_momentum", "restore"]

Array = Any

LEAST_KNOWN = 0.02
"""Smallest share K^T M of a pixel's light in known data; below it only the prior changes the pixel."""


def restore(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """Restore as :func:`tilepipe.deconv.solvers.restore`; data within half a PSF of the frame's edge are not used."""
    convolutions = _begin(work, spectrum)
    for following in (*parameters.momentum[1:], 0.0):
        _step(work, spectrum, convolutions, parameters.lam, following)
    return work.x


def find_momentum(work: Workspace, spectrum: Spectrum, lam: float, steps: int) -> tuple[float, ...]:
    """Return Biggs & Andrews' momentum for each of `steps` steps on the data in `work`; the first is 0.

    ``a = sum(g g') / sum(g' g')``, where g and g' are the last two changes of x from its prediction; clipped to
    0..0.99, rounded to three digits.
    """
    convolutions = _begin(work, spectrum)
    series, momentum = [], 0.0
    before: FloatArray = work.x.copy()
    last: FloatArray | None = None
    for _ in range(steps):
        series.append(momentum)
        predicted = np.maximum(work.x + np.float32(momentum) * (work.x - before), np.float32(DARK))
        before[...] = work.x
        work.x[...] = predicted
        _step(work, spectrum, convolutions, lam, 0.0)
        change = work.x - predicted
        if last is not None:
            share = float((change * last).sum(dtype=np.float64) / max((last * last).sum(dtype=np.float64), 1e-30))
            momentum = float(f"{min(max(share, 0.0), 0.99):.3g}")
        last = change
    return tuple(series)


def _begin(work: Workspace, spectrum: Spectrum) -> list[Convolution]:
    """Raise x and y to at least ``DARK``, set the frame's border to unknown and compute e[1] <- K^T M.

    Return how the PSF of each channel is applied.
    """
    reach = spectrum.reach
    convolutions = [select_convolution(spectrum.kernel(channel)) for channel in range(work.channels)]
    work.x[...] = np.maximum(work.x, np.float32(DARK))
    work.d[...] = work.x
    for channel, convolution in enumerate(convolutions):
        y, ones = work.y[channel], work.e[0, channel]
        if reach:
            y[:reach], y[-reach:], y[:, :reach], y[:, -reach:] = (np.float32(np.nan),) * 4
        np.maximum(y, np.float32(DARK), out=y)
        ones[...] = 1  # x = 1 and y = 1 where known give K^T M, as K 1 = 1
        known = np.where(np.isnan(y), y, np.float32(1))
        back_project(work, spectrum, convolution, channel, ones, known, work.e[1, channel])
    return convolutions


def _step(work: Workspace, spectrum: Spectrum, convolutions: list[Convolution], lam: float, following: float) -> None:
    """Run one step from the prediction in x; d <- its result, x <- the next prediction with momentum `following`."""
    for channel, convolution in enumerate(convolutions):
        back_project(work, spectrum, convolution, channel, work.x[channel], work.y[channel], work.e[0, channel])
    _advance(work.x, work.d, work.e[0], work.e[1], np.float32(lam), np.float32(following))


def back_project(
    work: Workspace,
    spectrum: Spectrum,
    convolution: Convolution,
    channel: int,
    x: FloatArray,
    y: FloatArray,
    out: FloatArray,
) -> None:
    """Compute ``out <- K^T (M y / Kx)`` of a channel, float32 (h, w); `convolution` is how its PSF is applied."""
    if convolution.kind != "fourier":
        convolve_known(convolution, x, y, work.white[channel], out)
        return
    otf = spectrum.otf(channel)
    multiply(otf, forward(x, work.product), work.product)
    divide(y, inverse(work.product, out), work.white[channel])
    _times_conjugate(otf, forward(out, work.product))
    inverse(work.product, out)


@kernel
def _times_conjugate(otf: Array, spectrum: Array) -> None:
    """Compute ``spectrum <- conj(otf) spectrum``, complex64 (h, w)."""
    height, width = spectrum.shape
    for i in range(height):
        for j in range(width):
            spectrum[i, j] *= np.conj(otf[i, j])


@kernel
def _advance(x: Array, last: Array, correction: Array, share: Array, lam: Array, momentum: Array) -> None:
    """``n = x / (1 + lam D^T (Dx / |Dx|)) correction / share``; ``x, last <- max(n + momentum (n - last), DARK), n``.

    |Dx| is joint over the colours; all arrays are float32 (c, h, w).  Differences across the frame's edge count as 0;
    the denominator is at least 0.25.
    """
    channels, height, width = x.shape
    norm = np.zeros(width, np.float32)
    new = np.zeros(width, np.float32)
    flow_y = np.zeros((channels, 2, width), np.float32)  # of this row and the one above, alternating
    flow_x = np.zeros(width + 1, np.float32)
    for i in range(height):
        below, here, above = min(i + 1, height - 1), i % 2, 1 - i % 2
        if lam > 0:
            norm[:] = np.float32(1e-8)
            for c in range(channels):
                _add_squares(x[c, i], x[c, below], norm)
            for j in range(width - 1):
                norm[j] = lam / np.sqrt(norm[j])
            norm[width - 1] = np.float32(0)
        for c in range(channels):
            _scale(x[c, i], correction[c, i], share[c, i], new)
            if lam > 0:
                _flow_down(x[c, i], x[c, below], norm, flow_y[c, here])
                _flow_along(x[c, i], norm, flow_x)
                _smooth(flow_y[c, above], flow_y[c, here], flow_x, new)
            _predict(new, momentum, x[c, i], last[c, i])


@kernel
def _scale(x: Array, correction: Array, share: Array, new: Array) -> None:
    for j in range(x.shape[0]):
        factor = correction[j] / share[j] if share[j] > np.float32(LEAST_KNOWN) else np.float32(1)
        new[j] = x[j] * max(factor, np.float32(0))


@kernel
def _smooth(above: Array, here: Array, along: Array, new: Array) -> None:
    for j in range(new.shape[0]):
        pull = above[j] - here[j] + along[j] - along[j + 1]
        new[j] /= max(np.float32(1) + pull, np.float32(0.25))


@kernel
def _predict(new: Array, momentum: Array, x: Array, last: Array) -> None:
    for j in range(new.shape[0]):
        x[j] = max(new[j] + momentum * (new[j] - last[j]), np.float32(DARK))
        last[j] = new[j]


@kernel
def _add_squares(row: Array, below: Array, squares: Array) -> None:
    for j in range(row.shape[0] - 1):
        down, along = below[j] - row[j], row[j + 1] - row[j]
        squares[j] += down * down + along * along


@kernel
def _flow_down(row: Array, below: Array, norm: Array, flow: Array) -> None:
    for j in range(row.shape[0]):
        flow[j] = (below[j] - row[j]) * norm[j]


@kernel
def _flow_along(row: Array, norm: Array, flow: Array) -> None:
    """Compute the flow along x; flow[j + 1] is between pixels j and j + 1."""
    for j in range(row.shape[0] - 1):
        flow[j + 1] = (row[j + 1] - row[j]) * norm[j]
