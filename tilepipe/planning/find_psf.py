"""The PSF of a picture, blind: none, a slight one or a strong one, and how sure that is."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import SettingsError
from tilepipe.image.readers import open_image
from tilepipe.planning.inspection import Inspection, inspect_array, inspect_reader
from tilepipe.psf.blind.channels import kernels_by_channel
from tilepipe.psf.blind.confidence import strong_confidence
from tilepipe.psf.blind.narrow import Estimate, compare, estimate_kernel, likeness
from tilepipe.psf.blind.ripples import Ripples
from tilepipe.psf.blind.slight import SlightBlur, measure_slight_blur, slight_psf
from tilepipe.psf.blind.spectrum import GAUSSIAN, fit_spectrum
from tilepipe.psf.blind.strong import estimate_strong_blur
from tilepipe.psf.kernel_ops import fit_to
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import fit_shape

__all__ = ["MIN_CONFIDENCE", "BlurEstimate", "check_psf", "estimate_psf", "find_psf"]

MIN_CONFIDENCE = 0.4
"""Confidence below which a run refuses the PSF."""

LEAST_VARIANCE = 0.2
"""Variance of a blur, px^2, up to which a picture counts as sharp: 0.45 px."""

LEAST_UNEXPLAINED = 1.0
"""The same where a slight blur does not explain the spectrum in all directions: smooth subjects read as soft by 0.5 to
0.9 px, and sharpening them loses up to 13 dB."""

LEAST_REACH, FULL_REACH = 0.12, 0.2
"""Frequency, cycles/px, up to which a picture has to rise above its noise for ripples to show, and from which on
they show clearly."""

TRUSTED = 0.6
"""Confidence from which on a free-form kernel is taken where ripples are weak or a slight blur explains the spectrum:
portraits and text behind a shake of 75 px look slightly blurred."""

SURELY, SURELY_SHORT = 1.15, 1.5
"""Ripple over that of pictures without any from which on a slight blur cannot be all; the second where the picture does
not rise above its noise as far as FULL_REACH, whose edge ripples, too (up to 1.3 behind Gaussians of 2 px in JPEGs)."""

PERHAPS, DOUBTED_REACH = 0.75, 0.25
"""Ripple over that of pictures without any from which on a strong blur is looked for although a slight one explains the
picture, if that does not rise above its noise beyond the second, cycles/px, as most behind wide shakes; else 1."""

WIDEST_SLIGHT = 21
"""Widest kernel of a slight blur, px: who asks for a wider one does not mean that."""

SURE_LIKENESS = 0.8
"""Likeness of ripples of a right kernel, where it cannot be measured."""

DOUBTED = 0.6
"""Highest confidence in a slight blur where there are signs of a strong one."""

SAME_BLUR = 0.9
"""Likeness of a free-form kernel and the slight blur from which on they say the same: the slight one has the smoother
transfer function and takes less noise up."""

REFUSED = 0.39
"""Highest confidence in a free-form kernel that is not accepted: a run refuses it without ``--force``."""

HALF_TRUSTED, RIPPLE_SLOPE = 0.86, 25.0
"""Share of the ripples of a picture's spectrum that a kernel has to explain to be trusted by half, and how fast trust
grows: kernels that explain 0.9 and more restored well, those at 0.83 and below badly."""

TARGET = 0.35
"""Standard deviation of the Gaussian that is left of a slight blur, px: a point rings at every error of the width."""

LARGEST_FALLBACK = 2.0
"""Standard deviation of the widest slight blur, px, that is taken where a free-form kernel does not do better."""

MANY_BLOCKS, EVEN = 40, 0.2
"""Blocks of a spectrum, and unevenness of its directions, with which a slight blur is nearly always right."""

NARROWER = 0.9
"""By this factor a slight blur is taken back where the restoration goes too far."""

COLOURS_DIFFER = 0.15
"""Difference of the colours' variances from their mean, px^2, from which on each is restored with its own."""


