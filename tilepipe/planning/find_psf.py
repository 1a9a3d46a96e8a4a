"""Blind estimation of the PSF of an image: none, a slight blur or a strong one, with a confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import SettingsError, UncertainPsfError
from tilepipe.image.readers import open_image
from tilepipe.image.selection import Selection
from tilepipe.planning.find_lens import FoundLens, find_lens
from tilepipe.planning.inspection import Inspection, inspect_array, inspect_reader
from tilepipe.psf.blind.channels import kernels_by_channel
from tilepipe.psf.blind.confidence import ripple_confidence, slight_confidence, strong_confidence
from tilepipe.psf.blind.narrow import Estimate, estimate_kernel, likeness
from tilepipe.psf.blind.ripples import Ripples
from tilepipe.psf.blind.slight import SlightBlur, measure_slight_blur, slight_psf
from tilepipe.psf.blind.spectrum import GAUSSIAN, fit_spectrum
from tilepipe.psf.blind.strong import estimate_strong_blur
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.kernel_ops import fit_to
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import fit_shape

__all__ = ["MIN_CONFIDENCE", "TARGET", "BlurEstimate", "estimate_psf", "find_psf"]

MIN_CONFIDENCE = 0.4
"""Smallest confidence with which a run accepts the PSF."""

LEAST_VARIANCE = 0.2
"""Variance of a blur up to which an image counts as sharp, px^2: 0.45 px."""

LEAST_UNEXPLAINED = 1.0
"""The same where a slight blur does not explain the spectrum in all directions: smooth subjects measure 0.5 to 0.9 px,
and sharpening them loses up to 13 dB."""

LEAST_REACH, FULL_REACH = 0.12, 0.2
"""Frequency, cycles/px, up to which an image must exceed its noise for ripples to be visible, and from which on they
are clearly visible."""

MIN_FREE_FORM_CONFIDENCE = 0.6
"""Smallest confidence with which a free-form kernel is accepted where ripples are weak or a slight blur explains the
spectrum: portraits and text behind a shake of 75 px appear slightly blurred."""

SURELY, SURELY_SHORT = 1.15, 1.5
"""Ratio of the ripple to its limit above which a slight blur does not suffice; the second where the image does not
exceed its noise up to FULL_REACH, whose edge causes ripples, too (up to 1.3 behind Gaussians of 2 px in JPEGs)."""

PERHAPS, DOUBTED_REACH = 0.75, 0.25
"""Ratio of the ripple to its limit above which a strong blur is searched for although a slight one explains the image,
if the image does not exceed its noise beyond the second, cycles/px, as most behind wide shakes; otherwise the ratio is
1."""

WIDEST_SLIGHT = 21
"""Width of the blur, px, above which a request for it means a strong blur."""

SURE_LIKENESS = 0.8
"""Likeness of the ripples of a correct kernel, used where it cannot be measured."""

DOUBTED_CAP = 0.6
"""Upper bound of the confidence in a slight blur where there are signs of a strong one."""

SAME_BLUR = 0.9
"""Likeness above which a free-form kernel is treated as the slight blur: the latter has the smoother transfer function
and amplifies less noise."""

REFUSED_CAP = 0.39
"""Upper bound of the confidence in a free-form kernel that is not accepted; a run refuses it without ``--force``."""

TARGET = 0.35
"""Standard deviation of the Gaussian that remains of a slight blur, px: an image restored to a point rings at every
error of the width."""

LARGEST_FALLBACK = 2.0
"""Standard deviation of the widest slight blur used when the free-form kernel is not accepted, px."""

NARROWER = 0.9
"""Factor by which a slight blur is reduced when the restoration goes too far."""

COLOURS_DIFFER = 0.15
"""Difference of a colour's variance from the mean, px^2, above which each colour gets its own PSF."""


