"""Estimates of an image's noise from its own pixels: its level and how its variance grows with the light."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy.ndimage
import scipy.optimize

from tilepipe.dtypes import BoolArray, DoubleArray, FloatArray

__all__ = [
    "Noise",
    "estimate_noise",
    "fit_noise",
    "hidden_noise",
    "noise_steepness",
    "quantisation_noise",
    "white_equivalent",
]

Block = tuple[float, float]
"""Mean light and noise of a block."""

LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""Difference of two Laplacians: zero on planes and edges along the axes (Immerkaer 1996, eq. 3)."""

LAPLACIAN_GAIN = 6.0
"""Standard deviation of its response to white noise of standard deviation 1 (root of 36)."""

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a Gaussian over its median absolute deviation."""

BLOCK = 64
"""Edge of the blocks whose noise is estimated separately, px; smaller images are one block."""

FEWEST_PIXELS = 256
"""Fewest usable pixels from which noise is estimated when no block is usable."""

QUIET = 0.4
"""Quantile of the blocks' noise that is used: texture can only raise a block's noise."""

LEVELS = 8
"""Number of groups of blocks with similar light, each of which gives one point of the fit."""

SMALLEST_GROUP = 6
"""Fewest blocks per group for which a line is fitted."""

WORTH = 0.5
"""A variance that grows with the light is accepted if its misfit is at most this share of the constant's."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviation at the image's mean light, and the variance at other light in multiples of its square.

    Parameters
    ----------
    sigma : float
        Standard deviation, linear light 0..1.
    base, slope : float
        The variance at light u is (base + slope u) sigma^2 (Foi, Trimeche, Katkovnik & Egiazarian 2008, eq. 3:
        Gaussian plus Poissonian); 1 and 0 when it is the same everywhere.
    light : float
        Mean of the image, linear light; 0 when no block was usable.
    hidden : float
        Noise level that differences of neighbours underestimate, see :func:`hidden_noise`; 0 for none.
    """

    sigma: float
    base: float = 1.0
    slope: float = 0.0
    light: float = 0.0
    hidden: float = 0.0

    def expected(self, amplification: float) -> Noise:
        """Return the noise to restore for, given the amplification by the PSF's inverse.

        Hidden noise at low frequencies does little harm when the PSF is nearly a point and so does not amplify it.

        Parameters
        ----------
        amplification : float
            Of white noise by the inverse filter, see :func:`tilepipe.deconv.frames.amplification`.

        Returns
        -------
        Noise
            With `sigma` raised to the effective share of `hidden` if that is larger.
        """
        share = min(max((amplification - 1) / FULLY_AMPLIFIED, LEAST_SHARE), 1.0)
        return replace(self, sigma=max(self.sigma, share * self.hidden))


def fit_noise(windows: Iterable[FloatArray]) -> Noise:
    """Estimate the noise and how its variance grows with the light.

    The blocks of :func:`estimate_noise`, all channels together, are sorted by light and split into eight groups; each
    group gives a low quantile.  A constant and a line with non-negative base and slope are fitted to these; the line is
    used only if it fits clearly better.

    Parameters
    ----------
    windows : iterable of ndarray of float32, shape (c, h, w)
        As for :func:`estimate_noise`.

    Returns
    -------
    Noise
        With the `sigma` of :func:`estimate_noise` when the noise does not grow with the light.
    """
    by_channel = _blocks_by_channel(windows)
    constant = _noise_of(by_channel)
    blocks = [block for channel in by_channel for block in channel]
    middle = float(np.mean([light for light, _ in blocks])) if blocks else 0.0
    if constant == 0 or len(blocks) < LEVELS * SMALLEST_GROUP:
        return Noise(constant, light=middle)
    light, level = np.array(sorted(blocks)).T
    groups = np.array_split(np.arange(len(light)), LEVELS)
    at = np.array([light[group].mean() for group in groups])
    variance = np.array([max(np.quantile(level[group], QUIET), 0.1 * constant) ** 2 for group in groups])
    base, slope = _line(at, variance)
    flat = float(np.exp(np.log(variance).mean()))
    misfit, plain = _misfit(base + slope * at, variance), _misfit(np.full_like(at, flat), variance)
    mean = base + slope * middle
    if slope <= 0 or misfit > WORTH * plain:
        return Noise(constant, light=middle)
    return Noise(float(np.sqrt(mean)), float(base / mean), float(slope / mean), middle)


def _line(at: DoubleArray, variance: DoubleArray) -> tuple[float, float]:
    """Return base and slope, neither negative, of the line that fits `variance` with least relative errors."""
    rows = np.stack([np.ones_like(at), at], 1) / variance[:, None]
    base, slope = scipy.optimize.nnls(rows, np.ones_like(at))[0]
    return float(base), float(slope)


def _misfit(line: DoubleArray, variance: DoubleArray) -> float:
    return float((np.log(np.maximum(line, 1e-30) / variance) ** 2).mean())


def estimate_noise(windows: Iterable[FloatArray]) -> float:
    """Estimate the standard deviation of additive white noise.

    The response to Immerkaer's mask is evaluated in blocks of 64 px; the median absolute deviation makes a block's
    estimate robust to texture, a low quantile over the blocks robust to textured and to empty blocks.

    Parameters
    ----------
    windows : iterable of ndarray of float32, shape (c, h, w)
        Linear light; NaN marks unusable pixels (clipped, invalid).

    Returns
    -------
    float
        Root mean square over channels, 0.0 when no block is usable (everything clipped or too small).
    """
    return _noise_of(_blocks_by_channel(windows))


def _blocks_by_channel(windows: Iterable[FloatArray]) -> list[list[Block]]:
    by_channel: dict[int, list[Block]] = {}
    for window in windows:
        for channel, plane in enumerate(window):
            by_channel.setdefault(channel, []).extend(_blocks(plane))
    return list(by_channel.values())


def _noise_of(by_channel: list[list[Block]]) -> float:
    levels = [float(np.quantile([level for _, level in blocks], QUIET)) for blocks in by_channel if blocks]
    return float(np.sqrt(np.mean(np.square(levels)))) if levels else 0.0


def _blocks(plane: FloatArray) -> list[Block]:
    """Return mean light and noise of every usable block.

    Without one, all usable pixels together count as a block: noise on a white ground clips pixels in every block.
    """
    if min(plane.shape) < LAPLACIAN.shape[0]:
        return []
    response = scipy.ndimage.convolve(plane, LAPLACIAN, mode="nearest")[1:-1, 1:-1]
    inner = plane[1:-1, 1:-1]
    blocks = []
    for y in range(0, max(1, response.shape[0] - BLOCK + 1), BLOCK):
        for x in range(0, max(1, response.shape[1] - BLOCK + 1), BLOCK):
            box = np.s_[y : y + BLOCK, x : x + BLOCK]
            usable = np.isfinite(response[box])
            if usable.sum() * 2 > usable.size:
                blocks.append(_block(inner[box][usable], response[box][usable]))
    if not blocks:
        usable = np.isfinite(response)
        if usable.sum() >= FEWEST_PIXELS:
            blocks.append(_block(inner[usable], response[usable]))
    return blocks


def _block(pixels: FloatArray, response: FloatArray) -> Block:
    """Return the mean of pixels, and their noise from the responses to the mask."""
    deviation = float(np.median(np.abs(response - np.median(response))))
    return float(pixels.mean()), deviation * MAD_TO_SIGMA / LAPLACIAN_GAIN


UPPER_BAND, TOP_BAND = (0.36, 0.42), (0.42, 0.62)
"""Frequencies, cycles/px, between which the steepness of the noise is measured: a blur leaves little of the image
there, and of that little least in some directions."""

EMPTIEST = 0.2
"""Quantile of a band's power in a block that counts as the noise's: it is taken in the directions without image."""


def _band(low: float, high: float) -> BoolArray:
    """Return the frequencies of a block's half spectrum in a band, without the axes, on which JPEG blocks lie."""
    fy, fx = np.abs(np.fft.fftfreq(BLOCK))[:, None], np.fft.rfftfreq(BLOCK)[None, :]
    radius = np.hypot(fy, fx)
    return np.asarray((radius >= low) & (radius < high) & (np.minimum(fy, fx) > 1.5 / BLOCK))


