"""Estimation of a slight blur, a Gaussian or a small disk, from the image's spectrum and its isolated edges.

The spectrum is more accurate where an image's power falls like that of natural images; edges are used for text and
renders.  Overestimating a blur costs far more than underestimating it (0.2 px: 3 to 5 dB), so where the two disagree,
the narrower one limits the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.psf.blind.edge_width import EdgeWidth
from tilepipe.psf.blind.spectrum import DISK, GAUSSIAN, SECTORS, Power, SpectrumFit, fit_spectrum, sector_misfit
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import disk, elliptical_gaussian

__all__ = ["SlightBlur", "measure_slight_blur", "slight_psf"]

EDGE_SHARE, MANY_EDGES = 0.3, 1000
"""Weight of the edges relative to spectrum and edges together, and number of edges at which it is reached."""

GAP, GAP_SHARE, ENOUGH_EDGES = 0.35, 0.2, 300
"""Largest excess of the variance over that from edges, px^2 plus a share of the latter, and least number of edges
for which this applies."""

EDGES_ALONE = 150
"""Number of edges that suffices if the spectrum is not trusted."""

CONTRAST = 6.0
"""Contrast above which a spectrum is trusted."""

WIDE, WIDE_REACH, WIDE_SPREAD = 1.2, 0.09, 0.3
"""A variance above the first, px^2, leaves little contrast; it is trusted if the image rises above its noise beyond the
second, cycles/px, and the relative standard deviation of the variance is below the third."""

WORST_MISFIT = 0.3
"""Misfit of the rings at or above which a spectrum counts as unlike natural images."""

EXPLAINED = 0.2
"""Mean misfit of the sectors up to which a blur explains the image; SCATTER is added for small images."""

SCATTER = 0.25
"""Scatter of the misfit times the square root of the number of blocks."""

DISK_SHARE, SMALLEST_DISK = 0.8, 1.0
"""Share of the Gaussian's misfit below which a disk is used; radius, px, below which the two are indistinguishable."""

LARGEST_SIGMA, LARGEST_RADIUS = 2.6, 4.5
"""Upper limits of slight blurs, px; wider ones are left to the free-form estimate."""

UNEVEN, UNEVEN_SHARE = 0.12, 0.15
"""Amplitude of the sectors' variances above which a Gaussian is elliptical, px^2 plus a share of their mean."""

FREE = 2.0
"""Prior spread that leaves an image's exponent free: the power of renders and night scenes falls faster than that of
natural images, as if blurred.  The narrower of both estimates is used."""

FEW_BLOCKS = 40
"""Number of blocks below which elliptical blur cannot be distinguished from the image's own directional structure."""

SHADE, SHADE_UNEVEN = 0.04, 0.3
"""Subtracted from the variance, px^2, constant and per unevenness: errors are equally likely in both directions, but an
overestimate costs more."""

MOST_UNEVEN = 0.5
"""Unevenness at or above which a round or elliptical blur does not explain the image."""


@dataclass(frozen=True)
class SlightBlur:
    """Estimate of a slight blur from spectrum and edges.

    Parameters
    ----------
    variance : float
        Variance of a round Gaussian, px^2; NaN if neither spectrum nor edges determine it.
    spread : float
        Standard deviation of `variance` according to the spectrum.
    stretch : tuple of float
        (e, angle): the variance is larger by e along `angle` (radians counter-clockwise from the right) and smaller by
        e across.
    radius : float
        Radius of a disk that explains the spectrum better, px; 0 for none.
    misfit : float
        Mean misfit of the sectors for the better form; infinite without a spectrum.
    allowed : float
        Misfit up to which the blur explains the image.
    unevenness : float
        Scatter of the sectors' variances, beyond an ellipse if there is one, over their mean plus 0.5 px^2.
    blocks : int
        Blocks of the spectrum.
    trusted : bool
        Whether the spectrum is like that of natural images.
    edges : float
        Variance from edges, NaN if there are too few.
    count : int
        Number of these edges.
    contrast : float
        Contrast of the spectrum.
    reach : float
        Frequency up to which the image rises above its noise, cycles/px.
    """

    variance: float
    spread: float
    stretch: tuple[float, float]
    radius: float
    misfit: float
    allowed: float
    unevenness: float
    blocks: int
    trusted: bool
    edges: float
    count: int
    contrast: float
    reach: float

    @property
    def sigma(self) -> float:
        """Standard deviation along an axis, px."""
        if self.radius:
            return self.radius / 2
        return math.sqrt(max(self.variance, 0.0)) if math.isfinite(self.variance) else 0.0

    @property
    def explains(self) -> bool:
        """Whether a slight blur, or none, explains the image's spectrum in all directions."""
        fits = self.trusted and self.misfit <= self.allowed
        return fits and (bool(self.radius) or self.unevenness < MOST_UNEVEN) and self.sigma <= LARGEST_SIGMA


