r"""Masked ADMM with a prior of the gradients, in residual form: the solver that tiles can trust.

The model is ``y = k * x + n`` where ``y`` is known; the solver minimises

.. math:: \tfrac12 \| M (k * x - y) \|^2 + \lambda \sum |\nabla x|

with the gradient's norm taken jointly over rows, columns and colours; other priors than total variation
differ in the shrinkage (:mod:`tilepipe.deconv.priors`).  Two splits make every update
either pointwise or diagonal in Fourier space: ``v = Kx`` with the known-pixel mask ``M`` (unknown rims are then
exact: Matakos, Ramani & Fessler 2013, eq. 9-15; Almeida & Figueiredo 2013; so are clipped samples, which say that Kx
is at least white: v is then the projection ``max(Kx + d, white)``) and ``w = Dx`` (Goldstein & Osher 2009).  One
step with penalties r1, r2 and scaled duals d, e::

    v = (M y + r1 (Kx + d)) / (M + r1)        d <- d + Kx - v
    w = shrink(Dx + e, lambda / r2)           e <- e + Dx - w
    x = argmin of r1 |Kx - v + d|^2 + r2 |Dx - w + e|^2

**Residual form.**  The last line is solved for the *change* of x, from the sources
``a = v - d - Kx`` and ``b = w - e - Dx``.  On an endless picture that is the same step.  On a frame cut
out of a picture it is what makes the frame local: the sources are tapered to zero at the frame's edge,
so the wrap of the Fourier transform has nothing to carry round, and what lies outside is missing rather
than wrong.  The error that a cut leaves behind decays with the distance from it; how fast is measured
by :mod:`tilepipe.planning.seam_error`.

**Noise that grows with the light** (shot noise) makes M = 1 / (base + slope Kx), the inverse of each pixel's variance.

**Closing steps** exchange the gradients for patches of cosines (:mod:`tilepipe.deconv.dct`).

No number in here depends on the pixels: penalties, steps and the shrinkage come from the recipe.
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
    """As :func:`tilepipe.deconv.solvers.restore`; the outermost ``TAPER`` pixels are the start's."""
    _begin(work)
    r2 = parameters.r2
    for _ in range(parameters.steps):
        _step(work, spectrum, parameters, r2)
        r2 *= parameters.growth
    if parameters.closing:
        _close(work, spectrum, parameters)
    return work.x


def steps_until(work: Workspace, spectrum: Spectrum, parameters: Parameters, least: float, most: int) -> int:
    """Return how many steps are worth it, 1..most: the first that changes less than the share `least` of all ends them.

    Changes are root mean squares over the workspace: of a step, and from the start to there.
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
    """One ADMM step; r2 grows afterwards, and the scaled dual e shrinks with it."""
    f32, tau = np.float32, parameters.lam / r2
    table, per_unit = shrinkage(parameters.solver, tau, parameters.scale)
    rescale, tapers = f32(1 / parameters.growth), (spectrum.taper_y, spectrum.taper_x)
    prior_pass(
        work.x, work.e, f32(tau), table, f32(per_unit), f32(parameters.base), f32(parameters.slope), rescale, *tapers
    )
    for channel in range(work.channels):
        _solve(work, spectrum, parameters, channel, work.x[channel], (spectrum.dy, spectrum.dx), r2)


def _close(work: Workspace, spectrum: Spectrum, parameters: Parameters) -> None:
    """Closing steps towards what the sliding cosine transform leaves of x; its result is the picture."""
    near = work.e[0]
    flat = (np.zeros_like(spectrum.dy), np.ones_like(spectrum.dx))
    for _ in range(parameters.closing):
        denoise(work.x, parameters, near)
        for channel in range(work.channels):
            pull(work.x[channel], near[channel], spectrum.taper_y, spectrum.taper_x)
            _solve(work, spectrum, parameters, channel, near[channel], flat, parameters.rz)
    denoise(work.x, parameters, near)
    work.x[...] = near


def _solve(
    work: Workspace,
    spectrum: Spectrum,
    parameters: Parameters,
    channel: int,
    pull_of_prior: FloatArray,
    eigenvalues: tuple[FloatArray, FloatArray],
    weight: float,
) -> None:
    """Data step of a channel, then its x-step: the prior's source `pull_of_prior` weighs `weight`.

    `eigenvalues` are those of the prior's normal operator along rows and columns, which add up.
    """
    state, otf, r1 = work.spectra[channel], spectrum.otf(channel), np.float32(parameters.r1)
    forward(pull_of_prior, work.spare_spectrum)
    multiply(otf, state, work.product)
    source = inverse(work.product, work.x[channel])  # x is known by its spectrum, and its memory free until the end
    noise = (np.float32(parameters.base), np.float32(parameters.slope))
    data_pass(
        work.y[channel], work.d[channel], source, work.white[channel], r1, *noise, spectrum.taper_y, spectrum.taper_x
    )
    forward(source, work.product)
    add_step(state, work.product, work.spare_spectrum, otf, *eigenvalues, r1, np.float32(weight))
    inverse(work.product, work.x[channel])
