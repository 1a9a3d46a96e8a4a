"""Masks and windows are those of the picture as a person sees it, whatever its orientation."""

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps

import tilepipe
from tilepipe.errors import SettingsError
from tilepipe.image.mask import DrawnMask
from tilepipe.image.orientation import Orientation
from tilepipe.image.readers import open_image
from tilepipe.planning.inspection import inspect_reader
from tilepipe.psf.shapes import gaussian

ALL = range(1, 9)
HEIGHT, WIDTH = 30, 44


def write(path, samples, orientation):
    """Write a TIFF with the orientation's tag."""
    tag = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(path, samples, photometric="minisblack", metadata=None, extratags=tag)
    return path


@pytest.mark.parametrize("number", ALL)
def test_a_picture_is_seen_as_pillow_shows_it(tmp_path, number):
    stored = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH), np.uint8)
    exif = Image.Exif()
    exif[274] = number
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    with Image.open(tmp_path / "a.png") as image:
        seen = np.asarray(ImageOps.exif_transpose(image))
    orientation = Orientation.of(number)
    np.testing.assert_array_equal(orientation.seen(stored), seen)
    np.testing.assert_array_equal(orientation.stored(seen), stored)
    assert orientation.seen_shape(stored.shape) == seen.shape
    y0, y1, x0, x1 = orientation.stored_box((3, 9, 5, 20), stored.shape)
    np.testing.assert_array_equal(orientation.seen(stored[y0:y1, x0:x1]), seen[3:9, 5:20])


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_other_values_mean_as_stored(number):
    assert Orientation.of(number) == Orientation.of(1)


@pytest.mark.parametrize("own", ALL)
@pytest.mark.parametrize("number", ALL)
def test_a_mask_lies_where_it_was_drawn(tmp_path, number, own):
    """The mask is drawn on what is seen, and stored with an orientation of its own."""
    picture, mask = Orientation.of(number), Orientation.of(own)
    shape = (HEIGHT, WIDTH)
    drawn = np.random.default_rng(0).integers(0, 256, picture.seen_shape(shape), np.uint8)
    write(tmp_path / "picture.tif", np.zeros(shape, np.uint8), number)
    write(tmp_path / "mask.tif", np.ascontiguousarray(mask.stored(drawn)), own)
    reader = open_image(tmp_path / "picture.tif")
    found = DrawnMask(tmp_path / "mask.tif", reader.info)
    rows = np.concatenate([found.rows(0, 7), found.rows(7, HEIGHT)])
    found.close()
    reader.close()
    np.testing.assert_allclose(picture.seen(rows), drawn / 255, atol=1e-6)


def test_a_mask_of_the_stored_size_of_a_turned_picture_is_refused(tmp_path):
    write(tmp_path / "picture.tif", np.zeros((HEIGHT, WIDTH), np.uint8), 6)
    write(tmp_path / "mask.tif", np.zeros((HEIGHT, WIDTH), np.uint8), 1)
    reader = open_image(tmp_path / "picture.tif")
    with pytest.raises(SettingsError, match=r"is 44 x 30, the image 30 x 44 as it is seen \(its orientation\)"):
        DrawnMask(tmp_path / "mask.tif", reader.info)
    reader.close()


@pytest.mark.parametrize("number", ALL)
def test_a_window_lies_where_it_is_seen(tmp_path, number):
    shape, orientation = (300, 420), Orientation.of(number)
    samples = np.random.default_rng(1).integers(0, 60000, shape, np.uint16)
    reader = open_image(write(tmp_path / "a.tif", samples, number))
    found = inspect_reader(reader, None, "130,150,128").windows[0]
    reader.close()
    expected = orientation.seen(samples)[150 - 64 : 150 + 64, 130 - 64 : 130 + 64].astype(float)
    assert np.corrcoef(orientation.seen(found).ravel(), expected.ravel())[0, 1] > 0.9


def test_only_the_side_that_was_drawn_is_restored_and_the_mask_that_is_saved_fits(tmp_path):
    samples = np.random.default_rng(2).integers(20000, 40000, (90, 120), np.uint16)
    write(tmp_path / "a.tif", samples, 6)
    drawn = np.zeros((120, 90), np.uint8)
    drawn[:40] = 255  # the top of the picture as it is seen: stored at the left
    tifffile.imwrite(tmp_path / "mask.tif", drawn)
    options = {"psf": gaussian(1.0), "cache": str(tmp_path / "cache"), "quality": "fast"}
    saved = str(tmp_path / "saved.tif")
    tilepipe.plan(
        tmp_path / "a.tif", tmp_path / "out.tif", mask=str(tmp_path / "mask.tif"), save_mask=saved, **options
    ).run()
    out = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_array_equal(out[:, 40:], samples[:, 40:])
    assert (out[:, :40] != samples[:, :40]).mean() > 0.9
    tilepipe.plan(tmp_path / "a.tif", tmp_path / "again.tif", mask=saved, **options).run()
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "again.tif"), out)
