"""What a photographer keeps: the slider does what it says, nothing is harmed, no halos, no colour noise."""

import numpy as np
import pytest
import scipy.ndimage

from tilepipe import deconvolve
from tilepipe.psf.shapes import gaussian
from tilepipe.testing import Scene, degrade

PRIORITIES = (-1, -0.5, 0, 0.5, 1)


def fine(picture):
    return picture - scipy.ndimage.gaussian_filter(picture, (2, 2, 0))


@pytest.fixture(scope="module")
def slider():
    """Noise and share of the detail that come out, for every priority."""
    psf = gaussian(1.5)
    reach, rim = psf.size // 2, 20
    texture = np.random.default_rng(5).normal(0, 0.03, (260, 260, 1))
    sharp = (Scene(260, 260, seed=2).rows(0, 260) + texture).astype(np.float32)
    detail = fine(sharp[reach:-reach, reach:-reach])[rim:-rim, rim:-rim]
    blurred = degrade(sharp, psf, 0.0)
    seen = [
        (blurred + np.random.default_rng(seed).normal(0, 0.02, blurred.shape)).astype(np.float32) for seed in (1, 2)
    ]
    noises, shares = [], []
    for priority in PRIORITIES:
        one, other = (deconvolve(picture, psf, priority)[rim:-rim, rim:-rim] for picture in seen)
        noises.append(float((one - other).std()) / np.sqrt(2))
        shares.append(float((fine((one + other) / 2) * detail).sum() / (detail**2).sum()))
    return noises, shares


def test_noise_rises_with_the_priority(slider):
    noises, _ = slider
    assert noises == sorted(noises)
    assert noises[0] < 0.3 * noises[-1]


def test_detail_rises_with_the_priority(slider):
    _, shares = slider
    assert shares == sorted(shares)
    assert shares[0] < 0.3 < 0.5 < shares[-1], "the first does not deblur at all"
