"""The blur of a lens: a Gaussian whose variance is a function of the distance from a centre."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.psf.field import PSFField, Rings
from tilepipe.psf.kernel_ops import fit_to
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta, elliptical_gaussian, gaussian

__all__ = ["LensBlur"]

STEP = 0.35
"""Largest difference of the standard deviation between neighbouring components, px.  On a photograph behind a lens of
0.6 to 1.8 px the gain is 6.70, 6.67, 6.53 and 5.34 dB with 0.15, 0.25, 0.35 and 0.5 px; the time falls with it."""

DIRECTIONS = 8
"""Directions of the components of a lens whose blur differs along the radius and across."""

FINE = 1024
"""Radii at which the standard deviation is evaluated to place the components."""

LEAST_SIGMA = 0.1
"""Standard deviation below which a Gaussian is a delta, px."""


@dataclass(frozen=True)
class LensBlur:
    """Variance of the blur against the distance from a centre.

    Parameters
    ----------
    along : tuple of tuple of float
        For one or all colours, the coefficients c of the variance along the radius, c0 + c1 r^2 + c2 r^4 + ..., px^2;
        r is the distance from the centre as a share of half the image's diagonal.
    across : tuple of tuple of float
        The same across the radius; empty if the blur is round.
    centre : tuple of float
        x and y as shares of the image's width and height.
    """

    along: tuple[tuple[float, ...], ...]
    across: tuple[tuple[float, ...], ...] = ()
    centre: tuple[float, float] = (0.5, 0.5)

    def sigma(self, radius: float, *, across: bool = False) -> list[float]:
        """Return the standard deviation at a distance from the centre, of each colour, px."""
        curves = self.across if across and self.across else self.along
        return [math.sqrt(max(float(_evaluate(curve, np.array(radius))), 0.0)) for curve in curves]

    def scaled(self, share: float) -> LensBlur:
        """Return the blur with all variances multiplied by `share`."""
        along, across = (
            tuple(tuple(share * c for c in curve) for curve in curves) for curves in (self.along, self.across)
        )
        return LensBlur(along, across, self.centre)

    def facts(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        return {"variance": self.along, "centre": self.centre} | ({"across": self.across} if self.across else {})

    def field(self, target: float, made_by: dict[str, Any]) -> PSFField:
        """Return the PSF whose removal leaves a Gaussian of `target` px.

        Where the blur is narrower than that, nothing is removed.  Components lie at radii between which the standard
        deviation changes by up to ``STEP``.
        """
        radii = self._radii(target)
        angles = [180 * index / DIRECTIONS for index in range(DIRECTIONS)] if self.across else [0.0]
        components = tuple(self._component(radius, angle, target) for radius in radii for angle in angles)
        return PSFField(components, Rings(tuple(radii), self.centre, len(angles)), made_by | {"lens": self.facts()})

    def _radii(self, target: float) -> list[float]:
        """Return the radii of the components, from the centre to the farthest corner."""
        x, y = (2 * abs(share - 0.5) for share in self.centre)
        radius = np.linspace(0, 1 + max(x, y), FINE)
        removed = np.stack([np.sqrt(_removed(curve, radius, target)) for curve in (*self.along, *self.across)])
        travelled = np.concatenate([[0], np.abs(np.diff(removed, axis=1)).max(0).cumsum()])
        count = max(2, math.ceil(travelled[-1] / STEP) + 1)
        travelled += np.linspace(0, 1e-9, FINE)  # where nothing changes, the radii are spread evenly
        return [round(float(r), 5) for r in np.interp(np.linspace(0, travelled[-1], count), travelled, radius)]

    def _component(self, radius: float, angle: float, target: float) -> PSF:
        at = np.array(radius)
        across = self.across or self.along
        kernels = []
        for one, other in zip(self.along, across, strict=True):
            major, minor = (math.sqrt(float(_removed(curve, at, target))) for curve in (one, other))
            kernels.append(_gaussian(major, minor, angle).kernel)
        size = max(len(kernel) for kernel in kernels)
        return PSF(np.stack([fit_to(kernel, size) for kernel in kernels]))


def _evaluate(curve: Sequence[float], radius: DoubleArray) -> DoubleArray:
    """Return the variance at radii, px^2."""
    return np.asarray(np.polynomial.polynomial.polyval(radius**2, np.asarray(curve, np.float64)))


def _removed(curve: Sequence[float], radius: DoubleArray, target: float) -> DoubleArray:
    """Return the variance that is removed, px^2."""
    return np.asarray(np.maximum(_evaluate(curve, radius) - target**2, 0))


def _gaussian(along: float, across: float, angle: float) -> PSF:
    """Return a Gaussian, or a delta if it has no width."""
    if max(along, across) < LEAST_SIGMA:
        return delta()
    if along == across:
        return gaussian(along)
    if along < across:
        along, across, angle = across, along, angle + 90
    return elliptical_gaussian(along, across, angle)
