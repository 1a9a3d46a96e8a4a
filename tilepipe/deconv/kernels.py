"""The pointwise updates of masked ADMM-TV as fused passes, compiled by numba.

Each pass reads memory once, releases the GIL, is serial (tiles run in parallel), and uses no ``fastmath`` (a reordered
sum could flip a shrinkage).  Inner loops run over contiguous rows, which fit the innermost CPU cache, and write one
array each, so that the compiler vectorises them.  ``tests/deconv/test_kernels.py`` compares each pass with plain numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.system.jit import kernel

__all__ = ["add_step", "data_pass", "multiply", "prior_pass"]

Array = Any
"""A numpy array or scalar inside compiled code; numba infers the types from the call."""


@kernel
def data_pass(
    y: Array, d: Array, kx: Array, white: Array, r1: Array, base: Array, slope: Array, taper_y: Array, taper_x: Array
) -> None:
    """Update v and d and compute the tapered data source in one pass over a channel.

    ``v = (M y + r1 (Kx + d)) / (M + r1)``, ``d <- d + Kx - v``, ``kx <- t (v - d - Kx)``; M is 0 where y is NaN, else
    1 / (base + slope Kx), because the noise is that of the blurred light.  Where y is +inf it is clipped, at least
    `white`: ``v = max(Kx + d, white)``, the projection onto this bound.  All arrays are float32 (h, w), except the
    tapers (h,), (w,); `d` and `kx` are overwritten.
    """
    height, width = y.shape
    for i in range(height):
        row_taper = taper_y[i]
        for j in range(width):
            kx_ij = kx[i, j]
            u = kx_ij + d[i, j]
            y_ij = y[i, j]
            share = r1 * (base + slope * min(max(kx_ij, np.float32(0)), np.float32(1)))
            v = (y_ij + share * u) / (np.float32(1) + share) if y_ij == y_ij else u
            v = max(u, white) if y_ij == np.float32(np.inf) else v
            dual = u - v
            d[i, j] = dual
            kx[i, j] = (v - dual - kx_ij) * (row_taper * taper_x[j])


@kernel
def prior_pass(
    x: Array,
    e: Array,
    threshold: Array,
    table: Array,
    per_unit: Array,
    base: Array,
    slope: Array,
    rescale: Array,
    taper_y: Array,
    taper_x: Array,
) -> None:
    """Update w and e and compute the divergence of the tapered gradient source, jointly over the colours.

    ``w = shrink(Dx + e)``, ``e <- e + Dx - w`` (then times `rescale`), ``x <- D^T(t (w - e - Dx))`` with forward
    differences D.  The source uses e before `rescale`, consistent with this step's penalty.  The shrinkage is that of
    total variation with `threshold`, or `table` if it is not empty (:mod:`tilepipe.deconv.priors`); lengths are first
    multiplied by the square root of base + slope light: where noise grows with the light, so does the visible contrast.

    x, float32 (c, h, w), is overwritten by the divergence; e is float32 (2, c, h, w), rows first.  Differences across
    the wrap are omitted: the taper is zero there.
    """
    channels, height, width = x.shape
    factor = np.zeros(width, np.float32)
    light = np.zeros(width, np.float32)
    flow_y = np.zeros((channels, 2, width), np.float32)  # of this row and the one above, alternating
    flow_x = np.zeros(width + 1, np.float32)
    for i in range(height - 1):
        factor[:] = np.float32(0)
        for c in range(channels):
            _add_squares(x[c, i], x[c, i + 1], e[0, c, i], e[1, c, i], factor)
        if slope > 0:
            _times_variance(x, i, base, slope, light, factor)
        if table.size:
            _look_up(factor, table, per_unit)
        else:
            _shrink(factor, threshold)
        here, above = i % 2, 1 - i % 2
        for c in range(channels):
            _flow_down(x[c, i], x[c, i + 1], e[0, c, i], factor, taper_y[i], taper_x, flow_y[c, here])
            _dual_down(x[c, i], x[c, i + 1], factor, rescale, e[0, c, i])
            _flow_along(x[c, i], e[1, c, i], factor, taper_y[i], taper_x, flow_x)
            _dual_along(x[c, i], factor, rescale, e[1, c, i])
            _diverge(flow_y[c, above], flow_y[c, here], flow_x, x[c, i])
    for c in range(channels):
        x[c, height - 1] = flow_y[c, height % 2]


@kernel
def _add_squares(row: Array, below: Array, e_down: Array, e_along: Array, squares: Array) -> None:
    """Compute ``squares += |Dx + e|^2``."""
    for j in range(row.shape[0] - 1):
        down = below[j] - row[j] + e_down[j]
        along = row[j + 1] - row[j] + e_along[j]
        squares[j] += down * down + along * along


@kernel
def _shrink(squares: Array, threshold: Array) -> None:
    """Replace squared lengths by total variation's factors |w| / |u|; max(n - T, 0) / max(n, T) needs no branch."""
    for j in range(squares.shape[0]):
        length = np.sqrt(squares[j])
        squares[j] = max(length - threshold, np.float32(0)) / max(length, threshold)


