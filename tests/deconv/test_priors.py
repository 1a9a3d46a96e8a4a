"""Shrinkages are the minimisers that their penalties ask for, and the log prior's law is found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe import deconvolve
from tilepipe.deconv.priors import fit_log, shrinkage
from tilepipe.psf.shapes import motion
from tilepipe.testing import Scene, degrade, psnr

PENALTIES = {"sparse": lambda w, s: w ** (2 / 3), "log": lambda w, s: np.log1p((w / s) ** 2)}


@settings(max_examples=30, deadline=None)
@given(
    prior=st.sampled_from(sorted(PENALTIES)),
    tau=st.sampled_from([1e-5, 1e-3, 0.1]),
    scale=st.sampled_from([1e-3, 0.03]),
    at=st.floats(0.01, 0.98),
)
def test_a_tables_entry_costs_as_little_as_the_best_of_a_fine_grid(prior, tau, scale, at):
    table, per_unit = shrinkage(prior, tau, scale)
    index = int(at * (len(table) - 1))
    u = index / per_unit
    grid = np.linspace(0, u, 20_001)

    def cost(w):
        return tau * PENALTIES[prior](w, scale) + (w - u) ** 2 / 2

    assert cost(table[index] * u) <= cost(grid).min() * (1 + 1e-3) + 1e-12


@pytest.mark.parametrize("prior", sorted(PENALTIES))
def test_factors_rise_from_nearly_nothing_to_nearly_all(prior):
    table, _ = shrinkage(prior, 1e-3, 0.01)
    assert (np.diff(table) >= -1e-3).all()
    assert table[-1] > 0.99
    assert table[1] < 0.2


def test_scale_and_exponent_of_known_gradients_are_found():
    generator = np.random.default_rng(4)
    scale, exponent, count = 0.02, 2.0, 20_000
    gradient = scale * generator.standard_normal((2, count)) / np.sqrt(generator.chisquare(2 * exponent - 2, count))
    # pictures of 2 x 2 px, each with one gradient: 0 and gx above, gy below
    pictures = np.zeros((count, 1, 2, 2), np.float32)
    pictures[:, 0, 0, 1], pictures[:, 0, 1, 0] = gradient
    found = fit_log(pictures)
    assert found == (pytest.approx(scale, rel=0.15), pytest.approx(exponent, rel=0.1))


@pytest.mark.parametrize("solver", ["tv", "sparse", "log", "richardson-lucy"])
def test_every_solver_gains_decibels(solver):
    psf = motion(9, 30)
    sharp = Scene(360, 360, seed=3).rows(0, 360)
    blurred = degrade(sharp, psf, 0.005)
    truth = sharp[psf.size // 2 : -(psf.size // 2), psf.size // 2 : -(psf.size // 2)]
    assert psnr(deconvolve(blurred, psf, solver=solver), truth) > psnr(blurred, truth) + 2.5
