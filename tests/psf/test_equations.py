"""From true edges the equations give the true kernel, and windows add up."""

import numpy as np
import pytest
import scipy.optimize
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.psf.blind.edges import gradients
from tilepipe.psf.blind.equations import BlurredEdges, KernelEquations
from tilepipe.psf.shapes import gaussian, motion

METHODS = {"nonnegative": 300, "conjugate_gradients": 40}
KERNELS = {"motion": motion(9, 25, 11).kernel, "gaussian": gaussian(1.2, 11).kernel, "comet": None}

methods = pytest.mark.parametrize("method", sorted(METHODS))


def comet(size=11):
    """A kernel that is not its own mirror image, so that a transposed or mirrored result is seen."""
    kernel = np.zeros((size, size), np.float32)
    kernel[2, 2] = 0.5
    kernel[2, 3:9] = 0.06
    kernel[3:10, 8] = 0.02
    return kernel / kernel.sum()


def scene(seed, shape=(80, 97), quiet=12):
    """Random pixels in the middle of grey: nothing comes in over the border."""
    image = np.full(shape, 0.5, np.float32)
    middle = image[quiet:-quiet, quiet:-quiet]
    middle[...] = np.random.default_rng(seed).random(middle.shape)
    return image


def blurred(image, kernel):
    return (scipy.signal.convolve(image - 0.5, kernel, "same") + 0.5).astype(np.float32)


def system(image, kernel, gamma=1e-3, copies=1, seen=None):
    window = BlurredEdges(blurred(image, kernel) if seen is None else seen, kernel.shape[0])
    return KernelEquations([window] * copies, [gradients(image)] * copies, gamma)


def solved(equations, method):
    return getattr(equations, method)(METHODS[method])


def likeness(one, other):
    return float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other))


def lags_of(first, second, reach):
    """sum over n of first(n) second(n + lag), lags -reach..reach, zeros outside."""
    whole = scipy.signal.correlate(second.astype(float), first.astype(float))
    y, x = first.shape[0] - 1, first.shape[1] - 1
    whole, y, x = np.pad(whole, reach), y + reach, x + reach
    return whole[y - reach : y + reach + 1, x - reach : x + reach + 1]


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(4, 20),
    width=st.integers(4, 20),
    size=st.sampled_from([3, 5, 9]),
    seed=st.integers(0, 2**32 - 1),
)
def test_correlations_are_those_of_scipy_and_do_not_wrap(height, width, size, seed):
    generator = np.random.default_rng(seed)
    seen = generator.random((height, width), np.float32)
    edges = tuple(generator.standard_normal((2, height, width), np.float32))
    itself, with_seen = BlurredEdges(seen, size).correlate(edges)
    expected_itself = sum(lags_of(edge, edge, size - 1) for edge in edges)
    expected_seen = sum(lags_of(edge, other, size // 2) for edge, other in zip(edges, gradients(seen), strict=True))
    np.testing.assert_allclose(itself, expected_itself, atol=1e-5 * np.abs(expected_itself).max())
    np.testing.assert_allclose(with_seen, expected_seen, atol=1e-5 * np.abs(expected_itself).max())


@methods
@pytest.mark.parametrize("name", sorted(KERNELS))
def test_true_edges_give_the_true_kernel(name, method):
    kernel = comet() if name == "comet" else KERNELS[name]
    found = solved(system(scene(1), kernel), method)
    assert likeness(found, kernel) > 0.999
    assert found.sum() == pytest.approx(1, abs=0.01)


@methods
def test_a_few_steps_are_enough_for_true_edges(method):
    kernel = comet()
    found = getattr(system(scene(1), kernel), method)(60 if method == "nonnegative" else 20)
    assert likeness(found, kernel) > 0.99


@methods
@pytest.mark.parametrize("gamma", [0.5, 50.0])
def test_the_same_window_twice_counts_twice(method, gamma):
    image, kernel = scene(2), comet()
    once = solved(system(image, kernel, gamma), method)
    twice = solved(system(image, kernel, 2 * gamma, copies=2), method)
    np.testing.assert_allclose(twice, once, atol=1e-4 * kernel.max())


def dense(images, kernel, gamma, noise):
    """The equations of several windows written out, and the same as KernelEquations."""
    size = kernel.shape[0]
    taps = np.stack(np.divmod(np.arange(size**2), size))
    lag = (taps[:, :, None] - taps[:, None, :]) + size - 1
    matrix, right, windows, edges = gamma * np.eye(size**2), np.zeros(size**2), [], []
    for seed, image in enumerate(images):
        seen = blurred(image, kernel)
        seen = seen + np.float32(noise) * np.random.default_rng(seed).standard_normal(seen.shape, np.float32)
        sharp = gradients(image)
        matrix += sum(lags_of(edge, edge, size - 1) for edge in sharp)[lag[0], lag[1]]
        right += sum(
            lags_of(edge, other, size // 2) for edge, other in zip(sharp, gradients(seen), strict=True)
        ).ravel()
        windows.append(BlurredEdges(seen, size))
        edges.append(sharp)
    return matrix, right, KernelEquations(windows, edges, gamma)


def test_several_windows_of_different_shapes_are_the_sum_of_their_equations():
    kernel = comet()
    matrix, right, equations = dense([scene(3), scene(4, (61, 70))], kernel, 5.0, 0.05)
    expected = np.maximum(np.linalg.solve(matrix, right), 0).reshape(kernel.shape)
    np.testing.assert_allclose(equations.conjugate_gradients(80), expected, atol=1e-3 * kernel.max())


def test_nonnegative_is_the_least_squares_under_its_constraint():
    kernel = comet()
    matrix, right, equations = dense([scene(5, (50, 50))], kernel, 5.0, 0.3)
    root = np.linalg.cholesky(matrix).T
    expected = scipy.optimize.nnls(root, np.linalg.solve(root.T, right))[0].reshape(kernel.shape)
    assert (expected == 0).sum() > 10, "the noise is strong enough for the constraint to matter"
    np.testing.assert_allclose(equations.nonnegative(500), expected, atol=2e-3 * kernel.max())


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 30), gamma=st.floats(0.01, 100))
def test_no_tap_is_negative_however_wrong_the_edges(seed, steps, gamma):
    generator = np.random.default_rng(seed)
    seen, unrelated = generator.random((2, 40, 40), np.float32)
    equations = KernelEquations([BlurredEdges(seen, 9)], [gradients(unrelated)], gamma)
    for kernel in (equations.nonnegative(steps), equations.conjugate_gradients(steps)):
        assert kernel.shape == (9, 9)
        assert np.isfinite(kernel).all()
        assert kernel.min() >= 0


@methods
def test_without_any_edge_the_weight_alone_decides_for_nothing(method):
    flat = np.full((40, 40), 0.5, np.float32)
    found = solved(KernelEquations([BlurredEdges(scene(1), 9)], [gradients(flat)], 2.0), method)
    np.testing.assert_allclose(found, 0, atol=1e-6)
