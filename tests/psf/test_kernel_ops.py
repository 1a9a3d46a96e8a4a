"""Housekeeping keeps what matters of a kernel: its mass, its place, its shape."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.psf import kernel_ops as tidy
from tilepipe.psf.shapes import disk, gaussian, motion

quick = settings(max_examples=60, deadline=None)

seeds = st.integers(0, 2**32 - 1)
odd = st.integers(1, 8).map(lambda half: 2 * half + 1)
far = st.integers(-6, 6)


def blob(size, seed, around=0):
    """Random taps, sum 1, with `around` px of nothing on every side."""
    kernel = np.random.default_rng(seed).random((size, size), np.float32) ** 4
    return np.pad(kernel / kernel.sum(), around)


def centre_of_mass(kernel):
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    kernel = kernel.astype(float)
    return (kernel.sum(1) @ offsets) / kernel.sum(), (kernel.sum(0) @ offsets) / kernel.sum()


def spread(kernel):
    offsets = np.arange(kernel.shape[0]) - kernel.shape[0] // 2
    y, x = centre_of_mass(kernel)
    return math.sqrt(kernel.sum(1) @ (offsets - y) ** 2), math.sqrt(kernel.sum(0) @ (offsets - x) ** 2)


@quick
@given(size=odd, seed=seeds, other=odd, factor=st.floats(0.5, 2), whole=st.booleans())
def test_whatever_comes_out_is_a_kernel(size, seed, other, factor, whole):
    kernel = blob(size, seed)
    results = {
        "normalised": tidy.normalised(kernel * 7),
        "delta_kernel": tidy.delta_kernel(size),
        "prune": tidy.prune(kernel, 0.1, 0.05),
        "centre": tidy.centre(kernel, whole=whole),
        "resize": tidy.resize(kernel, other, factor),
        "fit_to": tidy.fit_to(kernel, other),
        "centre_in": tidy.centre_in(kernel, other),
        "align": tidy.align(kernel, blob(other, seed + 1))[0],
    }
    sizes = {"resize": other, "fit_to": other, "centre_in": other, "align": max(size, other)}
    for name, result in results.items():
        assert result.shape == (sizes.get(name, size),) * 2, name
        assert result.dtype == np.float32, name
        assert result.min() >= 0, name
        assert result.sum() == pytest.approx(1, abs=1e-5), name


def is_delta(kernel):
    middle = kernel.shape[0] // 2
    return kernel[middle, middle] == 1 and np.count_nonzero(kernel) == 1


@quick
@given(size=odd)
def test_an_empty_kernel_becomes_no_blur(size):
    empty = np.zeros((size, size), np.float32)
    for kernel in (tidy.delta_kernel(size), tidy.normalised(empty), tidy.prune(empty, 0.05, 0.02)):
        assert kernel.shape == (size, size)
        assert is_delta(kernel)
    broken = empty.copy()
    broken[0, 0] = np.nan
    assert is_delta(tidy.normalised(broken))
    assert is_delta(tidy.resize(empty, size, 1.4))


# --- pruning


@quick
@given(size=odd, seed=seeds, floor=st.floats(0, 1))
def test_pruning_drops_the_taps_below_the_floor_and_keeps_the_others_proportions(size, seed, floor):
    kernel = blob(size, seed)
    pruned = tidy.prune(kernel, floor)
    kept = kernel >= np.float32(floor) * kernel.max()
    np.testing.assert_allclose(pruned, kernel * kept / kernel[kept].sum(), rtol=1e-4)


def test_pruning_drops_specks_and_keeps_the_big_pieces():
    path = np.pad(np.asarray(motion(9, 45).kernel), 6)
    specked = path.copy()
    specked[1, 1] = specked[2, 18:20] = specked[19, 2] = 0.01
    np.testing.assert_allclose(tidy.prune(specked, 0.0, mass=0.05), path, atol=1e-6)
    np.testing.assert_allclose(tidy.prune(specked, 0.0), specked / specked.sum(), atol=1e-6)
    second = path.copy()
    second[2, 18:20] = 0.2
    pruned = tidy.prune(second, 0.0, mass=0.05)
    np.testing.assert_allclose(pruned, second / second.sum(), atol=1e-6, err_msg="a big piece stays, though apart")


def test_taps_that_touch_at_a_corner_are_one_piece():
    diagonal = np.eye(15, dtype=np.float32) / 15
    specked = diagonal.copy()
    specked[2, 11:13] = 0.05
    np.testing.assert_allclose(tidy.prune(specked, 0.0, mass=0.3), diagonal, atol=1e-6)


def test_pruning_leaves_a_kernel_of_nothing_but_specks():
    specks = np.zeros((15, 15), np.float32)
    specks[::4, ::4] = 1 / 16
    np.testing.assert_allclose(tidy.prune(specks, 0.0, mass=0.2), specks, atol=1e-6)


# --- place


@quick
@given(size=odd, seed=seeds, down=far, right=far)
def test_centring_by_whole_pixels_moves_the_taps_unchanged_to_within_half_a_pixel(size, seed, down, right):
    kernel = np.roll(blob(size, seed, around=12), (down, right), (0, 1))
    centred = tidy.centre(kernel, whole=True)
    assert np.abs(centre_of_mass(centred)).max() <= 0.5 + 1e-4
    np.testing.assert_allclose(np.sort(centred, None), np.sort(kernel, None), atol=1e-6)


@quick
@given(size=odd, seed=seeds, down=far, right=far)
def test_centring_by_parts_of_pixels_is_exact(size, seed, down, right):
    kernel = np.roll(blob(size, seed, around=12), (down, right), (0, 1))
    centred = tidy.centre(kernel, whole=False)
    assert centre_of_mass(centred) == pytest.approx((0, 0), abs=1e-3)


@quick
@given(size=odd, seed=seeds, down=far, right=far)
def test_a_whole_pixel_shift_is_found_and_undone(size, seed, down, right):
    kernel = blob(size, seed, around=7)
    moved = np.roll(kernel, (down, right), (0, 1))
    aligned, likeness = tidy.align(moved, kernel)
    np.testing.assert_allclose(aligned, kernel, atol=1e-6)
    assert likeness == pytest.approx(1, abs=1e-4)


@quick
@given(size=odd, other=odd, seed=seeds)
def test_likeness_is_symmetric_and_below_one_for_different_kernels(size, other, seed):
    one, two = blob(size, seed), blob(other, seed + 1)
    likeness = tidy.align(one, two)[1]
    assert 0 < likeness < 1
    assert tidy.align(two, one)[1] == pytest.approx(likeness, abs=1e-4)


def kept_by(crop, kernel):
    """Return the mass of the crop of `kernel` that `crop` is, before it was scaled to sum 1."""
    parts = np.lib.stride_tricks.sliding_window_view(np.pad(kernel, crop.shape[0]), crop.shape)
    masses = parts.sum((2, 3))
    same = np.abs(parts - crop * masses[..., None, None]).max((2, 3)) < 1e-6
    assert (same & (masses > 0.01)).any(), "this is no crop of the kernel"
    return float(masses[same].max())


@settings(max_examples=40, deadline=None)
@given(size=st.sampled_from([3, 5, 9, 13]), seed=seeds, wanted=st.sampled_from([5, 7, 9]), down=far, right=far)
def test_centring_in_a_frame_never_cuts_off_more_than_the_centred_crop(size, seed, wanted, down, right):
    kernel = np.roll(blob(size, seed, around=8), (down, right), (0, 1))
    plain = tidy.centre(kernel, whole=True)
    edge = (plain.shape[0] - wanted) // 2
    plain = plain[edge : edge + wanted, edge : edge + wanted]
    assert kept_by(tidy.centre_in(kernel, wanted), kernel) >= plain.sum() - 1e-5


@quick
@given(seed=seeds, down=far, right=far)
def test_centring_in_a_frame_with_room_is_plain_centring(seed, down, right):
    kernel = np.roll(blob(5, seed, around=8), (down, right), (0, 1))
    placed = tidy.centre_in(kernel, 15)
    assert np.abs(centre_of_mass(placed)).max() <= 0.5 + 1e-4
    assert kept_by(placed, kernel) == pytest.approx(1, abs=1e-5)


def test_a_tail_is_kept_by_leaving_the_middle():
    comet = np.zeros((15, 15), np.float32)
    comet[7, 3:5] = 0.4
    comet[7, 5:12] = 0.2 / 7
    placed = tidy.centre_in(comet, 11)
    np.testing.assert_allclose(placed[5][placed[5] > 0], comet[7, 3:12], atol=1e-6)
    centred = tidy.fit_to(tidy.centre(comet, whole=True), 11)
    assert np.count_nonzero(centred) < 9, "the centred crop cuts the tail"


# --- size


@quick
@given(sigma=st.floats(1.5, 3), factor=st.floats(0.7, 1.5), down=far, right=far)
def test_resizing_scales_the_place_and_the_spread(sigma, factor, down, right):
    kernel = np.roll(np.pad(np.asarray(gaussian(sigma).kernel), 8), (down, right), (0, 1))
    resized = tidy.resize(kernel, 71, factor)
    assert centre_of_mass(resized) == pytest.approx((down * factor, right * factor), abs=0.02)
    assert spread(resized) == pytest.approx((sigma * factor, sigma * factor), rel=0.02)


@quick
@given(size=odd, seed=seeds, more=st.integers(0, 6))
def test_a_kernel_fitted_to_a_larger_frame_and_back_is_itself(size, seed, more):
    kernel = blob(size, seed)
    wide = tidy.fit_to(kernel, size + 2 * more)
    assert centre_of_mass(wide) == pytest.approx(centre_of_mass(kernel), abs=1e-4)
    np.testing.assert_allclose(tidy.fit_to(wide, size), kernel, atol=1e-7)


# --- numbers

ROUND_AND_LONG = [gaussian(1.3), gaussian(2), disk(2), disk(3.3), disk(6.5), motion(11, 0), motion(13, 30)]


@pytest.mark.parametrize("psf", ROUND_AND_LONG, ids=lambda psf: "-".join(map(str, psf.made_by.values())))
@pytest.mark.parametrize("share", [0.005, 0.1])
def test_extent_is_the_narrowest_square_that_holds_all_but_the_share(psf, share):
    kernel = np.pad(np.asarray(psf.kernel), 4)
    width = tidy.extent(kernel, share)
    offset = np.abs(np.arange(kernel.shape[0]) - kernel.shape[0] // 2)
    reach = np.maximum.outer(offset, offset)
    assert width % 2 == 1
    assert kernel[reach > width // 2].sum() <= share + 1e-6
    assert kernel[reach > width // 2 - 1].sum() > share - 1e-6
    assert tidy.extent(np.pad(kernel, 5), share) == width, "an empty rim changes nothing"


def test_extent_of_known_shapes():
    assert tidy.extent(tidy.delta_kernel(9)) == 1
    assert tidy.extent(np.asarray(motion(11, 0, 21).kernel)) in (9, 11)
    assert tidy.extent(np.asarray(disk(5, 21).kernel)) in (9, 11)
    assert tidy.extent(np.full((9, 9), 1 / 81, np.float32)) == 9


@pytest.mark.parametrize(("size", "rim"), [(5, 1), (13, 1), (15, 2), (31, 2)])
def test_border_mass_is_the_share_of_the_outer_rings(size, rim):
    even = np.full((size, size), 1 / size**2, np.float32)
    expected = 1 - (size - 2 * rim) ** 2 / size**2
    assert tidy.border_mass(even) == pytest.approx(expected, abs=1e-5)
    assert tidy.border_mass(even * 3) == pytest.approx(expected, abs=1e-5)
    assert tidy.border_mass(tidy.fit_to(even, size + 2 * rim + 2)) == pytest.approx(0, abs=1e-5)


def test_border_mass_tells_a_kernel_that_fits_from_one_that_does_not():
    kernel = np.asarray(gaussian(3).kernel)
    assert tidy.border_mass(kernel) < 0.01
    assert tidy.border_mass(tidy.fit_to(kernel, 9)) > 0.2


@quick
@given(down=far, right=far)
def test_core_mass_tells_sharp_from_blurred_wherever_it_lies(down, right):
    def core(psf):
        return tidy.core_mass(np.roll(np.pad(np.asarray(psf.kernel), 8), (down, right), (0, 1)))

    assert core(gaussian(0.4)) > 0.99
    within = math.erf(1.5 / 2 / math.sqrt(2)) ** 2  # of sigma 2, three taps a side
    assert core(gaussian(2)) == pytest.approx(within, rel=0.03)
    assert core(disk(5)) == pytest.approx(9 / (math.pi * 25), rel=0.08)
    assert core(motion(11, 0)) == pytest.approx(3 / 11, rel=0.1)


def test_core_mass_of_no_blur_is_one():
    assert tidy.core_mass(tidy.delta_kernel(7)) == 1
    assert tidy.core_mass(tidy.delta_kernel(1)) == 1
