"""Candidate solver parameters from noise, PSF, user options and a few windows of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tilepipe.deconv.admm import steps_until
from tilepipe.deconv.convolution import select_convolution
from tilepipe.deconv.frames import Spectrum, Workspace, amplification
from tilepipe.deconv.noise import Noise
from tilepipe.deconv.parameters import PASS_THROUGH, Parameters
from tilepipe.deconv.priors import fit_log
from tilepipe.deconv.richardson_lucy import find_momentum
from tilepipe.dtypes import FloatArray
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.model import PSF

__all__ = [
    "CLOSING",
    "NOISE_FLOOR",
    "SCHEDULES",
    "RestorationOptions",
    "Schedule",
    "candidate_parameters",
    "parameters_at",
    "passes_through",
]

LAMBDA_FACTOR = 6.5
"""lam / sigma^2 at 1 % noise, priority 0, one colour."""

LAMBDA_NOISE_EXPONENTS = (-0.6, -0.8)
"""Exponents of lam / sigma^2 over the noise, below and above 1 %: best on gray Kodak crops, 0.1 to 8 % noise."""

LAMBDA_COLOUR_EXPONENT = 0.3
"""Exponent of lam over the number of colours, whose gradients shrink together."""

SPARSE_FACTOR, SPARSE_R2 = 4.0, 150.0
"""lam / sigma^2 at 1 % noise and r2 / lam for the sparse prior."""

LOG_FACTOR, LOG_NOISE_EXPONENT = 0.3, -0.3
"""lam / (b sigma^2) at 1 % noise for the log prior with exponent b, and its exponent over the noise."""

LOG_SMALLEST_SCALE, LOG_LARGEST_R2 = 3.0, 200.0
"""Lower bound of scale / sigma and upper bound of r2 / sigma^2: flat images would make convergence very slow."""

STAGNATION = {"fast": 0.025, "normal": 0.01, "best": 0.004}
"""Steps end when one changes the image by less than this share of the total change."""

STEPS_EDGE = 320
"""Edge of the central part of a window on which stagnation is measured, px."""

LUCY_STEPS = {"fast": 20, "normal": 40, "best": 80}
"""Number of accelerated Richardson-Lucy steps."""

PRIORITY_DECADES = 0.6
"""Decrease of lam per unit of priority, in powers of ten: at 1 a quarter is left; less adds more noise than detail."""

COSINE_DECADES = 0.2
"""Decrease of the cosine thresholds per unit of priority, in powers of ten."""

COSINES = (2.0, 4.0)
"""Cosine coefficients below the first are removed, above the second kept; in sigma.

A ramp this wide is as good as a hard threshold at 2.5 sigma, and limits the effect of rounding errors in a coefficient.
"""

SMALLEST_BASE = 0.05
"""Lower bound of the variance in black over that at the mean light, for rounding and model errors."""


NOISE_FLOOR = 0.001
"""Lower bound of the noise: rounding and model errors are never smaller, and lam must not vanish."""


@dataclass(frozen=True)
class RestorationOptions:
    """User settings that determine the solver parameters.

    Parameters
    ----------
    priority : float
        -1 (denoise, no deblurring) .. 1 (sharper).
    quality : {"fast", "normal", "best"}
        See :data:`SCHEDULES`.
    solver : str
        One of :data:`tilepipe.deconv.parameters.SOLVERS`.
    refocus : bool
        Restore only where the image is blurred.
    tolerance : float
        Below 1 stagnation ends the steps earlier, above 1 later than by default; a factor on Richardson-Lucy's steps.
    """

    priority: float = 0.0
    quality: str = "normal"
    solver: str = "tv"
    refocus: bool = False
    tolerance: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """Step schedule: r1 / sigma, steps, r2 / lam at the first step and its factor per step."""

    r1: float
    steps: int
    r2: float = 10.0
    growth: float = 1.1


CLOSING = {"fast": (1.75, 1.0), "normal": (2.0, 1.4, 1.0), "best": (2.0, 2.0, 2.0, 1.4, 1.0)}
"""Factors of the closing steps: above 3.5, or falling by more than 1.75, the restoration diverges.

