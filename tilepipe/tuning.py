"""Numbers that find themselves: penalties from the noise, the halo from a measurement, frozen for all tiles."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.locality import HALO_STEP, MAX_HALO, SEAM_LIMIT, Profile, SyntheticScene, measure_profile
from tilepipe.deconv.parameters import PASS_THROUGH, Parameters
from tilepipe.deconv.refocus import reach, unexplained_share
from tilepipe.errors import PsfError
from tilepipe.image.sample import Sample
from tilepipe.penalties import NOISE_FLOOR, Wishes, ladder, passes_through
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import OVERLAP, Grid

__all__ = ["TUNING_VERSION", "Tuning", "check_psf_fits", "tune"]

FloatArray = npt.NDArray[np.float32]

TUNING_VERSION = 4
"""Raised whenever the same windows would give other numbers."""

NANOSECONDS = 25.0
"""CPU time per pixel, channel and step where nothing was restored while planning (19 to 30 at 512 to 1152 px)."""

PROBES = 2
"""Windows of the picture in which the seam error is measured, in colour: in gray it is four to eight times smaller."""


@dataclass(frozen=True)
class Tuning:
    """The outcome.

    Parameters
    ----------
    noise : estimated standard deviation at the mean light, linear light 0..1.
    parameters : the solver's numbers.
    halo : px.
    profile : predicted difference to the untiled result against halo; None when nothing is solved.
    price : decibels given up, on a synthetic scene, so that the halo suffices; 0 when nothing was.
    nanoseconds : measured time per pixel, channel and step, one thread.
    """

    noise: float
    parameters: Parameters
    halo: int
    profile: Profile | None
    price: float
    nanoseconds: float

    def seam(self, grid: Grid) -> float:
        """Return the predicted largest difference to the untiled result on `grid`, encoded 0..1."""
        return 0.0 if self.profile is None else self.profile.predict(grid.halo, grid.seam_length)


def tune(sample: Sample, psf: PSF, wishes: Wishes, halo: int | None, *, seams: bool = True, threads: int = 1) -> Tuning:
    """Derive all numbers from windows of the picture.

    Parameters
    ----------
    sample : windows of the picture, up to ``locality.WINDOW`` px an edge.
    psf : the blur; a delta needs no solver and no halo, unless the picture is to be denoised.
    wishes : what the user asked for.
    halo : px when the user fixed it: penalties stay what they would be, only the prediction changes.
    seams : False for a picture of one tile: nothing is measured or softened for a cut, the halo is a mere rim.
    threads : the seam error is measured on so many.
    """
    noise = sample.noise()
    sigma = float(f"{noise.sigma:.3g}")
    if passes_through(psf, wishes.priority):
        return Tuning(sigma, PASS_THROUGH, 0, None, 0.0, 0.0)
    probes = sample.liveliest(PROBES)
    rungs = ladder(wishes, noise, psf, probes)
    if not seams:
        rim = min(max(64, -(-psf.size // 8) * 16), MAX_HALO)
        numbers = _selective(rungs[0], psf, probes) if wishes.refocus else rungs[0]
        return Tuning(sigma, numbers, rim if halo is None else halo, None, 0.0, NANOSECONDS)
    scene = SyntheticScene(psf.kernel, max(sigma, NOISE_FLOOR))

    def reaches(rung: int) -> bool:
        return Profile.of(scene.errors(rungs[rung], OVERLAP)).halo() is not None

    best = scene.decibels(rungs[0])  # compiles, too: what follows can be timed
    rung = 0 if len(rungs) == 1 or reaches(0) else _first(reaches, 1, len(rungs) - 1)
    started = time.process_time()
    profile = measure_profile(psf.planes, rungs[rung], probes, scene, OVERLAP, threads)
    nanoseconds = (time.process_time() - started) / _pixels(probes, scene) / max(rungs[rung].passes, 1) * 1e9
    while profile.halo() is None and rung < len(rungs) - 1:
        rung += 1
        profile = measure_profile(psf.planes, rungs[rung], probes, scene, OVERLAP, threads)
    price = best - scene.decibels(rungs[rung]) if rung else 0.0
    numbers = _selective(rungs[rung], psf, probes) if wishes.refocus else rungs[rung]
    least = reach(psf.size) if numbers.unexplained else psf.size / 2
    chosen = max(_halo(profile), -(-int(least + 1) // HALO_STEP) * HALO_STEP) if halo is None else halo
    return Tuning(sigma, numbers, chosen, profile, round(max(0.0, price), 1), nanoseconds)


def _selective(numbers: Parameters, psf: PSF, probes: Sequence[FloatArray]) -> Parameters:
    """Return the numbers for a selective restoration, if anything is deblurred at all."""
    if numbers.solver == "cosines":
        return numbers
    shares = []
    for probe in probes:
        work = Workspace(len(probe), (probe.shape[1], probe.shape[2]))
        work.y[...], work.x[...] = probe, probe
        shares.append(unexplained_share(work, Spectrum.of(psf.planes, work.shape), numbers))
    return replace(numbers, unexplained=float(f"{min(shares):.3g}"))


def _halo(profile: Profile) -> int:
    """Return the halo for half the limit: the largest of many errors is luck, and a step more costs little."""
    return profile.halo(SEAM_LIMIT / 2) or profile.halo(SEAM_LIMIT) or MAX_HALO


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
    """Return how many pixels, channels counted, one profile restores: windows and their cuts, and the scene's cut."""
    return int(sum(1.7 * window.size for window in probes) + 0.7 * scene.blurred.size)


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
