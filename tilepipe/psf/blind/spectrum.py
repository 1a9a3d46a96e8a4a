r"""The width of a slight blur from the power spectrum of the picture.

Sharp photographs have power that falls as a power of frequency, f^-alpha with alpha near 2.4 (Field 1987; Ruderman &
Bialek 1994).  A Gaussian blur of standard deviation sigma multiplies it by exp(-sigma^2 w^2), w = 2 pi f; what is left
of it at high frequencies is noise, which in a JPEG rises towards low frequencies:

.. math:: \log P(f) = \log ( e^c f^{-\alpha} \exp(-\sigma^2 w^2) + e^n (2 f)^{-\beta} )

The power of blocks of the picture is averaged over rings of frequency within sectors of direction, and the five numbers
are fitted to the rings with priors on alpha, n and beta.  Sectors give the axes of a Gaussian that is not round; the
transform of a disk is fitted beside the Gaussian's.
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
"""Edge of the blocks that are transformed, px; they overlap by half."""

SECTORS = 6
"""Sectors of direction over half a turn; the first one is centred on waves that run along x."""

LOWEST, HIGHEST = 0.05, 0.35
"""Frequencies that are fitted, cycles/px: below, the picture's composition rules; above, demosaicing and resampling."""

MOST_BLOCKS = 4096
"""Blocks that are transformed; of larger pictures they are taken at regular distances."""

TELLING, FLOOR_SHARE = 4.0, 0.3
"""A block shows something when its power in the middle is so many times that of its finest waves; of these, this share
is added before logarithms are taken."""

MOST_CLIPPED = 0.02
"""Share of a block that may be clipped."""

FEWEST_BLOCKS = 4
"""Blocks that are needed for an estimate."""

ALPHA, ALPHA_SPREAD = 2.4, 0.25
"""Exponent of the power of natural pictures, and how much it varies among them."""

BETA, BETA_SPREAD = 1.0, 0.7
"""Exponent of the noise's rise towards low frequencies."""

FLOOR_SPREAD = 3.0
"""How far, in natural logarithms of power, the floor may be from the noise that was measured."""

ABOVE = 0.7
"""How far, in natural logarithms of power, the picture lies above the floor where it is seen."""

FEWEST_RINGS = 10
"""Rings with power that are needed for a fit."""

LEAST_TRANSFER = 1e-4
"""Power that is left at the zeros of a transfer function: the blocks' window mixes frequencies."""

LEAST_MISFIT = 0.05
"""A fit is never surer of its width than with this misfit."""

LOSS_SCALE = 0.3
"""Misfit in natural logarithms from which on a ring counts linearly."""


def _rings() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], int]:
    """Return which entries of a half spectrum are used, the bin (sector, ring) of each, and the first ring."""
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
"""Of the rings, cycles/px."""


def _window() -> FloatArray:
    profile = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(BLOCK) / BLOCK)
    window = np.outer(profile, profile)
    normalised: FloatArray = (window / np.sqrt((window**2).sum())).astype(np.float32)
    return normalised


_WINDOW = _window()


@dataclass(frozen=True, eq=False)
class Power:
    """Mean power of a picture's blocks.

    Parameters
    ----------
    rings : float64 (SECTORS, rings), power per pixel and frequency: white noise of standard deviation s gives s^2
        times `weight`.
    weight : mean weight of the blocks.
    blocks : how many there are.
    logs : float64 (BLOCK, BLOCK // 2 + 1), mean logarithm of the power of those blocks that show something; None when
        they are too few.
    logged : how many these are.
    parts : the same of each quarter of the picture with blocks enough, and how many those are.
    """

    rings: DoubleArray
    weight: float
    blocks: int
    logs: DoubleArray | None = None
    logged: int = 0
    parts: tuple[tuple[DoubleArray, int], ...] = ()


