r"""Width of a slight blur from the power spectrum of the image.

The power of sharp photographs falls as f^-alpha, with alpha near 2.4 (Field 1987; Ruderman & Bialek 1994).  A Gaussian
blur of standard deviation sigma multiplies it by exp(-sigma^2 w^2), w = 2 pi f.  At high frequencies noise remains,
which in a JPEG rises towards low frequencies:

.. math:: \log P(f) = \log ( e^c f^{-\alpha} \exp(-\sigma^2 w^2) + e^n (2 f)^{-\beta} )

The power of blocks of the image is averaged over rings of frequency within sectors of direction, and the five
parameters are fitted to the rings with priors on alpha, n and beta.  Sectors give the axes of an anisotropic Gaussian;
the transform of a disk is fitted as an alternative to the Gaussian's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.optimize
import scipy.special

from tilepipe.dtypes import BoolArray, DoubleArray, FloatArray

__all__ = [
    "BLOCK",
    "DISK",
    "GAUSSIAN",
    "SECTORS",
    "Family",
    "Power",
    "PowerAccumulator",
    "SpectrumFit",
    "fit_spectrum",
    "sector_misfit",
]

BLOCK = 128
"""Size of the blocks that are transformed, px; they overlap by half."""

SECTORS = 6
"""Number of sectors of direction over 180 degrees; the first is centred on wave vectors along x."""

LOWEST, HIGHEST = 0.05, 0.35
"""Range of frequencies that are fitted, cycles/px; composition dominates below, demosaicing and resampling above."""

MOST_BLOCKS = 4096
"""Approximate maximum number of blocks; larger images are sampled at regular distances."""

TELLING, FLOOR_SHARE = 4.0, 0.3
"""A block has structure if its power at middle frequencies exceeds that of its finest waves by the first factor; the
second, times the least power of their finest waves, is added before logarithms are taken."""

MOST_CLIPPED = 0.02
"""Largest share of a block that may be clipped."""

FEWEST_BLOCKS = 4
"""Least number of blocks for an estimate."""

ALPHA, ALPHA_SPREAD = 2.4, 0.25
"""Prior mean and standard deviation of the exponent of the power of natural images."""

BETA, BETA_SPREAD = 1.0, 0.7
"""Prior mean and standard deviation of the exponent of the noise's rise towards low frequencies."""

FLOOR_SPREAD = 3.0
"""Prior standard deviation of the floor around the measured noise, natural logarithm of power."""

ABOVE = 0.7
"""Least height of the image over the floor at which it counts as above its noise, natural logarithm of power."""

FEWEST_RINGS = 10
"""Least number of rings with power for a fit."""

LEAST_TRANSFER = 1e-4
"""Power at the zeros of a transfer function, nonzero because the blocks' window mixes frequencies."""

LEAST_MISFIT = 0.05
"""Least misfit assumed for the standard deviation of the width."""

LOSS_SCALE = 0.3
"""Misfit, in natural logarithms, above which the loss of a ring is linear."""


def _rings() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], int]:
    """Return the used indices of a half spectrum, the bin (sector, ring) of each, and the first ring."""
    fy, fx = np.fft.fftfreq(BLOCK)[:, None], np.fft.rfftfreq(BLOCK)[None, :]
    ring = np.rint(np.hypot(fx, fy) * BLOCK).astype(int)
    first, last = int(LOWEST * BLOCK) + 1, int(HIGHEST * BLOCK)
    off_axes = (np.abs(fx) > 1.5 / BLOCK) & (np.abs(fy) > 1.5 / BLOCK)  # JPEG blocks and horizons lie on the axes
    used = np.flatnonzero((ring >= first) & (ring <= last) & off_axes)
    angle = np.arctan2(-fy, fx + 0 * fy) % np.pi
    sector = np.rint(angle * SECTORS / np.pi).astype(int) % SECTORS
    bins = sector.ravel()[used] * (last - first + 1) + ring.ravel()[used] - first
    return used, bins, first


