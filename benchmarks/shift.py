"""Comparing a restoration with the truth after the best shift: a kernel found blind is only known up to one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import scipy.ndimage

CROP = 15
"""Border that is not compared, px (Levin et al., CVPR 2009)."""

REACH = 5
"""Largest shift, px."""

STEP = 0.25
"""Steps of the search round the best whole shift, px."""

SSIM_SIGMA, SSIM_RADIUS = 1.5, 5
"""Window of the SSIM: Gaussian, 11 x 11 (Wang et al. 2004)."""


@dataclass(frozen=True)
class Match:
    """The two pictures, cropped, at the best shift."""

    moved: np.ndarray
    truth: np.ndarray

    @cached_property
    def ssd(self) -> float:
        return float(np.square(self.moved - self.truth).sum())

    @property
    def psnr(self) -> float:
        return float(10 * np.log10(self.truth.size / max(self.ssd, 1e-12)))

    @property
    def ssim(self) -> float:
        return ssim(self.moved, self.truth)


def best_shift(picture: np.ndarray, truth: np.ndarray, crop: int = CROP, reach: int = REACH) -> Match:
    """Return `picture` moved onto `truth` by the shift of least squared difference, `crop` px cut from both.

    Whole shifts up to `reach` px first, then steps of STEP px round the best of them by cubic splines.
    """
    picture, truth = picture.astype(np.float64), truth.astype(np.float64)[crop:-crop, crop:-crop]
    height, width = truth.shape

    def differs(y: int, x: int) -> float:
        return float(np.square(picture[crop + y :, crop + x :][:height, :width] - truth).sum())

    whole = range(-reach, reach + 1)
    ssd, y, x = min((differs(y, x), y, x) for y in whole for x in whole)
    best = picture[crop + y :, crop + x :][:height, :width]
    spline = scipy.ndimage.spline_filter(picture, order=3)
    parts = np.arange(-1 + STEP, 1, STEP)
    for right in parts[np.abs(x + parts) <= reach]:
        columns = _moved(spline, x + right, 1)[:, crop : crop + width]
        for down in parts[np.abs(y + parts) <= reach]:
            moved = _moved(columns, y + down, 0)[crop : crop + height]
            if (now := float(np.square(moved - truth).sum())) < ssd:
                ssd, best = now, moved
    return Match(best, truth)


def _moved(spline: np.ndarray, by: float, axis: int) -> np.ndarray:
    """Evaluate spline coefficients at places `by` px further along an axis; what lies beyond the border is 0."""
    whole = int(np.floor(by))
    t = by - whole
    weights = np.array([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    taps = np.zeros(2 * (abs(whole) + 2) + 1)
    taps[len(taps) // 2 + whole - 1 :][:4] = weights
    return scipy.ndimage.correlate1d(spline, taps, axis, mode="constant")


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean structural similarity (Wang et al. 2004, constants for a range of 1)."""

    def soft(plane: np.ndarray) -> np.ndarray:
        smooth = scipy.ndimage.gaussian_filter(plane, SSIM_SIGMA, radius=SSIM_RADIUS)
        return smooth[SSIM_RADIUS:-SSIM_RADIUS, SSIM_RADIUS:-SSIM_RADIUS]

    c1, c2 = 0.01**2, 0.03**2
    mean_one, mean_other = soft(one), soft(other)
    var_one, var_other = soft(one * one) - mean_one**2, soft(other * other) - mean_other**2
    covariance = soft(one * other) - mean_one * mean_other
    similar = (2 * mean_one * mean_other + c1) * (2 * covariance + c2)
    return float((similar / ((mean_one**2 + mean_other**2 + c1) * (var_one + var_other + c2))).mean())
