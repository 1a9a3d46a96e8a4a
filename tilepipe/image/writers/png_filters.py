"""Compiled filters of PNG rows: each row by the filter whose differences are smallest (PNG 3rd edition, 9.2, 12.7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.system.jit import kernel

__all__ = ["filter_rows"]

Array = Any
"""A numpy array in compiled code; numba infers the types from the call."""


@kernel
def filter_rows(rows: Array, above: Array, pixel: int, out: Array) -> None:
    """Write each row to `out`, filtered, after the number of its filter.

    rows uint8 (n, bytes); above uint8 (bytes,), the row before the first; pixel: size of a pixel, bytes; out uint8
    (n, 1 + bytes).
    """
    sums = np.empty(5, np.int64)
    for y in range(rows.shape[0]):
        row = rows[y]
        before = above if y == 0 else rows[y - 1]
        sums[:] = 0
        for x in range(row.size):
            left = np.int32(row[x - pixel]) if x >= pixel else np.int32(0)
            corner = np.int32(before[x - pixel]) if x >= pixel else np.int32(0)
            for number in range(5):
                difference = np.int32(row[x]) - _prediction(number, left, np.int32(before[x]), corner)
                difference &= 255
                sums[number] += min(difference, 256 - difference)
        best = np.argmin(sums)
        out[y, 0] = best
        for x in range(row.size):
            left = np.int32(row[x - pixel]) if x >= pixel else np.int32(0)
            corner = np.int32(before[x - pixel]) if x >= pixel else np.int32(0)
            out[y, 1 + x] = np.uint8((np.int32(row[x]) - _prediction(best, left, np.int32(before[x]), corner)) & 255)


@kernel
def _prediction(number: Any, left: Any, above: Any, corner: Any) -> Any:
    """Return what filter `number` subtracts: nothing, a neighbour, the mean of two, or Paeth's choice (9.4)."""
    if number == 0:
        return np.int32(0)
    if number == 1:
        return left
    if number == 2:
        return above
    if number == 3:
        return (left + above) >> 1
    to_left, to_above, to_corner = abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner
