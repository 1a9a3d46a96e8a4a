"""Decorators for all numba kernels, and a writable cache folder for numba.

With ``cache=True`` numba raises at import if it finds no writable folder (a read-only install, a missing home).  If the
package's folder is not writable, numba's cache is set to the user's cache folder or, failing that, a temporary folder.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["contracting_kernel", "kernel"]


def _ensure_cache_folder() -> None:
    """Set numba's cache folder before numba is imported, unless the user set one."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return
    here = Path(__file__).parent
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    if os.access(here, os.W_OK):
        return  # numba's own default, beside the source
    for folder in (base / "tilepipe-numba", Path(tempfile.gettempdir()) / f"tilepipe-numba-{os.getpid()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            os.environ["NUMBA_CACHE_DIR"] = str(folder)
            return


_ensure_cache_folder()

import numba  # noqa: E402  # after its cache folder is set


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function`: nopython, without the GIL, serial, cached on disk.

    Division by zero gives infinity, as in numpy: raising an error would need a branch, which prevents vectorization.
    """
    compiled: Callable[P, R] = numba.njit(nogil=True, cache=True, fastmath=False, error_model="numpy")(function)
    return compiled


def contracting_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as :func:`kernel`, but allow fused multiply-add, which does not round products; for sums of taps."""
    compiled: Callable[P, R] = numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")(function)
    return compiled
