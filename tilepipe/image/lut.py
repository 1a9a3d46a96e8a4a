"""Compiled lookups between code values and linear light; numpy would first convert every sample to an 8-byte index."""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.system.jit import kernel

__all__ = ["look_up", "search_codes"]

Array = Any
"""A numpy array in compiled code; numba infers the types from the call."""


@kernel
def look_up(table: Array, codes: Array, out: Array) -> None:
    """``out = table[codes]``; table float32 (2^bits,), codes unsigned (n,), out float32 (n,)."""
    for i in range(codes.size):
        out[i] = table[codes[i]]


@kernel
def search_codes(values: Array, bits: Array, thresholds: Array, first: Array, out: Array) -> None:
    """Write the nearest code of each value to `out`: the number of thresholds at or below the value.

    values float32 (n,); bits the same memory as uint32; thresholds float32, increasing; first int32 (2^15 + 1,):
    number of thresholds at or below the float whose upper 16 bits are the index.  NaN and values at or below 0
    give 0.

    A curve is nearly linear between two entries of `first`, so the lower 16 bits interpolate the initial code and few
    steps, mostly none, reach the right one; bisection took three to four times as long.
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