class PowerAccumulator:
    """Collects the power of the blocks of pieces of a picture.

    Parameters
    ----------
    height, width : of the picture, px: its quarters are kept apart; 0: they are not.
    apart : steps of half a block from one block to the next, so that large pictures take no longer than small ones.
    """

    def __init__(self, height: int = 0, width: int = 0, apart: int = 1) -> None:
        self._shape = height, width
        self._step = apart * BLOCK // 2
        self._binned: list[DoubleArray] = []
        self._logs = np.zeros((4, BLOCK, BLOCK // 2 + 1))
        self._logged = np.zeros(4, int)

    @classmethod
    def of_size(cls, height: int, width: int) -> PowerAccumulator:
        """Return a survey for a picture of `height` x `width` px that takes up to about ``MOST_BLOCKS`` blocks."""
        blocks = 4 * height * width / BLOCK**2
        return cls(height, width, max(1, math.ceil(math.sqrt(blocks / MOST_BLOCKS))))

    def add(self, plane: FloatArray, usable: BoolArray, at: tuple[int, int] = (0, 0)) -> None:
        """Add the blocks of a piece.

        Parameters
        ----------
        plane : float32 (h, w), linear light, finite.
        usable : bool (h, w), False where clipped or unknown.
        at : (y, x) of its corner in the picture, px.
        """
        height, width = plane.shape
        for top in range(0, height - BLOCK + 1, self._step):
            blocks, parts = [], []
            for left in range(0, width - BLOCK + 1, self._step):
                box = np.s_[top : top + BLOCK, left : left + BLOCK]
                if usable[box].mean() >= 1 - MOST_CLIPPED:
                    blocks.append(plane[box])
                    parts.append(self._quarter(at[0] + top, at[1] + left))
            if blocks:
                row = np.stack(blocks)
                row = (row - row.mean((1, 2), keepdims=True)) * _WINDOW
                spectra = scipy.fft.rfft2(row)
                full = spectra.real**2 + spectra.imag**2
                self._add_logs(full, np.array(parts))
                power = full.reshape(len(row), -1)[:, _USED]
                self._binned.extend(np.bincount(_BINS, one, SECTORS * _RINGS).astype(np.float64) for one in power)

    def _quarter(self, top: int, left: int) -> int:
        """Return which quarter of the picture holds the middle of the block at (top, left)."""
        below, right = (at + BLOCK // 2 >= length / 2 for at, length in zip((top, left), self._shape, strict=True))
        return 2 * below + right

    def _add_logs(self, power: FloatArray, parts: npt.NDArray[np.intp]) -> None:
        """Add the logarithms of the power of blocks (n, BLOCK, BLOCK // 2 + 1) that rises above its own finest part."""
        fine = power[:, _FINE].mean(1)
        telling = power[:, _MIDDLE].mean(1) > TELLING * fine
        if telling.any():
            floor = FLOOR_SHARE * float(fine[telling].min())
            np.add.at(self._logs, parts[telling], np.log(power[telling] + max(floor, 1e-30)))
            np.add.at(self._logged, parts[telling], 1)

    def power(self) -> Power | None:
        """Return the mean of the blocks, in which strong ones lead and none rules; None when there are too few."""
        if len(self._binned) < FEWEST_BLOCKS:
            return None
        sums = np.array(self._binned).reshape(-1, SECTORS, _RINGS)
        middle = (FREQUENCIES > 0.06) & (FREQUENCIES < 0.25)
        energy = sums[:, :, middle].sum((1, 2)) / _COUNTS[:, middle].sum()
        weights = 1 / (energy + max(float(np.quantile(energy, 0.95)), 1e-30))
        mean = np.tensordot(weights, sums, 1) / len(sums) / np.maximum(_COUNTS, 1)
        logged = int(self._logged.sum())
        logs = self._logs.sum(0) / logged if logged >= FEWEST_BLOCKS else None
        parts = tuple((self._logs[at] / n, int(n)) for at, n in enumerate(self._logged) if n >= FEWEST_BLOCKS)
        return Power(mean, float(weights.mean()), len(sums), logs, logged, parts)


@dataclass(frozen=True)
class Family:
    """Blurs of one form, by their width.

    Parameters
    ----------
    transfer : (width, w) -> logarithm of the power that the blur leaves at w radians a pixel.
    starts : widths from which a fit sets out.
    """

    transfer: Callable[[float, DoubleArray], DoubleArray]
    starts: tuple[float, ...]


def _gaussian_transfer(variance: float, w: DoubleArray) -> DoubleArray:
    return np.asarray(-variance * w * w)


def _disk_transfer(radius: float, w: DoubleArray) -> DoubleArray:
    phase = max(abs(radius), 1e-3) * w
    return np.asarray(np.log((2 * scipy.special.j1(phase) / phase) ** 2 + LEAST_TRANSFER))


GAUSSIAN = Family(_gaussian_transfer, (0.1, 1.5))
"""The width is sigma^2, px^2; below 0: the picture is sharper than nature."""

DISK = Family(_disk_transfer, (0.8, 1.5, 2.2, 3.2, 4.5))
"""The width is the radius, px."""


@dataclass(frozen=True)
class SpectrumFit:
    """What was fitted.

    Parameters
    ----------
    width : of the family.
    spread : standard deviation of `width` that the fit leaves.
    misfit : root mean square, natural logarithms of power.
    contrast : power of the picture over the floor's at 0.15 cycles/px.
    floor : standard deviation of white noise with the floor's power at 0.2 cycles/px, working units.
    reach : frequency up to which the picture rises above the floor, cycles/px.
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
    """Fit the model to the power of a picture; None when hardly a ring holds power.

    Parameters
    ----------
    noise : measured standard deviation of the pixels, working units.
    family : of blurs, whose width is fitted.
    sectors : which of them; all by default.
    alpha_spread : how far the picture's exponent may be from ALPHA.
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

    best = min((fitted(width) for width in family.starts), key=lambda found: float(found.cost))
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
    """Return the misfit of a family when every sector is fitted by itself, and the widths found in them (SECTORS,)."""
    fits = [fit_spectrum(power, noise, family, [sector]) for sector in range(SECTORS)]
    misfits = [fit.misfit for fit in fits if fit is not None]
    widths = np.array([math.nan if fit is None else fit.width for fit in fits])
    return float(np.mean(misfits)) if misfits else math.inf, widths
