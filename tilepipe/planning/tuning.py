"""Numbers that find themselves: penalties from the noise, the halo from a measurement, frozen for all tiles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.highlights import REACHES
from tilepipe.deconv.parameters import PASS_THROUGH, Parameters
from tilepipe.deconv.refocus import misfit_quantile, reach
from tilepipe.dtypes import FloatArray
from tilepipe.errors import PsfError
from tilepipe.planning.sample import Sample
from tilepipe.planning.schedules import NOISE_FLOOR, RestorationOptions, candidate_parameters, passes_through
from tilepipe.planning.seam_error import HALO_STEP, MAX_HALO, SEAM_LIMIT, Profile, SyntheticScene, measure_profile
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import FRAME_EDGE, OVERLAP, Grid, default_core

__all__ = ["TUNING_VERSION", "Tuning", "check_psf_fits", "tune"]

TUNING_VERSION = 6
"""Raised whenever the same windows would give other numbers."""

NANOSECONDS = 25.0
"""CPU time per pixel, channel and step where nothing was restored while planning (19 to 30 at 512 to 1152 px)."""

PROBES = 2
"""Windows of the picture in which the seam error is measured, in colour: in gray it is four to eight times smaller."""

WINDOW_AND_CUT = 1.6
"""Pixels that are restored for a window and its middle, per pixel of the window."""

AIM = 0.65
"""Share of the seam limit that a halo is chosen for, where one reaches that."""

DECIBELS_PER_OCTAVE = {"fast": 8.0, "normal": 5.0, "best": 0.5}
"""What half the time may cost on the synthetic scene, where penalties differ five times more than on photographs.

