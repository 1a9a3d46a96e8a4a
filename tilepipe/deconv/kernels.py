"""The pointwise updates of masked ADMM-TV as fused passes, compiled by numba.

Each pass goes through memory once, releases the GIL, is serial (tiles are what runs in parallel), and uses
no ``fastmath`` (a reordered sum could flip a shrinkage).  Inner loops run over contiguous rows, which stay in the
nearest cache, and write one array each: that the compiler turns into SIMD.  ``tests/deconv/test_kernels.py`` holds
each pass against plain numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.system.jit import kernel

__all__ = ["add_step", "data_pass", "multiply", "prior_pass"]

Array = Any
"""Inside compiled code a numpy array; numba takes the types from the call."""


@kernel
def data_pass(
    y: Array, d: Array, kx: Array, white: Array, r1: Array, base: Array, slope: Array, taper_y: Array, taper_x: Array
) -> None:
    """v- and d-update, and the tapered data source, in one pass over a channel.

    ``v = (M y + r1 (Kx + d)) / (M + r1)``, ``d <- d + Kx - v``, ``kx <- t (v - d - Kx)``; M is 0 where y is NaN, else
    1 / (base + slope Kx): the blurred estimate is the light whose noise this is.  Where y is +inf it is clipped, known
    to be `white` at least: ``v = max(Kx + d, white)``, the projection on that.  All arrays float32 (h, w) but the
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
    """w- and e-update and the divergence of the tapered gradient source, joint over colours.

    ``w = shrink(Dx + e)``, ``e <- e + Dx - w`` (then times `rescale`), ``x <- D^T(t (w - e - Dx))`` with forward
    differences D.  The source uses e before `rescale`, as this step's penalty wants it.  shrink is that of total
    variation by `threshold`, or `table`, if it is not empty (:mod:`tilepipe.deconv.priors`), of lengths times the
    root of base + slope light: where noise grows with the light, so does the contrast of what is seen in it.

    x float32 (c, h, w) is overwritten by the divergence; e float32 (2, c, h, w), rows first.  Differences
    across the wrap are left out: the taper is zero there.
    """
    channels, height, width = x.shape
    factor = np.zeros(width, np.float32)
    light = np.zeros(width, np.float32)
    flow_y = np.zeros((channels, 2, width), np.float32)  # of this row and of the one above, by turns
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
    """``squares += |Dx + e|^2``."""
    for j in range(row.shape[0] - 1):
        down = below[j] - row[j] + e_down[j]
        along = row[j + 1] - row[j] + e_along[j]
        squares[j] += down * down + along * along


@kernel
def _shrink(squares: Array, threshold: Array) -> None:
    """Squared lengths -> factors |w| / |u| of total variation: max(n - T, 0) / max(n, T) needs no branch."""
    for j in range(squares.shape[0]):
        length = np.sqrt(squares[j])
        squares[j] = max(length - threshold, np.float32(0)) / max(length, threshold)


@kernel
def _flow_down(
    row: Array, below: Array, e: Array, factor: Array, row_taper: Array, taper_x: Array, flow: Array
) -> None:
    """``flow <- t (w - e' - Dx)`` along y, with ``u = Dx + e``, ``w = factor u`` and ``e' = u - w``."""
    for j in range(row.shape[0]):
        gradient = below[j] - row[j]
        u = gradient + e[j]
        w = factor[j] * u
        flow[j] = (w - (u - w) - gradient) * (row_taper * taper_x[j])


@kernel
def _dual_down(row: Array, below: Array, factor: Array, rescale: Array, e: Array) -> None:
    """``e <- (u - w)`` along y, times `rescale`."""
    for j in range(row.shape[0]):
        u = below[j] - row[j] + e[j]
        e[j] = (u - factor[j] * u) * rescale


@kernel
def _flow_along(row: Array, e: Array, factor: Array, row_taper: Array, taper_x: Array, flow: Array) -> None:
    """As :func:`_flow_down` along x: flow[j + 1] leaves pixel j to the right."""
    for j in range(row.shape[0] - 1):
        gradient = row[j + 1] - row[j]
        u = gradient + e[j]
        w = factor[j] * u
        flow[j + 1] = (w - (u - w) - gradient) * (row_taper * taper_x[j])


@kernel
def _dual_along(row: Array, factor: Array, rescale: Array, e: Array) -> None:
    """As :func:`_dual_down` along x."""
    for j in range(row.shape[0] - 1):
        u = row[j + 1] - row[j] + e[j]
        e[j] = (u - factor[j] * u) * rescale


@kernel
def _diverge(above: Array, here: Array, along: Array, out: Array) -> None:
    """``out <- D^T flow`` of a row: what comes in less what goes out."""
    for j in range(out.shape[0]):
        out[j] = above[j] - here[j] + along[j] - along[j + 1]


@kernel
def _times_variance(x: Array, i: int, base: Array, slope: Array, light: Array, squares: Array) -> None:
    """Squared lengths times the noise's variance at the light of each pixel of row i; `light` is room for it."""
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
    """Squared lengths -> factors, linear between the table's entries; the last one holds beyond it."""
    last = np.float32(table.size - 1)
    for j in range(norm.shape[0]):
        at = min(np.sqrt(norm[j]) * per_unit, last)
        low = min(int(at), table.size - 2)
        share = at - np.float32(low)
        norm[j] = table[low] + share * (table[low + 1] - table[low])


@kernel
def multiply(a: Array, b: Array, out: Array) -> None:
    """``out = a b`` for complex64 (h, w)."""
    height, width = a.shape
    for i in range(height):
        for j in range(width):
            out[i, j] = a[i, j] * b[i, j]


@kernel
def add_step(state: Array, data: Array, prior: Array, otf: Array, dy: Array, dx: Array, r1: Array, r2: Array) -> None:
    """x-update in Fourier space: ``X += (r1 conj(K) A + r2 B) / (r1 |K|^2 + r2 |D|^2)``; A becomes a copy of X.

    All complex64 (h, w // 2 + 1) but the eigenvalues dy (h,), dx (w // 2 + 1,), float32.  A PSF sums to 1, so
    the denominator is at least r1 where |D| = 0.
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
