"""The compiled solver is the textbook, written fast."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.deconv.frames import TAPER, Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.solvers import restore
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import plain_restore

LATERAL = PSF(np.stack([gaussian(sigma, 15).kernel for sigma in (0.8, 1.2, 1.7)]))
"""A lens that blurs red, green and blue differently."""

PSFS = {"motion": motion(9, 25), "gaussian": gaussian(1.5), "disk": disk(3.3)}


def frame(channels, shape, seed, unknown=0.1):
    generator = np.random.default_rng(seed)
    picture = generator.uniform(0, 1, (channels, *shape)).astype(np.float32)
    y = picture.copy()
    y[generator.random(y.shape) < unknown] = np.nan
    return y, picture


def solve(y, start, psf, parameters):
    work = Workspace(y.shape[0], y.shape[1:])
    work.y[...] = y
    work.x[...] = start
    return restore(work, Spectrum.of(psf.planes, work.shape), parameters).copy()


@settings(max_examples=25, deadline=None)
@given(
    channels=st.integers(1, 4),
    height=st.integers(44, 70),
    width=st.integers(44, 70),
    psf=st.sampled_from(sorted(PSFS)),
    steps=st.integers(1, 6),
    unknown=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_solver_equals_the_numpy_reference(channels, height, width, psf, steps, unknown):
    y, start = frame(channels, (height, width), height * width, unknown)
    parameters = Parameters(2e-3, 0.15, 2e-2, 1.5, steps)
    expected = plain_restore(y, start, PSFS[psf], parameters)
    np.testing.assert_allclose(solve(y, start, PSFS[psf], parameters), expected, atol=3e-5)


def test_noise_that_grows_and_closing_steps_equal_the_numpy_reference():
    y, start = frame(3, (48, 52), 5)
    parameters = Parameters(2e-3, 0.15, 2e-2, 1.0, 3, base=0.1, slope=1.8, closing=(2.0, 1.0), low=0.15, high=0.3)
    np.testing.assert_allclose(
        solve(y, start, PSFS["motion"], parameters), plain_restore(y, start, PSFS["motion"], parameters), atol=3e-5
    )


def test_every_channel_is_solved_with_its_own_kernel():
    y, start = frame(3, (52, 60), 3)
    parameters = Parameters(2e-3, 0.15, 2e-2, 1.5, 5)
    solved = solve(y, start, LATERAL, parameters)
    np.testing.assert_allclose(solved, plain_restore(y, start, LATERAL, parameters), atol=3e-5)
    assert np.abs(solved - solve(y, start, PSF(LATERAL.kernel), parameters)).max() > 0.01


def test_a_workspace_used_before_gives_the_same_bytes():
    y, start = frame(3, (60, 54), 1)
    parameters = Parameters(1e-3, 0.1, 1e-2, 1.5, 4)
    spectrum = Spectrum.of(np.asarray(PSFS["motion"].kernel), (60, 54))
    work = Workspace(3, (60, 54))
    results = []
    for _ in range(2):
        work.y[...], work.x[...] = y, start
        results.append(restore(work, spectrum, parameters).tobytes())
        other_y, other_start = frame(3, (60, 54), 2)
        work.y[...], work.x[...] = other_y, other_start
        restore(work, spectrum, parameters)
    assert results[0] == results[1]


def test_the_rim_inside_the_taper_keeps_the_start():
    y, start = frame(1, (64, 64), 3, unknown=0.0)
    x = solve(y, start, PSFS["gaussian"], Parameters(1e-3, 0.1, 1e-2, 1.5, 1))
    assert TAPER == 18
    # the sources vanish there; what little moves comes through the filter's tails
    assert np.abs(x - start)[:, 20:-20, 20:-20].max() > 5 * np.abs(x - start)[:, :1].max()


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        restore(Workspace(1, (50, 50)), Spectrum.of(np.ones((1, 1), np.float32), (50, 52)), Parameters(1, 1, 1, 1, 1))


def test_a_constant_picture_stays_constant():
    y = np.full((1, 64, 64), 0.4, np.float32)
    x = solve(y, y, PSFS["disk"], Parameters(1e-3, 0.1, 1e-2, 1.5, 8))
    np.testing.assert_allclose(x, 0.4, atol=1e-5)


def test_unknown_pixels_are_filled_from_around():
    y = np.full((1, 64, 64), 0.4, np.float32)
    y[0, 30:34, 30:34] = np.nan
    start = np.where(np.isnan(y), np.float32(0.9), y)
    x = solve(y, start, PSFS["gaussian"], Parameters(1e-3, 0.1, 1e-2, 1.5, 30))
    assert abs(x[0, 31, 31] - 0.4) < 0.1  # it began 0.5 away
