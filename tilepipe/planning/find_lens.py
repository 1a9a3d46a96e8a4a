"""The blur of a lens, as found in an image: its PSF at every place, and how certain it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tilepipe.planning.inspection import Inspection
from tilepipe.psf.blind.confidence import lens_confidence
from tilepipe.psf.blind.lens_fit import Cell, LensFit, cells_of, colour_offsets, fit_lens
from tilepipe.psf.field import PSFField
from tilepipe.psf.lens import LensBlur

__all__ = ["FoundLens", "LensEvidence", "find_lens", "find_shared_lens"]


@dataclass(frozen=True)
class FoundLens:
    """A blur that grows towards the corners.

    Parameters
    ----------
    blur : LensBlur
        Of the mean of the colours, or of each colour.
    fit : LensFit
        How well it explains the parts of the image.
    shape : tuple of int
        Height and width of the image, px.
    camera : dict
        Camera and lens, see :func:`tilepipe.image.metadata.camera.camera_facts`.
    """

    blur: LensBlur
    fit: LensFit
    shape: tuple[int, int]
    camera: dict[str, Any]

    def scaled(self, share: float) -> FoundLens:
        """Return the blur with all variances multiplied by `share`."""
        return replace(self, blur=self.blur.scaled(share))

    def psf(self, target: float, made_by: dict[str, Any]) -> PSFField:
        """Return the PSF whose removal leaves a Gaussian of `target` px, with its provenance."""
        centre, corner = (_mean(self.blur.sigma(radius)) for radius in (0.0, 1.0))
        facts = {
            "confidence": round(lens_confidence(self.fit.unexplained, self.fit.cells), 3),
            "shape": "lens",
            "nearest": f"lens, sigma {centre:.2f} px in the centre, {corner:.2f} px in the corners",
            "target": target,
            "image": {"width": self.shape[1], "height": self.shape[0]},
            "camera": self.camera,
            "held_out": {
                "parts": self.fit.cells,
                "deviation": self.fit.deviation,
                "deviation_of_one": self.fit.deviation_of_one,
                "unexplained": self.fit.unexplained,
            },
        }
        return self.blur.field(target, made_by | facts)


def find_lens(inspection: Inspection) -> FoundLens | None:
    """Return the blur of the lens; None if one blur explains all parts of the image, or a window was given."""
    spectra = inspection.spectra
    if spectra is None:
        return None
    fit = fit_lens([(cells_of(spectra.mean, spectra.shape), inspection.noise)], spectra.shape)
    if fit is None:
        return None
    return FoundLens(_coloured(fit.blur, _offsets(inspection, fit.blur.centre)), fit, spectra.shape, inspection.camera)


@dataclass(frozen=True)
class LensEvidence:
    """The evidence of one of several images for the blur of their lens.

    Parameters
    ----------
    cells : tuple of Cell
        Spectra of parts of the image.
    noise : float
        Standard deviation of the noise of the mean of the colours.
    shape : tuple of int
        Height and width of the image, px.
    offsets : list of (float, float)
        Differences of the colours, see :func:`tilepipe.psf.blind.lens_fit.colour_offsets`.
    camera : dict
        Camera and lens.
    """

    cells: tuple[Cell, ...]
    noise: float
    shape: tuple[int, int]
    offsets: list[tuple[float, float]]
    camera: dict[str, Any]

    @classmethod
    def of(cls, inspection: Inspection) -> LensEvidence | None:
        """Return the evidence of an image; None if a window was given."""
        spectra = inspection.spectra
        if spectra is None:
            return None
        cells, offsets = cells_of(spectra.mean, spectra.shape), _offsets(inspection, (0.5, 0.5))
        return cls(cells, inspection.noise, spectra.shape, offsets, inspection.camera)


def find_shared_lens(evidence: Sequence[LensEvidence]) -> FoundLens | None:
    """Return the blur of the lens of several images; None if their sizes differ, or one blur explains them as well."""
    shapes = {one.shape for one in evidence}
    if len(shapes) != 1:
        return None
    (shape,) = shapes
    fit = fit_lens([(one.cells, one.noise) for one in evidence], shape)
    if fit is None:
        return None
    coloured = [one.offsets for one in evidence if one.offsets]
    offsets = [(float(a), float(b)) for a, b in np.mean(coloured, axis=0)] if coloured else []
    common = {
        key: value for key, value in evidence[0].camera.items() if all(one.camera.get(key) == value for one in evidence)
    }
    return FoundLens(_coloured(fit.blur, offsets), fit, shape, common)


def _offsets(inspection: Inspection, centre: tuple[float, float]) -> list[tuple[float, float]]:
    spectra = inspection.spectra
    if spectra is None or not spectra.each:
        return []
    return colour_offsets(spectra.mean, spectra.each, inspection.noise, spectra.shape, centre)


def _coloured(blur: LensBlur, offsets: list[tuple[float, float]]) -> LensBlur:
    """Return the blur with a curve for each colour, if these differ."""
    if not offsets:
        return blur
    constant, square, *rest = blur.along[0]
    return replace(blur, along=tuple((constant + a, square + b, *rest) for a, b in offsets))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
