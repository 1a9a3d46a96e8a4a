"""Deblurring of images that are larger than memory.

The names in ``__all__`` are public; everything else may change.  They are imported at first use, so that the command
line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilepipe import errors
    from tilepipe.arrays.deconvolve import deconvolve
    from tilepipe.execution.runnable import RunnablePlan as Plan
    from tilepipe.execution.runnable import plan
    from tilepipe.planning.find_psf import estimate_psf
    from tilepipe.psf.field import PSFField, load_psf
    from tilepipe.psf.model import PSF

__version__ = "0.1.0"

__all__ = ["PSF", "PSFField", "Plan", "__version__", "deconvolve", "errors", "estimate_psf", "load_psf", "plan"]

_LOCATIONS = {
    "PSF": ("tilepipe.psf.model", "PSF"),
    "PSFField": ("tilepipe.psf.field", "PSFField"),
    "Plan": ("tilepipe.execution.runnable", "RunnablePlan"),
    "deconvolve": ("tilepipe.arrays.deconvolve", "deconvolve"),
    "errors": ("tilepipe.errors", None),
    "estimate_psf": ("tilepipe.planning.find_psf", "estimate_psf"),
    "load_psf": ("tilepipe.psf.field", "load_psf"),
    "plan": ("tilepipe.execution.runnable", "plan"),
}


def __getattr__(name: str) -> Any:
    if name in _LOCATIONS:
        module, attribute = _LOCATIONS[name]
        loaded = import_module(module)
        return loaded if attribute is None else getattr(loaded, attribute)
    raise AttributeError(f"module 'tilepipe' has no attribute {name!r}")
