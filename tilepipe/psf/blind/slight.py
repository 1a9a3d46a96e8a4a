"""A slight blur, a Gaussian or a small disk, from the spectrum of the picture and from its isolated edges.

The spectrum is the better measure wherever a picture's power falls as nature's does; edges take over in text and
renders.  Taking a blur for wider than it is costs far more than taking it for narrower (0.2 px: 3 to 5 dB), so where
the two disagree the narrower one leads.
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
"""Weight of the edges beside the spectrum, when there are so many."""

GAP, GAP_SHARE, ENOUGH_EDGES = 0.35, 0.2, 300
"""How far the spectrum's variance may lie above the edges', px^2 and a share of it, when there are enough of them."""

EDGES_ALONE = 150
"""Edges that suffice where the spectrum says nothing."""

CONTRAST = 6.0
"""Least contrast of a spectrum that is trusted."""

WIDE, WIDE_REACH, WIDE_SPREAD = 1.2, 0.09, 0.3
"""A variance above the first, px^2, leaves little contrast: it is trusted when the picture rises above its noise up to
the second, cycles/px, and the fit leaves less than the third of it open."""

WORST_MISFIT = 0.3
"""Misfit of the rings from which on a spectrum is none of nature's."""

EXPLAINED = 0.2
"""Mean misfit of the sectors up to which a blur explains the picture; a small picture's own scatter is added."""

SCATTER = 0.25
"""Misfit that the power of few blocks scatters by, times the root of their number."""

DISK_SHARE, SMALLEST_DISK = 0.8, 1.0
"""A disk is taken when its misfit is below this share of the Gaussian's; below this radius, px, they look alike."""

LARGEST_SIGMA, LARGEST_RADIUS = 2.6, 4.5
"""Slight blurs end here, px: wider ones are left to the free-form estimate."""

UNEVEN, UNEVEN_SHARE = 0.12, 0.15
"""Amplitude of the sectors' variances from which on a Gaussian is elliptical, px^2 and a share of their mean."""

FREE = 2.0
"""Spread of a picture's exponent that leaves it free: renders and night scenes fall off faster than nature, and would
read as blurred; the narrower of both blurs is taken."""

FEW_BLOCKS = 40
"""Below so many blocks the directions of a picture do not tell an elliptical blur from its own structure, nor its
ripples a strong blur."""

SHADE, SHADE_UNEVEN = 0.04, 0.3
"""Taken off the variance, px^2, and per unevenness: scatter is as likely up as down, and up costs more."""

MOST_UNEVEN = 0.5
"""Unevenness from which on a round or elliptical blur does not explain the picture."""


@dataclass(frozen=True)
class SlightBlur:
    """What spectrum and edges say of a picture.

    Parameters
    ----------
    variance : of a round Gaussian, px^2; NaN when neither says anything.
    spread : standard deviation of `variance` that the spectrum leaves.
    stretch : (e, angle): variance is e more along `angle` (radians counter-clockwise from the right) and e less across.
    radius : of a disk that explains the spectrum better, px; 0 for none.
    misfit : mean misfit of the sectors of the better form; infinite without a spectrum.
    allowed : misfit up to which it explains the picture.
    unevenness : by what share of their mean the sectors' widths differ: 0 for all alike.
    blocks : of the spectrum.
    trusted : the spectrum is nature's.
    edges : variance by edges, NaN when there are too few; `count` of them.
    contrast : of the spectrum.
    reach : frequency up to which the picture rises above its noise, cycles/px.
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
        """Whether a slight blur, or none, explains the picture's spectrum in all directions."""
        fits = self.trusted and self.misfit <= self.allowed
        return fits and (bool(self.radius) or self.unevenness < MOST_UNEVEN) and self.sigma <= LARGEST_SIGMA


def measure_slight_blur(power: Power | None, noise: float, edges: EdgeWidth | None) -> SlightBlur:
    """Return what spectrum and edges say.

    Parameters
    ----------
    power : of the mean of the colours; None when the picture is too small.
    noise : standard deviation of that mean.
    edges : None when there are too few.
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
    """Return the stretch of sectors' variances (SECTORS,), and by what share of their mean they differ otherwise."""
    known = np.isfinite(widths)
    if known.sum() < 4:
        return (0.0, 0.0), 1.0
    angle = np.pi * np.arange(SECTORS) / SECTORS
    waves = np.stack([np.ones(SECTORS), np.cos(2 * angle), np.sin(2 * angle)], 1)[known]
    mean, along, across = np.linalg.lstsq(waves, widths[known], rcond=None)[0]
    rest = float(np.std(widths[known] - waves @ np.array([mean, along, across])))
    size = math.hypot(along, across)
    uneven = size > UNEVEN + UNEVEN_SHARE * abs(mean) and rest < 0.5 * size and size < abs(mean)
    scatter = rest if uneven else float(np.std(widths[known]))
    return ((size, 0.5 * math.atan2(across, along)) if uneven else (0.0, 0.0)), scatter / (abs(float(mean)) + 0.5)


def slight_psf(blur: SlightBlur, target: float, offset: float = 0.0) -> PSF | None:
    """Return the PSF that leads from the picture to one of a Gaussian of `target` px; None when that is none.

    Parameters
    ----------
    target : what is left of the blur on purpose, px.
    offset : added to the variance, px^2, for one of the colours.
    """
    if blur.radius:
        return disk(blur.radius, target=target)
    variance, (stretch, angle) = blur.variance + offset, blur.stretch
    major, minor = variance + stretch - target**2, variance - stretch - target**2
    if not major > 0:
        return None
    return elliptical_gaussian(math.sqrt(major), math.sqrt(max(minor, 0.0)), math.degrees(angle))
