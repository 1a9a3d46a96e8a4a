"""The halo follows from a measurement, and the measurement from PSF, noise and steps."""

import numpy as np
import pytest

from tilepipe.deconv.noise import Noise
from tilepipe.planning.schedules import CLOSING, SCHEDULES, parameters_at
from tilepipe.planning.seam_error import HALO_STEP, MAX_HALO, SEAM_LIMIT, Profile, SyntheticScene, measure_profile
from tilepipe.psf.shapes import gaussian, motion


def profile_of(psf, noise):
    kernel = np.asarray(psf.kernel)
    scene = SyntheticScene(kernel, noise, size=720)
    return measure_profile(
        kernel, parameters_at(SCHEDULES["normal"][0], CLOSING["normal"], Noise(noise), 8.5), [], scene, 16
    )


@pytest.fixture(scope="module")
def profiles():
    return {
        "gaussian": profile_of(gaussian(2), 0.005),
        "motion": profile_of(motion(13, 0), 0.005),
        "noisy motion": profile_of(motion(13, 0), 0.02),
    }


def test_error_never_rises_with_depth(profiles):
    for profile in profiles.values():
        assert all(a >= b for a, b in zip(profile.error, profile.error[1:], strict=False))


def test_halo_differs_with_psf_and_noise(profiles):
    halos = {name: profile.halo() for name, profile in profiles.items()}
    assert halos["gaussian"] < halos["noisy motion"] < halos["motion"] <= MAX_HALO
    assert all(halo % HALO_STEP == 0 for halo in halos.values())


def test_halo_is_the_smallest_within_the_limit():
    profile = Profile((0.5, 0.1, 0.01, 0.003, 0.001))
    assert profile.halo(SEAM_LIMIT) == 48
    assert profile.halo(1e-6) is None
    assert profile.predict(40, 10**6) == pytest.approx(0.01)
    assert profile.predict(10_000, 10**6) == pytest.approx(0.001)


def test_shorter_seams_are_predicted_to_show_less():
    profile = Profile((0.5, 0.1, 0.01))
    predicted = [profile.predict(32, length) for length in (0, 1000, 5000, 13_500, 10**6)]
    assert predicted == sorted(predicted)
    assert predicted[0] < 2e-4
    assert predicted[-1] == predicted[-2] == pytest.approx(0.01)


def test_the_scene_is_the_same_every_time():
    kernel = np.asarray(gaussian(1).kernel)
    a, b = (SyntheticScene(kernel, 0.01, size=200) for _ in range(2))
    assert a.blurred.tobytes() == b.blurred.tobytes()
