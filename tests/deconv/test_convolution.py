"""However a PSF is applied, it does what the textbook does, up to the light that is said to be left out."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.deconv.convolution import DARK, LEFT_OUT, convolve_known, select_convolution
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.psf.shapes import delta, disk, gaussian, motion
from tilepipe.testing.shakes import shake

SHAPES = {
    "gaussian": gaussian(2),
    "line": motion(15, 30),
    "level line": motion(9, 0),
    "small disk": disk(3),
    "shake": shake(13, 1),
    "delta": delta(),
}


def textbook(x, y, kernel):
    """K^T (M y / K x) in float64; the rim of half a PSF is unknown."""
    reach = len(kernel) // 2
    inside = np.s_[reach : len(x) - reach, reach : x.shape[1] - reach]
    ratio = np.zeros(x.shape)
    kx = np.maximum(scipy.signal.convolve(x.astype(float), kernel, "valid"), DARK)
    ratio[inside] = np.nan_to_num(y[inside] / kx)
    return scipy.signal.correlate(np.pad(ratio, reach), kernel, "valid")


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_seen_through_a_psf_is_the_textbook_s(name):
    kernel = np.asarray(SHAPES[name].kernel)
    convolution, reach = select_convolution(kernel), len(kernel) // 2
    assert convolution.kind != "fourier"
    generator = np.random.default_rng(3)
    x, y = generator.uniform(0.1, 1, (2, 61, 83)).astype(np.float32)
    y[generator.random(y.shape) < 0.1] = np.nan
    if reach:
        y[:reach], y[-reach:], y[:, :reach], y[:, -reach:] = (np.float32(np.nan),) * 4
    seen = np.empty_like(x)
    convolve_known(convolution, x, y, np.float32(np.inf), seen)
    assert np.abs(seen - textbook(x, y, kernel)).max() < 1e-5 + 10 * convolution.loss


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(0, 4))
def test_never_more_light_is_left_out_than_may_be_and_none_is_lost(reach, seed, sparse):
    taps = np.random.default_rng(seed).random((2 * reach + 1,) * 2) ** (1 + 10 * sparse)
    convolution = select_convolution((taps / taps.sum()).astype(np.float32))
    assert convolution.loss <= LEFT_OUT
    assert convolution.reach <= reach
    if convolution.kind != "fourier":
        flat = np.full((4 * reach + 9,) * 2, 0.5, np.float32)
        seen = np.empty_like(flat)
        convolve_known(convolution, flat, flat, np.float32(np.inf), seen)
        middle = seen[2 * reach : -2 * reach, 2 * reach : -2 * reach]
        assert np.abs(middle - 1).max() < 1e-5


def test_the_choice_follows_the_structure():
    assert (select_convolution(gaussian(3).kernel).kind, select_convolution(gaussian(3).kernel).rank) == (
        "separable",
        1,
    )
    assert select_convolution(motion(15, 30).kernel).kind == "taps"
    assert select_convolution(disk(9).kernel).kind == "fourier"
    assert select_convolution(motion(15, 30).kernel) is select_convolution(motion(15, 30).kernel.copy())


@pytest.mark.parametrize("psf", [gaussian(1.5), motion(11, 20)], ids=["separable", "taps"])
def test_richardson_lucy_is_the_same_however_the_psf_is_applied(psf, monkeypatch):
    from tilepipe.deconv import richardson_lucy
    from tilepipe.deconv.convolution import FOURIER

    generator = np.random.default_rng(5)
    y = generator.uniform(0.1, 1, (3, 72, 80)).astype(np.float32)
    numbers = Parameters(1e-3, 0, 0, 1, 8, solver="richardson-lucy", momentum=(0.0,) + (0.5,) * 7)

    def restored():
        work = Workspace(3, y.shape[1:])
        work.y[...], work.x[...] = y, y
        return restore(work, Spectrum.of(psf.planes, work.shape), numbers).copy()

    direct = restored()
    monkeypatch.setattr(richardson_lucy, "select_convolution", lambda kernel: FOURIER)
    inside = np.s_[:, psf.size : -psf.size, psf.size : -psf.size]
    assert np.abs(direct - restored())[inside].max() < 0.02