With 3, 3, 2, 1.4, 1 sharp images with white noise gain 0.4 to 0.8 dB more, but slightly soft photographs lose texture.
"""

SLOW_PRIORS = ("sparse", "log")
"""Priors that take twice the steps with constant r2: a growing penalty would freeze them in the first minimum."""

SCHEDULES = {
    "fast": (
        Schedule(30, 8),
        Schedule(14, 8),
        Schedule(7, 8),
        Schedule(3.5, 9),
        Schedule(1.75, 12, growth=1.05),
        Schedule(0.85, 16, growth=1.0),
        Schedule(0.4, 16, growth=1.0),
    ),
    "normal": (
        Schedule(30, 10),
        Schedule(20, 8),
        Schedule(14, 8),
        Schedule(10, 8),
        Schedule(7, 8),
        Schedule(3.5, 10),
        Schedule(1.75, 14, growth=1.05),
        Schedule(0.85, 18, growth=1.0),
        Schedule(0.4, 20, growth=1.0),
    ),
    "best": (
        Schedule(30, 24, growth=1.0),
        Schedule(14, 24, growth=1.0),
        Schedule(7, 24, growth=1.0),
        Schedule(3.5, 28, growth=1.0),
        Schedule(1.75, 40, growth=1.0),
        Schedule(0.85, 40, growth=1.0),
        Schedule(0.4, 40, growth=1.0),
    ),
}
"""Schedules of each quality, from the best image for most PSFs to the most local.

