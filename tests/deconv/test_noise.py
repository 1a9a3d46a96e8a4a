"""The noise level comes out of the pixels."""

import numpy as np
import pytest

from tilepipe.deconv.noise import estimate_noise, fit_noise
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import Scene, degrade


@pytest.mark.parametrize("sigma", [0.002, 0.005, 0.01, 0.03])
def test_noise_of_a_blurred_scene_within_a_tenth(sigma):
    sharp = 0.15 + 0.7 * Scene(512, 400).rows(0, 400)
    blurred = degrade(sharp, motion(13, 30), sigma)
    assert estimate_noise([np.moveaxis(blurred, -1, 0)]) == pytest.approx(sigma, rel=0.1)


def test_clipped_pixels_say_nothing():
    sharp = 0.15 + 0.7 * Scene(512, 400).rows(0, 400)
    planes = np.moveaxis(degrade(sharp, gaussian(2), 0.01), -1, 0).copy()
    planes[:, :150] = np.nan
    assert estimate_noise([planes]) == pytest.approx(0.01, rel=0.1)


def test_nothing_usable_is_zero():
    assert estimate_noise([np.full((1, 80, 80), np.nan, np.float32)]) == 0.0
    assert estimate_noise([np.zeros((3, 2, 2), np.float32)]) == 0.0
    assert estimate_noise([]) == 0.0


def test_a_flat_picture_has_none():
    assert estimate_noise([np.full((1, 128, 128), 0.5, np.float32)]) == 0.0


@pytest.mark.parametrize(("shot", "rest"), [(0.001, 0.002), (0.01, 0.005)])
def test_noise_that_grows_with_the_light_is_found(shot, rest):
    sharp = Scene(700, 700, seed=5).rows(0, 700)
    blurred = degrade(sharp, motion(13, 30), 0.0)
    variance = shot * np.clip(blurred, 0, 1) + rest**2
    seen = blurred + np.random.default_rng(1).normal(0, 1, blurred.shape) * np.sqrt(variance)
    noise = fit_noise([np.moveaxis(seen, -1, 0).astype(np.float32)])
    assert noise.slope * noise.sigma**2 == pytest.approx(shot, rel=0.2)
    assert noise.sigma**2 == pytest.approx(shot * blurred.mean() + rest**2, rel=0.2)
    assert noise.base + noise.slope * noise.light == pytest.approx(1)


def test_even_noise_is_found_to_be_even_or_nearly():
    blurred = degrade(Scene(700, 700, seed=5).rows(0, 700), motion(13, 30), 0.01)
    noise = fit_noise([np.moveaxis(blurred, -1, 0)])
    assert noise.base > 0.7
    assert noise.sigma == pytest.approx(0.01, rel=0.1)
