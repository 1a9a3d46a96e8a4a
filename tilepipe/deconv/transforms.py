"""Orthonormal Fourier transforms of a frame: by ducc0 if installed (the extra ``fast``), else by numpy and scipy.

All write into preallocated arrays: allocating and freeing the pages of temporary arrays took a fifth of a restoration's
time.  numpy can transform rows into an output array; scipy is faster along columns and works in place.  ducc0 takes two
thirds of their time; it is an extra because it is under the GPL.  The results differ in the last bits, so the recipe
records the library (:func:`tilepipe.planning.memo.libraries`).

The transforms are orthonormal because numpy computes an unscaled forward transform in double precision.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
import scipy.fft

from tilepipe.dtypes import FloatArray

__all__ = ["LIBRARY", "forward", "inverse"]

ComplexArray = npt.NDArray[np.complex64]

ORTHONORMAL = 1
"""ducc0's code for orthonormal scaling."""


def _ducc() -> ModuleType | None:
    try:
        import ducc0
    except ImportError:
        return None
    fft: ModuleType = ducc0.fft
    return fft


_fft = _ducc()

_rows: Any = np.fft
"""Any, because numpy's type stubs cover double precision only."""


def _library() -> str:
    if _fft is None:
        return f"scipy {scipy.__version__}"
    import ducc0

    return f"ducc0 {ducc0.__version__}"


LIBRARY = _library()
"""Name and version of the library that computes the transforms."""


def forward(plane: FloatArray, into: ComplexArray) -> ComplexArray:
    """Write the half spectrum of a plane (h, w) to `into`, complex64 (h, w // 2 + 1), and return it."""
    if _fft is None:
        _rows.rfft(plane, axis=1, norm="ortho", out=into)
        spectrum: Any = scipy.fft.fft(into, axis=0, norm="ortho", workers=1, overwrite_x=True)
        if spectrum is not into and not np.shares_memory(spectrum, into):  # scipy does not guarantee in-place operation
            into[...] = spectrum
    else:
        _fft.r2c(plane, axes=(0, 1), inorm=ORTHONORMAL, nthreads=1, out=into)
    return into


def inverse(spectrum: ComplexArray, into: FloatArray) -> FloatArray:
    """Write the inverse of a half spectrum, which is overwritten, to `into`, float32 (h, w), and return it."""
    if _fft is None:
        columns: Any = scipy.fft.ifft(spectrum, axis=0, norm="ortho", workers=1, overwrite_x=True)
        _rows.irfft(columns, n=into.shape[1], axis=1, norm="ortho", out=into)
    else:
        _fft.c2r(
            spectrum,
            axes=(0, 1),
            lastsize=into.shape[1],
            forward=False,
            inorm=ORTHONORMAL,
            nthreads=1,
            out=into,
            allow_overwriting_input=True,
        )
    return into