@dataclass(frozen=True, eq=False)
class BlurEstimate:
    """A PSF estimated blind.

    Parameters
    ----------
    psf : PSF or PSFField
        With its provenance in ``made_by``; a delta for a sharp image.
    inspection : Inspection
        The measurements it is derived from.
    slight : SlightBlur
        The slight blur they indicate.
    estimate : Estimate or None
        The free-form kernel; None when a slight blur, or none, explains the image.
    target : float
        Standard deviation of the Gaussian that remains of a slight blur, px.
    doubted : bool
        Whether a slight blur explains the image, but there are signs of a strong one that was not found.
    lens : FoundLens or None
        The blur, if it grows towards the corners.
    """

    psf: AnyPSF
    inspection: Inspection
    slight: SlightBlur
    estimate: Estimate | None
    target: float = TARGET
    doubted: bool = False
    lens: FoundLens | None = None

    def narrower(self) -> BlurEstimate | None:
        """Return the next blur to try when the restoration goes too far; None when there is none.

        A slight blur is made a tenth narrower, down to none; a free-form kernel is replaced by the slight blur, if that
        was measured reliably.
        """
        if self.psf.is_delta:
            return None
        if self.lens is not None:
            return _lens_estimate(self.inspection, self.slight, self.lens.scaled(NARROWER**2), self.target)
        if self.estimate is not None:
            reliable = math.isfinite(self.slight.variance) and self.slight.trusted
            return _slight_estimate(self.inspection, self.slight, self.target, doubted=True) if reliable else None
        share = NARROWER**2
        slight = replace(
            self.slight,
            variance=self.slight.variance * share,
            stretch=(self.slight.stretch[0] * share, self.slight.stretch[1]),
            radius=self.slight.radius * NARROWER,
        )
        return _slight_estimate(self.inspection, slight, self.target, doubted=self.doubted)


def estimate_psf(
    image: npt.ArrayLike | str | Path,
    size: int | None = None,
    window: tuple[int, int] | tuple[int, int, int] | str | None = None,
    *,
    per_channel: bool = False,
    threads: int = 1,
    page: int | None = None,
    plane: str | None = None,
    salvage: bool = False,
    field: str = "auto",
) -> AnyPSF:
    """Estimate the blur of an image from the image alone.

    Parameters
    ----------
    image : array_like, shape (H, W) or (H, W, C), or str or Path
        Linear light, 1.0 = white, or a file.  NaN marks missing data.
    size : int, optional
        Edge of the kernel, px, odd, 3..101; estimated by default.
    window : tuple or str, optional
        Centre and edge of the window to use, (x, y) or (x, y, size), px; selected by default.
    per_channel : bool
        Refine the PSF for each colour, as lenses blur them differently.
    threads : int
        Number of threads; the result does not depend on it.
    page, plane, salvage : optional
        Which picture of a file, see :class:`tilepipe.settings.Settings`.
    field : {"auto", "none", "lens"}
        Whether the blur may grow towards the corners, see :func:`find_psf`.

    Returns
    -------
    PSF or PSFField
        ``psf.confidence`` is in 0..1; a run refuses a PSF below 0.4.  A delta for a sharp image.

    Raises
    ------
    SettingsError
        If `size` or `window` is out of range.
    UncertainPsfError
        If the image has no structure: constant, clipped or NaN everywhere.
    InputError
        If `image` is a file that cannot be read.
    """
    if isinstance(image, (str, Path)):
        reader = open_image(image, Selection(page=page, plane=plane, salvage=salvage))
        try:
            inspection = inspect_reader(reader, size, window, threads=threads)
            return find_psf(inspection, size, per_channel=per_channel, threads=threads, field=field).psf
        finally:
            reader.close()
    pixels = np.asarray(image, np.float32)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (height, width) or (height, width, channels)")
    inspection = inspect_array(pixels, size, window, threads=threads)
    return find_psf(inspection, size, per_channel=per_channel, threads=threads, field=field).psf