@dataclass(frozen=True, eq=False)
class BlurEstimate:
    """A PSF found blind.

    Parameters
    ----------
    psf : with what is known of it in ``made_by``; a delta for a picture that is not blurred.
    look, slight : what it follows from.
    estimate : the free-form kernel; None when a slight blur, or none, explains the picture.
    target : standard deviation of the Gaussian that is left of a slight blur, px.
    doubted : a slight blur explains the picture, but there are signs of a strong one, too, that was not found.
    """

    psf: PSF
    inspection: Inspection
    slight: SlightBlur
    estimate: Estimate | None
    target: float = TARGET
    doubted: bool = False

    def narrower(self) -> BlurEstimate | None:
        """Return the next blur to try when this one goes too far; None when there is none.

        A slight blur a tenth narrower, down to no blur; after a free-form kernel the slight one, if that is known.
        """
        if self.psf.is_delta:
            return None
        if self.estimate is not None:
            known = math.isfinite(self.slight.variance) and self.slight.trusted
            return _slight_finding(self.inspection, self.slight, self.target, doubted=True) if known else None
        share = NARROWER**2
        slight = replace(
            self.slight,
            variance=self.slight.variance * share,
            stretch=(self.slight.stretch[0] * share, self.slight.stretch[1]),
            radius=self.slight.radius * NARROWER,
        )
        return _slight_finding(self.inspection, slight, self.target, doubted=self.doubted)


def estimate_psf(
    image: npt.ArrayLike | str | Path,
    size: int | None = None,
    window: tuple[int, int] | tuple[int, int, int] | str | None = None,
    *,
    per_channel: bool = False,
    threads: int = 1,
) -> PSF:
    """Estimate the blur of a picture from the picture alone.

    Parameters
    ----------
    image : (H, W) or (H, W, C), linear light, 1.0 = white; or a file.  NaN counts as unknown.
    size : edge of the kernel, px, odd, 3..101; None finds it.
    window : (x, y) or (x, y, size): centre and edge of the part to look at, px; None finds good ones.
    per_channel : refine the PSF for each colour, where lenses blur them differently.
    threads : used at a time; the result does not depend on it.

    Returns
    -------
    The PSF; ``psf.confidence`` in 0..1 says how sure it is (below 0.4 a run would refuse it).  A delta for a picture
    that is not blurred.

    Raises
    ------
    SettingsError : size or window out of range.
    UncertainPsfError : there is nothing to see: a constant picture, all clipped, all NaN.
    InputError : `image` is a file that cannot be read.
    """
    if isinstance(image, (str, Path)):
        reader = open_image(image)
        try:
            return find_psf(inspect_reader(reader, size, window), size, per_channel=per_channel, threads=threads).psf
        finally:
            reader.close()
    pixels = np.asarray(image, np.float32)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (height, width) or (height, width, channels)")
    return find_psf(inspect_array(pixels, size, window), size, per_channel=per_channel, threads=threads).psf


def check_psf(psf: PSF, image: str | Path, window: Any = None, *, threads: int = 1) -> dict[str, Any]:
    """Return how well `psf` explains the blur of another picture, beside the PSF found there.

    Returns
    -------
    "likeness" of the two kernels, 0..1; "gain": how much sparser each makes the picture (1: not at all), "misfit" of
    each over the noise; "confidence" of the one found; "explains": `psf` does nearly as well as the one found.
    """
    reader = open_image(image)
    try:
        inspection = inspect_reader(reader, None, window)
    finally:
        reader.close()
    blur = find_psf(inspection, threads=threads)
    found = blur.psf.kernel
    likeness, mine, other = compare(inspection.windows, inspection.noise, psf.kernel, found)
    return {
        "likeness": round(likeness, 3),
        "gain": round(mine.gain, 3),
        "gain_found": round(other.gain, 3),
        "misfit": round(mine.misfit, 3),
        "misfit_found": round(other.misfit, 3),
        "confidence": blur.psf.confidence,
        "explains": bool(mine.gain >= 1 + 0.7 * (other.gain - 1) and mine.misfit <= 1.3 * max(other.misfit, 1.0)),
    }


