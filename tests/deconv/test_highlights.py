"""Clipped samples are known to be bright at least; single outliers are known for what they are."""

import numpy as np
import pytest

from tilepipe.deconv.frames import Spectrum, Workspace, amplification
from tilepipe.deconv.highlights import fade_to_input
from tilepipe.deconv.kernels import data_pass
from tilepipe.deconv.noise import Noise, hidden_noise, quantisation_noise
from tilepipe.deconv.outliers import find_outliers
from tilepipe.deconv.parameters import Parameters
from tilepipe.psf.shapes import gaussian

NUMBERS = Parameters(1e-4, 0.1, 1e-3, 1.0, 5, sigma=0.005)


def test_the_data_step_projects_clipped_samples_on_at_least_white():
    generator = np.random.default_rng(0)
    kx = generator.uniform(0.2, 2.5, (8, 40)).astype(np.float32)
    dual = generator.normal(0, 0.1, kx.shape).astype(np.float32)
    y = np.full_like(kx, np.inf)
    d, source, ones = dual.copy(), kx.copy(), np.ones
    taper = ones(8, np.float32), ones(40, np.float32)
    data_pass(y, d, source, np.float32(1), np.float32(0.1), np.float32(1), np.float32(0), *taper)
    v = np.maximum(kx + dual, 1)
    np.testing.assert_allclose(d, kx + dual - v, atol=1e-6)
    np.testing.assert_allclose(source, v - d - kx, atol=1e-6)


def test_what_is_explained_beside_a_lamp_stays_and_what_is_not_fades_to_the_input():
    psf = gaussian(1.5)
    spectrum = Spectrum.of(psf.kernel, (96, 96))
    for off, faded in ((0.0, False), (0.2, True)):
        work = Workspace(1, (96, 96))
        work.y[...], work.x[...] = 0.3, 0.3 + off
        work.y[0, 44:52, 44:52] = np.inf
        before = work.x.copy()
        fade_to_input(work, spectrum, NUMBERS)
        beside, far = np.s_[0, 48, 40], np.s_[0, 48, 2]
        assert work.x[far] == before[far], "only beside lamps"
        assert (work.x[beside] == pytest.approx(0.3, abs=1e-3)) is (faded or not off)


def test_an_outlier_is_found_and_a_point_of_light_is_not():
    psf = gaussian(1.0)
    picture = np.random.default_rng(0).normal(0.3, 0.005, (60, 60)).astype(np.float32)
    assert find_outliers(picture, psf.kernel, NUMBERS) is None
    middle = psf.size // 2
    picture[20 - middle : 21 + middle, 20 - middle : 21 + middle] += 3 * psf.kernel  # a star
    assert find_outliers(picture, psf.kernel, NUMBERS) is None
    picture[40, 45], picture[10, 50] = 1.0, 0.0
    found = find_outliers(picture, psf.kernel, NUMBERS)
    assert {tuple(place) for place in np.argwhere(found)} == {(40, 45), (10, 50)}


def test_an_outlier_is_not_looked_for_where_the_psf_cannot_tell():
    picture = np.full((20, 20), 0.3, np.float32)
    picture[10, 10] = 1
    assert find_outliers(picture, np.ones((1, 1), np.float32), NUMBERS) is None


def test_hidden_noise_counts_where_the_psf_amplifies_it():
    noise = Noise(0.001, hidden=0.01)
    narrow, wide = amplification(gaussian(0.3).kernel), amplification(gaussian(1.2).kernel)
    assert 1 <= narrow < wide
    assert 0.001 <= noise.expected(narrow).sigma < 0.5 * noise.expected(wide).sigma == 0.005
    assert noise.expected(amplification(np.ones((1, 1), np.float32))).sigma == pytest.approx(0.003)


def test_a_coarser_jpeg_hides_more_and_a_floor_counts_only_so_far():
    steps = [quantisation_noise([step] * 64) for step in (1, 4, 16)]
    assert steps == sorted(steps)
    assert hidden_noise(0.01, 0.0, 0.0) == 0.0
    assert hidden_noise(0.002, 0.05, 0.0) == pytest.approx(0.006), "texture may look like a floor"
