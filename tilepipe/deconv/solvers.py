"""The solvers behind one face: a frame, a PSF and frozen numbers in, the restored frame out."""

from __future__ import annotations

from tilepipe.deconv import admm, richardson_lucy
from tilepipe.deconv.dct import denoise
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.dtypes import FloatArray

__all__ = ["restore"]


def restore(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """Restore ``work.x`` from ``work.y`` in place and return it.

    Parameters
    ----------
    work : workspace with ``y`` (NaN = unknown) and the start ``x`` filled in, finite everywhere.
    spectrum : the PSF prepared for this frame shape.
    parameters : frozen numbers from the recipe.

    Returns
    -------
    ``work.x``, float32 (c, h, w), linear light.

    Raises
    ------
    ValueError : `work` and `spectrum` have different shapes.
    """
    if work.shape != spectrum.shape:
        raise ValueError(f"workspace {work.shape} and PSF spectrum {spectrum.shape} differ in shape")
    if parameters.solver == "richardson-lucy":
        return richardson_lucy.restore(work, spectrum, parameters)
    if parameters.solver == "cosines":
        denoise(work.x, parameters, work.e[0])
        work.x[...] = work.e[0]
    else:
        admm.restore(work, spectrum, parameters)
    return work.x
