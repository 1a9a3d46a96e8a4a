"""PSFs that differ over the image: no steps, no seams, the same bytes however the run was done, and found blind."""

import subprocess
import sys
import time

import numpy as np
import pytest
import tifffile

from benchmarks.seams import measure
from tests.fidelity.test_seams import check
from tilepipe import deconvolve, estimate_psf
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.psf.field import Lattice, PSFField
from tilepipe.psf.lens import LensBlur
from tilepipe.psf.shapes import gaussian, motion
from tilepipe.testing import BlurredScene, Scene, blur, degrade, psnr, write_scene
from tilepipe.testing.scenes import Photograph

NOISE = 0.004

LENS = LensBlur(((0.5, 1.5),)).field(0.0, {"shape": "lens"})

GRID = PSFField((motion(5, 0), motion(7, 20), motion(7, 0), gaussian(1.5)), Lattice((0.2, 0.8), (0.2, 0.8)))


@pytest.mark.thorough
@pytest.mark.parametrize("field", [LENS, GRID], ids=["lens", "grid"])
def test_tiles_equal_the_whole(field):
    check(measure(Scene(800, 640).rows(0, 640), "field", field, 0.01, [200, 333]))


@pytest.mark.parametrize("field", [LENS, GRID], ids=["lens", "grid"])
def test_a_field_restores_better_than_any_of_its_kernels(field):
    sharp = Scene(420, 380).rows(0, 380)
    seen = degrade(sharp, field, NOISE)
    rim = field.size // 2
    truth = sharp[rim:-rim, rim:-rim]
    varying = psnr(deconvolve(seen, field), truth)
    assert all(varying > psnr(deconvolve(seen, psf), truth) for psf in field.components)
    assert varying > psnr(seen, truth) + 2


def test_equal_components_give_the_uniform_restoration():
    psf = gaussian(1.2)
    seen = degrade(Scene(300, 280).rows(0, 280), psf, NOISE)
    field = PSFField((psf,) * 4, Lattice((0.2, 0.9), (0.1, 0.7)))
    np.testing.assert_allclose(deconvolve(seen, field), deconvolve(seen, psf), atol=1e-5)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A folder with a picture blurred by LENS, and its PSF."""
    folder = tmp_path_factory.mktemp("lens")
    write_scene(folder / "seen.tif", BlurredScene(Scene(560, 420, seed=2), LENS, NOISE))
    LENS.save(folder / "lens.tif")
    return folder


def run(picture, folder, **settings):
    folder.mkdir(exist_ok=True)
    asked = {"psf": picture / "lens.tif", "tile": 160, "quality": "fast", "cache": str(folder / "c")} | settings
    plan = make_plan(picture / "seen.tif", folder / "out.tif", **asked)
    report = plan.run(overwrite=True)
    assert report.memory["peak"] <= report.memory["projected"]
    return (folder / "out.tif").read_bytes()


def test_any_number_of_jobs_gives_the_same_bytes(picture, tmp_path):
    quick = {"solver": "richardson-lucy", "tolerance": 0.25}
    assert run(picture, tmp_path / "a", jobs=1, **quick) == run(picture, tmp_path / "b", jobs=2, **quick)


@pytest.mark.thorough
def test_a_killed_run_resumes_to_the_same_bytes(picture, tmp_path):
    expected = run(picture, tmp_path / "a", jobs=1)
    command = [sys.executable, "-m", "tilepipe", "run", picture / "seen.tif", "-o", tmp_path / "out.tif", "--overwrite"]
    command += [
        "--psf",
        picture / "lens.tif",
        "--tile",
        "160",
        "--quality",
        "fast",
        "--cache",
        tmp_path / "c",
        "-j",
        "1",
    ]
    process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and len(list((tmp_path / "c").glob("*/*/tiles.ledger/*"))) < 3:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "out.tif").exists()
    subprocess.run([str(part) for part in command], check=True, capture_output=True)
    assert (tmp_path / "out.tif").read_bytes() == expected


@pytest.mark.parametrize(
    "settings",
    [
        {"luminance_only": True},
        pytest.param({"refocus": True}, marks=pytest.mark.thorough),
        {"solver": "richardson-lucy"},
        pytest.param({"priority": -0.5}, marks=pytest.mark.thorough),
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_fields_work_with_every_kind_of_restoration(picture, tmp_path, settings):
    run(picture, tmp_path / "a", **settings)
    before, after = (tifffile.imread(path).astype(float) for path in (picture / "seen.tif", tmp_path / "a" / "out.tif"))
    assert after.shape == before.shape
    assert 0 < np.abs(after - before).mean() < 2000


def photograph(field=None, sigma=0.6):
    reach = 0 if field is None else field.size // 2
    sharp = Photograph(1100 + 2 * reach, 900 + 2 * reach, sigma).rows(0, 900 + 2 * reach)
    seen = sharp if field is None else blur(sharp, field)
    return seen + np.random.default_rng(1).normal(0, 0.002, seen.shape).astype(np.float32)


def test_the_blur_of_a_lens_is_found():
    found = estimate_psf(photograph(LensBlur(((0.0, 2.2),)).field(0.0, {})))
    assert isinstance(found, PSFField)
    assert found.confidence >= 0.8
    centre, corner = (
        np.sqrt(np.polynomial.polynomial.polyval(r, found.made_by["lens"]["variance"][0])) for r in (0, 1)
    )
    assert centre == pytest.approx(0.6, abs=0.25)
    assert corner == pytest.approx(np.sqrt(0.36 + 2.2), abs=0.3)


def test_colours_that_a_lens_blurs_differently_get_their_own_curves():
    lens = LensBlur(((0.0, 0.8), (0.0, 1.6), (0.0, 2.6)))
    found = estimate_psf(photograph(lens.field(0.0, {})))
    assert isinstance(found, PSFField)
    red, green, blue = (sum(curve) for curve in found.made_by["lens"]["variance"])
    assert red + 0.3 < green < blue - 0.3


@pytest.mark.parametrize("sigma", [0.6, 1.1])
def test_one_blur_all_over_is_no_lens(sigma):
    assert not isinstance(estimate_psf(photograph(sigma=sigma)), PSFField)


def test_field_none_gives_one_psf():
    seen = photograph(LensBlur(((0.0, 2.2),)).field(0.0, {}))
    assert not isinstance(estimate_psf(seen, field="none"), PSFField)
