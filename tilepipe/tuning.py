"""Numbers that find themselves: penalties from the noise, the halo from a measurement, frozen for all tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.locality import MAX_HALO, SEAM_LIMIT, Profile, SyntheticScene, measure_profile
from tilepipe.deconv.tv import TvParameters
from tilepipe.errors import PsfError
from tilepipe.image.sample import Sample
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import OVERLAP, Grid

__all__ = ["LADDERS", "TUNING_VERSION", "Tuning", "check_psf_fits", "passes_through", "tune"]

FloatArray = npt.NDArray[np.float32]

TUNING_VERSION = 2
"""Raised whenever the same windows would give other numbers."""

LAMBDA_FACTOR = 8.5
"""lam / sigma^2 at 1 % noise, priority 0, one colour."""

LAMBDA_NOISE_EXPONENT = -0.5
"""How lam / sigma^2 changes with the noise: at 0.1 to 6 % within 0.15 dB of the best on gray Kodak crops."""

LAMBDA_COLOUR_EXPONENT = 0.3
"""How it changes with the number of colours, whose gradients shrink together."""

NOISE_FLOOR = 0.001
"""Noise below this is taken as this: rounding and model error are never smaller, and lam must not vanish."""


@dataclass(frozen=True)
class Rung:
    """How the solver gets there: r1 / sigma, steps, r2 / lam at the first step, growth of r2 from step to step."""

    r1: float
    steps: int
    r2: float = 20.0
    growth: float = 1.0


LADDERS = {
    "fast": (
        Rung(30, 10, 10, 1.5),
        *(Rung(r1, 16, 10, 1.28) for r1 in (14, 7, 3.5, 1.75, 0.85, 0.4)),
    ),
    "normal": (
        *(Rung(r1, 20) for r1 in (30, 14, 7)),
        Rung(3.5, 28),
        *(Rung(r1, 40) for r1 in (1.75, 0.85, 0.4)),
    ),
    "best": tuple(Rung(r1, 40) for r1 in (7, 3.5, 1.75, 0.85, 0.4)),
}
"""For each quality the steps, the best picture of most PSFs first, the most local last.

A wide PSF at low noise rings further than a halo may reach; then the data term is made softer, with more steps to make
up for it, which may cost decibels (the plan says how many).  Steps without growth are better than fewer with it, and
more local: on four photographs, joint colour, 0.4 (3 % noise) to 1.5 dB (0.3 %) between fast and normal, 0.1 to 0.35 dB
between normal and best; on gray crops of 256 px best gains nothing.
"""

NANOSECONDS = 25.0
"""CPU time per pixel, channel and step where nothing was restored while planning (19 to 30 at 512 to 1152 px)."""

PROBES = 3
"""Windows of the picture in which the seam error is measured."""


DENOISE_FACTOR = 0.7
"""lam = 0.7 sigma at priority -1 for a picture that is not blurred.