A wide PSF at low noise rings further than the widest halo; then a softer data term is used, with more steps to
compensate, which may cost decibels (the plan states how many).
"""


def passes_through(psf: AnyPSF, priority: float) -> bool:
    """Return whether pixels pass through unchanged: no blur, and no denoising requested."""
    return psf.is_delta and priority >= 0


def candidate_parameters(
    options: RestorationOptions,
    noise: Noise,
    psf: PSF,
    windows: Sequence[FloatArray],
    amplified: float | None = None,
) -> list[Parameters]:
    """Return candidate parameters, from the best image to the most local.

    Parameters
    ----------
    options : RestorationOptions
        The user's options.
    noise : Noise
        Noise of the image.
    psf : PSF
        The blur.
    windows : sequence of ndarray of float32, shape (c, h, w)
        Linear light.  The log prior is fitted to all; stagnation and Richardson-Lucy's momentum come from the first.
    amplified : float, optional
        Amplification of noise by the inverse of the PSF; by default that of `psf`.
    """
    if passes_through(psf, options.priority):
        return [PASS_THROUGH]
    hidden = noise.hidden > 0
    noise = noise.expected(amplification(psf.kernel) if amplified is None else amplified)
    level = replace(noise, sigma=max(noise.sigma, NOISE_FLOOR), base=max(noise.base, SMALLEST_BASE))
    if psf.is_delta:
        return [_denoising_parameters(level, options.priority)]
    exponent = LAMBDA_NOISE_EXPONENTS[level.sigma > 0.01]
    colours = len(windows[0]) ** LAMBDA_COLOUR_EXPONENT
    scaling = 10 ** (-PRIORITY_DECADES * options.priority) * colours
    strength = LAMBDA_FACTOR * (level.sigma / 0.01) ** exponent * scaling
    if options.solver == "richardson-lucy":
        return [
            _lucy_parameters(
                level, strength, psf, windows[0], max(1, round(LUCY_STEPS[options.quality] * options.tolerance))
            )
        ]
    share = 10 ** (-COSINE_DECADES * options.priority)
    closing = CLOSING[options.quality]
    if hidden:  # such noise is not white: more denoising than it demands would remove texture (JPEG: 0.1 to 2 dB)
        closing = (1.0,) * (len(closing) - 1)
    candidates = [parameters_at(schedule, closing, level, strength, share) for schedule in SCHEDULES[options.quality]]
    if options.solver in SLOW_PRIORS:
        candidates = [
            replace(one, growth=1.0, steps=2 * one.steps, closing=tuple(sorted(2 * one.closing, reverse=True)))
            for one in candidates
        ]
    if options.solver == "sparse":
        lam = _rounded(strength * SPARSE_FACTOR / LAMBDA_FACTOR * level.sigma**2)
        candidates = [replace(one, solver="sparse", lam=lam, r2=_rounded(SPARSE_R2 * lam)) for one in candidates]
    if options.solver == "log":
        scale, heaviness = fit_log([_averaged_down(psf, window) for window in windows])
        scale = _rounded(max(scale, LOG_SMALLEST_SCALE * level.sigma))
        lam = _rounded(LOG_FACTOR * heaviness * (level.sigma / 0.01) ** LOG_NOISE_EXPONENT * scaling * level.sigma**2)
        r2 = _rounded(min(lam / scale**2, LOG_LARGEST_R2 * level.sigma**2))
        candidates = [replace(one, solver="log", lam=lam, r2=r2, scale=scale) for one in candidates]
    return _scaled_steps(candidates, options, psf, windows[0])


def parameters_at(
    schedule: Schedule, closing: tuple[float, ...], noise: Noise, strength: float, share: float = 1.0
) -> Parameters:
    """Return the parameters of `schedule` and `closing` at `noise`, each rounded to the digits that a recipe shows.

    `strength` is lam / sigma^2, `share` scales the cosine thresholds.
    """
    lam = _rounded(strength * noise.sigma**2)
    low, high = (_rounded(share * limit * noise.sigma) for limit in COSINES)
    return Parameters(
        lam=lam,
        r1=_rounded(schedule.r1 * noise.sigma),
        r2=_rounded(schedule.r2 * lam),
        growth=schedule.growth,
        steps=schedule.steps,
        sigma=_rounded(noise.sigma),
        base=_rounded(noise.base),
        slope=_rounded(noise.slope),
        closing=closing,
        low=low,
        high=high,
    )


def _scaled_steps(
    candidates: list[Parameters], options: RestorationOptions, psf: PSF, window: FloatArray
) -> list[Parameters]:
    """Scale the steps of all candidates by the share that the first needs to stagnate on the middle of a window."""
    height, width = window.shape[1:]
    top, left = max(0, height - STEPS_EDGE) // 2, max(0, width - STEPS_EDGE) // 2
    middle = window[:, top : top + STEPS_EDGE, left : left + STEPS_EDGE]
    work = Workspace(len(middle), (middle.shape[1], middle.shape[2]))
    work.y[...], work.x[...] = middle, middle
    first, least = candidates[0], STAGNATION[options.quality] / options.tolerance
    most = max(1, round(first.steps * max(1.0, options.tolerance)))
    share = steps_until(work, Spectrum.of(psf.planes, work.shape), first, least, most) / first.steps
    return [replace(one, steps=max(1, round(one.steps * share))) for one in candidates]


def _denoising_parameters(noise: Noise, priority: float) -> Parameters:
    """Return the parameters that denoise an image without deblurring, in full at priority -1.

    Cosines alone: 0.5 to 2 dB better than total variation on four photographs at 0.5 to 10 % noise.
    """
    low, high = (_rounded(-priority * limit * noise.sigma) for limit in COSINES)
    parameters = replace(PASS_THROUGH, solver="cosines", low=low, high=high)
    return replace(parameters, base=_rounded(noise.base), slope=_rounded(noise.slope))


def _lucy_parameters(noise: Noise, strength: float, psf: PSF, window: FloatArray, steps: int) -> Parameters:
    """Return Richardson-Lucy's parameters: lam as for total variation, where the squared error weighs 1 / light."""
    lam = _rounded(strength * noise.sigma**2 / max(noise.light, noise.sigma))
    work = Workspace(len(window), (window.shape[1], window.shape[2]))
    work.y[...], work.x[...] = window, window
    momentum = find_momentum(work, Spectrum.of(psf.planes, work.shape), lam, steps)
    convolutions = "; ".join(dict.fromkeys(str(select_convolution(kernel)) for kernel in psf.planes))
    parameters = Parameters(
        lam, 0.0, 0.0, 1.0, steps, solver="richardson-lucy", momentum=momentum, convolution=convolutions
    )
    return replace(parameters, sigma=_rounded(noise.sigma), base=_rounded(noise.base), slope=_rounded(noise.slope))


def _averaged_down(psf: PSF, window: FloatArray) -> FloatArray:
    """Return a window averaged down until a third of the PSF fits into a pixel: its gradients are then the scene's.

    The gradients of a scene follow one law at all scales (Ruderman & Bialek 1994), so the law can be fitted where blur
    and noise are averaged out.
    """
    factor = 2
    while factor < psf.size / 3 and min(window.shape[1:]) >= 32 * factor:
        factor *= 2
    height, width = (length // factor for length in window.shape[1:])
    cut = window[:, : height * factor, : width * factor]
    averaged: FloatArray = cut.reshape(len(window), height, factor, width, factor).mean((2, 4))
    return averaged


def _rounded(value: float) -> float:
    """Return `value` with four significant digits."""
    return float(f"{value:.4g}")
