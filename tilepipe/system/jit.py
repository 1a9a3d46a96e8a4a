"""Decorators for all numba kernels.

Machine code is cached where numba finds a folder that it can write: beside the source, or in the user's cache folder.
Where there is none (a read-only installation and no home), every process compiles them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numba

P = ParamSpec("P")
R = TypeVar("R")

__all__ = ["contracting_kernel", "kernel"]


def kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile `function`: nopython, without the GIL, serial, cached on disk.

    Division by zero gives infinity, as in numpy: raising an error would need a branch, which prevents vectorization.
    """
    return _compiled(function, fastmath=False)


def contracting_kernel(function: Callable[P, R]) -> Callable[P, R]:
    """Compile as :func:`kernel`, but allow fused multiply-add, which does not round products; for sums of taps."""
    return _compiled(function, fastmath={"contract"})


def _compiled(function: Callable[P, R], **options: Any) -> Callable[P, R]:
    compiled: Any = numba.njit(nogil=True, error_model="numpy", **options)(function)
    source = Path(function.__code__.co_filename).parent
    if os.access(source, os.W_OK) or _has_cache_folder():  # else numba would create a folder named "~"
        with contextlib.suppress(RuntimeError):  # no folder can be written
            compiled.enable_caching()
    made: Callable[P, R] = compiled
    return made


def _has_cache_folder() -> bool:
    """Return whether a folder outside the installation is known: the user's, or one that the environment names."""
    return os.path.expanduser("~") != "~" or any(map(os.environ.get, ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")))
