"""Closing steps after total variation: a sliding 4 x 4 cosine transform as the prior.

Every patch of 4 x 4 px, at all shifts, is a sum of 16 cosines, of which a sharp image needs few (Yaroslavsky 1996;
Yu & Sapiro, IPOL 2011/068).  Removing the weak ones and averaging the patches that cover a pixel gives z, an estimate
of the image without noise; a closing step then computes the x that fits the data and is close to z::

    x = argmin r1 |Kx - v + d|^2 + rz / f^2 |x - z|^2

The first steps denoise f times as strongly as the noise demands and follow z less, the last ones with f = 1, as in
half-quadratic splitting with a denoiser (Zoran & Weiss, ICCV 2011, section 3; Zhang et al., CVPR 2017, eq. 6).

RGB is denoised in orthonormal opponent colours, in which white noise stays white: (R + G + B) / sqrt 3 alone, and
(R - B) / sqrt 2 with (R - 2 G + B) / sqrt 6, which share one decision.  Images with other numbers of channels share one
decision for all, as their gradients share one shrinkage.  Coefficients are attenuated gradually between two thresholds
instead of cut at one, so that a rounding error changes a pixel by as little.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.deconv.parameters import Parameters
from tilepipe.system.jit import kernel

__all__ = ["EDGE", "denoise", "pull"]

Array = Any

EDGE = 4
"""Edge of a patch, px."""


BLOCK = 256
"""Patches of a row that are processed at a time."""


def _cosines() -> Any:
    """Return the orthonormal DCT-II of length 4, one basis vector per row."""
    position = np.arange(EDGE)
    basis = np.cos(np.pi * (position[None, :] + 0.5) * position[:, None] / EDGE) * np.sqrt(2 / EDGE)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


COSINES = _cosines()


def _opponent() -> Any:
    """Return the orthonormal opponent axes of RGB, one per row; the first is the luminance times sqrt 3."""
    axes = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]])
    return (axes / np.sqrt((axes**2).sum(1, keepdims=True))).astype(np.float32)


OPPONENT = _opponent()

OPPONENT_GROUPS = np.array([0, 1, 3])
"""Bounds of the planes that share a decision."""


def denoise(x: Array, parameters: Parameters, out: Array, factor: float = 1.0) -> None:
    """Write the image x (c, h, w) without its weak cosines to `out`; h and w at least 4.

    Coefficients whose root mean square over the planes that share a decision is below ``parameters.low`` times `factor`
    are removed, those above ``high`` times `factor` kept; both thresholds grow with the square root of the noise's
    standard deviation at the patch's mean light, because the weak signal in the noise grows too.
    """
    channels = len(x)
    axes = OPPONENT if channels == 3 else np.eye(channels, dtype=np.float32)
    groups = OPPONENT_GROUPS if channels == 3 else np.array([0, channels])
    light = axes.sum(1) / np.float32(channels * EDGE)  # from the patches' first coefficients
    low, high = (np.float32((factor * limit) ** 2) for limit in (parameters.low, parameters.high))
    noise = (np.float32(parameters.base), np.float32(parameters.slope))
    _slide(x, axes, groups, light, COSINES, low, high, *noise, out)


@kernel
def _slide(
    x: Array,
    axes: Array,
    groups: Array,
    light: Array,
    basis: Array,
    low: Array,
    high: Array,
    base: Array,
    slope: Array,
    out: Array,
) -> None:
    """Denoise all patches, one row of patches at a time; `low` and `high` are squared.

    A row is processed in blocks that fit the innermost CPU cache.  Every inner loop writes one array and reads few:
    with more, the compiler gives up its aliasing checks and does not vectorise the loop.
    """
    channels, height, width = x.shape
    patches = width - 3
    line = np.zeros((channels, 1, width), np.float32)  # a row of pixels along the opponent axes
    across = np.zeros((channels, 4, 4, patches), np.float32)  # [row % 4, frequency along x]
    back = np.zeros((channels, 4, 4, patches), np.float32)  # sums from the patches above for later rows
    coefficient = np.zeros((channels, 4, BLOCK), np.float32)  # [frequency along y]
    share = np.zeros(BLOCK, np.float32)  # of a coefficient that is kept
    inverse_noise = np.zeros(BLOCK, np.float32)  # 1 / standard deviation at the patch's mean, relative to that of `low`
    across_patch = np.ascontiguousarray(basis.T)  # [position in the patch, frequency]
    back_axes = np.ascontiguousarray(axes.T)
    for i in range(height):
        _turn(x, i, axes, line, 0)
        for c in range(channels):
            for b in range(4):
                _mix(line[c, 0], line[c, 0, 1:], line[c, 0, 2:], line[c, 0, 3:], basis[b], across[c, i % 4, b])
            back[c, i % 4] = np.float32(0)
        top = i - 3
        if top >= 0:
            r0, r1, r2, r3 = top % 4, (top + 1) % 4, (top + 2) % 4, (top + 3) % 4
            for start in range(0, patches, BLOCK):
                stop = min(start + BLOCK, patches)
                for b in range(4):
                    for c in range(channels):
                        p, q = across[c, r0, b, start:stop], across[c, r1, b, start:stop]
                        r, s = across[c, r2, b, start:stop], across[c, r3, b, start:stop]
                        for a in range(4):
                            _mix(p, q, r, s, basis[a], coefficient[c, a, : stop - start])
                    if b == 0:
                        _inverse_noise(coefficient, light, base, slope, inverse_noise)
                    for group in range(groups.shape[0] - 1):
                        planes = coefficient[groups[group] : groups[group + 1]]
                        for a in range(1 if b == 0 else 0, 4):  # the mean is kept
                            _attenuate(planes, a, inverse_noise, low, high, share)
                    for c in range(channels):
                        p, q, r, s = coefficient[c, 0], coefficient[c, 1], coefficient[c, 2], coefficient[c, 3]
                        for k in range(4):
                            _add_mix(p, q, r, s, across_patch[k], back[c, (top + k) % 4, b, start:stop])
            _average(back, across_patch, top, height, line)
            _turn(line, 0, back_axes, out, top)
    for row in range(height - 3, height):
        _average(back, across_patch, row, height, line)
        _turn(line, 0, back_axes, out, row)


@kernel
def _turn(planes: Array, row: Array, axes: Array, out: Array, target: Array) -> None:
    """``out[:, target] <- axes . planes[:, row]``; one channel or more than three are copied."""
    channels = planes.shape[0]
    if channels != 3:
        for c in range(channels):
            out[c, target] = planes[c, row]
        return
    p, q, r = planes[0, row], planes[1, row], planes[2, row]
    for c in range(channels):
        w0, w1, w2, line = axes[c, 0], axes[c, 1], axes[c, 2], out[c, target]
        for j in range(line.shape[0]):
            line[j] = w0 * p[j] + w1 * q[j] + w2 * r[j]


@kernel
def _mix(p: Array, q: Array, r: Array, s: Array, weights: Array, out: Array) -> None:
    """``out <- weights . (p, q, r, s)``, over the length of `out`."""
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for j in range(out.shape[0]):
        out[j] = w0 * p[j] + w1 * q[j] + w2 * r[j] + w3 * s[j]


@kernel
def _add_mix(p: Array, q: Array, r: Array, s: Array, weights: Array, out: Array) -> None:
    """``out <- out + weights . (p, q, r, s)``, over the length of `out`."""
    w0, w1, w2, w3 = weights[0], weights[1], weights[2], weights[3]
    for j in range(out.shape[0]):
        out[j] += w0 * p[j] + w1 * q[j] + w2 * r[j] + w3 * s[j]


@kernel
def _attenuate(coefficient: Array, a: Array, inverse_noise: Array, low: Array, high: Array, share: Array) -> None:
    """Attenuate frequency `a` of `coefficient` (c, 4, patches) by its mean power over the planes."""
    planes = np.float32(coefficient.shape[0])
    least, gain = planes * low, np.float32(1) / (planes * (high - low))
    share[:] = np.float32(0)
    for c in range(coefficient.shape[0]):
        line = coefficient[c, a]
        for j in range(line.shape[0]):
            share[j] += line[j] * line[j]
    for j in range(share.shape[0]):
        share[j] = min(max((share[j] * inverse_noise[j] - least) * gain, np.float32(0)), np.float32(1))
    for c in range(coefficient.shape[0]):
        line = coefficient[c, a]
        for j in range(line.shape[0]):
            line[j] *= share[j]


@kernel
def _inverse_noise(sums: Array, light: Array, base: Array, slope: Array, inverse_noise: Array) -> None:
    """``inverse_noise <- 1 / standard deviation`` at a patch's light, a sum of its first coefficients times `light`."""
    inverse_noise[:] = np.float32(0)
    for c in range(sums.shape[0]):
        line, share = sums[c, 0], light[c]
        for j in range(line.shape[0]):
            inverse_noise[j] += share * line[j]
    for j in range(inverse_noise.shape[0]):
        mean = min(max(inverse_noise[j], np.float32(0)), np.float32(1))
        inverse_noise[j] = np.float32(1) / np.sqrt(max(base + slope * mean, np.float32(1e-6)))


@kernel
def _average(back: Array, across_patch: Array, row: Array, height: Array, out: Array) -> None:
    """Write row `row` of the result, (c, 1, width): the average over the patches that cover each pixel."""
    channels, _, _, patches = back.shape
    width = patches + 3
    rows = min(row + 1, 4, height - row, height - 3)
    for c in range(channels):
        line = out[c, 0]
        line[:] = np.float32(0)
        p, q, r, s = back[c, row % 4, 0], back[c, row % 4, 1], back[c, row % 4, 2], back[c, row % 4, 3]
        for k in range(4):
            _add_mix(p, q, r, s, across_patch[k] / np.float32(4 * rows), line[k : k + patches])
        for j in range(min(3, width)):
            correction = np.float32(4) / np.float32(min(j + 1, patches))
            line[j] *= correction
            if width - 1 - j > 2:
                line[width - 1 - j] *= correction


@kernel
def pull(x: Array, z: Array, taper_y: Array, taper_x: Array) -> None:
    """``z <- t (z - x)``, the tapered source that draws a channel towards z; all float32 (h, w)."""
    height, width = x.shape
    for i in range(height):
        for j in range(width):
            z[i, j] = (z[i, j] - x[i, j]) * (taper_y[i] * taper_x[j])
