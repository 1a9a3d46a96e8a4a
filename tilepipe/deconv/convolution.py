"""Direct convolution with a PSF, separable or tap by tap; Fourier transforms only where they are faster.

The choice depends on the PSF alone, by measured run times (:func:`select_convolution`).  A Gaussian is one column times
one row, a disk a sum of few such products; in the kernel of a camera shake or a line few taps matter.  At most a
thousandth of the PSF's sum is left out, and the rest is scaled to compensate.

The two compiled passes below compute half a step of Richardson-Lucy, ``K^T (M y / K x)``, row by row: intermediate rows
between the two convolutions stay in a ring buffer that fits the innermost CPU caches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import DoubleArray, FloatArray
from tilepipe.system.jit import contracting_kernel, kernel

__all__ = ["DARK", "FOURIER", "Convolution", "convolutions", "convolve_known", "divide", "select_convolution"]

Array = Any

DARK = 1e-5
"""Lower bound of Kx as a divisor, and of y and x, linear light."""

ROUNDING = 1e-6
"""Loss up to which a convolution counts as exact, as a share of the PSF's sum."""

LEFT_OUT = 1e-3
"""Largest share of the PSF's sum that may be left out."""

GROUP = 8
"""Number of taps added in one loop."""

COSTS = {"separable": (1.0, 0.29), "taps": (0.4, 0.33)}
"""Time of ``K^T (M y / K x)``, ns per pixel and channel on one core: constant part, and part per group of taps."""

