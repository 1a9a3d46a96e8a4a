"""From noise and wishes to numbers: they move the way that a user expects."""

import numpy as np
import pytest

from tilepipe import deconvolve
from tilepipe.deconv.noise import Noise
from tilepipe.planning.schedules import RestorationOptions, candidate_parameters
from tilepipe.psf.shapes import delta, gaussian, motion
from tilepipe.testing import Scene, degrade

PSF = motion(9, 30)


@pytest.fixture(scope="module")
def window():
    return np.ascontiguousarray(np.moveaxis(degrade(Scene(200, 200, seed=2).rows(0, 200), PSF, 0.01), -1, 0))


def first(window, noise=0.01, psf=PSF, **options):
    return candidate_parameters(RestorationOptions(**options), Noise(noise, light=0.3), psf, [window])[0]


def test_more_tolerance_is_more_steps(window):
    steps = [first(window, tolerance=tolerance).steps for tolerance in (0.25, 0.5, 1, 2, 4)]
    assert steps == sorted(steps)
    assert steps[0] < steps[2] < steps[-1]
    lucy = [len(first(window, solver="richardson-lucy", tolerance=t).momentum) for t in (0.5, 1)]
    assert lucy == [20, 40]


def test_better_quality_is_more_steps(window):
    steps = [first(window, quality=quality).passes for quality in ("fast", "normal", "best")]
    assert steps[0] < steps[1] < steps[2]


def test_lambda_falls_with_priority_and_rises_with_noise(window):
    lams = [first(window, priority=priority).lam for priority in (-0.9, 0, 0.9)]
    assert lams == sorted(lams, reverse=True)
    lams = [first(window, noise=noise).lam for noise in (0.001, 0.003, 0.01, 0.03)]
    assert lams == sorted(lams)


def test_what_is_not_blurred_is_only_denoised_and_only_when_asked(window):
    assert first(window, psf=delta(), priority=-1).solver == "cosines"
    assert first(window, psf=delta(), priority=0).solver == "identity"


def test_weights_by_the_light_gain_where_noise_is_shot_noise():
    psf = gaussian(1.5)
    reach = psf.size // 2
    sharp = Scene(512 + 2 * reach, 512 + 2 * reach, seed=5).rows(0, 512 + 2 * reach)
    truth, blurred = sharp[reach:-reach, reach:-reach], degrade(sharp, psf, 0.0)
    shot = np.random.default_rng(2).normal(0, 1, blurred.shape) * 0.03 * np.sqrt(np.clip(blurred, 0, 1))
    seen = (blurred + shot).astype(np.float32)
    found = candidate_parameters(RestorationOptions(), Noise(0.02), psf, [np.moveaxis(seen, -1, 0)])
    assert found[0].slope == 0, "what is not measured is not assumed"
    dark = truth.mean(-1) < 0.1
    error = np.abs(deconvolve(seen, psf) - truth)[dark].mean()
    assert error < 0.6 * np.abs(seen - truth)[dark].mean()


def test_how_richardson_lucy_applies_the_psf_is_said_and_frozen():
    window = np.full((1, 200, 200), 0.5, np.float32)
    for psf, words in ((gaussian(2), "separable, rank 1"), (motion(13, 30), "taps"), (delta(), "")):
        numbers = candidate_parameters(
            RestorationOptions(solver="richardson-lucy"), Noise(0.005, light=0.3), psf, [window]
        )[0]
        assert words in numbers.convolution
    assert (
        candidate_parameters(RestorationOptions(), Noise(0.005, light=0.3), gaussian(2), [window])[0].convolution
        == "Fourier"
    )
