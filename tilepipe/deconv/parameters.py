"""The numbers of a restoration, frozen in the recipe before the first tile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALGORITHM_VERSION", "PASS_THROUGH", "SOLVERS", "Parameters"]

ALGORITHM_VERSION = 5
"""Part of every fingerprint; raised whenever the same recipe would give other pixels."""


SOLVERS = ("tv", "sparse", "log", "richardson-lucy")
"""Masked ADMM with one of the priors of :mod:`tilepipe.deconv.priors`, and :mod:`tilepipe.deconv.richardson_lucy`."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that one restoration needs besides pixels and PSF.

    Parameters
    ----------
    lam : weight of the prior; of the total variation, linear light squared over gradient.
    r1 : penalty of the data split (about 30 sigma).
    r2 : penalty of the gradient split at the first step (about 20 lam).
    growth : factor of r2 from step to step.
    steps : number of steps; the method is stopped early on purpose.
    solver : one of :data:`SOLVERS`, or "cosines" (noise taken off, nothing deblurred) or "identity".
    scale : of the log prior, linear light per pixel.
    sigma : the noise that these numbers are for, linear light.
    base, slope : the noise's variance at light u is (base + slope u) times the one that lam is for: a pixel's data
        weigh by the inverse.  1 and 0 when noise is the same everywhere.
    closing : closing steps with the cosine prior, see :mod:`tilepipe.deconv.dct`.
    low, high : cosines weaker than `low` go, stronger than `high` stay, linear light.
    unexplained : share of the residual up to which a place is blurred, see :mod:`tilepipe.deconv.refocus`; 0 restores
        everywhere.
    momentum : of every step of Richardson-Lucy.
    convolution : how it applies the PSF, see :mod:`tilepipe.deconv.convolution`; the others do it by transforms.
    rz : penalty that draws x towards the picture without weak cosines.
    """

    lam: float
    r1: float
    r2: float
    growth: float
    steps: int
    solver: str = "tv"
    scale: float = 0.0
    sigma: float = 0.0
    base: float = 1.0
    slope: float = 0.0
    closing: int = 0
    low: float = 0.0
    high: float = 0.0
    rz: float = 0.3
    momentum: tuple[float, ...] = ()
    misfit_limit: float = 0.0
    convolution: str = "Fourier"

    @property
    def keeps_spectra(self) -> bool:
        """Whether the solver keeps the spectrum of x from step to step."""
        return self.solver != "richardson-lucy"

    @property
    def passes(self) -> float:
        """What the restoration costs, in steps: a closing one denoises besides, a selective one is done twice."""
        return (self.steps + 2.2 * self.closing) * (2 if self.misfit_limit else 1)


PASS_THROUGH = Parameters(0.0, 0.0, 0.0, 1.0, 0, solver="identity")
"""Nothing is restored: pixels come out as they went in."""
