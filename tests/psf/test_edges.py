"""Edges are picked so that every direction has some and the border has none."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.psf.blind.edges import edge_threshold, gradients, select_edges

quick = settings(max_examples=60, deadline=None)

seeds = st.integers(0, 2**32 - 1)


def picture(seed, levels=200, shape=(24, 31)):
    """Whole numbers: no gradient lies on the border between two directions."""
    return np.random.default_rng(seed).integers(0, levels, shape).astype(np.float32)


def direction(across, down):
    """0: along x, 1: falling diagonal, 2: along y, 3: rising diagonal; -1: no gradient."""
    steep = math.tan(math.radians(22.5))
    width, height = np.abs(across), np.abs(down)
    classes = np.where(across * down > 0, 1, 3)
    classes[height < steep * width] = 0
    classes[width < steep * height] = 2
    classes[(width == 0) & (height == 0)] = -1
    return classes


@quick
@given(seed=seeds)
def test_gradients_are_forward_differences(seed):
    image = picture(seed)
    across, down = gradients(image)
    assert across.shape == down.shape == image.shape
    for y, x in ((0, 0), (5, 9), (22, 29)):
        assert across[y, x] == image[y, x + 1] - image[y, x]
        assert down[y, x] == image[y + 1, x] - image[y, x]
    np.testing.assert_array_equal(across[:, :-1], np.diff(image, axis=1))
    np.testing.assert_array_equal(down[:-1], np.diff(image, axis=0))
    assert not across[:, -1].any()
    assert not down[-1].any()


@quick
@given(seed=seeds, count=st.integers(1, 300), levels=st.sampled_from([4, 200]))
def test_the_threshold_is_the_largest_that_leaves_enough_in_every_direction(seed, count, levels):
    across, down = gradients(picture(seed, levels))
    threshold = edge_threshold(across, down, count)
    classes, length = direction(across, down), np.hypot(across, down)
    wanted = [min(count, int((classes == one).sum())) for one in range(4)]
    assert min(wanted) > 0, "these pictures have every direction"
    assert all((length[classes == one] >= threshold).sum() >= wanted[one] for one in range(4))
    assert any((length[classes == one] > threshold).sum() < wanted[one] for one in range(4)), "a larger one would do"


@pytest.mark.parametrize(
    ("across", "down"),
    [(1, 0), (0, 1), (1, 1), (1, -1)],
    ids=["upright edges", "level edges", "rising edges", "falling edges"],
)
def test_one_missing_direction_makes_the_threshold_zero(across, down):
    generator = np.random.default_rng(0)
    every = np.array([(1, 0), (0, 1), (1, 1), (1, -1)], np.float32)
    flow = every[generator.integers(0, 4, 400)] * generator.uniform(0.1, 1, (400, 1)).astype(np.float32)
    here = np.all(np.sign(flow) == np.sign((across, down)), axis=1)
    some = flow.reshape(20, 20, 2)
    assert edge_threshold(some[..., 0], some[..., 1], 10) > 0
    flow[here] = 0
    without = flow.reshape(20, 20, 2)
    assert edge_threshold(without[..., 0], without[..., 1], 10) == 0.0


def test_a_flat_picture_has_no_direction():
    assert edge_threshold(*gradients(np.full((20, 20), 0.5, np.float32)), 10) == 0.0


@quick
@given(seed=seeds, threshold=st.floats(1, 250), margin=st.integers(0, 20))
def test_weak_edges_and_the_border_are_dropped_and_the_rest_is_untouched(seed, threshold, margin):
    image = picture(seed)
    across, down = gradients(image)
    analysis = np.stack(select_edges(image, threshold, margin))
    inside = np.zeros(across.shape, bool)
    inside[margin : across.shape[0] - margin, margin : across.shape[1] - margin] = True
    length = np.hypot(across.astype(float), down)
    strong = inside & (length > threshold * (1 + 1e-6))
    weak = ~inside | (length < threshold * (1 - 1e-6))
    np.testing.assert_array_equal(analysis[:, strong], np.stack([across, down])[:, strong])
    assert not analysis[:, weak].any()
