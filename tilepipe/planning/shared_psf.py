"""One PSF for several images of the same lens or camera, estimated from some of them.

An image may show no structure, or a subject that looks blurred.  So the blur is estimated from a few images one by one,
and the estimates that agree are averaged.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import structs

from tilepipe.dtypes import FloatArray
from tilepipe.errors import InputError, UncertainPsfError
from tilepipe.events import Listener, Note
from tilepipe.planning.analysis import MIN_CONFIDENCE, estimate_blur
from tilepipe.planning.find_lens import LensEvidence, find_shared_lens
from tilepipe.planning.find_psf import TARGET
from tilepipe.psf.blind.narrow import likeness
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.kernel_ops import align, normalised
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import fit_shape
from tilepipe.psf.shapes import delta
from tilepipe.settings import Settings

__all__ = ["average_of_those_that_agree", "estimate_shared_psf"]

MOST_IMAGES = 7
"""Number of images from which the blur is estimated; they are spread over the list."""

ALIKE = 0.9
"""Likeness from which two estimates agree; estimates from seven pictures resemble the true blur by 0.967 to 1."""


def estimate_shared_psf(images: Sequence[Path], settings: Settings, on_event: Listener) -> AnyPSF:
    """Estimate the PSF that several images share.

    If they are of one size, and parts of all of them agree that the blur grows towards the corners, it is that of a
    lens (unless the setting ``field`` is "none"); otherwise the estimates that agree are averaged.

    Parameters
    ----------
    images : sequence of Path
        All images; a few are read.
    settings : Settings
        Those of the estimate, such as ``blur`` and ``window``, apply to each image.
    on_event : callable
        Receives a note for each image read.

    Returns
    -------
    PSF or PSFField
        Not a field: with one kernel for all colours; a delta if no image shows a blur.

    Raises
    ------
    UncertainPsfError
        If no estimate is certain enough, or most disagree, unless the setting ``force`` is set.
    """
    found: list[PSF] = []
    evidence: list[LensEvidence] = []
    for index in np.unique(np.linspace(0, len(images) - 1, MOST_IMAGES).round().astype(int)):
        image = images[index]
        try:
            blur = estimate_blur(image, structs.replace(settings, field="none"))
        except (InputError, UncertainPsfError) as error:
            on_event(Note(f"planning shared blur: {image.name} is not used: {error}"))
            continue
        psf = blur.psf
        on_event(Note(f"planning shared blur: {image.name}: {psf.made_by['nearest']}, confidence {psf.confidence:.2f}"))
        found.append(psf.widest)
        shown = None if settings.field == "none" else LensEvidence.of(blur.inspection)
        if shown is not None:
            evidence.append(shown)
    lens = find_shared_lens(evidence)
    if lens is not None:
        target = TARGET if settings.target is None else settings.target
        return lens.psf(target, {"estimated": True, "images": len(evidence)})
    return average_of_those_that_agree(found, force=settings.force)


def average_of_those_that_agree(found: Sequence[PSF], *, force: bool = False) -> PSF:
    """Average the largest group of estimates that agree, weighted by their confidence.

    Images that show no blur may have no structure that could show it: they count only if no other does.

    Parameters
    ----------
    found : sequence of PSF
        Estimates from different images.
    force : bool
        Accept uncertain estimates, and a group that is not the majority.

    Returns
    -------
    PSF
        Its confidence is the mean of the group's, times the share of the group among all estimates that show a blur.

    Raises
    ------
    UncertainPsfError
        If none is certain enough, or the group is not the majority.
    """
    least = 0.0 if force else MIN_CONFIDENCE
    certain = [psf for psf in found if (psf.confidence or 0.0) >= least]
    blurred = [psf for psf in certain if not psf.is_delta]
    if not certain:
        raise UncertainPsfError(
            f"no image shows the shared blur with a confidence of {MIN_CONFIDENCE:g}: give the PSF with --psf, "
            "estimate it from each image (without --shared-psf), or accept the estimates with --force"
        )
    if not blurred:
        return PSF(delta().kernel, {"estimated": True, "nearest": "no blur"} | _facts(certain, certain))
    kernels = [psf.joint.kernel for psf in blurred]
    groups = [
        [other for other in range(len(kernels)) if likeness(kernel, kernels[other]) >= ALIKE] for kernel in kernels
    ]
    group = max(groups, key=lambda members: sum(blurred[member].confidence or 0.0 for member in members))
    if 2 * len(group) <= len(blurred) and len(blurred) > 1 and not force:
        raise UncertainPsfError(
            f"{len(blurred)} images show blurs of which at most {len(group)} agree: they do not share a PSF; "
            "estimate it from each image (without --shared-psf), or give it with --psf"
        )
    kernel = _average([kernels[member] for member in group], [blurred[member].confidence or 0.0 for member in group])
    facts = {"estimated": True, "nearest": str(fit_shape(kernel))}
    return PSF(kernel, facts | _facts([blurred[member] for member in group], blurred))


def _facts(group: Sequence[PSF], among: Sequence[PSF]) -> dict[str, Any]:
    mean = sum(psf.confidence or 0.0 for psf in group) / len(group)
    return {"confidence": round(mean * len(group) / len(among), 3), "images": len(group)}


def _average(kernels: Sequence[FloatArray], weights: Sequence[float]) -> FloatArray:
    """Return the weighted mean of the kernels (k, k), aligned with the widest of them."""
    widest = max(kernels, key=len)
    aligned = [align(kernel, widest)[0] for kernel in kernels]
    total = np.zeros_like(widest)
    for kernel, weight in zip(aligned, weights, strict=True):
        total += np.float32(max(weight, 1e-3)) * kernel
    return normalised(total)