_UPPER, _TOP = _band(*UPPER_BAND), _band(*TOP_BAND)
_HANN = np.outer(*[(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(BLOCK) / BLOCK)).astype(np.float32)] * 2)


def noise_steepness(windows: Iterable[FloatArray]) -> float:
    """Return the amplitude of the noise in ``UPPER_BAND`` over that in ``TOP_BAND``.

    Parameters
    ----------
    windows : iterable of ndarray of float32, shape (c, h, w)
        As for :func:`estimate_noise`.

    Returns
    -------
    float
        1 for white noise, more for noise that was smoothed and for sharp images, which reach these frequencies;
        infinite when no block is complete and has noise.
    """
    ratios = []
    for window in windows:
        for plane in window:
            for y in range(0, plane.shape[0] - BLOCK + 1, BLOCK):
                for x in range(0, plane.shape[1] - BLOCK + 1, BLOCK):
                    block = plane[y : y + BLOCK, x : x + BLOCK]
                    if np.isfinite(block).all():
                        power = np.abs(np.fft.rfft2((block - block.mean()) * _HANN)) ** 2
                        upper, top = (float(np.quantile(power[band], EMPTIEST)) for band in (_UPPER, _TOP))
                        if top > 0:
                            ratios.append(np.sqrt(upper / top))
    return float(np.quantile(ratios, QUIET)) if ratios else float("inf")