def find_psf(
    inspection: Inspection,
    size: int | None = None,
    *,
    per_channel: bool = False,
    threads: int = 1,
    target: float | None = None,
) -> BlurEstimate:
    """Decide between no blur, a slight one and a strong one; estimate the PSF and say how sure it is.

    A slight blur, or none, that explains the spectrum of the picture in all directions, without ripples, needs no
    more.  Else the free-form kernel is estimated; its ripples have to be those of the spectrum of the whole picture, or
    it is not taken.

    Parameters
    ----------
    size : edge of a free-form kernel, px; None finds it.
    target : standard deviation of the Gaussian that is left of a slight blur, px; None: ``TARGET``.
    """
    target = TARGET if target is None else target
    slight = measure_slight_blur(inspection.power, inspection.noise, inspection.edges)
    trace = _Trace.of(inspection, slight)
    asked = size is not None and size > WIDEST_SLIGHT
    doubted = slight.explains and not trace.is_surely_rippled and not asked
    if doubted and not trace.is_perhaps_rippled:
        return _slight_finding(inspection, slight, target)
    estimate = _strong_blur(inspection, trace, size, doubted=doubted, threads=threads)
    if estimate is None:
        return _slight_finding(inspection, slight, target, doubted=True)
    if slight.explains and not asked and _is_same_blur(estimate, slight):
        return _slight_finding(inspection, slight, target)
    accepted, confidence = trace.judge(estimate)
    if slight.explains and confidence < (MIN_CONFIDENCE if asked else TRUSTED):
        return _slight_finding(inspection, slight, target, doubted=True)
    may_be_slight = estimate.sharp or not trace.is_surely_rippled
    if not accepted and may_be_slight and math.isfinite(slight.variance) and slight.sigma < LARGEST_FALLBACK:
        return _slight_finding(inspection, slight, target)
    if not accepted and not estimate.sharp:
        confidence = min(confidence, REFUSED)
    kernels = estimate.kernel
    if per_channel and len(inspection.colours[0]) > 1 and not estimate.sharp:
        kernels = kernels_by_channel(inspection.colours, kernels, threads=threads)
    made_by = _made_by(inspection, confidence) | {"nearest": str(fit_shape(estimate.kernel))}
    if trace.ripples is not None and not estimate.sharp:
        left = trace.ripples.left(estimate.kernel)
        made_by |= {"ripple": [round(trace.ripples.simple, 3), round(left, 3)]}
    return BlurEstimate(PSF(kernels, made_by), inspection, slight, estimate, target)


def _strong_blur(
    inspection: Inspection, trace: _Trace, size: int | None, *, doubted: bool, threads: int
) -> Estimate | None:
    """Return the free-form kernel; wide ones are sought where the picture is large enough and has a spectrum.

    None when it is doubted that there is a strong blur, and none shows.
    """
    if inspection.large is None or trace.ripples is None:
        return estimate_kernel(inspection.windows, inspection.noise, size, threads=threads)
    windows = inspection.windows, inspection.noise, inspection.large
    return estimate_strong_blur(*windows, trace.ripples, size, doubted=doubted, threads=threads)


def _is_same_blur(estimate: Estimate, slight: SlightBlur) -> bool:
    """Return whether a free-form kernel is the slight blur again, but for its ripple."""
    if estimate.sharp:
        return False
    psf = slight_psf(slight, 0.0)
    return psf is not None and likeness(estimate.kernel, psf.kernel) >= SAME_BLUR


