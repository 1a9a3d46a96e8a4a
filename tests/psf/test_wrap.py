"""The wrapped window is a torus without jumps, and the window is still in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.psf.blind.wrap import wrap_smoothly

quick = settings(max_examples=60, deadline=None)

lengths = st.integers(2, 40)
gaps = st.integers(0, 40)
seeds = st.integers(0, 2**32 - 1)


def noise(height, width, seed):
    return np.random.default_rng(seed).random((height, width), np.float32)


@quick
@given(height=lengths, width=lengths, below=gaps, right=gaps, seed=seeds)
def test_the_image_is_kept_bit_for_bit_in_its_corner(height, width, below, right, seed):
    image = noise(height, width, seed)
    wrapped = wrap_smoothly(image, (height + below, width + right))
    assert wrapped.shape == (height + below, width + right)
    assert wrapped.dtype == np.float32
    assert wrapped[:height, :width].tobytes() == image.tobytes()


@quick
@given(height=lengths, width=lengths, below=st.integers(1, 40), right=gaps, seed=seeds)
def test_the_strip_below_is_a_membrane_free_at_its_ends(height, width, below, right, seed):
    wrapped = wrap_smoothly(noise(height, width, seed), (height + below, width + right))[:, :width].astype(float)
    up, down = np.roll(wrapped, 1, 0), np.roll(wrapped, -1, 0)  # below its last row comes the image's first
    free = np.pad(wrapped, ((0, 0), (1, 1)), "edge")
    tension = up + down + free[:, :-2] + free[:, 2:] - 4 * wrapped
    np.testing.assert_allclose(tension[height:], 0, atol=2e-6)


@quick
@given(height=lengths, width=lengths, below=gaps, right=st.integers(1, 40), seed=seeds)
def test_the_strip_at_the_right_is_a_periodic_membrane(height, width, below, right, seed):
    wrapped = wrap_smoothly(noise(height, width, seed), (height + below, width + right)).astype(float)
    tension = sum(np.roll(wrapped, step, axis) for step in (-1, 1) for axis in (0, 1)) - 4 * wrapped
    np.testing.assert_allclose(tension[:, width:], 0, atol=2e-6)


@quick
@given(height=lengths, width=lengths, below=gaps, right=gaps, seed=seeds)
def test_nothing_overshoots_the_image(height, width, below, right, seed):
    image = noise(height, width, seed) * 3 - 1
    wrapped = wrap_smoothly(image, (height + below, width + right))
    assert wrapped.min() >= image.min() - 1e-5
    assert wrapped.max() <= image.max() + 1e-5


@quick
@given(value=st.floats(-10, 10, width=32), height=lengths, width=lengths, below=gaps, right=gaps)
def test_a_constant_stays_constant(value, height, width, below, right):
    wrapped = wrap_smoothly(np.full((height, width), value, np.float32), (height + below, width + right))
    np.testing.assert_allclose(wrapped, value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("turned", [False, True])
def test_a_ramp_is_led_back_to_its_start_in_equal_steps(turned):
    ramp = np.tile(np.linspace(0, 1, 30, dtype=np.float32)[:, None], (1, 20))
    back = np.linspace(1, 0, 17)[1:-1, None]  # 15 rows between 1 and 0
    wrapped = wrap_smoothly(ramp.T, (20, 45)).T if turned else wrap_smoothly(ramp, (45, 20))
    np.testing.assert_allclose(wrapped[30:], np.tile(back, (1, 20)), atol=1e-6)


def test_a_shape_of_the_image_returns_the_image():
    image = noise(31, 18, 0)
    assert wrap_smoothly(image, (31, 18)).tobytes() == image.tobytes()
