"""Automatic parameter selection: penalties from the noise, the halo from a measurement; the same for all tiles."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.deconv.frames import Spectrum, Workspace, amplification
from tilepipe.deconv.highlights import REACHES
from tilepipe.deconv.parameters import PASS_THROUGH, Parameters
from tilepipe.deconv.refocus import misfit_quantile, reach
from tilepipe.dtypes import FloatArray
from tilepipe.errors import PsfError
from tilepipe.planning.loss import ReducedImage
from tilepipe.planning.sample import Sample
from tilepipe.planning.schedules import NOISE_FLOOR, RestorationOptions, candidate_parameters, passes_through
from tilepipe.planning.seam_error import HALO_STEP, MAX_HALO, SEAM_LIMIT, Profile, SyntheticScene, measure_profile
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.model import PSF
from tilepipe.tiling.grid import FRAME_EDGE, OVERLAP, Grid, core_in_frame

__all__ = ["TUNING_VERSION", "Tuning", "check_psf_fits", "rim", "tune"]

TUNING_VERSION = 10
"""Incremented whenever the same windows would give other parameters."""

NANOSECONDS = 25.0
"""Default CPU time per pixel, channel and step, when no window was timed (19 to 30 at 512 to 1152 px)."""

PROBES = 2
"""Windows on which the seam error is measured, in colour: in gray it is four to eight times smaller."""

WINDOW_AND_CUT = 1.6
"""Pixels restored for a window and its middle, per pixel of the window."""

AIM = 0.65
"""Share of the seam limit for which the halo is chosen, if a halo reaches it."""

DECIBELS_PER_OCTAVE = {"fast": 2.5, "normal": 1.5, "best": 0.2}
"""PSNR loss accepted for halving the time, dB on the image averaged down.

