"""The picture of a PSF: every tap is there in its place, as bright as it says, and no file is lost."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tilepipe.errors import OutputError, OutputExistsError, SettingsError
from tilepipe.psf import shapes
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import ShapeFit
from tilepipe.report.psf_picture import write_psf_picture

NAME = ShapeFit("delta", {}, 1.0)
"""Given, so that most tests need no search."""


def gray(path) -> np.ndarray:
    with Image.open(path) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        return np.asarray(picture)


def random_psf(size: int) -> PSF:
    taps = np.random.default_rng(size).random((size, size)) ** 4
    return PSF(taps / taps.sum())


def taps_of(picture: np.ndarray, psf: PSF) -> np.ndarray:
    """Find the enlarged kernel in the picture and give one gray level a tap; each must be one flat square."""
    tones = np.rint(255 * np.sqrt(psf.kernel / psf.kernel.max())).astype(np.uint8)
    for zoom in range(1 + 350 // psf.size, 1 + min(picture.shape) // psf.size):
        edge = psf.size * zoom
        enlarged = np.kron(tones, np.ones((zoom, zoom), np.uint8))
        for left in range(picture.shape[1] - edge + 1):
            if np.array_equal(picture[20 : 20 + edge, left : left + edge], enlarged):
                return picture[20 : 20 + edge : zoom, left : left + edge : zoom]
    raise AssertionError("the kernel is not in the picture")


@pytest.mark.parametrize("size", [3, 9, 31, 101, 255])
def test_every_tap_is_a_square_in_its_place(tmp_path, size):
    psf = random_psf(size)
    write_psf_picture(psf, tmp_path / "psf.png", nearest=NAME)
    picture = gray(tmp_path / "psf.png")
    assert 400 <= picture.shape[1] <= 570
    assert 440 <= picture.shape[0] <= 630
    # the square root of the taps, peak white: faint ones show
    shown = taps_of(picture, psf).astype(float) / 255
    np.testing.assert_allclose(shown**2, psf.kernel / psf.kernel.max(), atol=1 / 255)


def test_a_faint_tail_can_be_told_from_nothing(tmp_path):
    kernel = np.zeros((9, 9))
    kernel[4, 4], kernel[4, 5] = 400, 1
    psf = PSF(kernel / kernel.sum())
    write_psf_picture(psf, tmp_path / "psf.png", nearest=NAME)
    taps = taps_of(gray(tmp_path / "psf.png"), psf)
    assert taps[4, 4] == 255
    assert taps[4, 5] >= 12
    assert np.count_nonzero(taps) == 2


@pytest.mark.parametrize("psf", [shapes.delta(), PSF(np.full((7, 7), 1 / 49)), random_psf(9)])
def test_kernel_and_paper_differ_whatever_its_taps(tmp_path, psf):
    write_psf_picture(psf, tmp_path / "psf.png", nearest=NAME)
    picture = gray(tmp_path / "psf.png")
    paper = picture[0, 0]
    assert (picture[[0, -1]] == paper).all()
    assert (picture[:, [0, -1]] == paper).all(), "nothing is cut off at the sides"
    assert 0 < paper < 255
    assert np.ptp(picture[-100:].astype(int)) > 100, "bar and caption are there"


@pytest.mark.parametrize("size", [1, 9, 255])
def test_the_longest_caption_fits(tmp_path, size):
    psf = random_psf(size)
    longest = ShapeFit("motion", {"length": 255.0, "angle": 179.0}, 0.555)
    write_psf_picture(psf, tmp_path / "psf.png", nearest=longest)
    picture = gray(tmp_path / "psf.png")
    assert (picture[:, [0, 1, 2, -3, -2, -1]] == picture[0, 0]).all()


def test_the_caption_follows_the_kernel(tmp_path):
    """Without a name given it is searched for."""
    psf = shapes.motion(9, 30)
    write_psf_picture(psf, tmp_path / "searched.png")
    write_psf_picture(psf, tmp_path / "given.png", nearest=ShapeFit("motion", {"length": 9.0, "angle": 30.0}, 1.0))
    write_psf_picture(psf, tmp_path / "other.png", nearest=NAME)
    searched = gray(tmp_path / "searched.png")
    np.testing.assert_array_equal(searched, gray(tmp_path / "given.png"))
    assert not np.array_equal(searched, gray(tmp_path / "other.png"))


def test_the_same_psf_makes_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        write_psf_picture(random_psf(9), tmp_path / name, nearest=NAME)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_writing_does_not_clobber(tmp_path):
    path = tmp_path / "psf.png"
    path.write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"psf\.png exists; --overwrite"):
        write_psf_picture(random_psf(9), path, nearest=NAME)
    assert path.read_bytes() == b"precious"
    write_psf_picture(random_psf(9), str(path), nearest=NAME, overwrite=True)
    taps_of(gray(path), random_psf(9))


def test_what_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / "no" / "psf.png", tmp_path / "folder.png"):
        with pytest.raises(OutputError, match="cannot write image") as caught:
            write_psf_picture(random_psf(3), path, nearest=NAME, overwrite=True)
        assert caught.value.exit_code == 4
    assert list((tmp_path / "folder.png").iterdir()) == []


@pytest.mark.parametrize("name", ["psf.tif", "psf", "psf.png.bak"])
def test_a_name_that_is_not_a_pngs_is_refused_even_if_overwriting(tmp_path, name):
    """The PSF itself is the likeliest file to be named by mistake."""
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(SettingsError, match=r"must end in \.png"):
        write_psf_picture(random_psf(3), tmp_path / name, nearest=NAME, overwrite=True)
    assert (tmp_path / name).read_bytes() == b"precious"
