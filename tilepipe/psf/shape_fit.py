"""Fit of a Gaussian, disk or straight line to an arbitrary PSF.

The fit is the cosine similarity (normalised cross-correlation) of the two kernels at the best alignment:

    fit = max over d of  <k, s(. - d)> / (|k| |s(. - d)|)

1 means the same form, 0 no common tap.  Several shapes around the estimate from the second moments are aligned with
the kernel by whole pixels (one Fourier transform each).  From the best ones a Nelder-Mead search (Computer Journal 7,
1965) optimises parameters and sub-pixel d jointly, without derivatives.

For sub-pixel shifts a shape is rendered at twice the resolution and sampled with the pixel response that its function
in `tilepipe.psf.shapes` uses: the band of the grid for Gaussian and disk, the spreading of path samples for the line.
Interpolating the line rendered at whole pixels instead limits the fit of a true line to 0.90.
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
"""Share of the mass in the 3 x 3 taps around the centroid at or above which a PSF counts as no blur."""

INDIFFERENCE = 0.005
"""Fits that differ by at most this count as equal; the shape with fewer parameters is reported."""

FAINT = 1e-3
"""Share of the peak below which a tap is outside the support (as in ``PSF.facts``)."""

SOLID = 0.1
"""Share of the peak below which taps are excluded from the moments: weak noise far out affects them strongly."""

LARGEST_SPREAD = 16.0
"""Spread, px, above which a PSF is binned by a whole factor before the fit: a wide disk is slow to render."""

WIDTHS = (0.25, 0.5, 0.7, 1.0, 1.4, 2.0)
"""Initial widths, as multiples of the width from the moments."""

TURNS = 8
"""Number of initial angles over 180 degrees: a bent path is best fitted by one of its straight parts."""

PADDING = 8
"""Width of the zero border around the support, px; a candidate's mass there lowers its fit."""

STARTS = 4
"""Number of initial shapes from which a search starts: lines have several local optima nearby."""

SHORT, LONG = 60, 250
"""Most evaluations per start, and of the final search around the best result."""

STEP = 0.4
"""Edge of the initial simplex, px."""


ALIKE = 0.85
"""Fit below which the kernel is reported as free form, because the name of a simple shape would mislead."""


@dataclass(frozen=True)
class ShapeFit:
    """A shape of `tilepipe.psf.shapes` and how well it fits.

    Parameters
    ----------
    shape : {"delta", "gaussian", "disk", "motion"}
        Name of the function.
    parameters : dict of str to float
        Its arguments: sigma; radius; length, angle.  In px and degrees counter-clockwise from the right,
        0 <= angle < 180; empty for a delta.
    fit : float
        Cosine similarity at the best alignment, 0..1; for a delta the share of the mass around the centroid.
    """

    shape: str
    parameters: dict[str, float]
    fit: float

    def facts(self) -> dict[str, Any]:
        """Return the fields as JSON values, rounded to the precision of the search."""
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
    """Return the best-fitting Gaussian, disk or straight motion, independent of where `kernel` lies in its frame.

    Among fits within ``INDIFFERENCE`` the shape with fewer parameters is returned.  A kernel with ``NO_BLUR`` of its
    mass in 3 x 3 taps counts as no blur; this includes Gaussians up to about 0.6 px and motions up to 3 px.

    Parameters
    ----------
    kernel : array_like, shape (k, k)
        A kernel that satisfies the rules of `PSF`.

    Raises
    ------
    PsfError
        If it does not.
    """
    values = np.asarray(PSF(np.asarray(kernel)).kernel, np.float64)
    share = _mass_around_centroid(values)
    if share >= NO_BLUR:
        return ShapeFit("delta", {}, min(1.0, share))
    target = _Target.of(values)
    fits = [_gaussian(target), _disk(target), _motion(target)]
    best = max(candidate.fit for candidate in fits)
    return next(candidate for candidate in fits if candidate.fit >= best - INDIFFERENCE)


def _mass_around_centroid(kernel: DoubleArray) -> float:
    total = kernel.sum()
    offsets = np.arange(kernel.shape[0])
    # rounded first, so that a centroid halfway between taps goes to the same side wherever the kernel lies
    y, x = (math.floor(round(float((kernel.sum(axis) * offsets).sum() / total), 6) + 0.5) for axis in (1, 0))
    return float(kernel[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].sum() / total)


# --- the three shapes


