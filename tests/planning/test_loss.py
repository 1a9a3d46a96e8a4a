"""The loss that is predicted for softer parameters is the true one; windows too small for it give way to a scene."""

import imagecodecs
import numpy as np
import pytest
import scipy.signal

from tilepipe.deconv.noise import Noise
from tilepipe.image.light import SRGB
from tilepipe.planning.loss import ReducedImage
from tilepipe.planning.schedules import RestorationOptions, candidate_parameters
from tilepipe.planning.seam_error import SyntheticScene, restore_window
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing.shakes import shake

SIGMA = 0.005


def seen_and_sharp(path, psf):
    """Blurred and noisy, and sharp, both (c, h, w), linear light."""
    wide = np.moveaxis(SRGB.decode(imagecodecs.imread(path)[:400, :400] / 255.0), -1, 0).astype(np.float32)
    blurred = np.stack([scipy.signal.fftconvolve(plane, psf.kernel, "valid") for plane in wide])
    rim = psf.size // 2
    noisy = blurred + np.random.default_rng(5).normal(0, SIGMA, blurred.shape)
    return noisy.astype(np.float32), wide[:, rim:-rim, rim:-rim]


@pytest.mark.parametrize(
    ("picture", "psf"),
    [("08", motion(13, 30)), ("05", shake(11, 2)), ("23", gaussian(2))],
    ids=["line", "shake", "gaussian"],
)
def test_the_predicted_loss_is_that_of_the_image(picture, psf, data):
    seen, sharp = seen_and_sharp(data / "kodak" / f"kodim{picture}.png", psf)
    candidates = candidate_parameters(RestorationOptions(), Noise(SIGMA), psf, [seen])
    reduced = ReducedImage([seen], np.zeros((9, 9), np.float32), psf.planes, candidates[0])

    def true_decibels(parameters):
        error = (restore_window(seen, psf.planes, parameters) - sharp)[:, 20:-20, 20:-20]
        return -10 * np.log10(np.mean(error**2))

    for softer in candidates[2:6:3]:
        true = true_decibels(candidates[0]) - true_decibels(softer)
        predicted = reduced.decibels(candidates[0]) - reduced.decibels(softer)
        assert predicted == pytest.approx(true, rel=0.5, abs=0.25)


def test_windows_too_small_give_way_to_the_scene():
    psf = motion(9, 30)
    scene = SyntheticScene(psf.kernel, SIGMA, size=300)
    parameters = candidate_parameters(RestorationOptions(), Noise(SIGMA), psf, [scene.blurred[None]])
    small = np.full((3, 100, 300), 0.5, np.float32)
    both = [ReducedImage(windows, scene.sharp, psf.planes, parameters[0]) for windows in ([small], [])]
    assert both[0].decibels(parameters[0]) == both[1].decibels(parameters[0])
    assert both[0].decibels(parameters[-1]) < both[0].decibels(parameters[0]) - 1