On a photograph of 24 Mpx, a line of 13 px at 0.5 % noise goes from r1 = 30 to 14 sigma: 0.5 dB, a quarter of the time.
"""

MOST_DECIBELS = 1.0
"""PSNR loss accepted for less time in all, dB on the image averaged down; the seam limit may demand more."""


@dataclass(frozen=True)
class Tuning:
    """Selected parameters.

    Parameters
    ----------
    noise : float
        Estimated standard deviation at the mean light, linear light 0..1.
    parameters : Parameters
        Solver parameters.
    halo : int
        Width of the halo, px.
    profile : Profile or None
        Predicted difference to the untiled result against halo; None when no seam error was measured.
    psnr_cost_db : float
        PSNR given up for a sufficient or faster halo, dB on the image averaged down; 0 for none.
    nanoseconds : float
        Measured CPU time per pixel, channel and step.
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
    sample: Sample, psf: AnyPSF, options: RestorationOptions, halo: int | None, *, seams: bool = True, threads: int = 1
) -> Tuning:
    """Select solver parameters and halo from windows of the image.

    Parameters
    ----------
    sample : Sample
        Windows with edges up to :data:`tilepipe.planning.seam_error.WINDOW` px.
    psf : PSF or PSFField
        The blur; a delta needs neither solver nor halo, unless the image is to be denoised.  The parameters of a field
        are those of the component with the largest seam error.
    options : RestorationOptions
        The user's options.
    halo : int or None
        Width fixed by the user, px: penalties are selected as without it, only the prediction changes.
    seams : bool
        False for an image of one tile: no seam error is measured, no penalty softened, and the halo is only a rim.
    threads : int
        Number of threads for the measurement.
    """
    noise = sample.noise
    sigma = float(f"{noise.sigma:.3g}")
    if passes_through(psf, options.priority):
        return Tuning(sigma, PASS_THROUGH, 0, None, 0.0, 0.0)
    textured = sample.most_textured(PROBES)
    probes = [probe.pixels for probe in textured]
    # of the PSF at the windows: the widest component amplifies noise that the others do not
    amplified = float(np.mean([amplification(psf.at(*centre, sample.shape).kernel) for centre in sample.centres]))
    candidates = candidate_parameters(options, noise, psf.widest, probes, amplified)
    hardest = _hardest(psf, candidates[0], threads) if seams else psf.widest
    if hardest is not psf.widest:
        others = candidate_parameters(options, noise, hardest, probes, amplified)
        candidates = max(candidates, others, key=lambda each: each[0].steps)

    def complete(parameters: Parameters) -> Parameters:
        if not options.refocus:
            return parameters
        return _with_misfit_limit(parameters, [psf.at(*probe.centre, sample.shape) for probe in textured], probes)

    if not seams:
        parameters = complete(candidates[0])
        return Tuning(sigma, parameters, rim(psf, halo), None, 0.0, NANOSECONDS)
    scene = SyntheticScene(hardest.kernel, max(candidates[0].sigma or sigma, NOISE_FLOOR))
    reduced = ReducedImage(probes, scene.sharp, hardest.planes, candidates[0], threads)
    best = reduced.decibels(candidates[0])  # also compiles, so that later calls can be timed
    seam_errors = SeamErrors(hardest, candidates, probes, scene, reduced, threads)
    index = seam_errors.select(DECIBELS_PER_OCTAVE[options.quality])
    profile = seam_errors.on_all_windows(index)
    if hardest is not psf.widest:  # on windows of the image the widest one may have the larger error
        widest = SeamErrors(psf.widest, candidates, probes, scene, reduced, threads).on_all_windows(index)
        profile = Profile(tuple(map(max, profile.error, widest.error)))
    psnr_cost_db = best - reduced.decibels(candidates[index]) if index else 0.0
    parameters = complete(candidates[index])
    least = reach(psf.size) if parameters.misfit_limit else psf.size / 2
    if sample.clipped():
        least = max(least, min(REACHES * (psf.size // 2), MAX_HALO - 1))
    chosen = max(_halo(profile), -(-int(least + 1) // HALO_STEP) * HALO_STEP) if halo is None else halo
    return Tuning(sigma, parameters, chosen, profile, round(max(0.0, psnr_cost_db), 1), seam_errors.nanoseconds)


def _hardest(psf: AnyPSF, parameters: Parameters, threads: int) -> PSF:
    """Return the component with the largest seam error on a synthetic scene, by the halo it needs, then by the error.

    A line of 7 px has a larger one than a Gaussian of the same spread, so the spread does not decide.
    """
    if len(psf.components) == 1:
        return psf.widest

    def error(component: PSF) -> tuple[int, float]:
        scene = SyntheticScene(component.kernel, max(parameters.sigma, NOISE_FLOOR))
        profile = Profile.of(scene.errors(parameters, OVERLAP))
        return profile.halo(AIM * SEAM_LIMIT) or MAX_HALO, sum(profile.error)

    with ThreadPoolExecutor(threads) as pool:
        errors = list(pool.map(error, psf.components))
    return psf.components[max(range(len(errors)), key=errors.__getitem__)]


def rim(psf: AnyPSF, halo: int | None = None) -> int:
    """Return the halo of an image of one tile, px: the user's, or twice the width of the PSF, within 64..MAX_HALO."""
    return min(max(64, -(-psf.size // 8) * 16), MAX_HALO) if halo is None else halo


def _with_misfit_limit(parameters: Parameters, psfs: Sequence[PSF], probes: Sequence[FloatArray]) -> Parameters:
    """Return the parameters with the misfit limit of a selective restoration, if anything is deblurred.

    `psfs` is the PSF at each of the windows `probes`.
    """
    if parameters.solver == "cosines":
        return parameters
    shares = []
    for psf, probe in zip(psfs, probes, strict=True):
        work = Workspace(len(probe), (probe.shape[1], probe.shape[2]))
        work.y[...], work.x[...] = probe, probe
        shares.append(misfit_quantile(work, Spectrum.of(psf.planes, work.shape), parameters))
    return replace(parameters, misfit_limit=float(f"{min(shares):.3g}"))


def _halo(profile: Profile) -> int:
    """Return the halo for ``AIM`` times the limit, as the largest of many errors varies; else for the limit."""
    return profile.halo(AIM * SEAM_LIMIT) or profile.halo(SEAM_LIMIT) or MAX_HALO


class SeamErrors:
    """Seam errors of each candidate, measured on demand and cached."""

    def __init__(
        self,
        psf: PSF,
        candidates: Sequence[Parameters],
        probes: Sequence[FloatArray],
        scene: SyntheticScene,
        reduced: ReducedImage,
        threads: int,
    ) -> None:
        self.candidates = candidates
        self.nanoseconds = NANOSECONDS
        self._psf, self._probes, self._threads = psf, probes, threads
        self._scene, self._reduced = scene, reduced
        self._profiles: dict[tuple[int, int], Profile] = {}

    def select(self, rate: float) -> int:
        """Return the index of the first candidate within the seam limit, or of a later one that saves enough time.

        `rate` is the PSNR loss accepted for halving the time, dB on the image averaged down.  One window decides; the
        others, which cost as much again, only confirm the selected candidate.  If they do not, the next one is tested.
        """
        last = len(self.candidates) - 1
        index = next((index for index in range(last) if self.on_synthetic_scene(index).halo() is not None), last)
        with ThreadPoolExecutor(1) as pool:
            while index < last:
                next_bound = pool.submit(self.on_synthetic_scene, index + 1)
                fits = self.on_first_window(index).halo() is not None
                bound = next_bound.result()
                if fits and not (
                    self._pays_off(index, bound, rate) and self._pays_off(index, self.on_first_window(index + 1), rate)
                ):
                    break
                index += 1
        while index < last and self.on_all_windows(index).halo() is None:
            index += 1
        return index

    def on_synthetic_scene(self, index: int) -> Profile:
        """Return the profile on the synthetic scene alone, which is gray: a fast lower bound."""
        return Profile.of(self._scene.errors(self.candidates[index], OVERLAP))

    def on_first_window(self, index: int) -> Profile:
        """Return the profile on the scene and the most textured window."""
        return self._profile(index, 0)

    def on_all_windows(self, index: int) -> Profile:
        """Return the profile on the scene and all windows."""
        errors = [self._profile(index, window).error for window in range(len(self._probes))]
        return Profile(tuple(map(max, zip(*errors, strict=True))))

    def _pays_off(self, index: int, softer: Profile, rate: float) -> bool:
        """Return whether the next candidate, with the halo of profile `softer`, saves enough time for its PSNR loss."""
        saved = _log2_cost(self.candidates[index], self.on_first_window(index)) - _log2_cost(
            self.candidates[index + 1], softer
        )
        first, here, softer_still = (self._reduced.decibels(self.candidates[at]) for at in (0, index, index + 1))
        return here - softer_still <= rate * saved and first - softer_still <= MOST_DECIBELS

    def _profile(self, index: int, window: int) -> Profile:
        """Return the profile on the scene and one window."""
        if (index, window) not in self._profiles:
            self.on_synthetic_scene(index)  # excluded from the time below
            started, probe = time.process_time(), self._probes[window]
            self._profiles[index, window] = measure_profile(
                self._psf.planes, self.candidates[index], [probe], self._scene, OVERLAP, self._threads
            )
            work = WINDOW_AND_CUT * probe.size * max(self.candidates[index].passes, 1)
            self.nanoseconds = (time.process_time() - started) / work * 1e9
        return self._profiles[index, window]


def _log2_cost(parameters: Parameters, profile: Profile) -> float:
    """Return log2 of the cost per pixel of the image: steps, times the area computed including halos."""
    return float(np.log2(parameters.passes * (FRAME_EDGE / core_in_frame(_halo(profile))) ** 2))


def check_psf_fits(psf: AnyPSF, height: int, width: int, colours: int) -> None:
    """Raise PsfError if the PSF is wider than the image, or is for another number of colours."""
    if len(psf.planes) not in (1, colours):
        raise PsfError(
            f"the PSF has kernels for {len(psf.planes)} colours, the image has {colours}: give a PSF with one kernel"
        )
    if psf.size > min(height, width):
        raise PsfError(
            f"the PSF is {psf.size} x {psf.size}, the image {width} x {height}: the image must be at least as large; "
            "crop the PSF or give the whole image"
        )
