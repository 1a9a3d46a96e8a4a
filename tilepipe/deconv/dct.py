"""Closing steps above total variation: a sliding 4 x 4 cosine transform as the prior.

Every patch of 4 x 4 px, at all shifts, is a sum of 16 cosines of which a sharp picture needs few (Yaroslavsky 1996;
Yu & Sapiro, IPOL 2011/068).  Taking the weak ones off and averaging the patches that cover a pixel gives z, what the
picture would be without noise; a closing step then looks for the x that explains the data and lies near z:

    x = argmin r1 |Kx - v + d|^2 + rz |x - z|^2

Coefficients fade in between two thresholds instead of jumping at one, so that a rounding error moves a pixel by as
little; colours share one decision, as their gradients do before.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tilepipe.compiled import kernel
from tilepipe.deconv.parameters import Parameters

__all__ = ["EDGE", "denoise", "pull"]

Array = Any

EDGE = 4
"""Of a patch, px."""


def _cosines() -> Any:
    """Return the orthonormal DCT-II of length 4, a basis vector a row."""
    position = np.arange(EDGE)
    basis = np.cos(np.pi * (position[None, :] + 0.5) * position[:, None] / EDGE) * np.sqrt(2 / EDGE)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


COSINES = _cosines()


def denoise(x: Array, parameters: Parameters, out: Array) -> None:
    """Write to `out` the picture x (c, h, w) without its weak cosines; h and w at least 4.

    Coefficients whose root mean square over the colours is below ``parameters.low`` go, those above ``high`` stay;
    both grow with the root of the noise at the patch's mean, as the weak signal among the noise grows too.
    """
    low, high = (np.float32(limit**2 * len(x)) for limit in (parameters.low, parameters.high))
    _slide(x, COSINES, low, high, np.float32(parameters.base), np.float32(parameters.slope), out)


@kernel
def _slide(x: Array, basis: Array, low: Array, high: Array, base: Array, slope: Array, out: Array) -> None:
    """Patch by patch, a row of patches at a time; `low` and `high` are squared, summed over the colours."""
    channels, height, width = x.shape
    patches = width - 3
    across = np.zeros((channels, 4, 4, patches), np.float32)  # [row % 4, frequency along x]
    back = np.zeros((channels, 4, 4, patches), np.float32)  # what the patches above give to rows to come
    coefficient = np.zeros((channels, patches), np.float32)
    energy = np.zeros(patches, np.float32)
    spread = np.zeros(patches, np.float32)  # of the noise at the patch's mean, over that of `low`
    gain = np.float32(1) / (high - low)
    for i in range(height):
        for c in range(channels):
            for b in range(4):
                for j in range(patches):
                    across[c, i % 4, b, j] = (
                        basis[b, 0] * x[c, i, j]
                        + basis[b, 1] * x[c, i, j + 1]
                        + basis[b, 2] * x[c, i, j + 2]
                        + basis[b, 3] * x[c, i, j + 3]
                    )
                    back[c, i % 4, b, j] = np.float32(0)
        top = i - 3
        if top >= 0:
            r0, r1, r2, r3 = top % 4, (top + 1) % 4, (top + 2) % 4, (top + 3) % 4
            for a in range(4):
                w0, w1, w2, w3 = basis[a, 0], basis[a, 1], basis[a, 2], basis[a, 3]
                for b in range(4):
                    energy[:] = np.float32(0)
                    for c in range(channels):
                        for j in range(patches):
                            value = (
                                w0 * across[c, r0, b, j]
                                + w1 * across[c, r1, b, j]
                                + w2 * across[c, r2, b, j]
                                + w3 * across[c, r3, b, j]
                            )
                            coefficient[c, j] = value
                            energy[j] += value * value
                    if a + b == 0:
                        _noise_at(coefficient, base, slope, spread)
                        energy[:] = high * spread  # the mean stays
                    for j in range(patches):
                        energy[j] = min(max((energy[j] / spread[j] - low) * gain, np.float32(0)), np.float32(1))
                    for c in range(channels):
                        for j in range(patches):
                            value = coefficient[c, j] * energy[j]
                            back[c, r0, b, j] += w0 * value
                            back[c, r1, b, j] += w1 * value
                            back[c, r2, b, j] += w2 * value
                            back[c, r3, b, j] += w3 * value
            _collect(back, basis, top, height, out)
    for row in range(height - 3, height):
        _collect(back, basis, row, height, out)


@kernel
def _noise_at(sums: Array, base: Array, slope: Array, spread: Array) -> None:
    """Spread <- the noise at the light of a patch: its first coefficient is four times its mean."""
    channels, patches = sums.shape
    for j in range(patches):
        light = np.float32(0)
        for c in range(channels):
            light += sums[c, j]
        light = min(max(light / np.float32(4 * channels), np.float32(0)), np.float32(1))
        spread[j] = np.sqrt(max(base + slope * light, np.float32(1e-6)))


@kernel
def _collect(back: Array, basis: Array, row: Array, height: Array, out: Array) -> None:
    """Row `row` of the result: the average over the patches that cover each pixel."""
    channels, _, _, patches = back.shape
    width = patches + 3
    rows = min(row + 1, 4, height - row, height - 3)
    for c in range(channels):
        for j in range(width):
            out[c, row, j] = np.float32(0)
        for b in range(4):
            for s in range(4):
                weight = basis[b, s] / np.float32(4 * rows)
                for j in range(patches):
                    out[c, row, j + s] += weight * back[c, row % 4, b, j]
        for j in range(min(3, width)):
            few = np.float32(4) / np.float32(min(j + 1, patches))
            out[c, row, j] *= few
            if width - 1 - j > 2:
                out[c, row, width - 1 - j] *= few


@kernel
def pull(x: Array, z: Array, taper_y: Array, taper_x: Array) -> None:
    """Z <- t (z - x), the tapered source that draws a channel towards z; all float32 (h, w)."""
    height, width = x.shape
    for i in range(height):
        for j in range(width):
            z[i, j] = (z[i, j] - x[i, j]) * (taper_y[i] * taper_x[j])
