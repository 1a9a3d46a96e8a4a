"""A run from one format to another: the picture is the same, and what a format cannot hold is said."""

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

import tilepipe as library
from tilepipe.events import Note
from tilepipe.execution.batch import run_images
from tilepipe.psf.shapes import delta


@pytest.fixture
def options(psf, tmp_path):
    return {"psf": str(psf), "cache": str(tmp_path / "cache"), "quality": "fast"}


@pytest.fixture
def jpeg(photo, tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray((tifffile.imread(photo) >> 8).astype(np.uint8)).save(path, quality=92)
    return path


def test_an_output_is_in_the_format_of_the_image_by_default(command, jpeg, psf, tmp_path):
    done = command("run", jpeg, "--psf", psf, "--quality", "fast", "--cache", tmp_path / "cache", "-q")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "photo-sharp.jpg"))
    with Image.open(tmp_path / "photo-sharp.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (200, 160), "RGB")


def test_the_default_name_follows_a_format_set_anywhere(command, jpeg, psf, tmp_path):
    done = command(
        "run", jpeg, "--psf", psf, "--quality", "fast", "--cache", tmp_path / "cache", "-q", "--set", "format=png"
    )
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "photo-sharp.png"))


def test_formats_have_the_same_picture(photo, tmp_path, options):
    for name in ("out.tif", "out.png", "out.jpg"):
        library.plan(photo, tmp_path / name, **options).run()
    expected = tifffile.imread(tmp_path / "out.tif")
    np.testing.assert_array_equal(imagecodecs.png_decode((tmp_path / "out.png").read_bytes()), expected)
    found = imagecodecs.jpeg_decode((tmp_path / "out.jpg").read_bytes())
    assert np.abs(found - expected / 257).mean() < 1.5


def test_an_option_gives_the_format_of_a_name_without_one(photo, tmp_path, options):
    library.plan(photo, tmp_path / "out.data", format="png", **options).run()
    with Image.open(tmp_path / "out.data") as image:
        assert image.format == "PNG"


def test_a_change_of_the_sample_type_is_said(photo, tmp_path, options):
    events = []
    library.plan(photo, tmp_path / "out.jpg", on_event=events.append, **options)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "note     uint16 samples are written as uint8: JPEG holds no uint16" in notes


def test_a_jpeg_with_nothing_to_restore_is_copied(jpeg, tmp_path, options):
    library.plan(jpeg, tmp_path / "out.jpg", **(options | {"psf": delta()})).run()
    assert (tmp_path / "out.jpg").read_bytes() == jpeg.read_bytes()


def test_a_jpeg_whose_samples_are_converted_is_written_and_not_copied(tmp_path, options):
    Image.new("CMYK", (60, 50), (10, 200, 30, 40)).save(tmp_path / "ink.jpg")
    library.plan(tmp_path / "ink.jpg", tmp_path / "out.jpg", **(options | {"psf": delta()})).run()
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.mode == "RGB"


def test_several_images_each_in_its_format(jpeg, photo, tmp_path, options):
    outcomes = run_images([jpeg, photo], tmp_path / "out", **options)
    assert [outcome.output.name for outcome in outcomes] == ["photo.jpg", "photo.tif"]
    outcomes = run_images([jpeg], None, **options)
    assert [outcome.output for outcome in outcomes] == [tmp_path / "photo-sharp.jpg"]
    outcomes = run_images([photo], tmp_path / "png", format="png", **options)
    assert [outcome.output for outcome in outcomes] == [tmp_path / "png" / "photo.png"]
    for outcome in outcomes:
        assert outcome.output.is_file()
