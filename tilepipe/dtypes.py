"""Type aliases for arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["BoolArray", "DoubleArray", "FloatArray"]

FloatArray = npt.NDArray[np.float32]
"""Pixels and kernels."""

DoubleArray = npt.NDArray[np.float64]
"""Sums and fits that need double precision."""

BoolArray = npt.NDArray[np.bool_]
"""Masks."""
