"""What the confidence owes its reader: in 0..1, falling with everything that speaks against a kernel."""

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.planning.find_psf import MIN_CONFIDENCE
from tilepipe.psf.blind.confidence import confidence, relief

GOOD = {"agreement": 0.98, "relief": 60.0, "gain": 1.2, "misfit": 0.9, "border": 0.0}
BAD = {"agreement": 0.5, "relief": 3.0, "gain": 1.0, "misfit": 4.0, "border": 0.3}


@given(st.floats(0, 1), st.floats(0, 1e6), st.floats(0, 1e3), st.floats(0, 1e6), st.floats(0, 1), st.booleans())
def test_it_is_a_share(agreement, height, gain, misfit, border, sharp):
    assert 0 <= confidence(agreement, height, gain, misfit, border, sharp=sharp) <= 1


def test_a_good_case_is_trusted():
    assert confidence(**GOOD, sharp=False) > 2 * MIN_CONFIDENCE


@pytest.mark.parametrize("name", BAD)
def test_everything_that_speaks_against_it_lowers_it(name):
    assert confidence(**GOOD | {name: BAD[name]}, sharp=False) < confidence(**GOOD, sharp=False)


def test_noise_alone_has_no_relief_and_no_confidence():
    noise = np.random.default_rng(1).normal(0.4, 0.02, (200, 200)).astype(np.float32)
    assert relief([noise], 0.02) == pytest.approx(2.8, abs=0.3)
    assert confidence(**GOOD | {"relief": relief([noise], 0.02)}, sharp=False) < 0.75 * MIN_CONFIDENCE
    assert confidence(**GOOD | {"relief": relief([noise], 0.02)}, sharp=True) < 0.5


def test_edges_rise_above_the_noise_even_when_blurred():
    board = (np.add.outer(np.arange(200) // 40, np.arange(200) // 40) % 2).astype(np.float64)
    soft = scipy.ndimage.gaussian_filter(0.2 + 0.5 * board, 5) + np.random.default_rng(1).normal(0, 0.01, board.shape)
    assert relief([soft.astype(np.float32)], 0.01) > 20