FULLY_AMPLIFIED, LEAST_SHARE = 0.6, 0.3
"""Amplification minus 1 from which hidden noise counts in full, and its share for a PSF that is nearly a point."""

FLOOR_OF_WHITE = 1.58
"""Floor of a fitted spectrum at 0.2 cycles/px over white noise: the model rises towards low frequencies."""

MOST_HIDDEN = 3.0
"""Upper bound of the floor in multiples of the other noise estimates: texture may look like a floor."""

LEAST_KNOWN = 0.002
"""Lower bound of the other noise estimates where they limit a spectrum's floor, working units."""

TO_FLOOR = 2.2
"""Exponent of the steepness that gives the noise at 0.2 cycles/px over that in ``TOP_BAND``: noise smoothed by a
Gaussian falls with exp(-c f^2), and 0.25 - 0.2^2 is 2.2 times 0.25 - 0.39^2."""

LEAST_HIDDEN = 1.25
"""Smallest ratio of the noise level to the pixels' noise at which noise counts as hidden: white noise is estimated this
accurately."""

QUANTISATION_FACTOR, QUANTISATION_EXPONENT = 0.27, 0.65
"""Best noise for a JPEG = factor * (quantisation error) ** exponent; fitted on photographs of quality 60 to 98."""

LOW_FREQUENCIES = 4
"""Rows and columns of a quantisation table that are used: a slight blur leaves little at higher frequencies."""


def white_equivalent(floor: float, pixels: float, mean: float) -> float:
    """Return the white noise per colour whose power equals a spectrum's floor.

    Parameters
    ----------
    floor : float
        Floor of the spectrum of the colours' mean, at 0.2 cycles/px.
    pixels : float
        Measured noise of the colours.
    mean : float
        Measured noise of the colours' mean.

    Returns
    -------
    float
        Standard deviation.
    """
    independence = pixels / mean if mean > 0 and pixels > 0 else 1.0
    return floor / FLOOR_OF_WHITE * independence


def quantisation_noise(table: Sequence[int]) -> float:
    """Return the noise to restore a JPEG for, encoded values 0..1, from the luminance's 64 quantisation steps.

    Rounding a coefficient to steps of q causes an error of q / sqrt(12) (Widrow 1956), or loses the coefficient.
    """
    steps = np.asarray(table, np.float64).reshape(8, 8)[:LOW_FREQUENCIES, :LOW_FREQUENCIES]
    error = float(np.sqrt((steps**2).mean() / 12)) / 255
    return float(QUANTISATION_FACTOR * error**QUANTISATION_EXPONENT)


def hidden_noise(pixels: float, floor: float, quantisation: float, steepness: float = float("inf")) -> float:
    """Return the noise level that differences of neighbours underestimate, from pixels, spectrum and file.

    Differences of neighbours underestimate noise that is correlated or was partly removed (JPEG, demosaicing,
    denoising, resampling); by them alone a JPEG of quality 92 would be rated nearly free of noise.

    Parameters
    ----------
    pixels : float
        Noise from :func:`estimate_noise`.
    floor : float
        Noise from :func:`white_equivalent`.
    quantisation : float
        Noise from :func:`quantisation_noise`; 0 unless the file is a JPEG.
    steepness : float
        From :func:`noise_steepness`: noise that does not rise from the highest frequencies to lower ones does not rise
        further down either, and a floor above it is texture.  Not used for a JPEG, whose highest frequencies are empty.

    Returns
    -------
    float
        Noise level; 0 unless it is ``LEAST_HIDDEN`` times `pixels`.
    """
    floor = min(floor, MOST_HIDDEN * max(pixels, quantisation, LEAST_KNOWN))
    if quantisation == 0:
        floor = min(floor, max(pixels, LEAST_KNOWN) * steepness**TO_FLOOR)
    level = float(np.hypot(floor, quantisation))
    return level if level > LEAST_HIDDEN * pixels else 0.0
