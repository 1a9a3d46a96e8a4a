"""The noise level comes out of the pixels."""

import numpy as np
import pytest
import scipy.ndimage

from tilepipe.deconv.noise import estimate_noise, fit_noise, hidden_noise, noise_steepness
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


def test_noise_on_a_white_ground_is_found_although_it_clips_pixels_in_every_block():
    """Noise of 0 would make the restoration return its input, as the data contradict so little noise."""
    picture = np.random.default_rng(5).normal(0.999, 0.004, (3, 400, 400)).astype(np.float32)
    picture[:, 150:200, 150:200] -= 0.5
    picture[picture >= 1] = np.nan
    assert 0.002 < estimate_noise([picture]) < 0.005


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


def noisy_texture(smoothed: float = 0.0) -> np.ndarray:
    """Return a texture of all frequencies behind a line of 9 px, with noise of 0.01, white or smoothed; (3, h, w)."""
    generator = np.random.default_rng(3)
    frequency = np.hypot(np.fft.fftfreq(384)[:, None], np.fft.rfftfreq(384)[None, :])
    spectrum = np.fft.rfft2(generator.normal(0, 1, (384, 384))) / np.maximum(frequency, 0.005) ** 1.2
    texture = np.fft.irfft2(spectrum)
    scene = 0.5 + 0.12 * texture / texture.std()
    blurred = degrade(np.repeat(scene[..., None], 3, 2).astype(np.float32), motion(9, 30), 0.0)
    noise = scipy.ndimage.gaussian_filter(generator.normal(0, 1, blurred.shape), (smoothed, smoothed, 0))
    return np.moveaxis(blurred + 0.01 * noise / noise.std(), -1, 0).astype(np.float32)


def test_white_noise_is_flat_at_the_highest_frequencies_and_smoothed_noise_is_steep():
    assert noise_steepness([noisy_texture()]) == pytest.approx(1, abs=0.12)
    assert 1.3 < noise_steepness([noisy_texture(0.6)]) < 3
    assert noise_steepness([np.full((1, 80, 80), np.nan, np.float32)]) == np.inf
    assert noise_steepness([np.full((1, 80, 80), 0.5, np.float32)]) == np.inf, "without noise"


def test_texture_is_not_hidden_noise_where_the_noise_is_white():
    """A floor three times the noise: texture with white noise, but as likely noise where that was smoothed."""
    white, smooth = (noise_steepness([noisy_texture(width)]) for width in (0.0, 0.6))
    assert hidden_noise(0.01, 0.03, 0.0, white) == 0.0
    assert hidden_noise(0.01, 0.03, 0.0, smooth) > 0.02
    assert hidden_noise(0.01, 0.03, 0.01, white) > 0.03, "a JPEG has nothing at the highest frequencies"