_USED, _BINS, _FIRST = _rings()
_RADIUS = np.hypot(np.fft.fftfreq(BLOCK)[:, None], np.fft.rfftfreq(BLOCK)[None, :])
_MIDDLE, _FINE = (_RADIUS > 0.06) & (_RADIUS < 0.25), _RADIUS > 0.45
_RINGS = int(HIGHEST * BLOCK) - _FIRST + 1
_COUNTS = np.bincount(_BINS, minlength=SECTORS * _RINGS).reshape(SECTORS, _RINGS)
FREQUENCIES = (_FIRST + np.arange(_RINGS)) / BLOCK
"""Frequencies of the rings, cycles/px."""


def _window() -> FloatArray:
    profile = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(BLOCK) / BLOCK)
    window = np.outer(profile, profile)
    normalised: FloatArray = (window / np.sqrt((window**2).sum())).astype(np.float32)
    return normalised


_WINDOW = _window()


@dataclass(frozen=True, eq=False)
class Power:
    """Mean power of an image's blocks.

    Parameters
    ----------
    rings : ndarray of float64, shape (SECTORS, rings)
        Power per pixel and frequency; white noise of standard deviation s gives s^2 times `weight`.
    weight : float
        Mean weight of the blocks.
    blocks : int
        Number of blocks.
    logs : ndarray of float64, shape (BLOCK, BLOCK // 2 + 1), optional
        Mean log power of the blocks with structure; None if there are too few.
    logged : int
        Number of these blocks.
    parts : tuple of (ndarray of float64, int)
        `logs` and `logged` of each quarter of the image with enough blocks.
    """

    rings: DoubleArray
    weight: float
    blocks: int
    logs: DoubleArray | None = None
    logged: int = 0
    parts: tuple[tuple[DoubleArray, int], ...] = ()


