"""Everything adaptive, chosen before the first tile: the blur, the solver's numbers, the halo.

Found by looking at the picture, or taken over from an earlier run on the same bytes or on what they were
before an edit.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tilepipe.cache.digests import Stamp, digest_of, recall_digest, stamp_of
from tilepipe.deconv.frames import TAPER, Spectrum, Workspace
from tilepipe.deconv.outliers import find_outliers
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.errors import SettingsError, UncertainPsfError
from tilepipe.events import Listener, Note
from tilepipe.image.info import ImageInfo, ImageReader, interpreted
from tilepipe.image.levels import measured
from tilepipe.image.mask import mask_bytes
from tilepipe.image.readers import open_image
from tilepipe.image.writers.tiff import output_light
from tilepipe.planning.find_psf import MIN_CONFIDENCE, BlurEstimate, find_psf
from tilepipe.planning.inspection import inspect_reader
from tilepipe.planning.last_check import Check, check_restoration, windows_to_check
from tilepipe.planning.memo import Memo, memo_key, recall, remember, still_valid
from tilepipe.planning.sample import Sample, read_sample
from tilepipe.planning.schedules import RestorationOptions, passes_through
from tilepipe.planning.seam_error import WINDOW
from tilepipe.planning.tuning import Tuning, check_psf_fits, tune
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta
from tilepipe.settings import Settings
from tilepipe.system.memory import cores, release_compiler_memory
from tilepipe.tiling.grid import has_seams

__all__ = ["Analysis", "analyse"]

ABSURD_NOISE = 0.3
"""Noise over the picture's range above which its samples are surely not what they are taken for."""

CHECKED = 4
"""Windows on which what was found is checked."""

PROBING_THREADS = 2
"""Windows that are restored at a time while the seam error is measured: each holds a workspace of 800 px an edge."""


@dataclass(frozen=True)
class Analysis:
    """What was chosen for a picture.

    Parameters
    ----------
    info : the picture.
    stamp : of its file, before it was read.
    psf, tuning : the choice.
    blocks : what the sampled windows looked like, see :class:`tilepipe.planning.memo.Decision`.
    asked : what was asked for, :func:`tilepipe.planning.memo.question`.
    check : what the last check found, JSON values; None where nothing is deblurred.
    """

    info: ImageInfo
    stamp: Stamp
    psf: PSF
    tuning: Tuning
    blocks: tuple[str, ...]
    asked: str
    check: dict[str, Any] | None = None

    @property
    def memo(self) -> Memo:
        """What a later run may take over."""
        return Memo(self.psf, self.tuning, self.blocks, self.info.light.unit, self.info.light.white, self.check)


def analyse(
    image: Path, given: PSF | None, settings: Settings, root: Path, on_event: Listener, *, keep: bool, fresh: bool
) -> Analysis:
    """Read header, PSF and sample windows, and derive all numbers; the picture is closed before the probes.

    Parameters
    ----------
    given : the PSF when the user gave one.
    root : the cache; what is known from it is taken over, it would come out the same.
    keep : write what took time into the cache as soon as it is found, so that a killed run need not find it again.
    fresh : take over nothing.
    """
    asked = memo_key(given, settings)
    with closing(open_image(image)) as reader:
        stamp = stamp_of(image)
        white = None if settings.white is None else str(settings.white)
        reader.info = interpreted(reader.info, settings.input_curve, white, settings.nodata)
        mask_bytes(settings.mask, reader.info)  # what is wrong with a mask is said before anything takes long
        read = cache(lambda: read_sample(reader, WINDOW, luminance_only=settings.luminance_only))
        known = None if fresh else _earlier_memo(root, image, asked, read, on_event)
        if known is None:
            light = measured(reader, list(read().windows), white_known=white is not None)
        else:
            light = known.light(reader.info.light)
        info = reader.info = replace(reader.info, light=light)
        if known is None or known.tuning is None:
            read()  # while the picture is open
        blur = None if given or known else _estimate_blur(reader, settings, on_event)
        psf = given or (known.psf if known else blur.psf if blur else delta())
        check = known.check if known else None
    options = RestorationOptions(
        settings.priority_value, settings.quality, settings.solver, settings.refocus, settings.tolerance
    )
    check_psf_fits(psf.joint if settings.luminance_only else psf, info.height, info.width, info.colours)
    if known is None and not passes_through(psf, settings.priority_value):
        psf, check = _last_check(replace(read(), light=info.light), psf, blur, options, settings, on_event)
    if given is None:
        _check_sure(psf, settings, on_event)
    psf = psf.joint if settings.luminance_only else psf
    _compile(info, settings)
    if known is not None and known.tuning is not None:
        return Analysis(info, stamp, psf, known.tuning, known.blocks, asked, check)
    sample = replace(read(), light=info.light)
    if not passes_through(psf, settings.priority_value):
        _check_noise(sample, settings)
    blocks = sample.blocks()
    if keep and given is None and known is None:
        _keep(root, image, stamp, asked, Memo(psf, None, blocks, info.light.unit, info.light.white, check))
    if not passes_through(psf, settings.priority_value):
        on_event(Note("planning noise, penalties and halo are measured in windows of the picture"))
    seams = has_seams(info.height, info.width, settings.tile)
    threads = min(settings.jobs or cores(), PROBING_THREADS)
    tuning = tune(sample, psf, options, settings.halo, seams=seams, threads=threads)
    if keep and seams:
        _keep(root, image, stamp, asked, Memo(psf, tuning, blocks, info.light.unit, info.light.white, check))
    return Analysis(info, stamp, psf, tuning, blocks, asked, check)


