"""What a photographer keeps: the slider does what it says, nothing is harmed, no halos, no colour noise."""

import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
import tifffile

import tilepipe
from tilepipe import deconvolve
from tilepipe.errors import SettingsError
from tilepipe.image.light import SRGB, Light
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta, disk, gaussian, motion
from tilepipe.testing import Scene, degrade, psnr

PRIORITIES = (-1, -0.5, 0, 0.5, 1)


def fine(picture):
    return picture - scipy.ndimage.gaussian_filter(picture, (2, 2, 0))


@pytest.fixture(scope="module")
def slider():
    """Noise and share of the detail that come out, for every priority."""
    psf = gaussian(1.5)
    reach, rim = psf.size // 2, 20
    texture = np.random.default_rng(5).normal(0, 0.03, (260, 260, 1))
    sharp = (Scene(260, 260, seed=2).rows(0, 260) + texture).astype(np.float32)
    detail = fine(sharp[reach:-reach, reach:-reach])[rim:-rim, rim:-rim]
    blurred = degrade(sharp, psf, 0.0)
    seen = [
        (blurred + np.random.default_rng(seed).normal(0, 0.02, blurred.shape)).astype(np.float32) for seed in (1, 2)
    ]
    noises, shares = [], []
    for priority in PRIORITIES:
        one, other = (deconvolve(picture, psf, priority)[rim:-rim, rim:-rim] for picture in seen)
        noises.append(float((one - other).std()) / np.sqrt(2))
        shares.append(float((fine((one + other) / 2) * detail).sum() / (detail**2).sum()))
    return noises, shares


def test_noise_rises_with_the_priority(slider):
    noises, _ = slider
    assert noises == sorted(noises)
    assert noises[0] < 0.3 * noises[-1]


def test_detail_rises_with_the_priority(slider):
    _, shares = slider
    assert shares == sorted(shares)
    assert shares[0] < 0.25 < 0.45 < shares[-1], "the first does not deblur at all"


def convolve_known(sharp, psf, noise, seed=1):
    """Blur with the picture mirrored at its borders, and add noise; the size stays."""
    reach = psf.size // 2
    wide = np.pad(sharp, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    return degrade(wide.astype(np.float32), psf, 0.0) + np.random.default_rng(seed).normal(
        0, noise, sharp.shape
    ).astype(np.float32)


@pytest.mark.parametrize(("true", "taken"), [(gaussian(1.5), gaussian(1.65)), (gaussian(3), gaussian(3.3))])
def test_a_psf_ten_per_cent_too_wide_rings_by_less_than_three_per_cent(true, taken):
    sharp = np.full((200, 220, 3), 0.2, np.float32)
    sharp[:, 110:] = 0.6
    profile = deconvolve(convolve_known(sharp, true, 0.005), taken)[40:-40].mean((0, 2))
    assert profile[115:190].max() < 0.6 + 0.03 * 0.4
    assert profile[30:105].min() > 0.2 - 0.03 * 0.4


@pytest.mark.parametrize("psf", [gaussian(2), motion(13, 30), disk(5)], ids=["gaussian", "motion", "disk"])
def test_no_dark_ring_round_a_lamp_six_times_too_bright(psf, tmp_path):
    rows, columns = np.mgrid[:220, :220]
    distance = np.hypot(rows - 110, columns - 110)
    sharp = np.full((220, 220, 3), 0.2, np.float32)
    sharp[distance < 25] = 6.0
    restored, _ = through_files(np.clip(convolve_known(sharp, psf, 0.002), 0, 1), psf, tmp_path)
    assert restored[(distance > 26) & (distance < 70)].min() > 0.2 - 0.02


def through_files(linear, psf, folder, **flags):
    """Write, run, read: restored and seen, linear light, and the codes of both."""
    light = Light((SRGB,) * 3, "uint16")
    codes = np.stack([light.encoded(c, linear[..., c].astype(np.float32), "uint16") for c in range(3)], -1)
    tifffile.imwrite(folder / "in.tif", codes, photometric="rgb", metadata=None)
    tilepipe.plan(folder / "in.tif", folder / "out.tif", psf=psf, cache=str(folder / "c"), **flags).run()
    written = tifffile.imread(folder / "out.tif")
    return np.stack([light.linear(c, written[..., c]) for c in range(3)], -1), (codes, written)


@pytest.mark.parametrize("psf", [gaussian(2), motion(13, 30)], ids=["gaussian", "motion"])
def test_colour_noise_never_grows(psf):
    seen = 0.4 + np.random.default_rng(1).normal(0, 0.01, (200, 200, 3)).astype(np.float32)
    restored = deconvolve(seen, psf)

    def chroma(picture):
        inside = picture[30:-30, 30:-30]
        return float((inside - inside.mean(-1, keepdims=True)).std())

    assert chroma(restored) < 0.5 * chroma(seen)


def test_a_sharp_picture_with_next_to_no_blur_stays_what_it_was():
    sharp = Scene(300, 300, seed=7).rows(0, 300)
    assert psnr(np.clip(deconvolve(sharp, gaussian(0.2)), 0, 1), sharp) > 45
    np.testing.assert_array_equal(deconvolve(sharp, delta()), sharp)


@pytest.mark.parametrize("psf", [gaussian(2), motion(13, 30), disk(5)], ids=["gaussian", "motion", "disk"])
def test_the_border_is_restored_like_the_middle(psf):
    reach, rim = psf.size // 2, psf.size
    sharp = Scene(300, 300, seed=7).rows(0, 300)
    truth = sharp[reach:-reach, reach:-reach]
    restored = deconvolve(degrade(sharp, psf, 0.005), psf)
    inside = np.s_[rim:-rim, rim:-rim]
    assert psnr(restored, truth) > psnr(restored[inside], truth[inside]) - 1.0


def test_colours_restored_together_are_better_than_one_by_one():
    psf = motion(9, 30)
    reach = psf.size // 2
    sharp = Scene(260, 260, seed=4).rows(0, 260)
    truth, seen = sharp[reach:-reach, reach:-reach], degrade(sharp, psf, 0.01)
    alone = np.stack([deconvolve(seen[..., c], psf) for c in range(3)], -1)
    assert psnr(deconvolve(seen, psf), truth) > psnr(alone, truth)


def test_luminance_only_sharpens_and_leaves_colour_differences():
    psf = gaussian(1.5)
    reach = psf.size // 2
    sharp = Scene(260, 260, seed=4).rows(0, 260)
    truth, seen = sharp[reach:-reach, reach:-reach], degrade(sharp, psf, 0.005)
    restored = deconvolve(seen, psf, luminance_only=True)
    assert psnr(restored, truth) > psnr(seen, truth) + 1
    np.testing.assert_allclose(restored[..., 0] - restored[..., 1], seen[..., 0] - seen[..., 1], atol=1e-6)
    each = PSF(np.stack([gaussian(sigma, psf.size).kernel for sigma in (1.4, 1.5, 1.5)]))
    assert psnr(deconvolve(seen, each, luminance_only=True), restored) > 35, "one kernel, their mean, does for all"
    with pytest.raises(SettingsError, match="psf is None"):
        deconvolve(seen, None)
    lazy = deconvolve(da.from_array(seen, chunks=100), psf, luminance_only=True, tile=128)
    np.testing.assert_array_equal(lazy.compute(), deconvolve(seen, psf, luminance_only=True, tile=128))
