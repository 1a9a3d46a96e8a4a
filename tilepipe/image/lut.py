"""Compiled loops between code values and light: numpy would make 8-byte indices of every sample first."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.system.jit import kernel

__all__ = ["look_up", "search_codes"]

Array = Any
"""Inside compiled code a numpy array; numba takes the types from the call."""


@kernel
def look_up(table: Array, codes: Array, out: Array) -> None:
    """``out = table[codes]``; table float32 (2^bits,), codes unsigned (n,), out float32 (n,)."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


@kernel
def search_codes(values: Array, bits: Array, thresholds: Array, first: Array, out: Array) -> None:
    """Write for each value the number of thresholds at or below it: its nearest code.

    values float32 (n,), `bits` the same memory as uint32; thresholds float32, increasing; first int32 (2^15 + 1,):
    how many thresholds lie at or below the float whose upper half is the index.  Values at or below 0 and NaN
    give 0.

    Between two entries a curve is nearly straight: the lower half says which code to begin at, and few steps, mostly
    none, lead to the right one; halving the interval took three to four times as long.
    """
    for i in range(values.size):
        value = values[i]
        if not value > np.float32(0):
            out[i] = 0
            continue
        index = bits[i] >> np.uint32(16)
        low = first[index]
        high = first[index + 1]
        share = np.float32(bits[i] & np.uint32(0xFFFF)) * np.float32(1 / 65536)
        code = low + np.int32(share * np.float32(high - low))
        while code < high and thresholds[code] <= value:
            code += 1
        while code > low and thresholds[code - 1] > value:
            code -= 1
        out[i] = code