@dataclass(frozen=True, eq=False)
class _Family:
    """One family of shapes, parametrised for the search.

    Parameters
    ----------
    render : callable
        (search parameters, fineness) -> PSF at `fineness` times the resolution.  Search parameters are in px: a width,
        or the vector of a motion (right, up).
    pixel : callable
        (distance in px, fineness) -> weight of a fine tap in a pixel.
    widest : float
        Width up to which shapes are rendered at twice the resolution, px.
    starts : int
        Number of searches needed to find the best shape.
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
    search, fit = target.fit_family(family, [(width * target.spread,) for width in WIDTHS])
    return ShapeFit("gaussian", {"sigma": sigma(search) * target.scale}, fit)


def _disk(target: _Target) -> ShapeFit:
    largest = float(min(LARGEST_PSF // 2, max(target.frame.shape)))

    def radius(search: Sequence[float]) -> float:
        return round(64 * min(max(search[0], 0.5), largest)) / 64

    # the search revisits the same 1/64 px, and rendering a disk is slow
    disk = lru_cache(shapes.disk)
    family = _Family(lambda search, fineness: disk(fineness * radius(search)), _band, 8.0)
    search, fit = target.fit_family(family, [(2 * width * target.spread,) for width in WIDTHS])
    return ShapeFit("disk", {"radius": radius(search) * target.scale}, fit)


def _motion(target: _Target) -> ShapeFit:
    def length(path: Sequence[float]) -> float:
        return min(max(math.hypot(*path), 1.0), float(LARGEST_PSF))

    def angle(path: Sequence[float]) -> float:
        return math.degrees(math.atan2(path[1], path[0])) % 180 % 180  # a single % maps -1e-15 to 180.0

    def render(path: Sequence[float], fineness: int) -> PSF:
        # the path of `shapes.motion` is one pixel shorter than its length
        return shapes.motion(fineness * (length(path) - 1) + 1, angle(path))

    reach = math.sqrt(12) * target.principal_spread
    turns = target.principal_angle + np.arange(TURNS) * math.pi / TURNS
    paths = [(width * reach * math.cos(turn), width * reach * math.sin(turn)) for width in WIDTHS for turn in turns]
    search, fit = target.fit_family(_Family(render, _spread, LARGEST_PSF // 2, STARTS), paths)
    return ShapeFit("motion", {"length": length(search) * target.scale, "angle": angle(search)}, fit)


def _band(x: DoubleArray, fineness: int) -> DoubleArray:
    """Return cubic convolution weights of fine taps, which preserve widths; for shapes band-limited to their grid."""
    return shapes.cubic(x * fineness)


def _spread(x: DoubleArray, fineness: int) -> DoubleArray:
    """Return the weight of a path sample in a pixel, independent of the fineness."""
    return shapes.cubic(x)


# --- alignment of shapes with the kernel


@dataclass(frozen=True, eq=False)
class _Target:
    """The kernel with which candidates are compared.

    Parameters
    ----------
    frame : ndarray of float64, shape (h, w)
        Support of the kernel in a border of ``PADDING`` zeros, divided by the norm of the whole kernel.
    scale : int
        Kernel pixels per pixel of `frame` along an axis; all lengths below are in pixels of `frame`.
    spectrum : ndarray of complex128, shape (period, period // 2 + 1)
        Half-spectrum of `frame`, zero-padded so that no alignment wraps around.
    period : int
        Size of the padded frame, px.
    spread : float
        Root mean square of the standard deviations along both axes, px.
    principal_spread : float
        Standard deviation along the principal axis, px.
    principal_angle : float
        Angle of the principal axis, radians counter-clockwise from the right.
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
        """Crop a kernel (k, k) to its support, bin it if it is wide, and compute its moments."""
        rows, columns = np.nonzero(kernel > FAINT * kernel.max())
        support = kernel[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        scale = max(1, math.ceil(_moments(support)[0] / LARGEST_SPREAD))
        if scale > 1:
            kernel, support = _binned(kernel, scale), _binned(support, scale)
        frame = np.pad(support / np.linalg.norm(kernel), PADDING)
        period = int(scipy.fft.next_fast_len(2 * max(frame.shape) + 1, real=True))
        return cls(frame, scale, scipy.fft.rfft2(frame, (period, period)), period, *_moments(support))

    def fit_family(self, family: _Family, first: Sequence[tuple[float, ...]]) -> tuple[list[float], float]:
        """Return the search parameters of the family's best shape, and its fit; `first` are the initial shapes."""
        aligned = sorted(((self._align(family, search), search) for search in first), reverse=True)
        starts = [np.array([*search, *middle]) for (_, middle), search in aligned[: family.starts]]
        best = min((self._search(family, start, SHORT) for start in starts), key=lambda result: result[1])
        place, loss = self._search(family, best[0], LONG)
        return [float(value) for value in place[:-2]], min(max(-loss, 0.0), 1.0)

    def _search(self, family: _Family, start: DoubleArray, evaluations: int) -> tuple[DoubleArray, float]:
        """Return the optimum of a Nelder-Mead search from `start`, and its negative fit."""
        result = minimize(
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
        return result.x, float(result.fun)

    def _align(self, family: _Family, search: Sequence[float]) -> tuple[float, tuple[float, float]]:
        """Return a shape's fit at the best whole-pixel alignment, and (y, x) of its middle there in the frame, px."""
        shape = family.render(search, 1).kernel.astype(np.float64)
        norm = float(np.linalg.norm(shape))
        height, width = self.frame.shape
        # with its middle inside the frame, parts of the shape this far out overlap no tap
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
        sampled = rows @ fine @ columns.T
        norm = float(np.linalg.norm(sampled))
        return float((sampled * self.frame).sum()) / norm if norm > 0 else 0.0


def _binned(kernel: DoubleArray, scale: int) -> DoubleArray:
    """Sum blocks of scale x scale taps, zero-padded to whole blocks."""
    rows, columns = (-(-edge // scale) for edge in kernel.shape)
    padded = np.pad(kernel, [(0, rows * scale - kernel.shape[0]), (0, columns * scale - kernel.shape[1])])
    return np.asarray(padded.reshape(rows, scale, columns, scale).sum((1, 3)))


def _moments(support: DoubleArray) -> tuple[float, float, float]:
    """Return the RMS spread of both axes (px), the principal spread (px) and the principal angle (radians)."""
    weights = np.where(support > SOLID * support.max(), support, 0)
    weights /= weights.sum()
    y, x = (np.arange(edge, dtype=np.float64) for edge in support.shape)
    # row 0 is the top
    y, x = (weights.sum(1) * y).sum() - y, x - (weights.sum(0) * x).sum()
    xx, yy, xy = (weights.sum(0) * x**2).sum(), (weights.sum(1) * y**2).sum(), y @ weights @ x
    principal = (xx + yy) / 2 + math.hypot((xx - yy) / 2, xy)
    return math.sqrt((xx + yy) / 2), math.sqrt(principal), 0.5 * math.atan2(2 * xy, xx - yy)
