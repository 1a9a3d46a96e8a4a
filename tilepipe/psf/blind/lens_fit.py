"""Estimation of a blur that grows with the distance from a centre, from the spectra of parts of the image.

The width of a slight blur is measured in each part as in the whole image (:mod:`tilepipe.psf.blind.spectrum`), and a
curve of the distance is fitted to the variances: sigma^2(r) = c0 + c1 r^2 + c2 r^4, r = 1 in the corners.  Radial
symmetry is the right prior for one photograph (Kee, Paris, Chen & Wang, ICCP 2011; Schuler, Hirsch, Harmeling &
Schoelkopf, ECCV 2012).  Parts out of focus are softer than the lens alone, so outliers on that side weigh less.

Whether the blur varies at all is decided on parts that the curve was not fitted to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.psf.blind.spectrum import GAUSSIAN, Power, PowerAccumulator, fit_spectrum
from tilepipe.psf.lens import LensBlur

__all__ = ["Cell", "LensFit", "cells_of", "colour_offsets", "fit_lens"]

SMALLEST_CELL, MOST_CELLS = 256, 64
"""Least edge of a part of the image, px, and their approximate maximum number."""

FEWEST_CELLS = 12
"""Number of parts with a usable spectrum below which no curve is fitted."""

LEAST_CONTRAST, MOST_MISFIT = 2.0, 0.35
"""A spectrum is usable if the image exceeds its noise by the first at 0.15 cycles/px and the misfit is below the
second, see :class:`~tilepipe.psf.blind.spectrum.SpectrumFit`."""

FIRST_WIDTH = 0.6
"""Variance from which the fit of the first part starts, px^2; the others start from the median of those before."""

LEAST_SPREAD = 0.1
"""Added to the spread of a variance, px^2: parts of a scene differ."""

SOFTER = 0.4
"""Weight of parts that are softer than the curve, as if out of focus."""

RIDGE = 1.5
"""Weight of a penalty on c2, relative to the mean weight of a part."""

LEAST_SCALE, LEAST_HELD_SCALE = 0.05, 0.08
"""Least scale of the deviations from a curve, px^2, in a fit and when fits are compared."""

ROUNDS = 20
"""Rounds of reweighting."""

FOLDS = 4
"""Groups of parts that are held out in turn: every second row and column."""

CENTRES = (-0.12, -0.06, 0.0, 0.06, 0.12)
"""Offsets of the centre that are tried along each axis, as shares of the image's width and height."""

OFF_CENTRE = 0.85
"""Deviation of the parts held out, relative to that around the image's middle, below which another centre is used."""

EXPLAINED, SURELY_EXPLAINED, MOST_UNUSABLE = 0.75, 0.35, 0.4
"""Deviation of the parts held out, relative to that from one width for all, below which the blur varies; the second
where more than a share of the parts, the third, is not usable, as in night scenes and in front of smooth grounds."""

LEAST_RISE = 0.2
"""Least difference of the standard deviation between centre and corners, px."""

SHADE = 0.04
"""Subtracted from the variance, px^2: an overestimate costs more than an underestimate."""

ZONES = (0.0, 0.2, 0.5, 1.5)
"""Bounds of r^2 of the zones in which the colours are compared with their mean."""

COLOURS_DIFFER = 0.15
"""Difference of a colour's variance from the mean in a zone, px^2, above which each colour gets its own curve."""

COLOUR_CONTRAST, COLOUR_MISFIT = 6.0, 0.25
"""As LEAST_CONTRAST and MOST_MISFIT, for the spectra of the colours."""


@dataclass(frozen=True, eq=False)
class Cell:
    """A part of the image.

    Parameters
    ----------
    row, column : int
        Position among the parts.
    centre : tuple of float
        Its middle, (y, x), px.
    power : Power
        Power of the mean of the colours.
    """

    row: int
    column: int
    centre: tuple[float, float]
    power: Power