def find_psf(
    inspection: Inspection,
    size: int | None = None,
    *,
    per_channel: bool = False,
    threads: int = 1,
    target: float | None = None,
    field: str = "auto",
) -> BlurEstimate:
    """Select no blur, a slight one, that of a lens or a strong one; estimate the PSF and its confidence.

    A slight blur, or none, suffices if it explains the spectrum of the image in all directions and without ripples.
    Otherwise the free-form kernel is estimated; it is accepted only if its ripples are those of the spectrum of the
    whole image.

    Parameters
    ----------
    inspection : Inspection
        Windows and statistics of the image.
    size : int or None
        Edge of a free-form kernel, px; None estimates it.
    per_channel : bool
        Refine a free-form kernel for each colour.
    threads : int
        Number of threads; the result does not depend on it.
    target : float or None
        Standard deviation of the Gaussian that remains of a slight blur, px; None: ``TARGET``.
    field : str
        "none" for one PSF all over the image; "lens" for one that differs, "auto" for whichever explains more.

    Raises
    ------
    UncertainPsfError
        If `field` is "lens" and the blur does not grow towards the corners.
    """
    target = TARGET if target is None else target
    slight = measure_slight_blur(inspection.power, inspection.noise, inspection.edges)
    lens = None if field == "none" or size is not None else find_lens(inspection)
    if lens is not None:
        return _lens_estimate(inspection, slight, lens, target)
    if field == "lens":
        raise UncertainPsfError(
            "the blur does not grow towards the corners in a way that one lens explains; use --field none, or give the "
            "PSF with --psf"
        )
    evidence = _RippleEvidence.of(inspection, slight)
    requested = size is not None and size > WIDEST_SLIGHT
    doubted = slight.explains and not evidence.is_surely_rippled and not requested
    if doubted and not evidence.is_perhaps_rippled:
        return _slight_estimate(inspection, slight, target)
    estimate = _strong_blur(inspection, evidence, size, doubted=doubted, threads=threads)
    if estimate is None:
        return _slight_estimate(inspection, slight, target, doubted=True)
    if slight.explains and not requested and _is_same_blur(estimate, slight):
        return _slight_estimate(inspection, slight, target)
    accepted, confidence = evidence.judge(estimate)
    if slight.explains and confidence < (MIN_CONFIDENCE if requested else MIN_FREE_FORM_CONFIDENCE):
        return _slight_estimate(inspection, slight, target, doubted=True)
    may_be_slight = estimate.sharp or not evidence.is_surely_rippled
    if not accepted and may_be_slight and math.isfinite(slight.variance) and slight.sigma < LARGEST_FALLBACK:
        return _slight_estimate(inspection, slight, target)
    if not accepted and not estimate.sharp:
        confidence = min(confidence, REFUSED_CAP)
    kernels = estimate.kernel
    if per_channel and len(inspection.colours[0]) > 1 and not estimate.sharp:
        kernels = kernels_by_channel(inspection.colours, kernels, threads=threads)
    made_by = _made_by(inspection, confidence) | {"nearest": str(fit_shape(estimate.kernel))}
    if evidence.ripples is not None and not estimate.sharp:
        left = evidence.ripples.left(estimate.kernel)
        made_by |= {"ripple": [round(evidence.ripples.simple, 3), round(left, 3)]}
    return BlurEstimate(PSF(kernels, made_by), inspection, slight, estimate, target)


def _strong_blur(
    inspection: Inspection, evidence: _RippleEvidence, size: int | None, *, doubted: bool, threads: int
) -> Estimate | None:
    """Return the free-form kernel; wide ones are searched for where the image is large enough and has a spectrum.

    None when a strong blur is doubted and none is found.
    """
    if inspection.large is None or evidence.ripples is None:
        return estimate_kernel(inspection.windows, inspection.noise, size, threads=threads)
    windows = inspection.windows, inspection.noise, inspection.large
    return estimate_strong_blur(*windows, evidence.ripples, size, doubted=doubted, threads=threads)


def _is_same_blur(estimate: Estimate, slight: SlightBlur) -> bool:
    """Return whether a free-form kernel equals the slight blur except for its ripple."""
    if estimate.sharp:
        return False
    psf = slight_psf(slight, 0.0)
    return psf is not None and likeness(estimate.kernel, psf.kernel) >= SAME_BLUR


@dataclass(frozen=True)
class _RippleEvidence:
    """Evidence of a strong blur in the spectrum of the whole image.

    Parameters
    ----------
    ripples : Ripples or None
        Relative to no blur or to the slight one; None when the image is too small.
    wide : bool
        Whether wide kernels can be searched for; the agreement among them then limits the confidence.
    """

    ripples: Ripples | None
    wide: bool

    @classmethod
    def of(cls, inspection: Inspection, slight: SlightBlur) -> _RippleEvidence:
        """Return the evidence in `inspection`."""
        if inspection.power is None or inspection.power.logs is None:
            return cls(None, wide=False)
        psf = slight_psf(slight, 0.0) if math.isfinite(slight.variance) else None
        ripples = Ripples(inspection.power, slight.reach, None if psf is None else psf.kernel)
        return cls(ripples, wide=inspection.large is not None)

    @property
    def is_surely_rippled(self) -> bool:
        """Whether a slight blur does not suffice."""
        if self.ripples is None or self.ripples.reach <= LEAST_REACH:
            return False
        surely = SURELY if self.ripples.reach > FULL_REACH else SURELY_SHORT
        return self.ripples.simple > surely * self.ripples.limit

    @property
    def is_perhaps_rippled(self) -> bool:
        """Whether a slight blur may not suffice although it explains the spectrum."""
        if self.ripples is None or not self.wide:
            return False
        share = PERHAPS if self.ripples.reach <= DOUBTED_REACH else 1.0
        return self.ripples.simple > share * self.ripples.limit

    def judge(self, estimate: Estimate) -> tuple[bool, float]:
        """Return whether a free-form kernel is accepted, and its confidence.

        The correct one removes the ripples from the spectrum of the whole image, although it was fitted to a few
        windows; where they are strong, similar ripples suffice, as far as other variants agree with it.
        """
        if estimate.sharp or self.ripples is None:
            return not estimate.sharp, estimate.confidence
        likeness = self.ripples.likeness(estimate.kernel)
        strong = 0.0 if likeness is None else strong_confidence(likeness, estimate.agreement)
        if likeness is not None and self.is_surely_rippled:
            return strong >= MIN_CONFIDENCE, strong
        explained = ripple_confidence(self.ripples.explained(estimate.kernel))
        agreed = strong_confidence(SURE_LIKENESS, estimate.agreement) if self.wide else 1.0
        confidence = max(
            min(estimate.confidence, explained, agreed), strong if strong >= MIN_FREE_FORM_CONFIDENCE else 0.0
        )
        return confidence >= MIN_FREE_FORM_CONFIDENCE, confidence