A line of 15 px at 0.5 % noise goes from r1 = 30 to 14 sigma for that: 2.0 dB on the scene, 0.4 on a photograph.
"""


@dataclass(frozen=True)
class Tuning:
    """The outcome.

    Parameters
    ----------
    noise : estimated standard deviation at the mean light, linear light 0..1.
    parameters : the solver's numbers.
    halo : px.
    profile : predicted difference to the untiled result against halo; None when nothing is solved.
    price : decibels given up, on a synthetic scene, for a halo that suffices or saves time; 0 when nothing was.
    nanoseconds : measured time per pixel, channel and step, one thread.
    """

    noise: float
    parameters: Parameters
    halo: int
    profile: Profile | None
    psnr_cost_db: float
    nanoseconds: float

    def seam(self, grid: Grid) -> float:
        """Return the predicted largest difference to the untiled result on `grid`, encoded 0..1."""
        return 0.0 if self.profile is None else self.profile.predict(grid.halo, grid.seam_length)


def tune(
    sample: Sample, psf: PSF, options: RestorationOptions, halo: int | None, *, seams: bool = True, threads: int = 1
) -> Tuning:
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
    if passes_through(psf, options.priority):
        return Tuning(sigma, PASS_THROUGH, 0, None, 0.0, 0.0)
    probes = sample.most_textured(PROBES)
    candidates = candidate_parameters(options, noise, psf, probes, sample.clipped())
    if not seams:
        rim = min(max(64, -(-psf.size // 8) * 16), MAX_HALO)
        numbers = _selective(candidates[0], psf, probes) if options.refocus else candidates[0]
        return Tuning(sigma, numbers, rim if halo is None else halo, None, 0.0, NANOSECONDS)
    scene = SyntheticScene(psf.kernel, max(candidates[0].sigma or sigma, NOISE_FLOOR))

    best = scene.decibels(candidates[0])  # compiles, too: what follows can be timed
    seam_errors = SeamErrors(psf, candidates, probes, scene, threads)
    index = seam_errors.select(DECIBELS_PER_OCTAVE[options.quality])
    profile = seam_errors.on_all_windows(index)
    psnr_cost_db = best - scene.decibels(candidates[index]) if index else 0.0
    numbers = _selective(candidates[index], psf, probes) if options.refocus else candidates[index]
    least = reach(psf.size) if numbers.misfit_limit else psf.size / 2
    if sample.clipped():
        least = max(least, min(REACHES * (psf.size // 2), MAX_HALO - 1))
    chosen = max(_halo(profile), -(-int(least + 1) // HALO_STEP) * HALO_STEP) if halo is None else halo
    return Tuning(sigma, numbers, chosen, profile, round(max(0.0, psnr_cost_db), 1), seam_errors.nanoseconds)


def _selective(numbers: Parameters, psf: PSF, probes: Sequence[FloatArray]) -> Parameters:
    """Return the numbers for a selective restoration, if anything is deblurred at all."""
    if numbers.solver == "cosines":
        return numbers
    shares = []
    for probe in probes:
        work = Workspace(len(probe), (probe.shape[1], probe.shape[2]))
        work.y[...], work.x[...] = probe, probe
        shares.append(misfit_quantile(work, Spectrum.of(psf.planes, work.shape), numbers))
    return replace(numbers, misfit_limit=float(f"{min(shares):.3g}"))


def _halo(profile: Profile) -> int:
    """Return the halo to take: below the limit by a third, as the largest of many errors is luck."""
    return profile.halo(AIM * SEAM_LIMIT) or profile.halo(SEAM_LIMIT) or MAX_HALO


class SeamErrors:
    """How far the errors of a cut reach on each rung of a ladder: measured when asked, and kept."""

    def __init__(
        self,
        psf: PSF,
        candidates: Sequence[Parameters],
        probes: Sequence[FloatArray],
        scene: SyntheticScene,
        threads: int,
    ) -> None:
        self.candidates = candidates
        self.nanoseconds = NANOSECONDS
        self._psf, self._probes, self._scene, self._threads = psf, probes, scene, threads
        self._profiles: dict[tuple[int, int], Profile] = {}

    def select(self, rate: float) -> int:
        """Return the rung to take: the first that keeps the limit, or one below it that is worth its price.

        `rate` is how many decibels on the synthetic scene half the time may cost.  One window of the picture decides;
        the others, which cost as much again, are asked about the rung it chose.
        """
        last = len(self.candidates) - 1
        index = next((index for index in range(last) if self.on_synthetic_scene(index).halo() is not None), last)
        with ThreadPoolExecutor(1) as beside:
            while index < last:
                next_least = beside.submit(self.on_synthetic_scene, index + 1)
                fits = self.on_first_window(index).halo() is not None
                least = next_least.result()
                if fits and not (
                    self._pays(index, least, rate) and self._pays(index, self.on_first_window(index + 1), rate)
                ):
                    break
                index += 1
        while index < last and self.on_all_windows(index).halo() is None:
            index += 1
        return index

    def on_synthetic_scene(self, index: int) -> Profile:
        """Return the profile on the synthetic scene alone, which is gray: a lower bound for little time."""
        return Profile.of(self._scene.errors(self.candidates[index], OVERLAP))

    def on_first_window(self, index: int) -> Profile:
        """Return the profile on the scene and the liveliest window."""
        return self._profile(index, 0)

    def on_all_windows(self, index: int) -> Profile:
        """Return the profile on the scene and all windows."""
        found = [self._profile(index, window).error for window in range(len(self._probes))]
        return Profile(tuple(map(max, zip(*found, strict=True))))

    def _pays(self, index: int, softer: Profile, rate: float) -> bool:
        """Return whether the next rung, with the halo of profile `softer`, saves more than it loses."""
        saved = _octaves(self.candidates[index], self.on_first_window(index)) - _octaves(
            self.candidates[index + 1], softer
        )
        lost = self._scene.decibels(self.candidates[index]) - self._scene.decibels(self.candidates[index + 1])
        return lost <= rate * saved

    def _profile(self, index: int, window: int) -> Profile:
        """Return the profile on the scene and one window."""
        if (index, window) not in self._profiles:
            self.on_synthetic_scene(index)  # not in the time below
            started, probe = time.process_time(), self._probes[window]
            self._profiles[index, window] = measure_profile(
                self._psf.planes, self.candidates[index], [probe], self._scene, OVERLAP, self._threads
            )
            work = WINDOW_AND_CUT * probe.size * max(self.candidates[index].passes, 1)
            self.nanoseconds = (time.process_time() - started) / work * 1e9
        return self._profiles[index, window]


def _octaves(numbers: Parameters, profile: Profile) -> float:
    """Return the logarithm to base 2 of what a pixel of the picture costs: steps, and what is computed in halos."""
    return float(np.log2(numbers.passes * (FRAME_EDGE / default_core(_halo(profile))) ** 2))


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