FOURIER_COST = 14.0
"""The same with four transforms, ns, for frames of 1,000 x 1,000 px (10.5 with ducc0, which the choice ignores)."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """Method of applying a PSF.

    Parameters
    ----------
    kind : {"separable", "taps", "fourier"}
        Method.
    reach : int
        Half the width of the cropped PSF, px.
    rank : int
        Number of products of a column and a row; 0 unless separable.
    taps : int
        Number of taps; 0 unless by taps.
    loss : float
        Share of the PSF's sum that is left out.
    nanoseconds : float
        Expected time of half a step of Richardson-Lucy, per pixel and channel on one core.
    down, along : ndarray of float32, shape (rank, k)
        Columns and rows of a separable PSF.
    rows, columns : ndarray of int64, shape (n,)
        Positions of the taps, px from the centre.
    weights : ndarray of float32, shape (n,)
        Weights of the taps.
    """

    kind: str
    reach: int
    rank: int
    taps: int
    loss: float
    nanoseconds: float
    down: FloatArray
    along: FloatArray
    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    weights: FloatArray

    def __str__(self) -> str:
        names = {"separable": f"separable, rank {self.rank}", "taps": f"{self.taps} taps", "fourier": "Fourier"}
        return names[self.kind] + (f", {100 * self.loss:.2g} % of the light left out" if self.loss else "")


NONE: FloatArray = np.zeros((1, 0), np.float32)

FOURIER = Convolution(
    "fourier", 0, 0, 0, 0.0, FOURIER_COST, NONE, NONE, np.zeros(0, np.int64), np.zeros(0, np.int64), NONE[0]
)
"""Convolution by Fourier transforms."""


def select_convolution(kernel: FloatArray) -> Convolution:
    """Return the fastest way to apply the PSF `kernel`, float32 (k, k), k odd: a function of the kernel alone."""
    return _fastest(np.ascontiguousarray(kernel, np.float32).tobytes(), kernel.shape[0])


@lru_cache(maxsize=64)
def _fastest(taps: bytes, size: int) -> Convolution:
    kernel = np.frombuffer(taps, np.float32).reshape(size, size)
    return min((*convolutions(kernel), FOURIER), key=lambda convolution: convolution.nanoseconds)


def convolutions(kernel: FloatArray) -> tuple[Convolution, Convolution]:
    """Return the two direct ways to apply the PSF `kernel`, float32 (k, k): separable and by taps."""
    cropped = _crop(kernel.astype(np.float64) / kernel.sum(dtype=np.float64))
    return _separable(cropped), _taps(cropped)


def _crop(kernel: DoubleArray) -> DoubleArray:
    """Return the smallest centred square outside which at most half of the allowed loss lies."""
    for rim in range(len(kernel) // 2, 0, -1):
        inside = kernel[rim:-rim, rim:-rim]
        if 1 - inside.sum() <= LEFT_OUT / 2:
            return inside
    return kernel


def _separable(kernel: DoubleArray) -> Convolution:
    """Return the sum of the fewest products of a column and a row (singular vectors) within the allowed loss."""
    size, outside = len(kernel), max(0.0, 1 - float(kernel.sum()))
    left, values, right = np.linalg.svd(kernel)
    for rank in range(1, size + 1):
        approximation = (left[:, :rank] * values[:rank]) @ right[:rank]
        loss = outside + float(np.abs(approximation - kernel).sum())
        if loss <= LEFT_OUT:
            break
    down = (left[:, :rank] * (values[:rank] / approximation.sum())).T.astype(np.float32)
    along = right[:rank].astype(np.float32)
    rest, group = COSTS["separable"]
    nanoseconds = rest + group * rank * 4 * -(-size // GROUP)  # rows and columns, forward and transposed
    no_taps = np.zeros(0, np.int64)
    loss = loss if loss > ROUNDING else 0.0
    return Convolution("separable", size // 2, rank, 0, loss, nanoseconds, down, along, no_taps, no_taps, NONE[0])


def _taps(kernel: DoubleArray) -> Convolution:
    """Return the heaviest taps, row by row; the lightest are left out within the allowed loss."""
    ascending = np.argsort(kernel, axis=None, kind="stable")
    dropped = max(0.0, 1 - float(kernel.sum())) + np.cumsum(kernel.flat[ascending])
    dropped_taps = int(np.searchsorted(dropped, LEFT_OUT, side="right"))
    kept = np.sort(ascending[dropped_taps:])
    loss = float(dropped[dropped_taps - 1]) if dropped_taps and dropped[dropped_taps - 1] > ROUNDING else 0.0
    rows, columns = np.divmod(kept, len(kernel))
    weights = (kernel.flat[kept] / kernel.flat[kept].sum()).astype(np.float32)
    reach = len(kernel) // 2
    rest, group = COSTS["taps"]
    nanoseconds = rest + group * 2 * -(-len(kept) // GROUP)
    return Convolution(
        "taps", reach, 0, len(kept), loss, nanoseconds, NONE, NONE, rows - reach, columns - reach, weights
    )


def convolve_known(convolution: Convolution, x: FloatArray, y: FloatArray, white: np.float32, out: FloatArray) -> None:
    """Write ``K^T (M y / K x)`` of a channel to `out`.

    Parameters
    ----------
    convolution : Convolution
        Separable or by taps.
    x : ndarray of float32, shape (h, w)
        Estimate.
    y : ndarray of float32, shape (h, w)
        Data.  M is 0 where y is NaN and within ``convolution.reach`` of the edge; +inf is clipped, see :func:`divide`.
    white : float32
        Lower bound of clipped samples.
    out : ndarray of float32, shape (h, w)
        Result.
    """
    reach = convolution.reach
    if convolution.kind == "separable":
        offsets = _pad_to_groups(np.arange(-reach, reach + 1))
        _ratio_separable(
            x, y, white, _pad_to_groups(convolution.down), _pad_to_groups(convolution.along), offsets, reach, out
        )
    else:
        _ratio_taps(
            x,
            y,
            white,
            _pad_to_groups(convolution.rows),
            _pad_to_groups(convolution.columns),
            _pad_to_groups(convolution.weights),
            reach,
            out,
        )


def _pad_to_groups(taps: Array) -> Array:
    """Return taps (..., n) padded with zeros to whole groups: taps at the centre with weight 0."""
    return np.pad(taps, [(0, 0)] * (taps.ndim - 1) + [(0, -taps.shape[-1] % GROUP)])


@kernel
def _ratio_separable(
    x: Array, y: Array, white: Array, down: Array, along: Array, offsets: Array, reach: int, out: Array
) -> None:
    height, width = x.shape
    rank, taps = down.shape
    inside = width - 2 * reach
    kept = 2 * reach + 1
    none = np.zeros(taps, np.int64)
    across = np.zeros((rank, kept * inside), np.float32)  # ring buffer: rows of x, convolved along x
    ratio = np.zeros(width + 2 * reach, np.float32)  # one row of M y / Kx, zeros on both sides
    back = np.zeros((rank, kept * width), np.float32)  # ring buffer: rows of the ratio, correlated along x
    kx = np.zeros(inside, np.float32)
    pixels, result = x.reshape(-1), out.reshape(-1)
    for i in range(height + 2 * reach):
        if i < height:
            for q in range(rank):
                line = (i % kept) * inside
                _sum_taps(pixels, width, i, -1, reach, height, none, offsets, along[q], across[q], line, inside, True)
        middle = i - reach
        if reach <= middle < height - reach:
            for q in range(rank):
                _sum_taps(across[q], inside, middle, -1, 0, kept, offsets, none, down[q], kx, 0, inside, q == 0)
            _divide(y[middle, reach : reach + inside], kx, white, ratio[2 * reach : 2 * reach + inside])
        else:
            ratio[:] = np.float32(0)
        if middle >= 0:
            for q in range(rank):
                line = (middle % kept) * width
                _sum_taps(ratio, 0, 0, 1, reach, 1, none, offsets, along[q], back[q], line, width, True)
        at = middle - reach
        if at >= 0:
            for q in range(rank):
                _sum_taps(back[q], width, at, 1, 0, kept, offsets, none, down[q], result, at * width, width, q == 0)


@kernel
def _ratio_taps(
    x: Array, y: Array, white: Array, rows: Array, columns: Array, weights: Array, reach: int, out: Array
) -> None:
    height, width = x.shape
    inside, padded = width - 2 * reach, width + 2 * reach
    kept = 2 * reach + 1
    ratio = np.zeros((kept, padded), np.float32)  # ring buffer: rows of M y / Kx, zeros on both sides
    kx = np.zeros(inside, np.float32)
    pixels, ratios, result = x.reshape(-1), ratio.reshape(-1), out.reshape(-1)
    for i in range(height + reach):
        if reach <= i < height - reach:
            _sum_taps(pixels, width, i, -1, reach, height, rows, columns, weights, kx, 0, inside, True)
            _divide(y[i, reach : reach + inside], kx, white, ratio[i % kept, 2 * reach : 2 * reach + inside])
        else:
            ratio[i % kept] = np.float32(0)
        at = i - reach
        if at >= 0:
            _sum_taps(ratios, padded, at, 1, reach, kept, rows, columns, weights, result, at * width, width, True)


@contracting_kernel
def _sum_taps(
    source: Array,
    stride: int,
    i: int,
    sign: int,
    origin: int,
    ring: int,
    rows: Array,
    columns: Array,
    weights: Array,
    out: Array,
    start: int,
    count: int,
    overwrite: bool,
) -> None:
    """``out[start ...] <- sum of weights[k] source[i + sign rows[k], origin + sign columns[k] ...]``, `count` px.

    `source` is a flat ring buffer of `ring` rows of `stride` px.  The sum is added to `out`, or replaces it if
    `overwrite`.  Eight taps per loop: with more pointers in a loop the compiler does not vectorise it.
    """
    for g in range(0, weights.size, 8):
        a = source[((i + sign * rows[g]) % ring) * stride + origin + sign * columns[g] :]
        b = source[((i + sign * rows[g + 1]) % ring) * stride + origin + sign * columns[g + 1] :]
        c = source[((i + sign * rows[g + 2]) % ring) * stride + origin + sign * columns[g + 2] :]
        d = source[((i + sign * rows[g + 3]) % ring) * stride + origin + sign * columns[g + 3] :]
        e = source[((i + sign * rows[g + 4]) % ring) * stride + origin + sign * columns[g + 4] :]
        f = source[((i + sign * rows[g + 5]) % ring) * stride + origin + sign * columns[g + 5] :]
        p = source[((i + sign * rows[g + 6]) % ring) * stride + origin + sign * columns[g + 6] :]
        q = source[((i + sign * rows[g + 7]) % ring) * stride + origin + sign * columns[g + 7] :]
        wa, wb, wc, wd = weights[g], weights[g + 1], weights[g + 2], weights[g + 3]
        we, wf, wp, wq = weights[g + 4], weights[g + 5], weights[g + 6], weights[g + 7]
        line = out[start : start + count]
        if overwrite and g == 0:
            for j in range(line.shape[0]):
                head = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
                tail = we * e[j] + wf * f[j] + wp * p[j] + wq * q[j]
                line[j] = head + tail
            continue
        for j in range(line.shape[0]):
            head = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
            tail = we * e[j] + wf * f[j] + wp * p[j] + wq * q[j]
            line[j] += head + tail


@kernel
def divide(y: Array, kx: Array, white: Array) -> None:
    """``kx <- M y / kx``, float32 (h, w); M is 0 where y is NaN; y counts as max(white, kx) where +inf (clipped)."""
    for i in range(y.shape[0]):
        _divide(y[i], kx[i], white, kx[i])


@kernel
def _divide(y: Array, kx: Array, white: Array, out: Array) -> None:
    """``out <- M y / kx``, see :func:`divide`."""
    for j in range(out.shape[0]):
        light = max(kx[j], np.float32(DARK))
        share = y[j] / light if y[j] == y[j] else np.float32(0)
        out[j] = max(white / light, np.float32(1)) if y[j] == np.float32(np.inf) else share
