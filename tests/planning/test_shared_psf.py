"""One PSF for several images: estimates that agree are averaged, others do not count, disagreement is an error."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tilepipe.errors import InputError, UncertainPsfError
from tilepipe.planning import shared_psf
from tilepipe.planning.shared_psf import average_of_those_that_agree, estimate_shared_psf
from tilepipe.psf.kernel_ops import align
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta, gaussian, motion
from tilepipe.settings import Settings


def estimate(psf, confidence=0.9):
    return PSF(psf.kernel, {"estimated": True, "confidence": confidence, "nearest": "a blur"})


def noisy(psf, seed, share=0.15):
    """The kernel as an estimate finds it: some taps too strong, others too weak."""
    factors = 1 + share * np.random.default_rng(seed).standard_normal(psf.kernel.shape)
    kernel = np.clip(psf.kernel * factors, 0, None)
    return estimate(PSF((kernel / kernel.sum()).astype(np.float32)))


def distance(psf, truth):
    aligned, _ = align(psf.kernel, truth.kernel)
    size = max(len(aligned), len(truth.kernel))
    one, two = (np.pad(k, (size - len(k)) // 2) for k in (aligned, truth.kernel))
    return float(np.linalg.norm(one - two))


@given(st.integers(0, 2**20))
@settings(max_examples=3, deadline=None)  # half a second each
def test_the_average_is_closer_to_the_truth_than_the_estimates_are(seed):
    check_average(seed)


@pytest.mark.thorough
@given(st.integers(0, 2**20))
@settings(max_examples=15, deadline=None)
def test_the_average_of_many_is_closer_to_the_truth_than_the_estimates_are(seed):
    check_average(seed)


def check_average(seed):
    truth = motion(9, 25)
    found = [noisy(truth, seed + index) for index in range(5)]
    shared = average_of_those_that_agree(found)
    assert distance(shared, truth) < np.mean([distance(one, truth) for one in found])
    assert shared.confidence == pytest.approx(0.9)
    assert shared.kernel.sum() == pytest.approx(1, abs=1e-5)


def test_an_image_that_was_blurred_otherwise_does_not_count():
    truth = motion(11, 0)
    shared = average_of_those_that_agree([estimate(truth), estimate(motion(11, 90), 0.99), estimate(truth, 0.7)])
    assert distance(shared, truth) < 1e-3
    assert shared.confidence == pytest.approx(0.8 * 2 / 3, abs=2e-3)
    assert shared.made_by["images"] == 2


def test_images_without_structure_do_not_count_but_sharp_ones_alone_are_sharp():
    truth = gaussian(1.2)
    assert distance(average_of_those_that_agree([estimate(delta()), estimate(truth), estimate(delta())]), truth) < 1e-3
    assert average_of_those_that_agree([estimate(delta()), estimate(delta())]).is_delta


def test_images_that_share_no_blur_are_refused_unless_forced():
    found = [estimate(motion(15, angle)) for angle in (0, 45, 90, 135)]
    with pytest.raises(UncertainPsfError, match="4 images show blurs of which at most 1 agree"):
        average_of_those_that_agree(found)
    assert average_of_those_that_agree(found, force=True).size >= 15


def test_uncertain_estimates_are_refused_unless_forced():
    found = [estimate(gaussian(2), 0.3), estimate(gaussian(2), 0.1)]
    with pytest.raises(UncertainPsfError, match="no image shows the shared blur"):
        average_of_those_that_agree(found)
    assert average_of_those_that_agree(found, force=True).confidence == pytest.approx(0.2)


def test_a_few_images_of_a_long_list_are_read_and_bad_ones_are_left_out(tmp_path, monkeypatch):
    read, notes = [], []

    def estimate_blur(image, _):
        read.append(image.name)
        if image.name == "0.tif":
            raise InputError("0.tif is truncated")
        return type("Estimate", (), {"psf": estimate(gaussian(1.0)), "inspection": type("No", (), {"spectra": None})})

    monkeypatch.setattr(shared_psf, "estimate_blur", estimate_blur)
    images = [tmp_path / f"{index}.tif" for index in range(1000)]
    psf = estimate_shared_psf(images, Settings(), lambda event: notes.append(event.text))
    assert read[0] == "0.tif"
    assert read[-1] == "999.tif"
    assert len(read) == shared_psf.MOST_IMAGES
    assert "0.tif is not used: 0.tif is truncated" in notes[0]
    assert psf.made_by["images"] == shared_psf.MOST_IMAGES - 1
