"""Everything adaptive, determined before the first tile: PSF, solver parameters, halo.

They are derived from the image, or reused from an earlier run on the same bytes or on the bytes before an edit.
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
from tilepipe.errors import InputError, SettingsError, UncertainPsfError
from tilepipe.events import Listener, Note, silent
from tilepipe.image.info import ImageInfo, ImageReader, interpreted
from tilepipe.image.levels import measured
from tilepipe.image.mask import mask_bytes
from tilepipe.image.readers import open_image
from tilepipe.image.readers.stream import stream_bytes
from tilepipe.image.selection import Selection
from tilepipe.image.writers.output import output_light
from tilepipe.image.writers.png_filters import filter_rows
from tilepipe.planning.field_match import field_mismatches
from tilepipe.planning.find_psf import MIN_CONFIDENCE, BlurEstimate, find_psf
from tilepipe.planning.inspection import inspect_reader, inspection_bytes
from tilepipe.planning.last_check import Check, check_restoration, middle
from tilepipe.planning.memo import Memo, memo_key, recall, remember, still_valid
from tilepipe.planning.memory_model import check_analysis
from tilepipe.planning.sample import Sample, read_sample
from tilepipe.planning.schedules import RestorationOptions, passes_through
from tilepipe.planning.seam_error import WINDOW
from tilepipe.planning.tuning import Tuning, check_psf_fits, rim, tune
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.shapes import delta
from tilepipe.settings import Settings
from tilepipe.system.memory import cores, release_compiler_memory, used_memory
from tilepipe.system.object_store import StoragePath
from tilepipe.tiling.grid import has_seams

__all__ = ["MIN_CONFIDENCE", "Analysis", "analyse", "estimate_blur", "selection_of"]

ABSURD_NOISE = 0.3
"""Noise relative to the range of the image above which the samples are almost certainly misinterpreted."""

CHECKED = 4
"""Number of windows on which the restoration is checked."""

PROBING_THREADS = 2
"""Windows restored concurrently while the seam error is measured: each holds a workspace of 800 x 800 px."""


@dataclass(frozen=True)
class Analysis:
    """Results of the analysis of an image.

    Parameters
    ----------
    info : ImageInfo
        The image.
    stamp : tuple of int
        Of its file, taken before the file is read.
    psf : PSF or PSFField
        Given or estimated.
    tuning : Tuning
        Solver parameters and halo.
    blocks : tuple of str
        Digests of the sampled windows, see :class:`tilepipe.planning.memo.Memo`.
    asked : str
        Key of the memo, see :func:`tilepipe.planning.memo.memo_key`.
    check : dict or None
        Result of the last check, JSON values; None when no check was made.
    """

    info: ImageInfo
    stamp: Stamp
    psf: AnyPSF
    tuning: Tuning
    blocks: tuple[str, ...]
    asked: str
    check: dict[str, Any] | None = None

    @property
    def memo(self) -> Memo:
        """The part that a later run may reuse."""
        return Memo(self.psf, self.tuning, self.blocks, self.info.light.unit, self.info.light.white, self.check)


def analyse(
    image: Path,
    given: AnyPSF | None,
    settings: Settings,
    root: StoragePath,
    on_event: Listener,
    *,
    allowed: int,
    keep: bool,
    fresh: bool,
) -> Analysis:
    """Read header, PSF and sample windows and derive all parameters; the file is closed before windows are restored.

    Parameters
    ----------
    image : Path
        Image file.
    given : PSF, PSFField or None
        The user's PSF; None estimates the blur.
    settings : Settings
        Settings of the run.
    root : Path
        The cache.  Its memo is reused because a new analysis would give the same result.
    on_event : Listener
        Receives notes.
    allowed : int
        Memory allowed, bytes.
    keep : bool
        Write expensive results to the cache as soon as they are available, so that a killed run need not repeat them.
    fresh : bool
        Ignore existing memos.

    Raises
    ------
    DoesNotFitError
        If the analysis itself needs more memory than is allowed; nothing is decoded then.
    """
    key = memo_key(given, settings)
    with closing(open_image(image, selection_of(settings))) as reader:
        _check_size(reader.info, settings)
        needed = 0 if given else inspection_bytes(reader.info)
        header = reader.info
        streamed = stream_bytes(header.width, header.pixel_bytes) if header.streams is False else None
        check_analysis(used_memory(), header.decoded_bytes, needed, allowed, streamed)
        stamp = stamp_of(image)
        white = None if settings.white is None else str(settings.white)
        reader.info = interpreted(reader.info, settings.input_curve, white, settings.nodata)
        mask_bytes(settings.mask, reader.info)  # report errors of the mask before anything slow
        sample_windows = cache(lambda: read_sample(reader, WINDOW, luminance_only=settings.luminance_only))
        memo = None if fresh else _earlier_memo(root, reader.info, key, sample_windows, on_event)
        if memo is None:
            light = measured(reader, list(sample_windows().windows), white_known=white is not None)
        else:
            light = memo.light(reader.info.light)
        info = reader.info = replace(reader.info, light=light)
        if memo is None or memo.tuning is None:
            sample_windows()  # while the file is open
        blur = None if given or memo else _estimate_blur(reader, settings, on_event)
        psf = given or (memo.psf if memo else blur.psf if blur else delta())
        check = memo.check if memo else None
    options = RestorationOptions(
        settings.priority_value, settings.quality, settings.solver, settings.refocus, settings.tolerance
    )
    for mismatch in field_mismatches(psf, info):
        on_event(Note(f"note     {mismatch}"))
    check_psf_fits(psf.joint if settings.luminance_only else psf, info.height, info.width, info.colours)
    if memo is None or memo.tuning is None:
        sample = replace(sample_windows(), light=info.light)  # one value, as it keeps what it computed
    if memo is None and not passes_through(psf, settings.priority_value):
        psf, check = _last_check(sample, psf, blur, options, settings, on_event)
    if given is None:
        _check_confidence(psf, settings, on_event)
    psf = psf.joint if settings.luminance_only else psf
    _compile(info, settings)
    if memo is not None and memo.tuning is not None:
        return Analysis(info, stamp, psf, memo.tuning, memo.blocks, key, check)
    if not passes_through(psf, settings.priority_value):
        _check_noise(sample, settings)
    blocks = sample.blocks()
    if keep and given is None and memo is None:
        _store_memo(root, info, stamp, key, Memo(psf, None, blocks, info.light.unit, info.light.white, check))
    if not passes_through(psf, settings.priority_value):
        on_event(Note("planning noise, penalties and halo are measured on windows of the image"))
    seams = has_seams(info.height, info.width, settings.tile, rim(psf, settings.halo))
    threads = min(settings.jobs or cores(), PROBING_THREADS)
    tuning = tune(sample, psf, options, settings.halo, seams=seams, threads=threads)
    if keep and seams:
        _store_memo(root, info, stamp, key, Memo(psf, tuning, blocks, info.light.unit, info.light.white, check))
    return Analysis(info, stamp, psf, tuning, blocks, key, check)


def selection_of(settings: Settings) -> Selection:
    """Return which picture of a file the settings choose."""
    return Selection(page=settings.page, plane=settings.plane, salvage=settings.salvage)


def _earlier_memo(
    root: StoragePath, info: ImageInfo, key: str, sample_windows: Callable[[], Sample], on_event: Listener
) -> Memo | None:
    """Return the memo of the image, or of its content before an edit if that is still valid; None otherwise."""
    content, before = (digest and info.selection.digest(digest) for digest in recall_digest(root, info.path))
    memo = recall(root, content, key) if content else None
    if memo is not None:
        if memo.tuning is not None:
            on_event(Note("planning as for the run before: blur, noise and halo are reused"))
        return memo
    earlier = recall(root, before, key) if before else None
    if earlier is None:
        return None
    valid, why = still_valid(earlier, sample_windows())
    action = "blur, parameters and halo are kept" if valid else "blur, parameters and halo are determined again"
    on_event(Note(f"edited   the image changed since the last run; {action}: {why}"))
    return replace(earlier, blocks=sample_windows().blocks()) if valid else None


def _store_memo(root: StoragePath, info: ImageInfo, stamp: Stamp, key: str, memo: Memo) -> None:
    """Write a memo to the cache; errors are ignored, as the run itself reports an unwritable cache."""
    with contextlib.suppress(OSError):
        content = digest_of(root, info.path, trust_stamp=True)
        if content.stamp == stamp:
            remember(root, info.selection.digest(content.sha256), key, memo)


def estimate_blur(image: Path, settings: Settings) -> BlurEstimate:
    """Estimate the blur of one image file as a run would, without planning anything else.

    Raises
    ------
    InputError
        If the image cannot be read.
    UncertainPsfError
        If the image has no structure.
    """
    with closing(open_image(image, selection_of(settings))) as reader:
        white = None if settings.white is None else str(settings.white)
        reader.info = interpreted(reader.info, settings.input_curve, white, settings.nodata)
        sample = read_sample(reader, WINDOW, luminance_only=settings.luminance_only)
        light = measured(reader, list(sample.windows), white_known=white is not None)
        reader.info = replace(reader.info, light=light)
        return _estimate_blur(reader, settings, silent)


def _estimate_blur(reader: ImageReader, settings: Settings, on_event: Listener) -> BlurEstimate:
    """Estimate the blur from the image."""
    threads = settings.jobs or cores()
    inspection = inspect_reader(reader, settings.blur, settings.window, threads=threads)
    count, megapixels = len(inspection.windows), inspection.windows[0].size / 1e6
    windows = f"one {megapixels:.2f} Mpx window" if count == 1 else f"{count} windows of {megapixels:.2f} Mpx"
    on_event(Note(f"planning estimating the blur from {windows}"))
    blur = find_psf(
        inspection,
        settings.blur,
        per_channel=settings.psf_per_channel,
        threads=threads,
        target=settings.target,
        field=settings.field,
    )
    if blur.lens is not None:
        fit = blur.lens.fit
        on_event(
            Note(
                f"planning the blur grows towards the corners: in parts of the image that the fit did not use, its "
                f"variance is off by {fit.deviation:.2f} px^2, with one blur for all by {fit.deviation_of_one:.2f}"
            )
        )
    return blur


def _last_check(
    sample: Sample,
    psf: AnyPSF,
    blur: BlurEstimate | None,
    options: RestorationOptions,
    settings: Settings,
    on_event: Listener,
) -> tuple[AnyPSF, dict[str, Any] | None]:
    """Restore windows with the PSF; reduce an estimated blur step by step while the restoration goes too far.

    Parameters
    ----------
    sample : Sample
        Windows of the image.
    psf : PSF or PSFField
        The PSF to check.
    blur : BlurEstimate or None
        The estimate that `psf` comes from; None for the user's PSF, which is checked but not changed.
    options : RestorationOptions
        The user's options.
    settings : Settings
        ``force`` and ``jobs`` are used.
    on_event : Listener
        Receives notes.

    Returns
    -------
    psf : PSF or PSFField
        The PSF to use.
    check : dict
        Result of the check, JSON values.

    Raises
    ------
    UncertainPsfError
        If a free-form kernel fails, there is no slight blur to fall back to, and ``force`` is not set.
    """
    probes = sample.most_textured(CHECKED)
    windows = [middle(probe.pixels) for probe in probes]
    noise, threads = sample.noise, min(settings.jobs or cores(), PROBING_THREADS)

    def check_with(psf: AnyPSF) -> Check:
        free_form = blur is not None and blur.estimate is not None
        planes = psf.joint if sample.luminance_only else psf
        local = [planes.at(*probe.centre, sample.shape) for probe in probes]
        return check_restoration(windows, noise, local, options, free_form=free_form, threads=threads)

    first = check = check_with(psf)
    while blur is not None and not check.passed and not settings.force:
        narrower = blur.narrower()
        if narrower is None:
            raise UncertainPsfError(
                f"the estimated blur does not restore the image: {check.why}; give the PSF with --psf, use another "
                "window with --window X,Y, or accept the estimate with --force"
            )
        blur, psf = narrower, narrower.psf
        if psf.is_delta:
            on_event(Note(f"check    nothing is deblurred because the restoration goes too far: {first.why}"))
            return psf, first.facts() | {"taken_back": True}
        check = check_with(psf)
    if first is not check:
        on_event(Note(f"check    the blur is reduced to {psf.made_by.get('nearest')}: {first.why}"))
    elif not check.passed:
        on_event(Note(f"check    the restoration goes too far: {check.why}"))
    return psf, check.facts() | {"taken_back": first is not check}


def _check_confidence(psf: AnyPSF, settings: Settings, on_event: Listener) -> None:
    """Raise UncertainPsfError if the confidence in an estimated PSF is too low and not forced; note a delta."""
    confidence = psf.confidence or 0.0
    if confidence < MIN_CONFIDENCE and not settings.force:
        raise UncertainPsfError(
            f"the confidence in the estimated blur is {confidence:.2f}, at least {MIN_CONFIDENCE:g} is needed; give "
            "the PSF with --psf, use another window with --window X,Y, or accept the estimate with --force"
        )
    if psf.is_delta:
        on_event(Note("already sharp: the image shows no blur"))


def _check_size(info: ImageInfo, settings: Settings) -> None:
    """Raise InputError if the image has more pixels than allowed: a header of a few bytes may state any size."""
    pixels = info.height * info.width
    if pixels > settings.max_pixels:
        raise InputError(
            f"{info.path} has {info.width} x {info.height} px; {settings.max_pixels} px are allowed: if the size is "
            f"right, give --max-pixels {pixels}"
        )


def _check_noise(sample: Sample, settings: Settings) -> None:
    """Raise SettingsError if the noise is implausible: the samples are then misinterpreted."""
    sigma = sample.noise.sigma
    if sigma > ABSURD_NOISE and not settings.force:
        raise SettingsError(
            f"the noise is {100 * sigma:.0f} % of the image's range, at most {100 * ABSURD_NOISE:.0f} % is plausible: "
            "check --input-curve (the transfer curve), --white and --nodata (value of pixels without data), or "
            "continue with --force"
        )


def _compile(info: ImageInfo, settings: Settings) -> None:
    """Compile (or load) every kernel of the run on a few pixels, then release the compiler's memory."""
    linear = info.light.linear(0, np.zeros((1, 1), info.dtype))
    for dtype in {settings.dtype or info.dtype, "uint8", "uint16"}:  # a format may hold only integers
        output_light(info, dtype).encoded(0, linear, dtype)
    filter_rows(np.zeros((2, 3), np.uint8), np.zeros(3, np.uint8), 1, np.zeros((2, 4), np.uint8))
    frame = (2 * TAPER, 2 * TAPER)
    point, parameters = (
        Spectrum.of(np.ones((1, 1), np.float32), frame),
        Parameters(1.0, 1.0, 1.0, 1.0, 1, low=1.0, high=2.0),
    )
    restore(Workspace(1, frame), point, replace(parameters, closing=(1.0,)))
    find_outliers(np.zeros(frame, np.float32), np.full((3, 3), 1 / 9, np.float32), replace(parameters, sigma=1.0))
    if settings.solver == "richardson-lucy":
        restore(Workspace(1, frame), point, replace(parameters, solver=settings.solver, momentum=(0.0,)))
    release_compiler_memory()