@dataclass(frozen=True)
class _Trace:
    """What blur of some extent leaves in the spectrum of the whole picture.

    Parameters
    ----------
    ripples : beside no blur, or the slight one; None when the picture is too small.
    wide : wide kernels can be sought, and whether they agree says how sure the best one is.
    """

    ripples: Ripples | None
    wide: bool

    @classmethod
    def of(cls, inspection: Inspection, slight: SlightBlur) -> _Trace:
        if inspection.power is None or inspection.power.logs is None:
            return cls(None, wide=False)
        psf = slight_psf(slight, 0.0) if math.isfinite(slight.variance) else None
        ripples = Ripples(inspection.power, slight.reach, None if psf is None else psf.kernel)
        return cls(ripples, wide=inspection.large is not None)

    @property
    def is_surely_rippled(self) -> bool:
        """Whether a slight blur cannot be all."""
        if self.ripples is None or self.ripples.reach <= LEAST_REACH:
            return False
        surely = SURELY if self.ripples.reach > FULL_REACH else SURELY_SHORT
        return self.ripples.simple > surely * self.ripples.limit

    @property
    def is_perhaps_rippled(self) -> bool:
        """Whether a slight blur may not be all, though it explains the spectrum."""
        if self.ripples is None or not self.wide:
            return False
        share = PERHAPS if self.ripples.reach <= DOUBTED_REACH else 1.0
        return self.ripples.simple > share * self.ripples.limit

    def judge(self, estimate: Estimate) -> tuple[bool, float]:
        """Return whether a free-form kernel is taken, and the confidence in it.

        The right one takes the ripples out of the spectrum of the whole picture, of which it saw a few windows; where
        they are strong, it is enough that its own are like them, as far as other ways agree with it.
        """
        if estimate.sharp or self.ripples is None:
            return not estimate.sharp, estimate.confidence
        likeness = self.ripples.likeness(estimate.kernel)
        strong = 0.0 if likeness is None else strong_confidence(likeness, estimate.agreement)
        if likeness is not None and self.is_surely_rippled:
            return strong >= MIN_CONFIDENCE, strong
        explained = ripple_confidence(self.ripples.explained(estimate.kernel))
        agreed = strong_confidence(SURE_LIKENESS, estimate.agreement) if self.wide else 1.0
        confidence = max(min(estimate.confidence, explained, agreed), strong if strong >= TRUSTED else 0.0)
        return confidence >= TRUSTED, confidence


def ripple_confidence(share: float) -> float:
    """Return how far a free-form kernel can be trusted, 0..1, that explains this share of a picture's ripples."""
    return 1 / (1 + math.exp(-RIPPLE_SLOPE * (share - HALF_TRUSTED)))


def _made_by(inspection: Inspection, confidence: float) -> dict[str, Any]:
    return {
        "estimated": True,
        "confidence": round(confidence, 3),
        "windows": [[(x0 + x1) // 2, (y0 + y1) // 2, max(y1 - y0, x1 - x0)] for y0, y1, x0, x1 in inspection.boxes],
        "noise": float(f"{inspection.noise:.3g}"),
    }


def _slight_finding(
    inspection: Inspection, slight: SlightBlur, target: float, *, doubted: bool = False
) -> BlurEstimate:
    """Return the PSF of a slight blur; a delta when there is next to none."""
    made_by = _made_by(inspection, min(slight_confidence(slight), DOUBTED if doubted else 1.0))
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
    """Return by how much each colour's variance differs from that of their mean, px^2; empty when they are alike."""
    fits = [fit_spectrum(power, inspection.noise, GAUSSIAN) for power in inspection.colour_power]
    mean = None if inspection.power is None else fit_spectrum(inspection.power, inspection.noise, GAUSSIAN)
    if mean is None or not fits or any(fit is None or fit.contrast < 6 or fit.misfit > 0.15 for fit in fits):
        return []
    offsets = [fit.width - mean.width for fit in fits if fit is not None]
    return offsets if max(map(abs, offsets)) > COLOURS_DIFFER else []


def slight_confidence(slight: SlightBlur) -> float:
    """Return how far the width of a slight blur can be trusted, 0..1."""
    if not math.isfinite(slight.variance):
        return 0.1
    if not slight.explains:
        return 0.6 if slight.trusted else 0.45
    return 0.95 if slight.blocks >= MANY_BLOCKS and slight.unevenness < EVEN else 0.75
