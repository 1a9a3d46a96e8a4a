"""Only where the blur is: a sharp subject before a soft background keeps both, and drawn masks are kept to."""

import dask.array as da
import numpy as np
import pytest
import tifffile

from tilepipe import deconvolve
from tilepipe.errors import SettingsError
from tilepipe.image.light import SRGB, Light
from tilepipe.psf.shapes import gaussian
from tilepipe.testing import Scene, degrade, psnr

EDGE = 360
PSF = gaussian(2)


@pytest.fixture(scope="module")
def portrait():
    """A sharp ellipse before a blurred background; what is seen, the sharp background, where the subject is."""
    reach = PSF.size // 2
    behind = Scene(EDGE + 2 * reach, EDGE + 2 * reach, seed=1).rows(0, EDGE + 2 * reach)
    rows, columns = np.mgrid[:EDGE, :EDGE]
    subject = ((rows - 180) / 110) ** 2 + ((columns - 170) / 90) ** 2
    seen = np.where(subject[..., None] < 1, Scene(EDGE, EDGE, seed=11).rows(0, EDGE), degrade(behind, PSF, 0.0))
    seen = (seen + np.random.default_rng(1).normal(0, 0.003, seen.shape)).astype(np.float32)
    return seen, behind[reach:-reach, reach:-reach], subject


@pytest.mark.parametrize("unit", [1, 0.7])
def test_what_refocus_leaves_alone_comes_back_bit_by_bit_in_any_unit(portrait, unit):
    seen, subject = np.float32(unit) * portrait[0], portrait[2]
    restored = deconvolve(seen, PSF, refocus=True, quality="fast")
    assert (restored == seen)[subject < 0.9].mean() > 0.99


def test_refocus_keeps_a_sharp_subject_and_sharpens_the_background(portrait):
    seen, behind, subject = portrait
    restored = deconvolve(seen, PSF, refocus=True)
    inside, outside = subject < 0.9, (subject > 1.6)
    assert psnr(restored[inside], seen[inside]) > 45
    assert (restored[inside] == seen[inside]).mean() > 0.99, "nearly all of it exactly"
    assert psnr(restored[outside], behind[outside]) > psnr(seen[outside], behind[outside]) + 1.5
    assert psnr(deconvolve(seen, PSF)[inside], seen[inside]) < 30, "without it the subject is harmed"


@pytest.mark.thorough
def test_refocus_in_tiles_and_lazily_is_the_same(portrait):
    seen = portrait[0]
    tiled = deconvolve(seen, PSF, refocus=True, tile=200, quality="fast")
    lazy = deconvolve(da.from_array(seen, chunks=150), PSF, refocus=True, tile=200, quality="fast")
    np.testing.assert_array_equal(lazy.compute(), tiled)
    larger = deconvolve(seen, PSF, refocus=True, tile=330, quality="fast")  # one tile alone may use a harder data term
    assert np.sqrt(np.mean((tiled - larger) ** 2)) < 1e-3


def test_a_drawn_mask_is_kept_to_exactly(portrait):
    seen = portrait[0]
    mask = np.zeros((EDGE, EDGE))
    mask[:, 180:] = 1
    restored = deconvolve(seen, PSF, mask=mask)
    np.testing.assert_array_equal(restored[:, :180], seen[:, :180])
    np.testing.assert_array_equal(restored[:, 180:], deconvolve(seen, PSF)[:, 180:])
    with pytest.raises(SettingsError, match=r"mask has shape \(3, 3\)"):
        deconvolve(seen, PSF, mask=np.zeros((3, 3)))


@pytest.mark.thorough
def test_files_masked_and_refocused_keep_their_codes_outside(portrait, tilepipe_command, tmp_path):
    light = Light((SRGB,) * 3, "uint16")
    codes = np.stack([light.encoded(c, np.clip(portrait[0][..., c], 0, 1), "uint16") for c in range(3)], -1)
    tifffile.imwrite(tmp_path / "in.tif", codes, photometric="rgb", metadata=None)
    PSF.save(tmp_path / "psf.tif")
    drawn = np.zeros((EDGE, EDGE), np.uint8)
    drawn[100:, :] = 255
    tifffile.imwrite(tmp_path / "mask.tif", drawn)
    flags = ["--psf", tmp_path / "psf.tif", "--cache", tmp_path / "c", "--refocus", "--mask", tmp_path / "mask.tif"]
    out, saved = tmp_path / "out.tif", tmp_path / "saved.tif"
    tilepipe_command("run", tmp_path / "in.tif", "-o", out, "--save-mask", saved, *flags)
    restored, mask = tifffile.imread(out), tifffile.imread(saved)
    assert mask.shape == (EDGE, EDGE)
    assert (mask[:100] == 0).all()
    np.testing.assert_array_equal(restored[:100], codes[:100])
    untouched = portrait[2] < 0.7
    assert (mask[untouched] == 0).mean() > 0.8
    assert (restored != codes).any(-1)[mask == 255].mean() > 0.5
    again = tilepipe_command("run", tmp_path / "in.tif", "-o", out, *flags[:5], "--overwrite")
    assert "4 reused" in again.stderr or "1 reused" in again.stderr, "another mask computes nothing again"
