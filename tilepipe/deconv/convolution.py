"""Convolving with a PSF where it stands: by rows and columns, or tap by tap; Fourier transforms only where they win.

Which one is decided by the PSF alone, by what each took in a measurement (:func:`choose`).  A Gaussian is one row times
one column, a disk a sum of few such products; of the square round a shake or a line few taps matter.  What is left out
is at most a thousandth of the PSF's light, and the rest is scaled to make up for it.

The two compiled passes below do half a step of Richardson-Lucy at once, ``K^T (M y / K x)``, row by row: what lies
between the two convolutions stays in a ring of rows that fits the nearest caches.
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
"""Light below which Kx is not divided by; y and x are at least this."""

ROUNDING = 1e-6
"""Light that counts as none."""

LEFT_OUT = 1e-3
"""Share of the PSF's light that may be left out."""

GROUP = 8
"""Taps that are added in one loop."""

COSTS = {"separable": (1.0, 0.29), "taps": (0.4, 0.33)}
"""Nanoseconds of ``K^T (M y / K x)`` per pixel and channel on one core: at rest, and for each group of taps."""

FOURIER_COST = 14.0
"""The same by four transforms, at frames of 1,000 px an edge (ducc0 takes 10.5: the choice does not ask)."""


@dataclass(frozen=True, eq=False)
class Convolution:
    """How a PSF is applied.

    Parameters
    ----------
    kind : "separable", "taps" or "fourier".
    reach : half the width of what is left of the PSF, px.
    rank : products of a row and a column that are added up; 0 unless separable.
    taps : how many count.
    loss : share of the PSF's light that is left out.
    nanoseconds : expected, of half a step of Richardson-Lucy per pixel and channel on one core.
    down, along : of a separable one, float32 (rank, k); columns and rows.
    rows, columns, weights : of taps, (n,), whole pixels from the centre.
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
        what = {"separable": f"separable, rank {self.rank}", "taps": f"{self.taps} taps", "fourier": "Fourier"}
        return what[self.kind] + (f", {100 * self.loss:.2g} % of the light left out" if self.loss else "")


NONE: FloatArray = np.zeros((1, 0), np.float32)

FOURIER = Convolution(
    "fourier", 0, 0, 0, 0.0, FOURIER_COST, NONE, NONE, np.zeros(0, np.int64), np.zeros(0, np.int64), NONE[0]
)
"""By transforms."""


def select_convolution(kernel: FloatArray) -> Convolution:
    """Return the cheapest way to apply the PSF `kernel`, float32 (k, k), k odd: a function of the kernel alone."""
    return _chosen(np.ascontiguousarray(kernel, np.float32).tobytes(), kernel.shape[0])


@lru_cache(maxsize=64)
def _chosen(taps: bytes, size: int) -> Convolution:
    kernel = np.frombuffer(taps, np.float32).reshape(size, size)
    return min((*convolutions(kernel), FOURIER), key=lambda convolution: convolution.nanoseconds)


def convolutions(kernel: FloatArray) -> tuple[Convolution, Convolution]:
    """Return the two direct ways to apply the PSF `kernel`, float32 (k, k): separable, and by taps."""
    cropped = _cropped(kernel.astype(np.float64) / kernel.sum(dtype=np.float64))
    return _separable(cropped), _taps(cropped)


def _cropped(kernel: DoubleArray) -> DoubleArray:
    """Return the smallest square round the centre that holds all but half of what may be left out."""
    for rim in range(len(kernel) // 2, 0, -1):
        inside = kernel[rim:-rim, rim:-rim]
        if 1 - inside.sum() <= LEFT_OUT / 2:
            return inside
    return kernel


def _separable(kernel: DoubleArray) -> Convolution:
    """Return the sum of the fewest products of a column and a row (its singular vectors) that is near enough."""
    size, outside = len(kernel), max(0.0, 1 - float(kernel.sum()))
    left, values, right = np.linalg.svd(kernel)
    for rank in range(1, size + 1):
        near = (left[:, :rank] * values[:rank]) @ right[:rank]
        loss = outside + float(np.abs(near - kernel).sum())
        if loss <= LEFT_OUT:
            break
    down = (left[:, :rank] * (values[:rank] / near.sum())).T.astype(np.float32)
    along = right[:rank].astype(np.float32)
    rest, group = COSTS["separable"]
    nanoseconds = rest + group * rank * 4 * -(-size // GROUP)  # rows and columns, there and back
    nothing = np.zeros(0, np.int64)
    loss = loss if loss > ROUNDING else 0.0
    return Convolution("separable", size // 2, rank, 0, loss, nanoseconds, down, along, nothing, nothing, NONE[0])


def _taps(kernel: DoubleArray) -> Convolution:
    """Return the heaviest taps, row by row."""
    heaviest_last = np.argsort(kernel, axis=None, kind="stable")
    dropped = max(0.0, 1 - float(kernel.sum())) + np.cumsum(kernel.flat[heaviest_last])
    few = int(np.searchsorted(dropped, LEFT_OUT, side="right"))
    kept = np.sort(heaviest_last[few:])
    loss = float(dropped[few - 1]) if few and dropped[few - 1] > ROUNDING else 0.0
    rows, columns = np.divmod(kept, len(kernel))
    weights = (kernel.flat[kept] / kernel.flat[kept].sum()).astype(np.float32)
    reach = len(kernel) // 2
    rest, group = COSTS["taps"]
    nanoseconds = rest + group * 2 * -(-len(kept) // GROUP)
    return Convolution(
        "taps", reach, 0, len(kept), loss, nanoseconds, NONE, NONE, rows - reach, columns - reach, weights
    )


def convolve_known(convolution: Convolution, x: FloatArray, y: FloatArray, white: np.float32, out: FloatArray) -> None:
    """Write ``K^T (M y / K x)`` of a channel to `out`; all float32 (h, w).

    Parameters
    ----------
    way : not by Fourier.
    y : M is 0 where it is NaN, and within ``way.reach`` of the edge; +inf is clipped, see :func:`divide`.
    """
    reach = convolution.reach
    if convolution.kind == "separable":
        offsets = _in_groups(np.arange(-reach, reach + 1))
        _through_separable(
            x, y, white, _in_groups(convolution.down), _in_groups(convolution.along), offsets, reach, out
        )
    else:
        _through_taps(
            x,
            y,
            white,
            _in_groups(convolution.rows),
            _in_groups(convolution.columns),
            _in_groups(convolution.weights),
            reach,
            out,
        )


def _in_groups(taps: Array) -> Array:
    """Return taps (..., n), filled up to whole groups by ones in the middle that weigh nothing."""
    return np.pad(taps, [(0, 0)] * (taps.ndim - 1) + [(0, -taps.shape[-1] % GROUP)])


@kernel
def _through_separable(
    x: Array, y: Array, white: Array, down: Array, along: Array, offsets: Array, reach: int, out: Array
) -> None:
    height, width = x.shape
    rank, taps = down.shape
    inside = width - 2 * reach
    kept = 2 * reach + 1
    none = np.zeros(taps, np.int64)
    across = np.zeros((rank, kept * inside), np.float32)  # rows of x, convolved along x
    ratio = np.zeros(width + 2 * reach, np.float32)  # a row of M y / Kx, zeros on both sides
    back = np.zeros((rank, kept * width), np.float32)  # rows of that, correlated along x
    kx = np.zeros(inside, np.float32)
    pixels, seen = x.reshape(-1), out.reshape(-1)
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
                _sum_taps(back[q], width, at, 1, 0, kept, offsets, none, down[q], seen, at * width, width, q == 0)


@kernel
def _through_taps(
    x: Array, y: Array, white: Array, rows: Array, columns: Array, weights: Array, reach: int, out: Array
) -> None:
    height, width = x.shape
    inside, padded = width - 2 * reach, width + 2 * reach
    kept = 2 * reach + 1
    ratio = np.zeros((kept, padded), np.float32)  # rows of M y / Kx, zeros on both sides
    kx = np.zeros(inside, np.float32)
    pixels, ratios, seen = x.reshape(-1), ratio.reshape(-1), out.reshape(-1)
    for i in range(height + reach):
        if reach <= i < height - reach:
            _sum_taps(pixels, width, i, -1, reach, height, rows, columns, weights, kx, 0, inside, True)
            _divide(y[i, reach : reach + inside], kx, white, ratio[i % kept, 2 * reach : 2 * reach + inside])
        else:
            ratio[i % kept] = np.float32(0)
        at = i - reach
        if at >= 0:
            _sum_taps(ratios, padded, at, 1, reach, kept, rows, columns, weights, seen, at * width, width, True)


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
    afresh: bool,
) -> None:
    """``out[start ...] <- sum of weights[k] source[i + sign rows[k], origin + sign columns[k] ...]``, `count` px.

    `source` is flat, with rows of `stride` px that come round after `ring` of them.  What is in `out` counts too unless
    it is begun `afresh`.  Eight taps at a time: with more pointers in a loop the compiler gives up on SIMD.
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
        if afresh and g == 0:
            for j in range(line.shape[0]):
                near = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
                far = we * e[j] + wf * f[j] + wp * p[j] + wq * q[j]
                line[j] = near + far
            continue
        for j in range(line.shape[0]):
            near = wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]
            far = we * e[j] + wf * f[j] + wp * p[j] + wq * q[j]
            line[j] += near + far


@kernel
def divide(y: Array, kx: Array, white: Array) -> None:
    """``kx <- M y / kx``, float32 (h, w); M is 0 where y is NaN, and y = max(white, kx) where it is +inf: clipped."""
    for i in range(y.shape[0]):
        _divide(y[i], kx[i], white, kx[i])


@kernel
def _divide(y: Array, kx: Array, white: Array, out: Array) -> None:
    """``out <- M y / kx``, see :func:`divide`."""
    for j in range(out.shape[0]):
        light = max(kx[j], np.float32(DARK))
        share = y[j] / light if y[j] == y[j] else np.float32(0)
        out[j] = max(white / light, np.float32(1)) if y[j] == np.float32(np.inf) else share
