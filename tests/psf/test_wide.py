"""Wide kernels: found from small scales up, and known by the ripples of the picture's spectrum."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tilepipe.planning.find_psf import MIN_CONFIDENCE, estimate_psf
from tilepipe.psf.blind.confidence import strong_confidence
from tilepipe.psf.blind.narrow import at_ordinary_contrast, likeness
from tilepipe.psf.blind.ripples import HIGHEST, Ripples
from tilepipe.psf.blind.spectrum import PowerAccumulator
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.blind.wide import WIDEST, Pyramid, WideSearch
from tilepipe.testing import degrade
from tilepipe.testing.scenes import Scene
from tilepipe.testing.shakes import shake

HEIGHT, WIDTH = 560, 640
LENGTHS = (45, 71)


def seen(psf, noise=0.004, seed=8):
    """A made picture and what a shake leaves of it, luminance, (HEIGHT, WIDTH) each."""
    reach = psf.size // 2
    scene = Scene(WIDTH + 2 * reach, HEIGHT + 2 * reach, seed)
    sharp = scene.rows(0, scene.height)
    blurred = degrade(sharp, psf, noise).mean(2)
    return np.ascontiguousarray(sharp.mean(2)[reach:-reach, reach:-reach]), np.ascontiguousarray(blurred)


def power_of(picture):
    accumulator = PowerAccumulator.of_size(*picture.shape)
    accumulator.add(picture, np.ones(picture.shape, bool))
    return accumulator.power()


def error(restored, sharp, reach=6, rim=60):
    """Root mean square difference at the best whole shift."""
    inside = np.s_[rim:-rim, rim:-rim]
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    return min(float(np.sqrt(np.square(np.roll(restored, at, (0, 1)) - sharp)[inside].mean())) for at in shifts)


@pytest.mark.thorough
@pytest.mark.parametrize("length", [pytest.param(LENGTHS[0], marks=pytest.mark.slow), LENGTHS[1]])
def test_a_wide_shake_is_found_without_being_told_its_width(length):
    psf = shake(length, 5)
    sharp, blurred = seen(psf)
    found = estimate_psf(blurred, threads=2)
    assert found.confidence > 0.8
    assert found.size <= WIDEST
    errors = [
        error(Window(blurred, kernel.shape[0]).total_variation(kernel, 5e-4), sharp)
        for kernel in (psf.kernel, found.kernel)
    ]
    assert errors[1] < 1.35 * errors[0], "2.6 dB"
    assert errors[1] < 0.8 * error(blurred, sharp), "the true kernel: 0.79"


@pytest.mark.parametrize("length", [31, *LENGTHS, 91])
def test_only_the_kernel_of_a_picture_has_its_ripples(length):
    true = shake(length, 5)
    ripples = Ripples(power_of(seen(true)[1]), HIGHEST)
    assert ripples.likeness(true.kernel) > 0.7
    others = [shake(length, seed).kernel for seed in (1, 2, 3)] + [np.ascontiguousarray(true.kernel.T)]
    likenesses = [ripples.likeness(kernel) for kernel in others]
    assert all(likeness is not None and likeness < 0.6 for likeness in likenesses)


def test_ripples_do_not_know_a_kernel_from_the_same_one_turned_by_half_a_turn():
    true = shake(45, 5).kernel
    ripples = Ripples(power_of(seen(shake(45, 5))[1]), HIGHEST)
    turned = np.ascontiguousarray(true[::-1, ::-1])
    assert ripples.likeness(turned) == pytest.approx(ripples.likeness(true), abs=1e-6)


def test_a_picture_in_one_piece_has_no_parts_to_compare():
    ripples = Ripples(power_of(seen(shake(31, 5))[1][:200, :200]), HIGHEST)
    assert ripples.likeness(shake(31, 5).kernel) is None


def test_neither_likeness_nor_agreement_alone_makes_sure():
    assert strong_confidence(0.95, 0.95) > 0.95
    assert strong_confidence(0.95, 0.6) < MIN_CONFIDENCE, "right in part, and every way ended elsewhere"
    assert strong_confidence(0.45, 0.9) < MIN_CONFIDENCE, "all ways agree on a path that the spectrum does not know"


@pytest.mark.thorough
def test_the_number_of_threads_changes_nothing():
    (picture,), _ = at_ordinary_contrast([seen(shake(31, 5))[1][:400, :400]], 0.0)
    found = []
    for threads in (1, 3):
        with ThreadPoolExecutor(threads) as pool:
            found.append(WideSearch(picture, lambda kernel: 0.0, pool).at_half_scale(25))
    assert [one.variant for one in found[0]] == [one.variant for one in found[1]]
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.kernel, other.kernel)


def test_a_kernel_in_a_frame_too_wide_is_framed_anew_and_stays_itself():
    (picture,), _ = at_ordinary_contrast([seen(shake(31, 5))[1][:400, :400]], 0.0)
    with ThreadPoolExecutor(2) as pool:
        for one in WideSearch(picture, lambda kernel: 0.0, pool).at_half_scale(25):
            again = one.reframed()
            assert again.frame <= one.frame
            assert again.kernel.shape[0] % 2 == 1
            assert likeness(one.kernel, again.kernel) > 0.99


def test_the_pyramid_keeps_means_and_sizes():
    picture = seen(shake(31, 5))[1]
    pyramid = Pyramid(picture)
    for step in range(6):
        plane = pyramid.at(step)
        assert plane.shape == tuple(pytest.approx(length * 2 ** (-step / 2), abs=1) for length in picture.shape)
        assert plane.mean() == pytest.approx(picture.mean(), rel=0.02)
    np.testing.assert_allclose(pyramid.at(2)[3, 4], picture[6:8, 8:10].mean(), rtol=1e-5)