def _made_by(inspection: Inspection, confidence: float) -> dict[str, Any]:
    """Return the provenance of an estimated PSF."""
    return {
        "estimated": True,
        "confidence": round(confidence, 3),
        "windows": [[(x0 + x1) // 2, (y0 + y1) // 2, max(y1 - y0, x1 - x0)] for y0, y1, x0, x1 in inspection.boxes],
        "noise": float(f"{inspection.noise:.3g}"),
    }


def _lens_estimate(inspection: Inspection, slight: SlightBlur, lens: FoundLens, target: float) -> BlurEstimate:
    """Return the PSF of a lens."""
    psf = lens.psf(target, _made_by(inspection, 0.0))
    return BlurEstimate(psf, inspection, slight, None, target, lens=lens)


def _slight_estimate(
    inspection: Inspection, slight: SlightBlur, target: float, *, doubted: bool = False
) -> BlurEstimate:
    """Return the PSF of a slight blur; a delta when it is negligible."""
    made_by = _made_by(inspection, min(slight_confidence(slight), DOUBTED_CAP if doubted else 1.0))
    least = LEAST_VARIANCE if slight.explains else LEAST_UNEXPLAINED
    psf = slight_psf(slight, target) if slight.radius or slight.variance > least else None
    if psf is None:
        facts = {"nearest": "no blur", "sigma": round(slight.sigma, 3)}
        return BlurEstimate(
            PSF(np.ones((1, 1), np.float32), made_by | facts), inspection, slight, None, target, doubted
        )
    if slight.radius:
        facts = {"shape": "disk", "radius": round(slight.radius, 3), "nearest": f"disk, radius {slight.radius:.1f} px"}
        psf = PSF(psf.kernel, made_by | facts | {"target": target})
        return BlurEstimate(psf, inspection, slight, None, target, doubted)
    stretch = slight.stretch[0]
    major, minor = (math.sqrt(max(slight.variance + sign * stretch, 0.0)) for sign in (1, -1))
    sizes = f"sigma {major:.2f} x {minor:.2f} px at {math.degrees(slight.stretch[1]) % 180:.0f} degrees"
    facts = {
        "shape": "gaussian",
        "sigma": round(slight.sigma, 3),
        "nearest": f"gaussian, {sizes if stretch else f'sigma {slight.sigma:.2f} px'}",
        "target": target,
    }
    offsets = _colour_offsets(inspection)
    kernels = psf.kernel
    if offsets:
        each = [slight_psf(slight, target, offset) or PSF(np.ones((1, 1), np.float32)) for offset in offsets]
        size = max(one.size for one in each)
        kernels = np.stack([fit_to(one.kernel, size) for one in each])
        facts["sigma"] = [round(math.sqrt(max(slight.variance + offset, 0.0)), 3) for offset in offsets]
    return BlurEstimate(PSF(kernels, made_by | facts), inspection, slight, None, target, doubted)


def _colour_offsets(inspection: Inspection) -> list[float]:
    """Return the difference of each colour's variance from that of their mean, px^2; empty when they are alike."""
    fits = [fit_spectrum(power, inspection.noise, GAUSSIAN) for power in inspection.colour_power]
    mean = None if inspection.power is None else fit_spectrum(inspection.power, inspection.noise, GAUSSIAN)
    if mean is None or not fits or any(fit is None or fit.contrast < 6 or fit.misfit > 0.15 for fit in fits):
        return []
    offsets = [fit.width - mean.width for fit in fits if fit is not None]
    return offsets if max(map(abs, offsets)) > COLOURS_DIFFER else []