@kernel
def _flow_down(
    row: Array, below: Array, e: Array, factor: Array, row_taper: Array, taper_x: Array, flow: Array
) -> None:
    """Compute ``flow <- t (w - e' - Dx)`` along y, with ``u = Dx + e``, ``w = factor u`` and ``e' = u - w``."""
    for j in range(row.shape[0]):
        gradient = below[j] - row[j]
        u = gradient + e[j]
        w = factor[j] * u
        flow[j] = (w - (u - w) - gradient) * (row_taper * taper_x[j])


@kernel
def _dual_down(row: Array, below: Array, factor: Array, rescale: Array, e: Array) -> None:
    """Compute ``e <- (u - w)`` along y, times `rescale`."""
    for j in range(row.shape[0]):
        u = below[j] - row[j] + e[j]
        e[j] = (u - factor[j] * u) * rescale


@kernel
def _flow_along(row: Array, e: Array, factor: Array, row_taper: Array, taper_x: Array, flow: Array) -> None:
    """Compute the same as :func:`_flow_down` along x; flow[j + 1] is between pixels j and j + 1."""
    for j in range(row.shape[0] - 1):
        gradient = row[j + 1] - row[j]
        u = gradient + e[j]
        w = factor[j] * u
        flow[j + 1] = (w - (u - w) - gradient) * (row_taper * taper_x[j])


@kernel
def _dual_along(row: Array, factor: Array, rescale: Array, e: Array) -> None:
    """Compute the same as :func:`_dual_down` along x."""
    for j in range(row.shape[0] - 1):
        u = row[j + 1] - row[j] + e[j]
        e[j] = (u - factor[j] * u) * rescale


@kernel
def _diverge(above: Array, here: Array, along: Array, out: Array) -> None:
    """Compute ``out <- D^T flow`` of a row: inflow minus outflow."""
    for j in range(out.shape[0]):
        out[j] = above[j] - here[j] + along[j] - along[j + 1]


@kernel
def _times_variance(x: Array, i: int, base: Array, slope: Array, light: Array, squares: Array) -> None:
    """Multiply squared lengths by the noise's variance at the light of each pixel of row i; `light` is a buffer."""
    channels = x.shape[0]
    light[:] = np.float32(0)
    for c in range(channels):
        _add(x[c, i], light)
    for j in range(squares.shape[0]):
        mean = min(max(light[j] / np.float32(channels), np.float32(0)), np.float32(1))
        squares[j] *= base + slope * mean


@kernel
def _add(row: Array, out: Array) -> None:
    for j in range(row.shape[0]):
        out[j] += row[j]


@kernel
def _look_up(norm: Array, table: Array, per_unit: Array) -> None:
    """Replace squared lengths by factors, linear between the table's entries, constant beyond the last."""
    last = np.float32(table.size - 1)
    for j in range(norm.shape[0]):
        at = min(np.sqrt(norm[j]) * per_unit, last)
        low = min(int(at), table.size - 2)
        share = at - np.float32(low)
        norm[j] = table[low] + share * (table[low + 1] - table[low])


@kernel
def multiply(a: Array, b: Array, out: Array) -> None:
    """Compute ``out = a b`` for complex64 (h, w)."""
    height, width = a.shape
    for i in range(height):
        for j in range(width):
            out[i, j] = a[i, j] * b[i, j]


@kernel
def add_step(state: Array, data: Array, prior: Array, otf: Array, dy: Array, dx: Array, r1: Array, r2: Array) -> None:
    """Update x in Fourier space: ``X += (r1 conj(K) A + r2 B) / (r1 |K|^2 + r2 |D|^2)``; A becomes a copy of X.

    All arrays are complex64 (h, w // 2 + 1), except the eigenvalues dy (h,) and dx (w // 2 + 1,), float32.  A PSF sums
    to 1, so the denominator is at least r1 where |D| = 0.
    """
    height, width = state.shape
    for i in range(height):
        row = dy[i]
        for j in range(width):
            k = otf[i, j]
            real, imag = k.real, k.imag
            denominator = r1 * (real * real + imag * imag) + r2 * (row + dx[j])
            scale = np.float32(1) / max(denominator, np.float32(1e-30))
            a, b = data[i, j], prior[i, j]
            step_real = (r1 * (real * a.real + imag * a.imag) + r2 * b.real) * scale
            step_imag = (r1 * (real * a.imag - imag * a.real) + r2 * b.imag) * scale
            updated = state[i, j] + np.complex64(complex(step_real, step_imag))
            state[i, j] = updated
            data[i, j] = updated