Of 0.35, 0.7 and 1.4 the best, or within 0.1 dB of it, on a made scene at 0.5 and 2 % noise.
"""


@dataclass(frozen=True)
class Tuning:
    """The outcome.

    Parameters
    ----------
    noise : estimated standard deviation, linear light 0..1.
    parameters : the solver's numbers.
    halo : px.
    profile : predicted difference to the untiled result against halo; None when nothing is solved.
    price : decibels given up, on a synthetic scene, so that the halo suffices; 0 when nothing was.
    nanoseconds : measured time per pixel, channel and step, one thread.
    """

    noise: float
    parameters: TvParameters
    halo: int
    profile: Profile | None
    price: float
    nanoseconds: float

    def seam(self, grid: Grid) -> float:
        """Return the predicted largest difference to the untiled result on `grid`, encoded 0..1."""
        return 0.0 if self.profile is None else self.profile.predict(grid.halo, grid.seam_length)


def tune(
    sample: Sample, psf: PSF, priority: float, halo: int | None, *, quality: str = "normal", seams: bool = True
) -> Tuning:
    """Derive all numbers from windows of the picture.

    Parameters
    ----------
    sample : windows of the picture, up to ``locality.WINDOW`` px an edge.
    psf : the blur; a delta needs no solver and no halo, unless the picture is to be denoised.
    priority : -1..1; lam falls tenfold per unit.
    halo : px when the user fixed it: penalties stay what they would be, only the prediction changes.
    quality : "fast", "normal" or "best", see :data:`LADDERS`.
    seams : False for a picture of one tile: nothing is measured or softened for a cut, the halo is a mere rim.
    """
    noise = float(f"{sample.noise():.3g}")
    if passes_through(psf, priority):
        return Tuning(noise, TvParameters(0.0, 0.0, 0.0, 1.0, 0), 0, None, 0.0, 0.0)
    level = max(noise, NOISE_FLOOR)
    strength = _strength(psf, priority, level, len(sample.windows[0]))
    ladder = [_parameters(level, strength, rung) for rung in LADDERS[quality]]
    if not seams:
        rim = min(max(64, -(-psf.size // 8) * 16), MAX_HALO)
        return Tuning(noise, ladder[0], rim if halo is None else halo, None, 0.0, NANOSECONDS)
    kernels = psf.planes
    scene = SyntheticScene(psf.kernel, level)
    probes = sample.liveliest(PROBES)
    best = scene.decibels(ladder[0])  # compiles, too: what follows can be timed
    started = time.perf_counter()
    profiles = {0: measure_profile(kernels, ladder[0], probes, scene, OVERLAP)}
    nanoseconds = (time.perf_counter() - started) / _pixels(probes, scene) / ladder[0].steps * 1e9

    def reaches(rung: int) -> bool:
        if rung not in profiles:
            profiles[rung] = measure_profile(kernels, ladder[rung], probes, scene, OVERLAP)
        return profiles[rung].halo() is not None

    rung = 0 if reaches(0) else _first(reaches, 1, len(ladder) - 1)
    parameters, profile = ladder[rung], profiles[rung]
    price = best - scene.decibels(parameters) if rung else 0.0
    chosen = _halo(profile, psf) if halo is None else halo
    return Tuning(noise, parameters, chosen, profile, round(max(0.0, price), 1), nanoseconds)


def passes_through(psf: PSF, priority: float) -> bool:
    """Return whether pixels come out as they went in: no blur, and no denoising asked for."""
    return psf.is_delta and priority >= 0


def _halo(profile: Profile, psf: PSF) -> int:
    """Return the profile's halo, at least what the kernel itself touches.

    Half the limit is aimed at: the largest of many errors is a matter of luck, and a step more costs little.
    """
    halo = profile.halo(SEAM_LIMIT / 2) or profile.halo(SEAM_LIMIT) or MAX_HALO
    return max(halo, -(-psf.size // 32) * 16)


def _strength(psf: PSF, priority: float, noise: float, colours: int) -> float:
    """Return lam / sigma^2: tenfold less per unit of priority; without blur proportional to sigma, for denoising."""
    if psf.is_delta:
        return DENOISE_FACTOR / noise * 10 ** -(priority + 1)
    level = LAMBDA_FACTOR * (noise / 0.01) ** LAMBDA_NOISE_EXPONENT * colours**LAMBDA_COLOUR_EXPONENT
    return float(level * 10**-priority)


def _parameters(noise: float, strength: float, rung: Rung) -> TvParameters:
    """Return a rung of the ladder at `noise`, every number rounded to what a recipe shows."""
    lam = float(f"{strength * noise**2:.4g}")
    return TvParameters(lam, float(f"{rung.r1 * noise:.4g}"), float(f"{rung.r2 * lam:.4g}"), rung.growth, rung.steps)


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """Return the smallest index in low..high for which the monotone `holds` is true, else `high`."""
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    holds(low)
    return low


def _pixels(probes: Sequence[FloatArray], scene: SyntheticScene) -> int:
    """Return how many pixels, channels counted, one profile restores (a window and its cut)."""
    return int(sum(1.6 * window.size for window in [*probes, scene.blurred]))


def check_psf_fits(psf: PSF, height: int, width: int, colours: int) -> None:
    """Raise PsfError when the PSF is wider than the picture, or is for another number of colours."""
    if len(psf.planes) not in (1, colours):
        raise PsfError(
            f"the PSF has kernels for {len(psf.planes)} colours, the picture has {colours}: give a PSF with one kernel"
        )
    if psf.size > min(height, width):
        raise PsfError(
            f"PSF is {psf.size} x {psf.size}, the picture {width} x {height}: it must be at least as large; "
            "crop the PSF or give the whole picture"
        )
