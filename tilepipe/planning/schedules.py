"""From the noise and what a user wishes to the solver's numbers: no pixel but the noise's decides here."""

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
from tilepipe.psf.model import PSF

__all__ = [
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
"""How lam / sigma^2 changes with the noise below and above 1 %: the best of gray Kodak crops, 0.1 to 8 %."""

LAMBDA_COLOUR_EXPONENT = 0.3
"""How it changes with the number of colours, whose gradients shrink together."""

SPARSE_FACTOR, SPARSE_R2 = 4.0, 150.0
"""lam / sigma^2 at 1 % noise and r2 / lam for the sparse prior."""

LOG_FACTOR, LOG_NOISE_EXPONENT = 0.3, -0.3
"""lam / (b sigma^2) at 1 % noise for the log prior with exponent b, and how it changes with the noise."""

LOG_SMALLEST_SCALE, LOG_LARGEST_R2 = 3.0, 200.0
"""Scale over sigma, and r2 over sigma^2: a picture of flat surfaces would have the steps crawl."""

STAGNATION = {"fast": 0.025, "normal": 0.01, "best": 0.004}
"""A step that changes the picture by less than this share of what all have changed ends them."""

STEPS_EDGE = 320
"""Edge of the middle of a window in which stagnation is looked for, px."""

LUCY_STEPS = {"fast": 20, "normal": 40, "best": 80}
"""Accelerated steps of Richardson-Lucy."""

PRIORITY_DECADES = 0.6
"""By how many powers of ten lam falls per unit of priority: at 1 a quarter is left, more noise than detail below."""

COSINE_DECADES = 0.2
"""By how many powers of ten the cosines' thresholds fall per unit of priority."""

COSINES = (2.0, 4.0)
"""Cosines below the first go, above the second stay, in sigma.

A ramp this wide is as good as a jump at 2.5 sigma, and moves a pixel little when a rounding error moves a coefficient.
"""

SMALLEST_BASE = 0.05
"""Of the variance in black over that at the mean light: rounding and model error are there too."""


NOISE_FLOOR = 0.001
"""Noise below this is taken as this: rounding and model error are never smaller, and lam must not vanish."""


@dataclass(frozen=True)
class RestorationOptions:
    """What a user wants: settings that decide the numbers.

    Parameters
    ----------
    priority : -1 (denoise, no deblurring) .. 1 (sharper).
    quality : "fast", "normal" or "best", see :data:`SCHEDULES`.
    solver : one of :data:`tilepipe.deconv.parameters.SOLVERS`.
    refocus : restore only where the picture is blurred.
    tolerance : how many times earlier (below 1) or later (above) than by default stagnation ends the steps.
    """

    priority: float = 0.0
    quality: str = "normal"
    solver: str = "tv"
    refocus: bool = False
    tolerance: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """How the solver gets there: r1 / sigma, steps, closing steps, r2 / lam and its factor from step to step."""

    r1: float
    steps: int
    closing: int
    r2: float = 10.0
    growth: float = 1.1


FEW_CLIPPED, LAMP_STEPS = 2e-4, 16
"""Above this share of clipped pixels at least so many steps, and a penalty that does not grow.

It takes steps to find how bright a lamp is; stopped before that, the pixels round it pay with a dark ring: 0.2 became
0.10 after 8 steps, 0.18 after 13, 0.19 after 16 (a lamp six times white, line of 13 px).
"""

SLOW_PRIORS = ("sparse", "log")
"""Priors that take twice the steps, with r2 as it is: a penalty that grows would freeze them in the first minimum."""

SCHEDULES = {
    "fast": (
        Schedule(30, 6, 1),
        Schedule(14, 7, 1),
        Schedule(7, 7, 1),
        Schedule(3.5, 9, 1),
        Schedule(1.75, 12, 1, growth=1.05),
        Schedule(0.85, 16, 1, growth=1.0),
        Schedule(0.4, 16, 1, growth=1.0),
    ),
    "normal": (
        Schedule(30, 10, 2),
        Schedule(20, 8, 2),
        Schedule(14, 8, 2),
        Schedule(10, 8, 2),
        Schedule(7, 8, 2),
        Schedule(3.5, 10, 2),
        Schedule(1.75, 14, 2, growth=1.05),
        Schedule(0.85, 18, 2, growth=1.0),
        Schedule(0.4, 20, 2, growth=1.0),
    ),
    "best": (
        Schedule(30, 24, 6, growth=1.0),
        Schedule(14, 24, 6, growth=1.0),
        Schedule(7, 24, 6, growth=1.0),
        Schedule(3.5, 28, 6, growth=1.0),
        Schedule(1.75, 40, 6, growth=1.0),
        Schedule(0.85, 40, 6, growth=1.0),
        Schedule(0.4, 40, 6, growth=1.0),
    ),
}
"""For each quality the steps, the best picture of most PSFs first, the most local last.

A wide PSF at low noise rings further than a halo may reach; then the data term is made softer, with more steps to make
up for it, which may cost decibels (the plan says how many).
"""


def passes_through(psf: PSF, priority: float) -> bool:
    """Return whether pixels come out as they went in: no blur, and no denoising asked for."""
    return psf.is_delta and priority >= 0


def candidate_parameters(
    options: RestorationOptions, noise: Noise, psf: PSF, windows: Sequence[FloatArray], clipped: float = 0.0
) -> list[Parameters]:
    """Return the numbers to choose from, the best picture first, the most local last.

    Parameters
    ----------
    wishes, noise, psf : as measured and asked for.
    windows : pieces of the picture (c, h, w), linear light: the log prior's law and Richardson-Lucy's momentum
        come from the first of them.
    clipped : share of the picture's pixels whose light nobody knows.
    """
    if passes_through(psf, options.priority):
        return [PASS_THROUGH]
    noise = noise.expected(amplification(psf.kernel))
    level = replace(noise, sigma=max(noise.sigma, NOISE_FLOOR), base=max(noise.base, SMALLEST_BASE))
    if psf.is_delta:
        return [_denoising(level, options.priority)]
    exponent = LAMBDA_NOISE_EXPONENTS[level.sigma > 0.01]
    colours = len(windows[0]) ** LAMBDA_COLOUR_EXPONENT
    ease = 10 ** (-PRIORITY_DECADES * options.priority) * colours
    strength = LAMBDA_FACTOR * (level.sigma / 0.01) ** exponent * ease
    if options.solver == "richardson-lucy":
        return [_lucy(level, strength, psf, windows[0], max(1, round(LUCY_STEPS[options.quality] * options.tolerance)))]
    share = 10 ** (-COSINE_DECADES * options.priority)
    candidates = [parameters_at(rung, level, strength, share) for rung in SCHEDULES[options.quality]]
    if options.solver in SLOW_PRIORS:
        candidates = [replace(rung, growth=1.0, steps=2 * rung.steps, closing=2 * rung.closing) for rung in candidates]
    if options.solver == "sparse":
        lam = _digits(strength * SPARSE_FACTOR / LAMBDA_FACTOR * level.sigma**2)
        candidates = [replace(rung, solver="sparse", lam=lam, r2=_digits(SPARSE_R2 * lam)) for rung in candidates]
    if options.solver == "log":
        scale, heaviness = fit_log([_halved_past(psf, window) for window in windows])
        scale = _digits(max(scale, LOG_SMALLEST_SCALE * level.sigma))
        lam = _digits(LOG_FACTOR * heaviness * (level.sigma / 0.01) ** LOG_NOISE_EXPONENT * ease * level.sigma**2)
        r2 = _digits(min(lam / scale**2, LOG_LARGEST_R2 * level.sigma**2))
        candidates = [replace(rung, solver="log", lam=lam, r2=r2, scale=scale) for rung in candidates]
    candidates = _ended(candidates, options, psf, windows[0])
    if clipped > FEW_CLIPPED:
        least = round(LAMP_STEPS * min(1.0, options.tolerance))
        candidates = [replace(rung, growth=1.0, steps=max(rung.steps, least)) for rung in candidates]
    return candidates


def parameters_at(rung: Schedule, noise: Noise, strength: float, share: float = 1.0) -> Parameters:
    """Return a rung of a ladder at `noise`, every number rounded to what a recipe shows.

    `strength` is lam / sigma^2, `share` that of the cosines' thresholds.
    """
    lam = _digits(strength * noise.sigma**2)
    low, high = (_digits(share * limit * noise.sigma) for limit in COSINES)
    return Parameters(
        lam=lam,
        r1=_digits(rung.r1 * noise.sigma),
        r2=_digits(rung.r2 * lam),
        growth=rung.growth,
        steps=rung.steps,
        sigma=_digits(noise.sigma),
        base=_digits(noise.base),
        slope=_digits(noise.slope),
        closing=rung.closing,
        low=low,
        high=high,
    )


def _ended(candidates: list[Parameters], options: RestorationOptions, psf: PSF, window: FloatArray) -> list[Parameters]:
    """Return the rungs with as many times their steps as the first needs on the middle of a window to stagnate."""
    height, width = window.shape[1:]
    top, left = max(0, height - STEPS_EDGE) // 2, max(0, width - STEPS_EDGE) // 2
    middle = window[:, top : top + STEPS_EDGE, left : left + STEPS_EDGE]
    work = Workspace(len(middle), (middle.shape[1], middle.shape[2]))
    work.y[...], work.x[...] = middle, middle
    first, least = candidates[0], STAGNATION[options.quality] / options.tolerance
    most = max(1, round(first.steps * max(1.0, options.tolerance)))
    share = steps_until(work, Spectrum.of(psf.planes, work.shape), first, least, most) / first.steps
    return [replace(rung, steps=max(1, round(rung.steps * share))) for rung in candidates]


def _denoising(noise: Noise, priority: float) -> Parameters:
    """Return what takes noise off a picture that is not to be deblurred, in full at priority -1.

    Cosines alone: 0.5 to 2 dB better than total variation on four photographs at 0.5 to 10 % noise.
    """
    low, high = (_digits(-priority * limit * noise.sigma) for limit in COSINES)
    numbers = replace(PASS_THROUGH, solver="cosines", low=low, high=high)
    return replace(numbers, base=_digits(noise.base), slope=_digits(noise.slope))


def _lucy(noise: Noise, strength: float, psf: PSF, window: FloatArray, steps: int) -> Parameters:
    """Return Richardson-Lucy's numbers: lam as for total variation, where the squared error weighs 1 / light."""
    lam = _digits(strength * noise.sigma**2 / max(noise.light, noise.sigma))
    work = Workspace(len(window), (window.shape[1], window.shape[2]))
    work.y[...], work.x[...] = window, window
    momentum = find_momentum(work, Spectrum.of(psf.planes, work.shape), lam, steps)
    convolutions = "; ".join(dict.fromkeys(str(select_convolution(kernel)) for kernel in psf.planes))
    numbers = Parameters(
        lam, 0.0, 0.0, 1.0, steps, solver="richardson-lucy", momentum=momentum, convolution=convolutions
    )
    return replace(numbers, sigma=_digits(noise.sigma), base=_digits(noise.base), slope=_digits(noise.slope))


def _halved_past(psf: PSF, window: FloatArray) -> FloatArray:
    """Return a window averaged down until a third of the PSF fits a pixel: there its gradients are the scene's.

    A scene's gradients follow one law at all scales (Ruderman & Bialek 1994), so it may be read off where the blur and
    the noise are gone.
    """
    factor = 2
    while factor < psf.size / 3 and min(window.shape[1:]) >= 32 * factor:
        factor *= 2
    height, width = (length // factor for length in window.shape[1:])
    cut = window[:, : height * factor, : width * factor]
    averaged: FloatArray = cut.reshape(len(window), height, factor, width, factor).mean((2, 4))
    return averaged


def _digits(value: float) -> float:
    return float(f"{value:.4g}")