def _earlier_memo(root: Path, image: Path, asked: str, read: Callable[[], Sample], on_event: Listener) -> Memo | None:
    """Return what was decided about the picture before, or about what it was before an edit, if that still holds."""
    content, before = recall_digest(root, image)
    known = recall(root, content, asked) if content else None
    if known is not None:
        if known.tuning is not None:
            on_event(Note("planning as for the run before: blur, noise and halo are known"))
        return known
    former = recall(root, before, asked) if before else None
    if former is None:
        return None
    holds, why = still_valid(former, read())
    kept = "blur, numbers and halo are kept" if holds else "blur, numbers and halo are found anew"
    on_event(Note(f"edited   the picture changed since the last run; {kept}: {why}"))
    return replace(former, blocks=read().blocks()) if holds else None


def _keep(root: Path, image: Path, stamp: Stamp, asked: str, memo: Memo) -> None:
    """Write a decision into the cache, if that can be written; the run itself will say if it cannot."""
    with contextlib.suppress(OSError):
        content = digest_of(root, image, trust_stamp=True)
        if content.stamp == stamp:
            remember(root, content.sha256, asked, memo)


def _estimate_blur(reader: ImageReader, settings: Settings, on_event: Listener) -> BlurEstimate:
    """Find the blur in the picture."""
    inspection = inspect_reader(reader, settings.blur, settings.window)
    count, megapixels = len(inspection.windows), inspection.windows[0].size / 1e6
    windows = f"one {megapixels:.2f} Mpx window" if count == 1 else f"{count} windows of {megapixels:.2f} Mpx"
    on_event(Note(f"planning estimating the blur from {windows}"))
    threads = settings.jobs or cores()
    return find_psf(
        inspection, settings.blur, per_channel=settings.psf_per_channel, threads=threads, target=settings.target
    )


def _last_check(
    sample: Sample,
    psf: PSF,
    blur: BlurEstimate | None,
    options: RestorationOptions,
    settings: Settings,
    on_event: Listener,
) -> tuple[PSF, dict[str, Any] | None]:
    """Restore windows with what was found; take the blur back step by step while that goes too far.

    Parameters
    ----------
    finding : what `psf` comes from; None for a PSF that the user gave, which is checked and taken as it is.

    Raises
    ------
    UncertainPsfError : a free-form kernel fails, nothing simpler is known, and nobody forces it.
    """
    windows = windows_to_check(sample.most_textured(CHECKED))
    noise = sample.noise()

    def checked(psf: PSF) -> Check:
        free_form = blur is not None and blur.estimate is not None
        planes = psf.joint if sample.luminance_only else psf
        return check_restoration(windows, noise, planes, options, free_form=free_form)

    first = check = checked(psf)
    while blur is not None and not check.passed and not settings.force:
        following = blur.narrower()
        if following is None:
            raise UncertainPsfError(
                f"the blur that was found does not restore the picture: {check.why}; give the PSF with --psf, look "
                "elsewhere with --window X,Y, or take it all the same with --force"
            )
        blur, psf = following, following.psf
        if psf.is_delta:
            on_event(Note(f"check    nothing is deblurred, as the restoration goes too far: {first.why}"))
            return psf, first.facts() | {"taken_back": True}
        check = checked(psf)
    if first is not check:
        on_event(Note(f"check    the blur is taken for narrower, {psf.made_by.get('nearest')}: {first.why}"))
    elif not check.passed:
        on_event(Note(f"check    the restoration goes too far: {check.why}"))
    return psf, check.facts() | {"taken_back": first is not check}


def _check_sure(psf: PSF, settings: Settings, on_event: Listener) -> None:
    """Raise UncertainPsfError when a PSF found blind is not sure enough and nobody forces it; say if it is none."""
    sure = psf.confidence or 0.0
    if sure < MIN_CONFIDENCE and not settings.force:
        raise UncertainPsfError(
            f"the blur was found with confidence {sure:.2f}, at least {MIN_CONFIDENCE:g} is needed; give it with "
            "--psf, look elsewhere with --window X,Y, or take it all the same with --force"
        )
    if psf.is_delta:
        on_event(Note("already sharp: no blur was found in the picture"))


def _check_noise(sample: Sample, settings: Settings) -> None:
    """Raise SettingsError when the noise is absurd: then the samples are not what they are taken for."""
    sigma = sample.noise().sigma
    if sigma > ABSURD_NOISE and not settings.force:
        raise SettingsError(
            f"the noise is {100 * sigma:.0f} % of the picture's range, at most {100 * ABSURD_NOISE:.0f} % makes sense: "
            "check --input-curve (how samples follow from light), --white and --nodata (which samples are none), or go "
            "on all the same with --force"
        )


def _compile(info: ImageInfo, settings: Settings) -> None:
    """Compile (or load) every kernel that the run will call, on a few pixels, and let go of the compiler."""
    dtype = settings.dtype or info.dtype
    light = output_light(info, dtype)
    light.encoded(0, info.light.linear(0, np.zeros((1, 1), info.dtype)), dtype)
    frame = (2 * TAPER, 2 * TAPER)
    point, numbers = (
        Spectrum.of(np.ones((1, 1), np.float32), frame),
        Parameters(1.0, 1.0, 1.0, 1.0, 1, low=1.0, high=2.0),
    )
    restore(Workspace(1, frame), point, replace(numbers, closing=1))
    find_outliers(np.zeros(frame, np.float32), np.full((3, 3), 1 / 9, np.float32), replace(numbers, sigma=1.0))
    if settings.solver == "richardson-lucy":
        restore(Workspace(1, frame), point, replace(numbers, solver=settings.solver, momentum=(0.0,)))
    release_compiler_memory()
