"""The nearest simple shape: it knows the shapes wherever they lie, under noise, and says so when there is none."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilepipe.errors import PsfError
from tilepipe.psf import shapes
from tilepipe.psf.shape_fit import ShapeFit, fit_shape

few = settings(max_examples=3, deadline=None)
"""A search takes up to a second."""
many = settings(max_examples=10, deadline=None)

shifts = st.tuples(st.floats(-3, 3), st.floats(-3, 3))
noises = st.floats(0, 0.02)
seeds = st.integers(0, 2**32 - 1)


# --- shapes between the taps, rendered here and not by tilepipe


def gaussian_at(size: int, sigma: float, x: float, y: float) -> np.ndarray:
    offsets = np.arange(size) - size // 2
    return np.outer(np.exp(-((offsets - y) ** 2) / 2 / sigma**2), np.exp(-((offsets - x) ** 2) / 2 / sigma**2))


def disk_at(size: int, radius: float, x: float, y: float) -> np.ndarray:
    fine = (np.arange(size * 10) + 0.5) / 10 - size / 2
    inside = (fine[:, None] - y) ** 2 + (fine - x) ** 2 <= radius**2
    return inside.reshape(size, 10, size, 10).mean((1, 3))


def path_at(size: int, right: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Spread the points of a path bilinearly over the taps."""
    taps = np.arange(size) - size // 2
    columns = np.maximum(0, 1 - np.abs(taps[:, None] - right))
    rows = np.maximum(0, 1 - np.abs(taps[:, None] + up))  # row 0 is the top
    return rows @ columns.T


def line_at(size: int, length: float, angle: float, x: float, y: float) -> np.ndarray:
    along = np.linspace(-(length - 1) / 2, (length - 1) / 2, 2000)
    return path_at(size, along * math.cos(math.radians(angle)) + x, along * math.sin(math.radians(angle)) - y)


def shake(size: int, seed: int) -> np.ndarray:
    """A hand that is pushed at random while the shutter is open."""
    pushes = np.random.default_rng(seed).standard_normal((2, 400))
    path = pushes.cumsum(1).cumsum(1)
    path = path - path.mean(1, keepdims=True)
    path = path / np.abs(path).max() * 0.42 * size
    return path_at(size, *path)


