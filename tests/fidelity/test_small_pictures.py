"""Pictures of a few pixels are restored, or refused in one line."""

import numpy as np
import pytest
import tifffile

import tilepipe
from tilepipe.errors import TilepipeError
from tilepipe.psf.shapes import gaussian

SHAPES = [(1, 1), (1, 50), (3, 17), (17, 3), (5, 5), (7, 9), (17, 17), (5, 3000)]


@pytest.fixture
def picture(request, tmp_path):
    samples = np.random.default_rng(0).integers(0, 60000, (*request.param, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    return tmp_path / "a.tif"


OPTIONS = [{}, {"refocus": True}, {"solver": "richardson-lucy"}, {"luminance_only": True}]
HOLDING = [shape for shape in SHAPES if min(shape) >= 5]


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        # the long one takes seconds, and is tried with each option by the thorough tests
        pytest.param(
            shape, options, marks=pytest.mark.thorough if max(shape) > 99 and options else (), id=f"{shape}-{options}"
        )
        for shape in HOLDING
        for options in OPTIONS
    ],
    indirect=["picture"],
)
def test_a_picture_that_holds_the_psf_is_restored(picture, tmp_path, options):
    psf = gaussian(0.5)
    assert psf.size == 5
    tilepipe.plan(picture, tmp_path / "out.tif", psf=psf, cache=str(tmp_path / "cache"), **options).run()
    before, after = tifffile.imread(picture), tifffile.imread(tmp_path / "out.tif")
    assert after.shape == before.shape
    assert np.abs(after.astype(int) - before).mean() < 20000


@pytest.mark.parametrize("picture", SHAPES, indirect=True)
def test_any_picture_is_denoised(picture, tmp_path):
    tilepipe.plan(picture, tmp_path / "out.tif", priority="denoise", cache=str(tmp_path / "cache")).run()
    assert tifffile.imread(tmp_path / "out.tif").shape == tifffile.imread(picture).shape


@pytest.mark.parametrize("picture", SHAPES, indirect=True)
def test_the_blur_of_a_small_picture_is_refused(picture, tmp_path):
    with pytest.raises(TilepipeError) as caught:
        tilepipe.plan(picture, tmp_path / "out.tif", cache=str(tmp_path / "cache"))
    assert "\n" not in str(caught.value)
