"""tilepipe takes blur out of pictures too large for memory.

The public names; everything else may change.  They are imported at first use, so that the command line
answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tilepipe import errors
    from tilepipe.arrays import deconvolve
    from tilepipe.blind import estimate_psf
    from tilepipe.planning import Plan
    from tilepipe.planning import make_plan as plan
    from tilepipe.psf.model import PSF

__version__ = "0.1.0"

__all__ = ["PSF", "Plan", "__version__", "deconvolve", "errors", "estimate_psf", "plan"]

_HOMES = {
    "PSF": ("tilepipe.psf.model", "PSF"),
    "Plan": ("tilepipe.planning", "Plan"),
    "deconvolve": ("tilepipe.arrays", "deconvolve"),
    "errors": ("tilepipe.errors", None),
    "estimate_psf": ("tilepipe.blind", "estimate_psf"),
    "plan": ("tilepipe.planning", "make_plan"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        module, attribute = _HOMES[name]
        loaded = import_module(module)
        return loaded if attribute is None else getattr(loaded, attribute)
    raise AttributeError(f"module 'tilepipe' has no attribute {name!r}")
