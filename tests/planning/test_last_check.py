"""A restoration that goes too far is seen for what it is, without its truth."""

import numpy as np
import pytest

from tilepipe.deconv.noise import Noise
from tilepipe.deconv.signs import read_signs
from tilepipe.planning.last_check import check_restoration, middle
from tilepipe.planning.schedules import RestorationOptions
from tilepipe.psf.shapes import gaussian
from tilepipe.testing.scenes import Photograph

SIGMA, NOISE = 1.0, 0.003


@pytest.fixture(scope="module")
def windows():
    seen = Photograph(640, 480, SIGMA, NOISE).rows(0, 480)
    return [middle(np.moveaxis(seen, -1, 0))]


def check(windows, sigma):
    return check_restoration(windows, Noise(NOISE), [gaussian(sigma)], RestorationOptions())


def test_the_right_blur_passes_and_one_much_too_wide_does_not(windows):
    right, wide = check(windows, np.sqrt(SIGMA**2 - 0.35**2)), check(windows, SIGMA + 0.4)
    assert right.passed, right.why
    assert not wide.passed
    assert "overshoot" in wide.why or "below zero" in wide.why


def test_signs_grow_with_the_width(windows):
    found = [check(windows, sigma).signs for sigma in (0.8, 1.1, 1.4)]
    assert found[0].overshoot < found[1].overshoot < found[2].overshoot
    assert found[0].negative <= found[1].negative <= found[2].negative


def test_nothing_done_shows_no_signs(windows):
    mean = windows[0].mean(0)
    signs = read_signs(mean, mean, np.ones((1, 1), np.float32), NOISE)
    assert signs.overshoot <= 0.01
    assert (signs.negative, signs.growth) == (0, pytest.approx(1))


def test_the_facts_are_json_values(windows):
    import json

    facts = check(windows, 0.9).facts()
    assert json.loads(json.dumps(facts)) == facts
