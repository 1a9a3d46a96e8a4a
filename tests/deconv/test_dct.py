"""The sliding cosine transform is the textbook's, keeps what it should, and takes noise off."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe import deconvolve
from tilepipe.deconv.dct import denoise
from tilepipe.deconv.parameters import Parameters
from tilepipe.testing import Scene, plain_denoise, psnr


def numbers(low, high, base=1.0, slope=0.0):
    return Parameters(0.0, 0.0, 0.0, 1.0, 0, solver="cosines", low=low, high=high, base=base, slope=slope)


def denoised(x, parameters):
    out = np.full_like(x, np.nan)
    denoise(x, parameters, out)
    return out


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 3),
    height=st.integers(4, 15),
    width=st.integers(4, 15),
    slope=st.sampled_from([0.0, 2.0]),
    seed=st.integers(0, 999),
)
def test_it_equals_the_numpy_reference(channels, height, width, slope, seed):
    x = np.random.default_rng(seed).random((channels, height, width), np.float32)
    parameters = numbers(0.2, 0.5, 0.2 if slope else 1.0, slope)
    np.testing.assert_allclose(denoised(x, parameters), plain_denoise(x.astype(float), parameters), atol=2e-6)


def test_nothing_is_lost_without_thresholds_and_constants_always_stay():
    x = np.random.default_rng(1).random((2, 30, 40), np.float32)
    np.testing.assert_allclose(denoised(x, numbers(1e-9, 2e-9)), x, atol=1e-6)
    flat = np.full((3, 20, 20), 0.3, np.float32)
    np.testing.assert_allclose(denoised(flat, numbers(10, 20)), flat, atol=1e-6)


@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_denoising_a_sharp_picture_gains_and_needs_no_psf(noise):
    sharp = Scene(300, 300, seed=3).rows(0, 300)
    seen = sharp + np.random.default_rng(1).normal(0, noise, sharp.shape).astype(np.float32)
    clean = deconvolve(seen, None, priority=-1)
    assert psnr(clean, sharp) > psnr(seen, sharp) + 4
