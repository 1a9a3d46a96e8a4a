"""Without a PSF: the blur is found, a sharp picture is left alone, an uncertain one is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tifffile

from tilepipe.psf.kernel_ops import align
from tilepipe.psf.model import PSF
from tilepipe.testing.scenes import BlurredScene, Scene, write_scene
from tilepipe.testing.shakes import shake

WIDTH, HEIGHT = 420, 340
TRUTH = shake(11, 3)
TRUTHS = {"small": shake(7, 3), "large": TRUTH}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """A sharp scene and the same one shaken, 0.5 % noise; 16-bit RGB."""
    folder = tmp_path_factory.mktemp("scenes")
    scene = Scene(WIDTH, HEIGHT, seed=4)
    write_scene(folder / "sharp.tif", scene)
    write_scene(folder / "shaken.tif", BlurredScene(scene, TRUTH, 0.005))
    return folder


@pytest.fixture(scope="module")
def small_scenes(tmp_path_factory):
    """The same as 220 x 200 px, shaken by less: the search takes half the time."""
    folder = tmp_path_factory.mktemp("small-scenes")
    scene = Scene(220, 200, seed=4)
    write_scene(folder / "sharp.tif", scene)
    write_scene(folder / "shaken.tif", BlurredScene(scene, TRUTHS["small"], 0.005))
    return folder


def likeness(found: PSF, truth: PSF = TRUTH) -> float:
    return align(np.asarray(found.kernel), np.asarray(truth.kernel))[1]


def error(one, other, rim=30, reach=2):
    """Return the root mean square difference at the best whole-pixel shift: a blind result may be displaced."""
    one, other = (tifffile.imread(path)[..., 1] / 65535 for path in (one, other))
    inside = np.s_[rim:-rim, rim:-rim]
    shifts = [(y, x) for y in range(-reach, reach + 1) for x in range(-reach, reach + 1)]
    return min(float(np.sqrt(((np.roll(one, shift, (0, 1)) - other)[inside] ** 2).mean())) for shift in shifts)


@pytest.mark.parametrize("size", ["small", pytest.param("large", marks=pytest.mark.thorough)])
def test_a_shaken_picture_is_deblurred_without_being_told_anything(command, request, tmp_path, size):
    folder, truth = request.getfixturevalue("small_scenes" if size == "small" else "scenes"), TRUTHS[size]
    out = tmp_path / "out.tif"
    done = command("run", folder / "shaken.tif", "-o", out, "--cache", tmp_path / "c", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["psf"]["confidence"] >= 0.5
    kept = PSF.load(report["psf"]["file"])
    assert kept.confidence == report["psf"]["confidence"]
    assert likeness(kept, truth) > 0.8
    assert error(out, folder / "sharp.tif") < 0.7 * error(folder / "shaken.tif", folder / "sharp.tif")


def test_a_sharp_picture_is_written_unchanged(command, scenes, tmp_path):
    out = tmp_path / "out.tif"
    done = command("run", scenes / "sharp.tif", "-o", out, "--cache", tmp_path / "c")
    assert done.returncode == 0, done.stderr
    assert "already sharp" in done.stderr
    assert np.array_equal(tifffile.imread(out), tifffile.imread(scenes / "sharp.tif"))


def test_a_sharp_picture_is_denoised_when_asked(command, scenes, tmp_path):
    clean = tifffile.imread(scenes / "sharp.tif") / 65535
    noisy = clean + np.random.default_rng(1).normal(0, 0.03, clean.shape)
    tifffile.imwrite(tmp_path / "noisy.tif", (noisy.clip(0, 1) * 65535).astype(np.uint16), photometric="rgb")
    PSF(np.ones((1, 1), np.float32)).save(tmp_path / "none.tif")
    flags = ["--psf", tmp_path / "none.tif", "--priority", "denoise", "--cache", tmp_path / "c"]
    done = command("run", tmp_path / "noisy.tif", "-o", tmp_path / "out.tif", *flags)
    assert done.returncode == 0, done.stderr
    before, after = (error(tmp_path / name, scenes / "sharp.tif", reach=0) for name in ("noisy.tif", "out.tif"))
    assert after < 0.75 * before


@pytest.fixture(scope="module")
def grain(tmp_path_factory):
    """A picture of nothing but noise on a soft ramp."""
    path = tmp_path_factory.mktemp("grain") / "grain.tif"
    ramp = 0.3 + 0.2 * np.linspace(0, 1, 500)[None, :] + np.random.default_rng(2).normal(0, 0.02, (400, 500))
    tifffile.imwrite(path, (ramp * 65535).astype(np.uint16), photometric="minisblack")
    return path


@pytest.mark.thorough
def test_an_uncertain_blur_is_refused_with_the_ways_out(tilepipe, grain, tmp_path):
    done = tilepipe("run", grain, "-o", tmp_path / "out.tif", "--cache", tmp_path / "c", "--blur", "9")
    assert done.returncode == 8, done.stderr
    last = done.stderr.splitlines()[-1]
    assert all(way in last for way in ("--psf", "--window", "--force"))
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.thorough
def test_an_uncertain_blur_may_be_forced(tilepipe, grain, tmp_path):
    flags = ["--force", "--blur", "7", "--cache", tmp_path / "c"]
    done = tilepipe("run", grain, "-o", tmp_path / "out.tif", *flags)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.tif").exists()


@pytest.mark.thorough
def test_a_psf_is_estimated_kept_and_checked_against_another_picture(tilepipe, scenes, tmp_path):
    psf = tmp_path / "psf.tif"
    flags = ("--blur", "13", "--psf-per-channel", "--png", tmp_path / "psf.png")
    done = tilepipe("psf", "estimate", scenes / "shaken.tif", "-o", psf, *flags)
    assert (done.returncode, done.stdout) == (0, f"{psf}\n"), done.stderr
    assert "confidence" in done.stderr
    found = PSF.load(psf)
    assert 13 <= found.size <= 17
    assert len(found.planes) == 3
    assert all(likeness(PSF(plane)) > 0.8 for plane in found.planes)
    other = tmp_path / "other.tif"
    write_scene(other, BlurredScene(Scene(WIDTH, HEIGHT, seed=9), TRUTH, 0.005))
    checked = json.loads(tilepipe("psf", "check", psf, other, "--window", "210,170,255", "--json").stdout)
    assert checked["explains"]
    wrong = tmp_path / "wrong.tif"
    assert tilepipe("psf", "make", "motion", "--length", 15, "--angle", 80, "-o", wrong).returncode == 0
    assert not json.loads(tilepipe("psf", "check", wrong, other, "--window", "210,170,255", "--json").stdout)[
        "explains"
    ]


@pytest.mark.thorough
def test_an_array_gives_the_psf_that_its_file_gives(scenes):
    import tilepipe

    from_file = tilepipe.estimate_psf(scenes / "shaken.tif", size=13, window=(210, 170, 255))
    encoded = tifffile.imread(scenes / "shaken.tif") / 65535
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    from_array = tilepipe.estimate_psf(linear.astype(np.float32), size=13, window=(210, 170, 255))
    assert from_array.kernel.shape == (13, 13)
    assert np.abs(from_file.kernel - from_array.kernel).max() < 0.01
    assert 0 <= from_array.confidence <= 1