def normalised(kernel: np.ndarray, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Add `noise` times the peak to every tap, as an estimate has it, clip and normalise."""
    noisy = kernel / kernel.max() + noise * np.random.default_rng(seed).standard_normal(kernel.shape)
    noisy = np.maximum(0, noisy)
    return noisy / noisy.sum()


def turn_between(a: float, b: float) -> float:
    """Angle between two lines, degrees."""
    return abs((a - b + 90) % 180 - 90)


# --- what is a simple shape is named, with its parameters


gaussians = given(sigma=st.floats(1.1, 4), shift=shifts, noise=noises, seed=seeds)


@few
@gaussians
def test_a_gaussian_is_named_wherever_it_lies(sigma, shift, noise, seed):
    check_gaussian(sigma, shift, noise, seed)


@pytest.mark.thorough
@many
@gaussians
def test_one_gaussian_of_many_is_named_wherever_it_lies(sigma, shift, noise, seed):
    check_gaussian(sigma, shift, noise, seed)


def check_gaussian(sigma, shift, noise, seed):
    nearest = fit_shape(normalised(gaussian_at(2 * math.ceil(4 * sigma) + 7, sigma, *shift), noise, seed))
    assert nearest.shape == "gaussian"
    assert nearest.parameters["sigma"] == pytest.approx(sigma, rel=0.03)
    assert nearest.fit > 0.98


disks = given(radius=st.floats(2, 8), shift=shifts, noise=noises, seed=seeds)


@few
@disks
def test_a_disk_is_named_wherever_it_lies(radius, shift, noise, seed):
    check_disk(radius, shift, noise, seed)


@pytest.mark.thorough
@many
@disks
def test_one_disk_of_many_is_named_wherever_it_lies(radius, shift, noise, seed):
    check_disk(radius, shift, noise, seed)


def check_disk(radius, shift, noise, seed):
    nearest = fit_shape(normalised(disk_at(2 * math.ceil(radius) + 9, radius, *shift), noise, seed))
    assert nearest.shape == "disk"
    assert nearest.parameters["radius"] == pytest.approx(radius, abs=0.2)  # an area average is a little wider
    assert nearest.fit > 0.98


motions = given(length=st.floats(6, 25), angle=st.floats(0, 180), shift=shifts, noise=noises, seed=seeds)


@few
@motions
def test_a_motion_is_named_wherever_it_lies(length, angle, shift, noise, seed):
    check_motion(length, angle, shift, noise, seed)


@pytest.mark.thorough
@many
@motions
def test_one_motion_of_many_is_named_wherever_it_lies(length, angle, shift, noise, seed):
    check_motion(length, angle, shift, noise, seed)


def check_motion(length, angle, shift, noise, seed):
    kernel = line_at(2 * math.ceil(length / 2) + 9, length, angle, *shift)
    nearest = fit_shape(normalised(kernel, noise, seed))
    assert nearest.shape == "motion"
    assert nearest.parameters["length"] == pytest.approx(length, abs=0.8)
    assert 0 <= nearest.parameters["angle"] < 180
    end = length / 2 * math.radians(turn_between(nearest.parameters["angle"], angle))
    assert end < 0.25, "how far the path's end is off, px"
    assert nearest.fit > 0.96


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("made", "parameters"),
    [
        (shapes.gaussian(2.1), {"sigma": 2.1}),
        (shapes.disk(4.2), {"radius": 4.2}),
        (shapes.motion(11, 34), {"length": 11, "angle": 34}),
        (shapes.motion(6, 120, 25), {"length": 6, "angle": 120}),
        (shapes.gaussian(24), {"sigma": 24}),
        (shapes.disk(100), {"radius": 100}),
        (shapes.motion(220, 80), {"length": 220, "angle": 80}),
    ],
    ids=lambda part: str(part.made_by) if hasattr(part, "made_by") else "",
)
def test_what_psf_make_makes_is_recognised(made, parameters):
    nearest = fit_shape(made.kernel)
    assert nearest.shape == made.made_by["shape"]
    assert nearest.parameters == pytest.approx(parameters, rel=0.01)
    # wide ones are compared at a fraction of their size, where a thin line is but nearly one
    assert nearest.fit > (0.99 if made.size < 200 else 0.93)


@pytest.mark.parametrize("turns", [1, *(pytest.param(turns, marks=pytest.mark.thorough) for turns in (2, 3))])
def test_a_kernel_turned_turns_the_angle_and_nothing_else(turns):
    kernel = normalised(line_at(21, 12, 25, 0.3, -0.4), 0.01)
    upright, turned = fit_shape(kernel), fit_shape(np.rot90(kernel, turns))
    assert turned.parameters["length"] == pytest.approx(upright.parameters["length"], abs=0.1)
    assert turn_between(turned.parameters["angle"], upright.parameters["angle"] + 90 * turns) < 0.5
    assert turned.fit == pytest.approx(upright.fit, abs=0.005)


@pytest.mark.thorough
@few
@given(kind=st.sampled_from(["gaussian", "disk", "line", "shake"]), x=st.integers(0, 10), y=st.integers(0, 10))
def test_a_shift_by_whole_pixels_changes_nothing(kind, x, y):
    kernel = {
        "gaussian": gaussian_at(15, 1.7, 0.5, 0.2),
        "disk": disk_at(15, 4.4, 0.5, 0.5),
        "line": line_at(15, 9, 70, 0.5, 0.5),
        "shake": shake(15, 4),
    }[kind]
    kernel = normalised(kernel, 0.01)
    moved = np.zeros((25, 25))
    moved[y : y + 15, x : x + 15] = kernel
    here, there = fit_shape(kernel), fit_shape(moved)
    assert there.shape == here.shape
    assert there.parameters == pytest.approx(here.parameters, abs=1e-3)
    assert there.fit == pytest.approx(here.fit, abs=1e-5)


# --- no blur


@pytest.mark.parametrize("size", [1, 3, 9, 255])
def test_one_tap_is_no_blur_wherever_it_is(size):
    kernel = np.zeros((size, size))
    kernel[size // 3, -1] = 1
    assert fit_shape(kernel) == ShapeFit("delta", {}, 1.0)


def test_a_tap_between_pixels_is_no_blur():
    assert str(fit_shape(normalised(path_at(9, np.array([0.5]), np.array([1.5]))))) == "no blur; fit 1.00"


@pytest.mark.parametrize("share", [0.975, 0.99])
def test_no_blur_says_how_much_of_the_mass_is_in_the_middle(share):
    kernel = np.full((11, 11), (1 - share) / (121 - 9))
    kernel[4:7, 4:7] = share / 9
    nearest = fit_shape(kernel)
    assert (nearest.shape, nearest.parameters) == ("delta", {})
    assert nearest.fit == pytest.approx(share, abs=1e-5)


def test_less_in_the_middle_is_blur():
    kernel = np.full((11, 11), 0.05 / (121 - 9))
    kernel[4:7, 4:7] = 0.95 / 9
    assert fit_shape(kernel).shape != "delta"
    assert fit_shape(shapes.gaussian(1).kernel).shape == "gaussian"


# --- what is none of them


@pytest.mark.thorough
def test_a_shake_fits_worse_than_a_line():
    lines = [fit_shape(normalised(line_at(31, 20, 40 * seed, 0.2, 0.1), 0.02, seed)) for seed in range(3)]
    shakes = [fit_shape(normalised(shake(31, seed), 0.02, seed)) for seed in range(3)]
    assert {line.shape for line in lines} == {"motion"}
    assert max(shaken.fit for shaken in shakes) < 0.9 < 0.96 < min(line.fit for line in lines)


def test_the_fit_falls_as_a_line_bends():
    fits = []
    for bend in (0.0, 2.0, 5.0):
        along = np.linspace(-1, 1, 2000)
        fits.append(fit_shape(normalised(path_at(31, 10 * along, bend * along**2))).fit)
    assert fits[0] > fits[1] + 0.05 > fits[2] + 0.1


@pytest.mark.thorough
def test_of_two_equals_the_simpler_one_is_named():
    """Between a Gaussian and a disk the name changes where the disk is ahead by 0.005, not before."""

    def between(share: float) -> ShapeFit:
        mixed = (1 - share) * shapes.gaussian(2.5, 25).kernel + share * shapes.disk(5, 25).kernel
        return fit_shape(mixed)

    low, high = 0.3, 1.0
    for _ in range(7):
        middle = (low + high) / 2
        low, high = (low, middle) if between(middle).shape == "disk" else (middle, high)
    assert (between(low).shape, between(high).shape) == ("gaussian", "disk")
    assert between(high).fit - between(low).fit == pytest.approx(0.005, abs=0.002)


@pytest.mark.thorough
@settings(max_examples=15, deadline=None)
@given(
    kernel=hnp.arrays(
        np.float64,
        st.sampled_from([(1, 1), (3, 3), (5, 5), (11, 11), (17, 17)]),
        elements=st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 0.5, 1.0]),
    ).filter(lambda taps: taps.sum() > 0)
)
def test_any_kernel_gets_an_answer(kernel):
    nearest = fit_shape(kernel / kernel.sum())
    assert 0 <= nearest.fit <= 1
    names = {"delta": [], "gaussian": ["sigma"], "disk": ["radius"], "motion": ["length", "angle"]}
    assert list(nearest.parameters) == names[nearest.shape]
    assert all(math.isfinite(value) and value >= 0 for value in nearest.parameters.values())
    json.dumps(nearest.facts())


@pytest.mark.parametrize("kernel", [np.full((4, 4), 1 / 16), np.zeros((3, 3)), np.full((3, 3), np.nan), [[2.0]]])
def test_what_is_no_psf_is_refused(kernel):
    with pytest.raises(PsfError):
        fit_shape(kernel)


# --- how it reads


@pytest.mark.parametrize(
    ("nearest", "text"),
    [
        (ShapeFit("motion", {"length": 11.02, "angle": 33.8}, 0.932), "motion, 11.0 px, 34 degrees; fit 0.93"),
        (ShapeFit("motion", {"length": 11.02, "angle": 179.7}, 0.9), "motion, 11.0 px, 0 degrees; fit 0.90"),
        (ShapeFit("gaussian", {"sigma": 2.1}, 0.98), "gaussian, sigma 2.1 px; fit 0.98"),
        (ShapeFit("gaussian", {"sigma": 0.6}, 0.74), "free form, nearest gaussian, sigma 0.6 px; fit 0.74"),
        (ShapeFit("disk", {"radius": 4.2}, 0.95), "disk, radius 4.2 px; fit 0.95"),
        (ShapeFit("delta", {}, 1.0), "no blur; fit 1.00"),
    ],
)
def test_it_reads_as_one_line(nearest, text):
    assert str(nearest) == text


def test_facts_are_rounded_json():
    facts = ShapeFit("motion", {"length": 11.02345, "angle": 33.81239}, 0.932147).facts()
    assert facts == {"shape": "motion", "parameters": {"length": 11.023, "angle": 33.812}, "fit": 0.9321}
