"""Tiles equal the whole: within what the plan predicted, and within what anyone can see."""

import numpy as np
import pytest

from benchmarks.seams import measure
from tilepipe.arrays.deconvolve import deconvolve
from tilepipe.arrays.in_memory import restore_planes
from tilepipe.deconv.noise import Noise
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.planning.schedules import CLOSING, SCHEDULES, parameters_at
from tilepipe.planning.seam_error import SEAM_LIMIT
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import Scene, degrade, psnr, restore_whole
from tilepipe.tiling.grid import Grid

RMS_LIMIT = 2.5e-4
UNSEEN = 1 / 4096
FAST = {"quality": "fast"}


def check(seams):
    for seam in seams:
        assert seam.largest <= seam.predicted, seam
        assert seam.largest <= SEAM_LIMIT, seam
        assert seam.rms <= RMS_LIMIT, seam
        assert seam.edge <= max(2 * seam.elsewhere, UNSEEN), seam


@pytest.mark.parametrize(
    ("psf", "noise"), [pytest.param(gaussian(2), 0.005, marks=pytest.mark.thorough), (motion(7, 45), 0.02)]
)
def test_small_scene_has_no_seams(psf, noise):
    check(measure(Scene(800, 640).rows(0, 640), "psf", psf, noise, [200, 333]))


@pytest.mark.slow
@pytest.mark.parametrize("psf", [motion(13, 30), gaussian(2), disk(4)], ids=["motion", "gaussian", "disk"])
@pytest.mark.parametrize("noise", [0.002, 0.005, 0.02])
def test_a_real_picture_has_no_seams(data, psf, noise):
    from benchmarks.pictures import sharp_picture

    check(measure(sharp_picture(2000, 1500)[0], "psf", psf, noise, [384, 700]))


def test_a_halo_too_small_is_found_out():
    """The comparison can fail: without a halo the seams are there."""
    psf = motion(13, 0)
    planes = np.moveaxis(degrade(Scene(500, 400).rows(0, 400), psf, 0.005), -1, 0).copy()
    parameters = parameters_at(SCHEDULES["normal"][0], CLOSING["normal"], Noise(0.005), 8.5)
    whole = restore_whole(planes, planes, psf, parameters, 160)
    height, width = planes.shape[1:]
    bare = restore_planes(planes, planes, (np.inf,) * len(planes), psf, parameters, Grid(height, width, 200, 16))
    assert np.abs(bare - whole).max() > 10 * SEAM_LIMIT


def test_file_and_array_are_restored_alike(small, tmp_path):
    """The tiles of the file path and `deconvolve` differ by the noise sample only."""
    from tilepipe.image.light import SRGB, Light
    from tilepipe.image.readers import open_image

    plan = make_plan(
        small / "blurred.tif", tmp_path / "out.tif", psf=small / "psf.tif", cache=str(tmp_path / "c"), **FAST
    )
    plan.run()
    source, written = open_image(small / "blurred.tif"), open_image(tmp_path / "out.tif")
    light = Light((SRGB,) * 3, "uint16")
    try:
        image, result = (
            np.stack([light.linear(c, reader.rows(0, 700)[:, :, c]) for c in range(3)], -1)
            for reader in (source, written)
        )
    finally:
        source.close()
        written.close()
    assert psnr(np.clip(deconvolve(image, plan.psf, **FAST), 0, 1), result) > 45


@pytest.mark.parametrize(("psf", "gain"), [(motion(9, 30), 4.0), (gaussian(1.5), 1.5), (disk(3), 3.0)])
def test_restoring_gains_decibels(psf, gain):
    sharp = Scene(400, 400).rows(0, 400)
    blurred = degrade(sharp, psf, 0.005)
    reach = psf.size // 2
    truth = sharp[reach:-reach, reach:-reach]
    restored = deconvolve(blurred, psf)
    assert psnr(restored, truth) - psnr(blurred, truth) > gain


def test_gray_pictures_nan_and_deltas():
    psf = gaussian(1.5)
    gray = degrade(Scene(300, 300).rows(0, 300), psf, 0.005)[:, :, 1]
    spoiled = gray.copy()
    spoiled[100:103, 50:60] = np.nan
    restored = deconvolve(spoiled, psf)
    assert restored.shape == gray.shape
    np.testing.assert_array_equal(np.isfinite(restored), np.isfinite(spoiled))
    clean = deconvolve(gray, psf)
    assert np.abs(restored - clean)[150:, 150:].max() < 0.01
    np.testing.assert_array_equal(deconvolve(gray, np.ones((1, 1))), gray)
