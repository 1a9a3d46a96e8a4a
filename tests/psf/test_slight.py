"""Slight blur is found in the whole picture, and a strong blur is not mistaken for one."""

import io
import itertools

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from tilepipe.image.light import SRGB, Light
from tilepipe.planning.find_psf import estimate_psf
from tilepipe.planning.inspection import inspect_array
from tilepipe.psf.blind.edge_width import measure_edges
from tilepipe.psf.blind.ripples import HIGHEST, Ripples
from tilepipe.psf.blind.slight import measure_slight_blur, slight_psf
from tilepipe.psf.blind.spectrum import PowerAccumulator, fit_spectrum
from tilepipe.psf.shapes import disk, elliptical_gaussian, gaussian
from tilepipe.testing import degrade
from tilepipe.testing.scenes import Photograph
from tilepipe.testing.shakes import shake

CODES = Light((SRGB,) * 3, "uint8")
SEEDS = (3, 4)


def photograph(sigma, noise=0.003, seed=3, width=640, height=480):
    return Photograph(width, height, sigma, noise, seed).rows(0, height)


def as_jpeg(picture, quality):
    codes = np.stack([CODES.encoded(c, np.ascontiguousarray(picture[..., c]), "uint8") for c in range(3)], -1)
    file = io.BytesIO()
    Image.fromarray(codes).save(file, "JPEG", quality=quality, subsampling=0)
    decoded = np.asarray(Image.open(file))
    return np.stack([CODES.linear(c, decoded[..., c]) for c in range(3)], -1)


def found(picture):
    look = inspect_array(picture.astype(np.float32), None, None)
    return measure_slight_blur(look.power, look.noise, look.edges)


def power_of(picture):
    accumulator = PowerAccumulator()
    mean = np.ascontiguousarray(picture.mean(-1), np.float32)
    accumulator.add(mean, mean < 0.98)
    return accumulator.power()


ALWAYS = {(0.6, 0.002, 92), (1.1, 0.002, None)}
"""Of the widths, noises and qualities below, those that are tried in every run of the tests."""


@pytest.mark.parametrize(
    ("sigma", "noise", "quality"),
    [
        pytest.param(*case, marks=() if case in ALWAYS else pytest.mark.thorough)
        for case in itertools.product((0.6, 0.8, 1.1, 1.5), (0.002, 0.01), (None, 92))
    ],
)
def test_the_width_of_a_slight_blur_is_found_and_never_taken_for_much_wider(sigma, noise, quality):
    for seed in SEEDS:
        picture = photograph(sigma, noise, seed)
        blur = found(picture if quality is None else as_jpeg(picture, quality))
        assert -0.3 < blur.sigma - sigma < 0.15
        assert blur.explains or sigma > 1.2


@pytest.mark.parametrize("quality", [None, pytest.param(92, marks=pytest.mark.thorough), 75])
def test_a_sharp_photograph_is_sharp(quality):
    for seed in SEEDS:
        picture = photograph(0.0, 0.003, seed)
        assert estimate_psf(picture if quality is None else as_jpeg(picture, quality)).is_delta


def test_a_small_disk_is_told_from_a_gaussian():
    sharp = photograph(0.0, 0.0, width=700, height=500)
    blur = found(degrade(sharp, disk(2.5), 0.003))
    assert blur.radius == pytest.approx(2.5, abs=0.15)


def test_an_elliptical_blur_keeps_its_axes():
    sharp = photograph(0.0, 0.0, width=900, height=700)
    blur = found(degrade(sharp, elliptical_gaussian(1.5, 0.7, 30), 0.002))
    stretch, angle = blur.stretch
    assert np.degrees(angle) % 180 == pytest.approx(30, abs=12)
    assert np.sqrt(blur.variance + stretch) > 1.6 * np.sqrt(max(blur.variance - stretch, 0.01))


def test_colours_that_are_blurred_differently_get_kernels_of_their_own():
    sharp = photograph(0.0, 0.0, width=900, height=700)
    widths = (0.6, 0.9, 1.5)
    seen = np.stack([scipy.ndimage.gaussian_filter(sharp[..., c], width) for c, width in enumerate(widths)], -1)
    seen += np.random.default_rng(1).normal(0, 0.002, seen.shape)
    psf = estimate_psf(seen.astype(np.float32))
    assert len(psf.planes) == 3
    assert psf.made_by["sigma"][0] < psf.made_by["sigma"][1] < psf.made_by["sigma"][2]


def test_what_is_left_on_purpose_is_left():
    blur = found(photograph(1.1))
    left = slight_psf(blur, 0.35)
    assert left.facts()["spread"][0] == pytest.approx(np.sqrt(blur.variance - 0.35**2), rel=0.05)
    assert slight_psf(blur, blur.sigma + 0.1) is None, "there is more left than there is"


def test_edges_say_the_width_where_there_is_nothing_else():
    bars = np.repeat(np.repeat(np.random.default_rng(0).integers(0, 2, (12, 12)), 24, 0), 24, 1) * 0.7 + 0.1
    for sigma in (0.8, 1.2):
        seen = scipy.ndimage.gaussian_filter(bars, sigma).astype(np.float32)
        edges = measure_edges([(seen, np.ones(seen.shape, bool))], 0.001)
        assert edges.count > 100
        assert np.sqrt(edges.variance) == pytest.approx(sigma, abs=0.15)


def test_the_survey_of_a_picture_is_the_same_whatever_bands_it_comes_in():
    picture = photograph(0.8).mean(-1)
    usable = np.ones(picture.shape, bool)
    whole, twice = PowerAccumulator(), PowerAccumulator()
    whole.add(picture, usable)
    twice.add(picture[:, :384], usable[:, :384])
    twice.add(picture[:, 320:], usable[:, 320:])
    np.testing.assert_allclose(whole.power().rings, twice.power().rings, rtol=0.1)
    assert fit_spectrum(whole.power(), 0.003).width == pytest.approx(fit_spectrum(twice.power(), 0.003).width, abs=0.03)


@pytest.mark.parametrize("length", [pytest.param(9, marks=pytest.mark.thorough), 21, 41])
def test_a_shake_ripples_the_spectrum_and_only_its_own_kernel_calms_it(length):
    sharp = photograph(0.0, 0.0, width=800, height=600)
    true, wrong = shake(length, 5), shake(length, 6)
    ripples = Ripples(power_of(degrade(sharp, true, 0.003)), HIGHEST)
    assert ripples.simple > ripples.limit
    right = ripples.explained(true.kernel)
    assert right > 0.8
    assert ripples.explained(wrong.kernel) < right - 0.4


@pytest.mark.parametrize("sigma", [0.0, 0.9])
def test_a_photograph_without_a_strong_blur_is_calm(sigma):
    power = power_of(photograph(sigma))
    kernel = gaussian(sigma).kernel if sigma else None
    ripples = Ripples(power, HIGHEST, kernel)
    assert ripples.simple < ripples.limit


def test_a_picture_too_small_for_a_spectrum_says_so():
    assert power_of(photograph(0.9, width=120, height=120)) is None
    blur = measure_slight_blur(None, 0.003, None)
    assert not np.isfinite(blur.variance)
    assert not blur.explains
