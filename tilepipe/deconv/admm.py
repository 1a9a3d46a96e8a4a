r"""Masked ADMM with a gradient prior, in residual form, which keeps the effect of a frame's edges local.

The model is ``y = k * x + n`` where ``y`` is known; the solver minimises

.. math:: \tfrac12 \| M (k * x - y) \|^2 + \lambda \sum |\nabla x|

with the gradient's norm taken jointly over rows, columns and colours; priors other than total variation differ only in
the shrinkage (:mod:`tilepipe.deconv.priors`).  Two splits make every update either pointwise or diagonal in Fourier
space: ``v = Kx`` with the mask ``M`` of known pixels, and ``w = Dx`` (Goldstein & Osher 2009).  Unknown borders are
handled exactly (Matakos, Ramani & Fessler 2013, eq. 9-15; Almeida & Figueiredo 2013), and so are clipped samples, where
Kx is at least white: v is then the projection ``max(Kx + d, white)``.  One step with penalties r1, r2 and scaled duals
d, e::

    v = (M y + r1 (Kx + d)) / (M + r1)        d <- d + Kx - v
    w = shrink(Dx + e, lambda / r2)           e <- e + Dx - w
    x = argmin of r1 |Kx - v + d|^2 + r2 |Dx - w + e|^2

**Residual form.**  The last line is solved for the *change* of x, from the sources
``a = v - d - Kx`` and ``b = w - e - Dx``.  On an unbounded image the step is the same.  On a frame cut out of an image
the sources are tapered to zero at the frame's edge, so the periodic Fourier transform wraps nothing around, and data
outside the frame are missing rather than wrong.  The error caused by the cut decays with the distance from it;
:mod:`tilepipe.planning.seam_error` measures how fast.

**Noise that grows with the light** (shot noise): M = 1 / (base + slope Kx), the inverse of each pixel's variance.

**Closing steps** replace the gradient prior by one on 4 x 4 cosine patches (:mod:`tilepipe.deconv.dct`), first with
more denoising than the noise demands and little weight, then with less and more.

No parameter here depends on the pixels: penalties, number of steps and shrinkage come from the recipe.
"""

from __future__ import annotations

import numpy as np

from tilepipe.deconv.dct import denoise, pull
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.kernels import add_step, data_pass, multiply, prior_pass
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.priors import shrinkage
from tilepipe.deconv.transforms import forward, inverse
from tilepipe.dtypes import FloatArray

__all__ = ["restore", "steps_until"]


def restore(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> FloatArray:
    """Restore as :func:`tilepipe.deconv.solvers.restore`; the outermost ``TAPER`` pixels keep the start."""
    _begin(work)
    r2 = parameters.r2
    for _ in range(parameters.steps):
        _step(work, spectrum, parameters, r2)
        r2 *= parameters.growth
    if parameters.closing:
        _close(work, spectrum, parameters)
    return work.x


def steps_until(work: Workspace, spectrum: Spectrum, parameters: Parameters, least: float, most: int) -> int:
    """Return the number of steps until x stagnates, 1..most: the first that changes x by less than `least` is the last.

    `least` is relative to the total change since the start; changes are L2 norms over the workspace.
    """
    _begin(work)
    start, last = work.x.copy(), work.x.copy()
    r2 = parameters.r2
    for step in range(1, most):
        _step(work, spectrum, parameters, r2)
        r2 *= parameters.growth
        if np.linalg.norm(work.x - last) < least * np.linalg.norm(work.x - start):
            return step
        last[...] = work.x
    return most


def _begin(work: Workspace) -> None:
    work.d[...] = 0
    work.e[...] = 0
    for channel in range(work.channels):
        forward(work.x[channel], work.spectra[channel])


def _step(work: Workspace, spectrum: Spectrum, parameters: Parameters, r2: float) -> None:
    """Run one ADMM step; the caller multiplies r2 by the growth afterwards, so the scaled dual e is divided by it."""
    f32, tau = np.float32, parameters.lam / r2
    table, per_unit = shrinkage(parameters.solver, tau, parameters.scale)
    rescale, tapers = f32(1 / parameters.growth), (spectrum.taper_y, spectrum.taper_x)
    prior_pass(
        work.x, work.e, f32(tau), table, f32(per_unit), f32(parameters.base), f32(parameters.slope), rescale, *tapers
    )
    for channel in range(work.channels):
        _solve(work, spectrum, parameters, channel, work.x[channel], (spectrum.dy, spectrum.dx), r2)


def _close(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> None:
    """Run the closing steps, which draw x towards its denoised version, and end with one more denoising of x."""
    denoised = work.e[0]
    flat = (np.zeros_like(spectrum.dy), np.ones_like(spectrum.dx))
    for factor in parameters.closing:
        denoise(work.x, parameters, denoised, factor)
        for channel in range(work.channels):
            pull(work.x[channel], denoised[channel], spectrum.taper_y, spectrum.taper_x)
            _solve(work, spectrum, parameters, channel, denoised[channel], flat, parameters.rz / factor**2)
    denoise(work.x, parameters, denoised)
    work.x[...] = denoised


def _solve(
    work: Workspace,
    spectrum: Spectrum,
    parameters: Parameters,
    channel: int,
    prior_source: FloatArray,
    eigenvalues: tuple[FloatArray, FloatArray],
    weight: float,
) -> None:
    """Run the data step and the x-step of one channel; `weight` is the penalty of the prior's source.

    The eigenvalues of the prior's normal operator are the sums of `eigenvalues` along y and along x.
    """
    state, otf, r1 = work.spectra[channel], spectrum.otf(channel), np.float32(parameters.r1)
    forward(prior_source, work.spare_spectrum)
    multiply(otf, state, work.product)
    source = inverse(work.product, work.x[channel])  # x is held as its spectrum: its memory is free until the end
    noise = (np.float32(parameters.base), np.float32(parameters.slope))
    data_pass(
        work.y[channel], work.d[channel], source, work.white[channel], r1, *noise, spectrum.taper_y, spectrum.taper_x
    )
    forward(source, work.product)
    add_step(state, work.product, work.spare_spectrum, otf, *eigenvalues, r1, np.float32(weight))
    inverse(work.product, work.x[channel])