def measure_slight_blur(power: Power | None, noise: float, edges: EdgeWidth | None) -> SlightBlur:
    """Estimate a slight blur from spectrum and edges.

    Parameters
    ----------
    power : Power or None
        Power of the mean of the channels; None if the image is too small.
    noise : float
        Standard deviation of the noise of that mean.
    edges : EdgeWidth or None
        None if there are too few.
    """
    edge = math.nan if edges is None else edges.variance
    count = 0 if edges is None else edges.count
    fit = None if power is None else fit_spectrum(power, noise)
    if power is None or fit is None:
        variance = edge - SHADE if count >= EDGES_ALONE else math.nan
        return SlightBlur(variance, math.inf, (0.0, 0.0), 0.0, math.inf, 0.0, 1.0, 0, False, edge, count, 0.0, 0.0)
    misfit, widths = sector_misfit(power, noise, GAUSSIAN)
    allowed = EXPLAINED + SCATTER / math.sqrt(power.blocks)
    radius = 0.0
    if misfit > 0.75 * allowed or fit.misfit > 0.08:
        as_disk = fit_spectrum(power, noise, DISK)
        if (
            as_disk is not None
            and SMALLEST_DISK < as_disk.width <= LARGEST_RADIUS
            and as_disk.misfit < DISK_SHARE * fit.misfit
        ):
            of_disk, _ = sector_misfit(power, noise, DISK)
            if of_disk < DISK_SHARE * misfit:
                radius, misfit = as_disk.width, of_disk
    trusted = radius > 0 or _is_trusted(fit)
    free = fit_spectrum(power, noise, alpha_spread=FREE)
    if free is not None:
        fit = replace(fit, width=min(fit.width, free.width))
    stretch, unevenness = _direction(widths)
    if power.blocks < FEW_BLOCKS:
        stretch = (0.0, 0.0)
    return SlightBlur(
        variance=_combined(fit, trusted, edge, count) - SHADE_UNEVEN * min(unevenness, 0.5),
        spread=fit.spread,
        stretch=stretch,
        radius=radius,
        misfit=misfit,
        allowed=allowed,
        unevenness=unevenness,
        blocks=power.blocks,
        trusted=trusted,
        edges=edge,
        count=count,
        contrast=fit.contrast,
        reach=fit.reach,
    )


def _is_trusted(fit: SpectrumFit) -> bool:
    wide = fit.width > WIDE and fit.reach > WIDE_REACH and fit.spread < WIDE_SPREAD * fit.width
    enough = fit.contrast > CONTRAST or wide
    return enough and fit.misfit < WORST_MISFIT


def _combined(fit: SpectrumFit, trusted: bool, edge: float, count: int) -> float:
    if not trusted:
        return edge - SHADE if count >= EDGES_ALONE else math.nan
    if not math.isfinite(edge):
        return fit.width - 2 * SHADE
    share = EDGE_SHARE * min(1.0, count / MANY_EDGES)
    variance = (1 - share) * fit.width + share * edge
    if count >= ENOUGH_EDGES:
        variance = min(variance, edge + GAP + GAP_SHARE * max(edge, 0.0))
    return variance - SHADE


def _direction(widths: DoubleArray) -> tuple[tuple[float, float], float]:
    """Return stretch and unevenness (see `SlightBlur`) of the sectors' variances (SECTORS,)."""
    valid = np.isfinite(widths)
    if valid.sum() < 4:
        return (0.0, 0.0), 1.0
    angle = np.pi * np.arange(SECTORS) / SECTORS
    waves = np.stack([np.ones(SECTORS), np.cos(2 * angle), np.sin(2 * angle)], 1)[valid]
    mean, along, across = np.linalg.lstsq(waves, widths[valid], rcond=None)[0]
    rest = float(np.std(widths[valid] - waves @ np.array([mean, along, across])))
    size = math.hypot(along, across)
    uneven = size > UNEVEN + UNEVEN_SHARE * abs(mean) and rest < 0.5 * size and size < abs(mean)
    scatter = rest if uneven else float(np.std(widths[valid]))
    return ((size, 0.5 * math.atan2(across, along)) if uneven else (0.0, 0.0)), scatter / (abs(float(mean)) + 0.5)


def slight_psf(blur: SlightBlur, target: float, offset: float = 0.0) -> PSF | None:
    """Return the PSF whose removal leaves a Gaussian blur of `target` px; None if the blur is no wider than that.

    Parameters
    ----------
    blur : SlightBlur
        Estimated blur of the image.
    target : float
        Standard deviation of the blur to be left, px.
    offset : float
        Added to the variance, px^2, for one of the channels.
    """
    if blur.radius:
        return disk(blur.radius, target=target)
    variance, (stretch, angle) = blur.variance + offset, blur.stretch
    major, minor = variance + stretch - target**2, variance - stretch - target**2
    if not major > 0:
        return None
    return elliptical_gaussian(math.sqrt(major), math.sqrt(max(minor, 0.0)), math.degrees(angle))
