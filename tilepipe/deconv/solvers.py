"""Common interface of the solvers: takes a frame, a PSF and frozen parameters, returns the restored frame."""

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
    work : Workspace
        With the data ``y`` (NaN where unknown) and the start ``x``, finite everywhere.
    spectrum : Spectrum
        The PSF prepared for this frame shape.
    parameters : Parameters
        Frozen parameters from the recipe.

    Returns
    -------
    ndarray of float32, shape (c, h, w)
        ``work.x``, linear light.

    Raises
    ------
    ValueError
        If `work` and `spectrum` have different shapes.
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
