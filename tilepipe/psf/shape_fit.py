"""The Gaussian, disk or straight line that is nearest to a PSF of any form, and how near it is.

How near is said by the cosine similarity of the two kernels (normalised cross-correlation) where they lie best
on each other:

    fit = max over d of  <k, s(. - d)> / (|k| |s(. - d)|)

1 is the same form, 0 no common tap.  A few shapes around what the second moments say are laid on the kernel by
whole pixels (one Fourier transform each); from the best of them the simplex search of Nelder and Mead (Computer
Journal 7, 1965) goes on over parameters and sub-pixel d together, without derivatives.

To be moved by part of a pixel a shape is rendered twice as fine and then seen through the pixel that its function
in `tilepipe.psf.shapes` uses: the band of the grid for Gaussian and disk, the spread of a path's point for the line.
Interpolating the line of whole pixels instead leaves a true line with a fit of 0.90.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
from scipy.optimize import minimize

from tilepipe.dtypes import DoubleArray
from tilepipe.psf import shapes
from tilepipe.psf.model import LARGEST_PSF, PSF

__all__ = ["ShapeFit", "fit_shape"]

NO_BLUR = 0.97
"""Share of the mass in the 3 x 3 taps around the centroid from which on a PSF is called no blur."""

INDIFFERENCE = 0.005
"""Fits that differ by no more are taken as equal: the shape with fewer parameters gives its name."""

FAINT = 1e-3
"""Share of the peak below which a tap is no part of the support (the limit of ``PSF.facts``)."""

SOLID = 0.1
"""Share of the peak below which taps are left out of the moments: far out, little noise moves them much."""

LARGEST_SPREAD = 16.0
"""Spread, px, beyond which a PSF is compared at a whole fraction of its size: a wide disk takes long to render."""

WIDTHS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Multiples of the width from the moments at which the search looks first."""

TURNS = 8
"""Angles in half a turn at which the search looks first: a bent path is nearest to one of its stretches."""

PADDING = 8
"""Width of the rim of zeros around the support in which a candidate's misplaced mass counts against it, px."""

STARTS = 4
"""From how many of the shapes looked at first a search sets out: lines have several best ones nearby."""

SHORT, LONG = 60, 250
"""Candidates that a search may try from each start, and then around the best it found."""

STEP = 0.4
"""Edge of a search's first simplex, px."""


ALIKE = 0.85
"""Fit below which the name of a simple shape would mislead: the kernel is called free form."""


@dataclass(frozen=True)
class ShapeFit:
    """A shape of `tilepipe.psf.shapes` and how well it fits.

    Parameters
    ----------
    shape : "delta", "gaussian", "disk" or "motion".
    parameters : what the function of that name takes: sigma; radius; length, angle.  px; degrees counter-clockwise
        from the right, 0 <= angle < 180; none for a delta.
    fit : 0..1; cosine similarity where it lies best, for a delta the share of the mass around the centroid.
    """

    shape: str
    parameters: dict[str, float]
    fit: float

    def facts(self) -> dict[str, Any]:
        """Return it as JSON values, rounded to what a search can tell."""
        parameters = {name: round(value, 3) for name, value in self.parameters.items()}
        return {"shape": self.shape, "parameters": parameters, "fit": round(self.fit, 4)}

    def __str__(self) -> str:
        p = self.parameters
        if self.shape == "delta":
            text = "no blur"
        elif self.shape == "motion":
            text = f"motion, {p['length']:.1f} px, {round(p['angle']) % 180} degrees"
        else:
            text = ", ".join([self.shape, *(f"{name} {value:.1f} px" for name, value in p.items())])
        free = "free form, nearest " if self.fit < ALIKE else ""
        return f"{free}{text}; fit {self.fit:.2f}"


def fit_shape(kernel: npt.ArrayLike) -> ShapeFit:
    """Name the Gaussian, disk or straight motion that is nearest to `kernel`, wherever that lies in its frame.

    Of shapes within ``INDIFFERENCE`` the one with fewer parameters is named.  No blur is what has ``NO_BLUR`` of
    its mass in 3 x 3 taps: so have Gaussians up to about 0.6 px and motions up to 3 px.

    Parameters
    ----------
    kernel : (k, k) numbers that obey the rules of `PSF`.

    Raises
    ------
    PsfError : they do not.
    """
    values = np.asarray(PSF(np.asarray(kernel)).kernel, np.float64)
    share = _mass_around_centroid(values)
    if share >= NO_BLUR:
        return ShapeFit("delta", {}, min(1.0, share))
    target = _Target.of(values)
    found = [_gaussian(target), _disk(target), _motion(target)]
    best = max(nearest.fit for nearest in found)
    return next(nearest for nearest in found if nearest.fit >= best - INDIFFERENCE)