class PowerAccumulator:
    """Accumulates the power of blocks from pieces of an image.

    Parameters
    ----------
    height, width : int
        Size of the image, px, to separate its quarters; 0 if they are not needed.
    apart : int
        Distance between blocks in half blocks, which bounds the time for large images.
    """

    def __init__(self, height: int = 0, width: int = 0, apart: int = 1) -> None:
        self._shape = height, width
        self._step = apart * BLOCK // 2
        self._binned: list[DoubleArray] = []
        self._middles: list[tuple[int, int]] = []
        self._logs = np.zeros((4, BLOCK, BLOCK // 2 + 1))
        self._logged = np.zeros(4, int)

    @classmethod
    def of_size(cls, height: int, width: int) -> PowerAccumulator:
        """Return an accumulator for an image of `height` x `width` px that uses up to about ``MOST_BLOCKS`` blocks."""
        blocks = 4 * height * width / BLOCK**2
        return cls(height, width, max(1, math.ceil(math.sqrt(blocks / MOST_BLOCKS))))

    def add(self, plane: FloatArray, usable: BoolArray, at: tuple[int, int] = (0, 0)) -> None:
        """Add the blocks of a piece.

        Parameters
        ----------
        plane : ndarray of float32, shape (h, w)
            Linear light, finite.
        usable : ndarray of bool, shape (h, w)
            False where clipped or unknown.
        at : tuple of int
            (y, x) of its corner in the image, px.
        """
        height, width = plane.shape
        for top in range(0, height - BLOCK + 1, self._step):
            blocks, parts, middles = [], [], []
            for left in range(0, width - BLOCK + 1, self._step):
                box = np.s_[top : top + BLOCK, left : left + BLOCK]
                if usable[box].mean() >= 1 - MOST_CLIPPED:
                    blocks.append(plane[box])
                    parts.append(self._quarter(at[0] + top, at[1] + left))
                    middles.append((at[0] + top + BLOCK // 2, at[1] + left + BLOCK // 2))
            if blocks:
                row = np.stack(blocks)
                row = (row - row.mean((1, 2), keepdims=True)) * _WINDOW
                spectra = scipy.fft.rfft2(row)
                full = spectra.real**2 + spectra.imag**2
                self._add_logs(full, np.array(parts))
                power = full.reshape(len(row), -1)[:, _USED]
                self._binned.extend(np.bincount(_BINS, one, SECTORS * _RINGS).astype(np.float64) for one in power)
                self._middles.extend(middles)

    def _quarter(self, top: int, left: int) -> int:
        """Return the index of the quarter of the image that contains the middle of the block at (top, left)."""
        below, right = (at + BLOCK // 2 >= length / 2 for at, length in zip((top, left), self._shape, strict=True))
        return 2 * below + right

    def _add_logs(self, power: FloatArray, parts: npt.NDArray[np.intp]) -> None:
        """Add the log power of those blocks (n, BLOCK, BLOCK // 2 + 1) whose power rises above its finest part."""
        fine = power[:, _FINE].mean(1)
        structured = power[:, _MIDDLE].mean(1) > TELLING * fine
        if structured.any():
            floor = FLOOR_SHARE * float(fine[structured].min())
            logs = np.log(power[structured] + max(floor, 1e-30))
            for part in np.unique(parts[structured]):
                here = parts[structured] == part
                self._logs[part] += logs[here].sum(0, dtype=np.float64)
                self._logged[part] += np.count_nonzero(here)

    def power(self) -> Power | None:
        """Return the weighted mean of the blocks; weights limit the strongest blocks.  None if there are too few."""
        if len(self._binned) < FEWEST_BLOCKS:
            return None
        mean, weight = _weighted_mean(np.array(self._binned).reshape(-1, SECTORS, _RINGS))
        logged = int(self._logged.sum())
        logs = self._logs.sum(0) / logged if logged >= FEWEST_BLOCKS else None
        parts = tuple((self._logs[at] / n, int(n)) for at, n in enumerate(self._logged) if n >= FEWEST_BLOCKS)
        return Power(mean, weight, len(self._binned), logs, logged, parts)

    @property
    def middles(self) -> DoubleArray:
        """Middle of each block in the image, (n, 2), y and x, px."""
        return np.array(self._middles, np.float64).reshape(-1, 2)

    def power_of(self, selected: BoolArray) -> Power | None:
        """Return the power of the selected blocks (n,), without logs; None if there are too few."""
        indices = np.flatnonzero(selected)
        if len(indices) < FEWEST_BLOCKS:
            return None
        mean, weight = _weighted_mean(np.array([self._binned[at] for at in indices]).reshape(-1, SECTORS, _RINGS))
        return Power(mean, weight, len(indices))


def _weighted_mean(sums: DoubleArray) -> tuple[DoubleArray, float]:
    """Return the weighted mean power (SECTORS, rings) of blocks, from their sums over bins, and the mean weight."""
    middle = (FREQUENCIES > 0.06) & (FREQUENCIES < 0.25)
    energy = sums[:, :, middle].sum((1, 2)) / _COUNTS[:, middle].sum()
    weights = 1 / (energy + max(float(np.quantile(energy, 0.95)), 1e-30))
    mean = np.tensordot(weights, sums, 1) / len(sums) / np.maximum(_COUNTS, 1)
    return mean, float(weights.mean())


@dataclass(frozen=True)
class Family:
    """Blurs of one form, parametrised by width.

    Parameters
    ----------
    transfer : callable
        (width, w) -> log power of the blur's transfer function at w radians per pixel.
    starts : tuple of float
        Initial widths for a fit.
    """

    transfer: Callable[[float, DoubleArray], DoubleArray]
    starts: tuple[float, ...]


def _gaussian_transfer(variance: float, w: DoubleArray) -> DoubleArray:
    return np.asarray(-variance * w * w)


def _disk_transfer(radius: float, w: DoubleArray) -> DoubleArray:
    phase = max(abs(radius), 1e-3) * w
    return np.asarray(np.log((2 * scipy.special.j1(phase) / phase) ** 2 + LEAST_TRANSFER))


GAUSSIAN = Family(_gaussian_transfer, (0.1, 1.5))
"""The width is sigma^2, px^2; negative if the image is sharper than natural images."""

DISK = Family(_disk_transfer, (0.8, 1.5, 2.2, 3.2, 4.5))
"""The width is the radius, px."""


@dataclass(frozen=True)
class SpectrumFit:
    """Result of a fit.

    Parameters
    ----------
    width : float
        Width in the family's unit.
    spread : float
        Standard deviation of `width`.
    misfit : float
        Root mean square misfit, natural logarithm of power.
    contrast : float
        Power of the image over the floor's at 0.15 cycles/px.
    floor : float
        Standard deviation of white noise with the floor's power at 0.2 cycles/px, working units.
    reach : float
        Frequency up to which the image rises above the floor, cycles/px.
    """

    width: float
    spread: float
    misfit: float
    contrast: float
    floor: float
    reach: float


def fit_spectrum(
    power: Power,
    noise: float,
    family: Family = GAUSSIAN,
    sectors: list[int] | None = None,
    alpha_spread: float = ALPHA_SPREAD,
) -> SpectrumFit | None:
    """Fit the model to the power of an image; return None if too few rings have power.

    Parameters
    ----------
    power : Power
        Power of the image.
    noise : float
        Measured standard deviation of the pixels' noise, working units.
    family : Family
        Family of blurs whose width is fitted.
    sectors : list of int, optional
        Sectors used; all by default.
    alpha_spread : float
        Prior standard deviation of the image's exponent around ALPHA.
    """
    selected = list(range(SECTORS)) if sectors is None else sectors
    counts = _COUNTS[selected].sum(0)
    ring = (power.rings * _COUNTS)[selected].sum(0) / np.maximum(counts, 1)
    keep = (counts > 0) & (ring > 0)
    if keep.sum() < FEWEST_RINGS:
        return None
    f, level, counts = FREQUENCIES[keep], np.log(ring[keep]), counts[keep]
    w, log_f, log_2f = 2 * np.pi * f, np.log(f), np.log(2 * f)
    weight = np.sqrt(counts / counts.mean())
    measured = float(np.log(max(noise**2 * power.weight, 1e-30)))

    def picture(p: DoubleArray) -> DoubleArray:
        return np.asarray(p[0] - p[1] * log_f + family.transfer(p[4], w))

    def floor(p: DoubleArray, log_double: DoubleArray) -> DoubleArray:
        return np.asarray(p[2] - p[3] * log_double)

    def misfit(p: DoubleArray) -> DoubleArray:
        return np.asarray((np.logaddexp(picture(p), floor(p, log_2f)) - level) * weight)

    def residuals(p: DoubleArray) -> DoubleArray:
        priors = [(p[1] - ALPHA) / alpha_spread, (p[2] - measured) / FLOOR_SPREAD, (p[3] - BETA) / BETA_SPREAD]
        return np.concatenate([misfit(p), priors])

    def fitted(width: float) -> Any:
        first = family.transfer(width, w)[0]
        start = [level[0] + ALPHA * log_f[0] - first, ALPHA, max(measured, level[-1] - 1), BETA, width]
        return scipy.optimize.least_squares(residuals, start, loss="soft_l1", f_scale=LOSS_SCALE, max_nfev=60)

    best = min((fitted(width) for width in family.starts), key=lambda result: float(result.cost))
    p = best.x
    rms = float(np.sqrt(np.mean(misfit(p) ** 2)))
    at = int(np.argmin(np.abs(f - 0.15)))
    contrast = float(np.exp(np.clip(picture(p)[at] - floor(p, log_2f)[at], -50, 50)))
    level_of_floor = math.exp(0.5 * float(floor(p, np.log(np.array([0.4])))[0])) / math.sqrt(power.weight)
    above = picture(p) > floor(p, log_2f) + ABOVE
    reach = float(f[-1] if above.all() else f[max(int(np.argmin(above)) - 1, 0)])
    covariance = np.linalg.pinv(best.jac.T @ best.jac)
    spread = math.sqrt(max(float(covariance[4, 4]), 0.0)) * max(rms, LEAST_MISFIT)
    return SpectrumFit(float(p[4]), spread, rms, contrast, level_of_floor, reach)


def sector_misfit(power: Power, noise: float, family: Family) -> tuple[float, DoubleArray]:
    """Return the mean misfit of a family fitted to each sector separately, and the fitted widths, shape (SECTORS,)."""
    fits = [fit_spectrum(power, noise, family, [sector]) for sector in range(SECTORS)]
    misfits = [fit.misfit for fit in fits if fit is not None]
    widths = np.array([math.nan if fit is None else fit.width for fit in fits])
    return float(np.mean(misfits)) if misfits else math.inf, widths
