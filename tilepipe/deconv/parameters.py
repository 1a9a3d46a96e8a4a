"""Parameters of a restoration, frozen in the recipe before the first tile."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ALGORITHM_VERSION", "PASS_THROUGH", "SOLVERS", "Parameters"]

ALGORITHM_VERSION = 8
"""Part of every fingerprint; incremented whenever the same recipe would give different pixels."""


SOLVERS = ("tv", "sparse", "log", "richardson-lucy")
"""Masked ADMM with a prior of :mod:`tilepipe.deconv.priors`, or :mod:`tilepipe.deconv.richardson_lucy`."""


@dataclass(frozen=True, slots=True)
class Parameters:
    """Everything that a restoration needs besides pixels and PSF.

    Parameters
    ----------
    lam : float
        Weight of the prior; for total variation in squared linear light per gradient.
    r1 : float
        Penalty of the data split (0.4 to 30 sigma, see :data:`tilepipe.planning.schedules.SCHEDULES`).
    r2 : float
        Penalty of the gradient split at the first step (10 lam for total variation).
    growth : float
        Factor of r2 from step to step.
    steps : int
        Number of steps; the method is stopped early on purpose.
    solver : str
        One of :data:`SOLVERS`, or "cosines" (denoises without deblurring) or "identity".
    scale : float
        Scale of the log prior, linear light per pixel.
    sigma : float
        Noise that the parameters are for, linear light.
    base, slope : float
        The noise's variance at light u is (base + slope u) times the one that lam is for; a pixel's data are weighted
        by the inverse.  1 and 0 when the noise is the same everywhere.
    closing : tuple of float
        Factor f of each closing step with the cosine prior, falling to 1, see :mod:`tilepipe.deconv.dct`.
    low, high : float
        Cosines weaker than `low` are removed, those stronger than `high` kept, linear light; f times as much at a
        closing step.
    rz : float
        Penalty that draws x towards the image without weak cosines; rz / f^2 at a closing step.
    momentum : tuple of float
        Momentum of every step of Richardson-Lucy.
    misfit_limit : float
        Unexplained share up to which a region counts as blurred, see :mod:`tilepipe.deconv.refocus`; 0 restores
        everywhere.
    convolution : str
        How Richardson-Lucy applies the PSF, see :mod:`tilepipe.deconv.convolution`; other solvers use transforms.
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
    closing: tuple[float, ...] = ()
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
        """Measured cost of the restoration in steps: denoising takes 0.7 of one, a selective restoration runs twice."""
        closing = 1.55 * len(self.closing) + 0.7 * bool(self.closing)
        return (self.steps + closing) * (2 if self.misfit_limit else 1)


PASS_THROUGH = Parameters(0.0, 0.0, 0.0, 1.0, 0, solver="identity")
"""No restoration: the pixels are unchanged."""
