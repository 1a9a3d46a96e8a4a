"""Fourier transforms of a frame: by ducc0 when it is installed (the extra ``fast``), else by scipy.

ducc0 takes half of scipy's time and writes where it is told to; it is under the GPL, hence an extra.  The two
differ in the last bits, so the library that was used is in the recipe (:func:`tilepipe.decisions.libraries`).
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.fft

__all__ = ["IN_PLACE", "LIBRARY", "forward", "inverse"]

FloatArray = npt.NDArray[np.float32]
ComplexArray = npt.NDArray[np.complex64]


def _ducc() -> ModuleType | None:
    try:
        import ducc0
    except ImportError:
        return None
    fft: ModuleType = ducc0.fft
    return fft


_fft = _ducc()

IN_PLACE = _fft is not None
"""Whether transforms can be written into memory that is there: then a workspace holds it."""


def _library() -> str:
    if _fft is None:
        return f"scipy {scipy.__version__}"
    import ducc0

    return f"ducc0 {ducc0.__version__}"


LIBRARY = _library()
"""Name and version of what transforms."""


def forward(plane: FloatArray, into: ComplexArray | None = None) -> ComplexArray:
    """Return the half spectrum of a plane (h, w), complex64 (h, w // 2 + 1); in `into` if that can be."""
    transformed: Any
    if _fft is None:
        transformed = scipy.fft.rfft2(plane, workers=1)
    else:
        transformed = _fft.r2c(plane, axes=(0, 1), nthreads=1, out=into)
    return transformed  # type: ignore[no-any-return]  # neither library carries types


def inverse(product: ComplexArray, shape: tuple[int, int], into: FloatArray | None = None) -> FloatArray:
    """Return the plane (h, w) of a half spectrum, which is destroyed; in `into` if that can be.

    scipy goes axis by axis, the first in place: half the time of irfft2, which copies its input.
    """
    plane: Any
    if _fft is None:
        columns = scipy.fft.ifft(product, axis=0, workers=1, overwrite_x=True)
        plane = scipy.fft.irfft(columns, n=shape[1], axis=1, workers=1)
    else:
        plane = _fft.c2r(
            product,
            axes=(0, 1),
            lastsize=shape[1],
            forward=False,
            inorm=2,
            nthreads=1,
            out=into,
            allow_overwriting_input=True,
        )
    return plane  # type: ignore[no-any-return]  # neither library carries types
