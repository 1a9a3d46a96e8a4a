"""Free-form shakes: as long as they say, in the middle, the same for ever, and free-form."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.errors import PsfError
from tilepipe.testing.shakes import shake

quick = settings(max_examples=50, deadline=None)

lengths = st.integers(1, 61)
seeds = st.integers(0, 2**31)


def spans(kernel):
    """Rows and columns from the first to the last tap, px."""
    return [int(np.ptp(np.flatnonzero(kernel.sum(1 - axis)))) + 1 for axis in (0, 1)]


@quick
@given(length=lengths, seed=seeds)
def test_a_shake_is_as_long_as_it_says_and_its_mass_is_in_the_middle(length, seed):
    psf = shake(length, seed)
    assert max(spans(psf.kernel)) == length
    assert psf.size % 2 == 1
    assert length <= psf.size <= 2 * length
    offsets = np.arange(psf.size) - psf.size // 2
    assert abs(float((psf.kernel.sum(0, np.float64) * offsets).sum())) <= 0.5 + 1e-6
    assert abs(float((psf.kernel.sum(1, np.float64) * offsets).sum())) <= 0.5 + 1e-6


@quick
@given(length=lengths, seed=seeds)
def test_a_shake_is_one_unbroken_path(length, seed):
    psf = shake(length, seed)
    assert psf.kernel.min() >= 0
    assert float(psf.kernel.sum(dtype=np.float64)) == pytest.approx(1, abs=1e-6)
    assert scipy.ndimage.label(psf.kernel > 0, np.ones((3, 3)))[1] == 1


def test_the_seed_is_the_shake():
    once, again, other = shake(21, 3), shake(21, 3), shake(21, 4)
    assert once.digest == again.digest
    assert once.digest != other.digest
    assert once.made_by == {"shape": "shake", "length": 21, "seed": 3}


def test_a_shake_is_not_straight():
    """Straight motion has no width across its direction; of ten shakes, all bend."""
    for seed in range(10):
        kernel = shake(31, seed).kernel.astype(np.float64)
        y, x = np.indices(kernel.shape)
        spread = np.linalg.eigvalsh(np.cov(np.stack([y.ravel(), x.ravel()]), aweights=kernel.ravel()))
        assert spread[0] > 0.5, seed


@pytest.mark.parametrize("length", [0, -3, 128])
def test_a_length_out_of_range_is_refused(length):
    with pytest.raises(PsfError, match="length is"):
        shake(length, 1)