def _mass_around_centroid(kernel: DoubleArray) -> float:
    total = kernel.sum()
    offsets = np.arange(kernel.shape[0])
    # rounded first, so that a centroid halfway between taps falls to the same side wherever the kernel lies
    y, x = (math.floor(round(float((kernel.sum(axis) * offsets).sum() / total), 6) + 0.5) for axis in (1, 0))
    return float(kernel[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum() / total)


# --- the three shapes


@dataclass(frozen=True, eq=False)
class _Family:
    """Shapes of one name, as a search sees them.

    Parameters
    ----------
    render : (search parameters, fineness) -> the PSF, so many times as fine.  The search parameters are px: a width,
        or the path of a motion to the right and up.
    pixel : (distance in px, fineness) -> weight of a fine tap in a pixel.
    widest : width up to which it is rendered twice as fine, px.
    starts : how many searches it takes to find the best.
    """

    render: Callable[[Sequence[float], int], PSF]
    pixel: Callable[[DoubleArray, int], DoubleArray]
    widest: float
    starts: int = 1


def _gaussian(target: _Target) -> ShapeFit:
    largest = LARGEST_PSF // 2 / 4

    def sigma(search: Sequence[float]) -> float:
        return min(max(search[0], 0.3), largest)

    family = _Family(lambda search, fineness: shapes.gaussian(fineness * sigma(search)), _band, largest / 2)
    found, fit = target.nearest(family, [(width * target.spread,) for width in WIDTHS])
    return ShapeFit("gaussian", {"sigma": sigma(found) * target.scale}, fit)


def _disk(target: _Target) -> ShapeFit:
    largest = float(min(LARGEST_PSF // 2, max(target.frame.shape)))

    def radius(search: Sequence[float]) -> float:
        return round(64 * min(max(search[0], 0.5), largest)) / 64

    # a search comes back to the same 1/64 px, and a disk takes long to render
    disk = lru_cache(shapes.disk)
    family = _Family(lambda search, fineness: disk(fineness * radius(search)), _band, 8.0)
    found, fit = target.nearest(family, [(2 * width * target.spread,) for width in WIDTHS])
    return ShapeFit("disk", {"radius": radius(found) * target.scale}, fit)


def _motion(target: _Target) -> ShapeFit:
    def length(path: Sequence[float]) -> float:
        return min(max(math.hypot(*path), 1.0), float(LARGEST_PSF))

    def angle(path: Sequence[float]) -> float:
        return math.degrees(math.atan2(path[1], path[0])) % 180 % 180  # once leaves -1e-15 at 180.0

    def render(path: Sequence[float], fineness: int) -> PSF:
        # the path of `shapes.motion` is one pixel shorter than its length
        return shapes.motion(fineness * (length(path) - 1) + 1, angle(path))

    reach = math.sqrt(12) * target.principal_spread
    turns = target.principal_angle + np.arange(TURNS) * math.pi / TURNS
    paths = [(width * reach * math.cos(turn), width * reach * math.sin(turn)) for width in WIDTHS for turn in turns]
    found, fit = target.nearest(_Family(render, _spread, LARGEST_PSF // 2, STARTS), paths)
    return ShapeFit("motion", {"length": length(found) * target.scale, "angle": angle(found)}, fit)


def _band(x: DoubleArray, fineness: int) -> DoubleArray:
    """Sample fine taps by cubic convolution, which keeps widths: for shapes made within the band of their grid."""
    return shapes.cubic(x * fineness)


def _spread(x: DoubleArray, fineness: int) -> DoubleArray:
    """Return what a point of a path gives to a pixel, however fine the points are."""
    return shapes.cubic(x)


# --- laying shapes on the kernel


@dataclass(frozen=True, eq=False)
class _Target:
    """The kernel that candidates are laid on.

    Parameters
    ----------
    frame : (h, w), its support in a rim of ``PADDING`` zeros; norm 1, with what lies outside the support.
    scale : kernel pixels per pixel of `frame` and axis; all lengths below are pixels of `frame`.
    spectrum : half the Fourier transform of `frame` over `period` px, far enough that no alignment wraps.
    spread : standard deviation along an axis, mean of both, px.
    principal_spread, principal_angle : along the principal axis, px; radians counter-clockwise from the right.
    """

    frame: DoubleArray
    scale: int
    spectrum: npt.NDArray[np.complex128]
    period: int
    spread: float
    principal_spread: float
    principal_angle: float

    @classmethod
    def of(cls, kernel: DoubleArray) -> _Target:
        """Crop (k, k) to its support, scale it down if it is wide, and measure it."""
        rows, columns = np.nonzero(kernel > FAINT * kernel.max())
        support = kernel[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        scale = max(1, math.ceil(_moments(support)[0] / LARGEST_SPREAD))
        if scale > 1:
            kernel, support = _binned(kernel, scale), _binned(support, scale)
        frame = np.pad(support / np.linalg.norm(kernel), PADDING)
        period = int(scipy.fft.next_fast_len(2 * max(frame.shape) + 1, real=True))
        return cls(frame, scale, scipy.fft.rfft2(frame, (period, period)), period, *_moments(support))

    def nearest(self, family: _Family, first: Sequence[tuple[float, ...]]) -> tuple[list[float], float]:
        """Return the search parameters of the family's best shape, and its fit; look at `first` first."""
        laid = sorted(((self._lay(family, search), search) for search in first), reverse=True)
        places = [np.array([*search, *middle]) for (_, middle), search in laid[: family.starts]]
        best = min((self._search(family, place, SHORT) for place in places), key=lambda found: found[1])
        place, loss = self._search(family, best[0], LONG)
        return [float(value) for value in place[:-2]], min(max(-loss, 0.0), 1.0)

    def _search(self, family: _Family, start: DoubleArray, evaluations: int) -> tuple[DoubleArray, float]:
        """Return the best place that Nelder and Mead find from `start`, and minus its fit."""
        found = minimize(
            lambda place: -self._fit(family, place),
            start,
            method="Nelder-Mead",
            options={
                "initial_simplex": np.vstack([start, start + STEP * np.eye(len(start))]),
                "xatol": 0.01,
                "fatol": 1e-5,
                "maxfev": evaluations,
            },
        )
        return found.x, float(found.fun)

    def _lay(self, family: _Family, search: Sequence[float]) -> tuple[float, tuple[float, float]]:
        """Return a shape's fit where it lies best by whole pixels, and (y, x) of its middle there in the frame, px."""
        shape = family.render(search, 1).kernel.astype(np.float64)
        norm = float(np.linalg.norm(shape))
        height, width = self.frame.shape
        # what lies further out than the frame's edge meets no tap while the middle is in the frame
        margin = max(0, shape.shape[0] // 2 - max(height, width))
        shape = shape[margin : shape.shape[0] - margin, margin : shape.shape[0] - margin]
        spectrum = self.spectrum * scipy.fft.rfft2(shape, (self.period, self.period)).conj()
        middle = shape.shape[0] // 2
        products = np.roll(scipy.fft.irfft2(spectrum, (self.period, self.period)), (middle, middle), (0, 1))
        y, x = divmod(int(products[:height, :width].argmax()), width)
        return float(products[y, x]) / norm, (float(y), float(x))

    def _fit(self, family: _Family, place: Sequence[float]) -> float:
        """Return the fit at (*search parameters, y, x of the middle in the frame)."""
        *search, y, x = place
        fineness = 2 if math.hypot(*search) <= family.widest else 1
        fine = family.render(search, fineness).kernel.astype(np.float64)
        offsets = (np.arange(fine.shape[0]) - fine.shape[0] // 2) / fineness
        rows, columns = (
            family.pixel(np.arange(edge)[:, None] - (middle + offsets), fineness)
            for edge, middle in zip(self.frame.shape, (y, x), strict=True)
        )
        seen = rows @ fine @ columns.T
        norm = float(np.linalg.norm(seen))
        return float((seen * self.frame).sum()) / norm if norm > 0 else 0.0


def _binned(kernel: DoubleArray, scale: int) -> DoubleArray:
    """Sum squares of scale x scale taps, after padding with zeros to whole squares."""
    rows, columns = (-(-edge // scale) for edge in kernel.shape)
    padded = np.pad(kernel, [(0, rows * scale - kernel.shape[0]), (0, columns * scale - kernel.shape[1])])
    return np.asarray(padded.reshape(rows, scale, columns, scale).sum((1, 3)))


def _moments(support: DoubleArray) -> tuple[float, float, float]:
    """Return the mean spread (px), the principal spread (px) and the principal angle (radians)."""
    weights = np.where(support > SOLID * support.max(), support, 0)
    weights /= weights.sum()
    y, x = (np.arange(edge, dtype=np.float64) for edge in support.shape)
    # row 0 is the top
    y, x = (weights.sum(1) * y).sum() - y, x - (weights.sum(0) * x).sum()
    xx, yy, xy = (weights.sum(0) * x**2).sum(), (weights.sum(1) * y**2).sum(), y @ weights @ x
    principal = (xx + yy) / 2 + math.hypot((xx - yy) / 2, xy)
    return math.sqrt((xx + yy) / 2), math.sqrt(principal), 0.5 * math.atan2(2 * xy, xx - yy)