@dataclass(frozen=True)
class LensFit:
    """A blur that grows with the distance from a centre.

    Parameters
    ----------
    blur : LensBlur
        The blur of the mean of the colours.
    cells : int
        Number of parts it was fitted to.
    deviation : float
        Median deviation of the variance from the curve in parts held out, px^2.
    deviation_of_one : float
        The same from one width for all parts.
    unexplained : float
        Mean deviation, with bounded weight of outliers, from the curve over that from one width.
    """

    blur: LensBlur
    cells: int
    deviation: float
    deviation_of_one: float
    unexplained: float


def cells_of(spectra: PowerAccumulator, shape: tuple[int, int]) -> tuple[Cell, ...]:
    """Return the parts of an image of `shape` (h, w) that have enough blocks."""
    height, width = shape
    edge = max(SMALLEST_CELL, math.sqrt(height * width / MOST_CELLS))
    rows, columns = max(1, round(height / edge)), max(1, round(width / edge))
    y, x = spectra.middles.T
    cells = []
    for row in range(rows):
        for column in range(columns):
            inside = (y * rows // height == row) & (x * columns // width == column)
            power = spectra.power_of(inside)
            if power is not None:
                centre = (row + 0.5) * height / rows, (column + 0.5) * width / columns
                cells.append(Cell(row, column, centre, power))
    return tuple(cells)


def fit_lens(images: Sequence[tuple[tuple[Cell, ...], float]], shape: tuple[int, int]) -> LensFit | None:
    """Fit the blur of a lens to the spectra of the parts of images; None if one width explains them as well.

    Parameters
    ----------
    images : sequence of (tuple of Cell, float)
        Parts of each image, and the standard deviation of the noise of the mean of its colours.
    shape : tuple of int
        Height and width of the images, px.
    """
    cells = sum(len(parts) for parts, _ in images)
    if cells < FEWEST_CELLS:
        return None
    widths = _Widths.of(images)
    if len(widths.variance) < FEWEST_CELLS:
        return None
    one = widths.held_out(np.zeros_like(widths.variance), 0)
    scale = max(1.48 * float(np.median(np.abs(one))), LEAST_HELD_SCALE)
    centre, held = (0.5, 0.5), widths.held_out(widths.distance(shape, (0.5, 0.5)), 2)
    for other in ((0.5 + x, 0.5 + y) for y in CENTRES for x in CENTRES):
        deviation = widths.held_out(widths.distance(shape, other), 2)
        least = OFF_CENTRE if centre == (0.5, 0.5) else 1.0
        if widths.mean_deviation(deviation, scale) < least * widths.mean_deviation(held, scale):
            centre, held = other, deviation
    unexplained = widths.mean_deviation(held, scale) / widths.mean_deviation(one, scale)
    curve = _fit_curve(widths.distance(shape, centre), widths.variance, widths.weight, 2)
    blur = LensBlur(((float(curve[0]) - SHADE, *map(float, curve[1:])),), centre=centre)
    rise = blur.sigma(1.0)[0] - blur.sigma(0.0)[0]
    few = len(widths.variance) < (1 - MOST_UNUSABLE) * cells
    if unexplained >= (SURELY_EXPLAINED if few else EXPLAINED) or rise < LEAST_RISE:
        return None
    median, median_of_one = (round(float(np.median(np.abs(each))), 3) for each in (held, one))
    return LensFit(blur, len(widths.variance), median, median_of_one, round(unexplained, 3))


def colour_offsets(
    mean: PowerAccumulator,
    each: list[PowerAccumulator],
    noise: float,
    shape: tuple[int, int],
    centre: tuple[float, float],
) -> list[tuple[float, float]]:
    """Return the coefficients (a, b) by which the variance of each colour differs from that of the mean, a + b r^2.

    Empty if the colours are alike, or one of them does not determine its width in every zone.
    """
    zones = list(pairwise(ZONES))
    offsets = np.zeros((len(each), len(zones)))
    middles = []
    for at, (low, high) in enumerate(zones):
        fits = []
        for spectra in (mean, *each):
            distance = _distance(spectra.middles, shape, centre)
            power = spectra.power_of((distance >= low) & (distance < high))
            fits.append(None if power is None else fit_spectrum(power, noise, GAUSSIAN))
        widths = [
            fit.width
            for fit in fits
            if fit is not None and fit.contrast >= COLOUR_CONTRAST and fit.misfit <= COLOUR_MISFIT
        ]
        if len(widths) < len(fits):
            return []
        offsets[:, at] = np.array(widths[1:]) - widths[0]
        middles.append(0.5 * (low + min(high, 1.0)))
    if np.abs(offsets).max() <= COLOURS_DIFFER:
        return []
    lines = np.stack([np.ones(len(zones)), middles], 1)
    return [(float(a), float(b)) for a, b in np.linalg.lstsq(lines, offsets.T, rcond=None)[0].T]


@dataclass(frozen=True)
class _Widths:
    """Variances measured in parts of the image, with their weights, positions (y, x) and fold of each."""

    variance: DoubleArray
    weight: DoubleArray
    centre: DoubleArray
    fold: DoubleArray

    @classmethod
    def of(cls, images: Sequence[tuple[tuple[Cell, ...], float]]) -> _Widths:
        """Measure the parts that have a usable spectrum."""
        found: list[tuple[float, ...]] = []
        for cell, noise in ((cell, noise) for cells, noise in images for cell in cells):
            start = float(np.median([one[0] for one in found])) if found else FIRST_WIDTH
            fit = fit_spectrum(cell.power, noise, replace(GAUSSIAN, starts=(max(start, GAUSSIAN.starts[0]),)))
            if fit is not None and fit.contrast > LEAST_CONTRAST and fit.misfit < MOST_MISFIT:
                fold = cell.row % 2 * 2 + cell.column % 2
                found.append((fit.width, 1 / (fit.spread**2 + LEAST_SPREAD**2), *cell.centre, fold))
        table = np.array(found, np.float64).reshape(-1, 5)
        weight = table[:, 1] / max(float(table[:, 1].sum()) / max(len(table), 1), 1e-30)
        return cls(table[:, 0], weight, table[:, 2:4], table[:, 4])

    def distance(self, shape: tuple[int, int], centre: tuple[float, float]) -> DoubleArray:
        """Return r^2 of each part."""
        return _distance(self.centre, shape, centre)

    def held_out(self, distance: DoubleArray, degree: int) -> DoubleArray:
        """Return the deviation of each part from a curve that was fitted to the other folds."""
        deviation = np.zeros_like(self.variance)
        for fold in range(FOLDS):
            out = self.fold == fold
            curve = _fit_curve(distance[~out], self.variance[~out], self.weight[~out], degree)
            deviation[out] = self.variance[out] - _powers(distance[out], degree) @ curve
        return deviation

    def mean_deviation(self, deviation: DoubleArray, scale: float) -> float:
        """Return the weighted mean of log(1 + (deviation / scale)^2), in which outliers count little."""
        return float(np.average(np.log1p((deviation / scale) ** 2), weights=self.weight))


def _distance(places: DoubleArray, shape: tuple[int, int], centre: tuple[float, float]) -> DoubleArray:
    """Return the squared distances of places (n, 2), y and x, from the centre; 1 is half the diagonal."""
    height, width = shape
    y, x = places[:, 0] - centre[1] * height, places[:, 1] - centre[0] * width
    return np.asarray(4 * (y * y + x * x) / (height * height + width * width))


def _powers(distance: DoubleArray, degree: int) -> DoubleArray:
    return np.stack([distance**power for power in range(degree + 1)], 1)


def _fit_curve(distance: DoubleArray, variance: DoubleArray, weight: DoubleArray, degree: int) -> DoubleArray:
    """Return the coefficients of a robust fit (Cauchy weights) of the variance against r^2."""
    powers = _powers(distance, degree)
    ridge = np.diag([0.0, 0.0, RIDGE][: degree + 1])
    target = np.zeros(degree + 1)
    current, curve = weight, target
    for _ in range(ROUNDS):
        root = np.sqrt(current)
        rows, values = np.vstack([powers * root[:, None], ridge]), np.concatenate([variance * root, target])
        curve = np.linalg.lstsq(rows, values, rcond=None)[0]
        deviation = variance - powers @ curve
        scale = max(1.48 * float(np.median(np.abs(deviation))), LEAST_SCALE)
        current = weight * np.where(deviation > 0, SOFTER, 1.0) / (1 + (deviation / scale) ** 2)
    return curve
