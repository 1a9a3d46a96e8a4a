"""The blur of a lens, as found in an image: its PSF at every place, and how certain it is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tilepipe.planning.inspection import Inspection
from tilepipe.psf.blind.confidence import lens_confidence
from tilepipe.psf.blind.lens_fit import LensFit, cells_of, colour_offsets, fit_lens
from tilepipe.psf.field import PSFField
from tilepipe.psf.lens import LensBlur

__all__ = ["FoundLens", "find_lens"]


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
    """

    blur: LensBlur
    fit: LensFit
    shape: tuple[int, int]

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
    fit = fit_lens(cells_of(spectra.mean, spectra.shape), inspection.noise, spectra.shape)
    if fit is None:
        return None
    blur = fit.blur
    offsets = (
        colour_offsets(spectra.mean, spectra.each, inspection.noise, spectra.shape, blur.centre) if spectra.each else []
    )
    if offsets:
        constant, square, *rest = blur.along[0]
        blur = replace(blur, along=tuple((constant + a, square + b, *rest) for a, b in offsets))
    return FoundLens(blur, fit, spectra.shape)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
