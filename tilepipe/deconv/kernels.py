"""The pointwise updates of masked ADMM-TV as fused passes, compiled by numba.

Each pass goes through memory once, releases the GIL, is serial (tiles are what runs in parallel), uses
no ``fastmath`` (a reordered sum could flip a shrinkage), and has inner loops over contiguous rows that
the compiler turns into SIMD.  ``tests/deconv/test_kernels.py`` holds each against plain numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.compiled import kernel

__all__ = ["add_step", "data_pass", "multiply", "prior_pass"]

Array = Any
"""Inside compiled code a numpy array; numba takes the types from the call."""


@kernel
def data_pass(
    y: Array, d: Array, kx: Array, r1: Array, base: Array, slope: Array, taper_y: Array, taper_x: Array
) -> None:
    """v- and d-update, and the tapered data source, in one pass over a channel.

    ``v = (M y + r1 (Kx + d)) / (M + r1)``, ``d <- d + Kx - v``, ``kx <- t (v - d - Kx)``; M is 0 where y is NaN, else
    1 / (base + slope Kx): the blurred estimate is the light whose noise this is.  All arrays float32 (h, w) but the
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
    gradient_y = np.zeros((channels, width), np.float32)
    gradient_x = np.zeros((channels, width), np.float32)
    norm = np.zeros(width, np.float32)
    above = np.zeros((channels, width), np.float32)
    flow_x = np.zeros(width + 1, np.float32)
    for i in range(height - 1):
        norm[:] = np.float32(0)
        for c in range(channels):
            for j in range(width - 1):
                here = x[c, i, j]
                gy = x[c, i + 1, j] - here
                gx = x[c, i, j + 1] - here
                gradient_y[c, j] = gy
                gradient_x[c, j] = gx
                uy = gy + e[0, c, i, j]
                ux = gx + e[1, c, i, j]
                norm[j] += uy * uy + ux * ux
        if slope > 0:
            _times_variance(x[:, i], base, slope, norm)
        if table.size:
            _look_up(norm, table, per_unit)
        else:
            for j in range(width):
                length = np.sqrt(norm[j])
                # max(n - T, 0) / max(n, T) is the shrinkage factor without a branch
                norm[j] = max(length - threshold, np.float32(0)) / max(length, threshold)
        row_taper = taper_y[i]
        for c in range(channels):
            for j in range(width - 1):
                gy = gradient_y[c, j]
                gx = gradient_x[c, j]
                uy = gy + e[0, c, i, j]
                ux = gx + e[1, c, i, j]
                wy = norm[j] * uy
                wx = norm[j] * ux
                ey = uy - wy
                ex = ux - wx
                e[0, c, i, j] = ey * rescale
                e[1, c, i, j] = ex * rescale
                taper = row_taper * taper_x[j]
                gradient_y[c, j] = (wy - ey - gy) * taper
                flow_x[j + 1] = (wx - ex - gx) * taper
            for j in range(width):
                flow_y = gradient_y[c, j]
                x[c, i, j] = above[c, j] - flow_y + flow_x[j] - flow_x[j + 1]
                above[c, j] = flow_y
    for c in range(channels):
        for j in range(width):
            x[c, height - 1, j] = above[c, j]


@kernel
def _times_variance(row: Array, base: Array, slope: Array, norm: Array) -> None:
    """Squared lengths times the noise's variance at the light of each pixel of `row` (c, w)."""
    channels = row.shape[0]
    for j in range(norm.shape[0]):
        light = np.float32(0)
        for c in range(channels):
            light += row[c, j]
        norm[j] *= base + slope * min(max(light / np.float32(channels), np.float32(0)), np.float32(1))


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
    """x-update in Fourier space: ``X += (r1 conj(K) A + r2 B) / (r1 |K|^2 + r2 |D|^2)``.

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
            state[i, j] += np.complex64(complex(step_real, step_imag))
