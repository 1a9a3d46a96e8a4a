"""The compiled half-quadratic solvers are the textbook, and they take blur out."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.blind.wrap import wrap_smoothly
from tilepipe.psf.shapes import delta, disk, gaussian, motion
from tilepipe.testing import Scene, degrade, psnr

PSFS = {"motion": motion(9, 25), "gaussian": gaussian(1.5), "disk": disk(3.3)}

few = settings(max_examples=15, deadline=None)


# --- the textbook, float64, one line of numpy per line of the mathematics


def keep_long(across, down, threshold):
    keep = across**2 + down**2 >= threshold
    return across * keep, down * keep


def shorten(across, down, threshold):
    length = np.hypot(across, down)
    scale = np.maximum(1 - threshold / np.maximum(length, 1e-300), 0)
    return across * scale, down * scale


def centred(kernel, frame):
    plane = np.zeros(frame)
    middle = kernel.shape[0] // 2
    for (y, x), tap in np.ndenumerate(kernel):
        plane[(y - middle) % frame[0], (x - middle) % frame[1]] = tap
    return plane


def iterate(y, kernel, rounds):
    """`rounds`: (weight of the gradients, threshold, what is done to them) each."""
    transfer, seen = np.fft.fft2(centred(kernel, y.shape)), np.fft.fft2(y)
    step_y, step_x = np.zeros(y.shape), np.zeros(y.shape)
    step_y[0, 0], step_y[-1, 0], step_x[0, 0], step_x[0, -1] = -1, 1, -1, 1
    step_y, step_x = np.fft.fft2(step_y), np.fft.fft2(step_x)
    x = y
    for weight, threshold, changed in rounds:
        across, down = changed(np.roll(x, -1, 1) - x, np.roll(x, -1, 0) - x, threshold)
        sources = np.conj(step_x) * np.fft.fft2(across) + np.conj(step_y) * np.fft.fft2(down)
        numerator = np.conj(transfer) * seen + weight * sources
        x = np.fft.ifft2(numerator / (abs(transfer) ** 2 + weight * (abs(step_x) ** 2 + abs(step_y) ** 2))).real
    return x


def plain_sharp_edges(y, kernel, mu, last):
    betas = 2 * mu * 2.0 ** np.arange(100)
    return iterate(y, kernel, [(beta, mu / beta, keep_long) for beta in betas[betas < last]])


def plain_total_variation(y, kernel, lam):
    penalties = 8 ** (0.5 * np.arange(6))  # 1, 2.8, ... 181: up to 256
    return iterate(y, kernel, [(lam * b, 1 / b, shorten) for b in penalties])


def noise(shape, seed):
    return np.random.default_rng(seed).random(shape, np.float32)


def wrapped(window):
    return wrap_smoothly(window.blurred, window.frame).astype(float)


def seen_scene(psf, sigma, edge=255, seed=1):
    """A window of a scene seen through a PSF and noise, and the truth."""
    reach = psf.size // 2
    sharp = Scene(edge + 2 * reach, edge + 2 * reach, seed).rows(0, edge + 2 * reach)[..., 1]
    seen = degrade(sharp[..., None], psf, sigma)[..., 0]
    return np.ascontiguousarray(seen), sharp[reach : reach + edge, reach : reach + edge]


@few
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    psf=st.sampled_from(sorted(PSFS)),
    lam=st.sampled_from([1e-4, 2e-3, 5e-2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_total_variation_equals_the_numpy_reference(height, width, psf, lam, seed):
    kernel = PSFS[psf].kernel
    window = Window(noise((height, width), seed), kernel.shape[0])
    expected = plain_total_variation(wrapped(window), kernel, lam)[:height, :width]
    np.testing.assert_allclose(window.total_variation(kernel, lam), expected, atol=2e-5 * np.abs(expected).max())


@few
@given(
    height=st.integers(20, 60),
    width=st.integers(20, 60),
    psf=st.sampled_from(sorted(PSFS)),
    mu=st.sampled_from([1e-3, 1e-2]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_first_rounds_of_sharp_edges_equal_the_numpy_reference(height, width, psf, mu, seed):
    """A pixel at the threshold may fall on either side in float32, and later rounds carry it on: few rounds."""
    kernel = PSFS[psf].kernel
    window = Window(noise((height, width), seed), kernel.shape[0])
    expected = plain_sharp_edges(wrapped(window), kernel, mu, 10 * mu)[:height, :width]
    np.testing.assert_allclose(window.sharp_edges(kernel, mu, 10 * mu), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("psf", sorted(PSFS))
def test_all_rounds_of_sharp_edges_equal_the_numpy_reference(psf):
    """On a scene in which no pixel lies at the threshold, where it may fall on either side in float32."""
    seen, _ = seen_scene(PSFS[psf], 0.005, 121)
    window = Window(seen, PSFS[psf].size)
    expected = plain_sharp_edges(wrapped(window), PSFS[psf].kernel, 5e-3, 1e3)[:121, :121]
    np.testing.assert_allclose(window.sharp_edges(PSFS[psf].kernel, 5e-3), expected, atol=5e-6)


def test_no_blur_and_next_to_no_weight_give_the_window_back():
    window = Window(noise((50, 61), 0), 9)
    point = np.pad(delta().kernel, 4)
    np.testing.assert_allclose(window.total_variation(point, 1e-9), window.blurred, atol=1e-5)
    np.testing.assert_allclose(window.sharp_edges(point, 1e-9), window.blurred, atol=1e-5)


def test_a_window_is_left_as_it_is():
    seen = noise((50, 61), 0)
    window = Window(seen.copy(), 9)
    first = window.total_variation(PSFS["motion"].kernel, 1e-3)
    window.sharp_edges(PSFS["disk"].kernel, 1e-2)
    window.blur(first, PSFS["gaussian"].kernel)
    assert window.blurred.tobytes() == seen.tobytes()
    assert window.total_variation(PSFS["motion"].kernel, 1e-3).tobytes() == first.tobytes()


@pytest.mark.parametrize("psf", sorted(PSFS))
def test_total_variation_with_the_true_kernel_gains_more_than_3_db(psf):
    seen, sharp = seen_scene(PSFS[psf], 0.002)
    restored = Window(seen, PSFS[psf].size).total_variation(PSFS[psf].kernel, 2e-4)
    assert restored.shape == seen.shape
    assert psnr(restored, sharp) > psnr(seen, sharp) + 3


@pytest.mark.parametrize("turned", [False, True])
def test_sharp_edges_of_a_blurred_noisy_bar_are_flat_on_both_sides_of_a_step(turned):
    sharp = np.full((90, 100), 0.2, np.float32)
    sharp[:, 30:70] = 0.7
    sharp = sharp.T if turned else sharp
    psf = gaussian(1.5)
    seen = degrade(np.pad(sharp, psf.size // 2, "edge")[..., None], psf, 0.02)[..., 0]
    restored = Window(seen, psf.size).sharp_edges(psf.kernel, 0.01)
    restored = restored.T if turned else restored
    for part, level in ((np.s_[10:-10, 10:27], 0.2), (np.s_[10:-10, 33:67], 0.7), (np.s_[10:-10, 73:-10], 0.2)):
        across, down = np.diff(restored[part], axis=1), np.diff(restored[part], axis=0)
        assert max(np.abs(across).max(), np.abs(down).max()) < 0.004, "between neighbours; 0.1 in the noise"
        assert restored[part].mean() == pytest.approx(level, abs=0.08)
    steps = np.abs(np.diff(restored[10:-10], axis=1))
    for step in (steps[:, 27:32], steps[:, 67:72]):
        assert np.quantile(step.max(1), 0.1) > 0.25, "half of a step of 0.5 is between two pixels again"


@few
@given(
    height=st.integers(30, 60),
    width=st.integers(30, 60),
    size=st.sampled_from([1, 3, 9, 15]),
    seed=st.integers(0, 2**32 - 1),
)
def test_blur_is_the_convolution_away_from_the_border(height, width, size, seed):
    image, kernel = noise((height, width), seed), noise((size, size), seed)
    kernel /= kernel.sum()
    result = Window(np.zeros_like(image), size).blur(image, kernel)
    assert result.shape == image.shape
    reach = size // 2
    inside = result[reach : height - reach, reach : width - reach]
    np.testing.assert_allclose(inside, scipy.signal.fftconvolve(image, kernel, "valid"), atol=2e-6)
