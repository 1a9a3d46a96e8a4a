"""Runs from and to OME-Zarr: a folder is a picture wherever a file is one, and no other folder is touched."""

import itertools
import json
import shutil
import threading

import numpy as np
import pytest
import tifffile
import zarr
from picture_files import opened

import tilepipe as library
from tilepipe.errors import InputError, InterruptedRunError, OutputError, OutputExistsError
from tilepipe.events import Note, Receipt
from tilepipe.execution.batch import run_images
from tilepipe.image.metadata.record import read_record
from tilepipe.psf.shapes import delta


@pytest.fixture
def options(tmp_path):
    return {"psf": delta(), "cache": str(tmp_path / "cache")}


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != "cache")


def picture(path, seed=0, size=(150, 170), dtype="uint16"):
    """Write an OME-Zarr as another program would: RGB in 5 dimensions."""
    pixels = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, (3, *size), dtype)
    axes = [
        {"name": name, "type": kind} for name, kind in zip("tczyx", ["time", "channel", *["space"] * 3], strict=True)
    ]
    level = {"path": "s0", "coordinateTransformations": [{"type": "scale", "scale": [1] * 5}]}
    image = {"axes": axes, "datasets": [level], "name": "a"}
    group = zarr.create_group(path, attributes={"ome": {"version": "0.5", "multiscales": [image]}})
    group.create_array("s0", data=pixels[None, :, None], chunks=(1, 1, 1, 64, 64))
    return np.moveaxis(pixels, 0, -1)


ALWAYS = {(1, "uint8"), (3, "uint8"), (2, "float32"), (3, "float32"), (3, "uint16"), (4, "uint16"), (4, "float16")}
"""Numbers of channels and types of samples that are tried in every run of the tests."""


@pytest.mark.parametrize(
    ("channels", "dtype"),
    [
        pytest.param(*pair, marks=() if pair in ALWAYS else pytest.mark.thorough)
        for pair in itertools.product((1, 2, 3, 4), ("uint8", "uint16", "float16", "float32"))
    ],
)
def test_with_nothing_to_restore_every_sample_comes_back_there_and_back(tmp_path, options, dtype, channels):
    random = np.random.default_rng(2)
    pixels = random.normal(0.5, 0.2, (300, 260, channels)) if dtype.startswith("f") else None
    pixels = random.integers(0, np.iinfo(dtype).max, (300, 260, channels)) if pixels is None else pixels
    pixels = pixels.astype(dtype)
    how = {"photometric": "rgb" if channels > 2 else "minisblack", "extrasamples": [2] if channels in (2, 4) else None}
    tifffile.imwrite(tmp_path / "in.tif", pixels.squeeze(), planarconfig="contig" if channels > 1 else None, **how)
    library.plan(tmp_path / "in.tif", tmp_path / "out.ome.zarr", **options).run()
    library.plan(tmp_path / "out.ome.zarr", tmp_path / "back.tif", **options).run()
    for name in ("out.ome.zarr", "back.tif"):
        np.testing.assert_array_equal(opened(tmp_path / name)[1], pixels)
    assert opened(tmp_path / "back.tif")[0].extra_kinds == opened(tmp_path / "in.tif")[0].extra_kinds
    assert names(tmp_path) == ["back.tif", "in.tif", "out.ome.zarr"]


def test_a_restored_picture_is_the_same_in_zarr_as_in_tiff(command, photo, psf, tmp_path):
    common = ["--psf", psf, "--quality", "fast", "--cache", tmp_path / "cache", "--json"]
    for name in ("out.tif", "out.zarr"):
        done = command("run", photo, "-o", tmp_path / name, *common)
        assert (done.returncode, json.loads(done.stdout)["output"]) == (0, str(tmp_path / name)), done.stderr
    np.testing.assert_array_equal(opened(tmp_path / "out.zarr")[1], tifffile.imread(tmp_path / "out.tif"))
    one, other = (read_record(opened(tmp_path / name)[0].metadata) for name in ("out.zarr", "out.tif"))
    assert one == other
    assert command("run", photo, "-o", tmp_path / "out.zarr", *common).returncode == 4
    again = command("run", photo, "-o", f"{tmp_path}/out.zarr/", *common, "--overwrite")
    assert (again.returncode, json.loads(again.stdout)["tiles"]["computed"]) == (0, 0), "work is reused"
    facts = json.loads(command("inspect", tmp_path / "out.zarr", "--json").stdout)
    assert (facts["kind"], facts["width"], facts["restored_by_tilepipe"]["solver"]) == ("OME-Zarr", 200, "tv")


def test_a_zarr_is_run_without_a_name_for_the_output(command, psf, tmp_path):
    picture(tmp_path / "a.ome.zarr")
    done = command("run", tmp_path / "a.ome.zarr", "--priority", "denoise", "--cache", tmp_path / "cache", "-q")
    assert (done.returncode, done.stdout.strip()) == (0, str(tmp_path / "a-sharp.ome.zarr")), done.stderr


def test_what_is_lost_is_said(photo, tmp_path, options):
    events = []
    pixels = tifffile.imread(photo)
    tags = [(274, 3, 1, 6, True)]
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extratags=tags, metadata=None, software=False)
    library.plan(tmp_path / "in.tif", tmp_path / "out.zarr", **options).run(events.append)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert "note     Orientation cannot be carried over and is dropped" in notes


def test_a_run_that_is_stopped_while_it_writes_leaves_no_output(photo, tmp_path, options):
    stop = threading.Event()

    def listen(event):
        if isinstance(event, Receipt) and event.stage == "export":
            assert (tmp_path / "out.zarr.partial" / "zarr.json").is_file()
            stop.set()

    tall = tmp_path / "tall.tif"
    tifffile.imwrite(tall, np.tile(tifffile.imread(photo), (12, 1, 1)), photometric="rgb")
    with pytest.raises(InterruptedRunError):
        library.plan(tall, tmp_path / "out.zarr", **options, jobs=1).run(listen, stop=stop)
    assert stop.is_set()
    assert names(tmp_path) == ["tall.tif"]


def test_no_other_folder_is_replaced(photo, tmp_path, options):
    (tmp_path / "letters.zarr").mkdir()
    (tmp_path / "letters.zarr" / "a.txt").write_text("dear")
    (tmp_path / "file.zarr").write_text("mine")
    for name in ("letters.zarr", "file.zarr"):
        with pytest.raises(OutputError, match=r"exists and is not a zarr folder; give another name"):
            library.plan(photo, tmp_path / name, **options).run(overwrite=True)
    picture(tmp_path / "a.zarr")
    with pytest.raises(OutputExistsError, match="--overwrite replaces it"):
        library.plan(photo, tmp_path / "a.zarr", **options).run()
    with pytest.raises(OutputError, match="is a folder; give a file name"):
        library.plan(photo, tmp_path / "a.zarr", format="tiff", **options).run(overwrite=True)
    assert (tmp_path / "letters.zarr" / "a.txt").read_text() == "dear"
    assert opened(tmp_path / "a.zarr")[0].height == 150
    assert names(tmp_path) == ["a.zarr", "file.zarr", "letters.zarr"]


def test_an_input_is_never_inside_of_an_output_or_around_it(photo, tmp_path, options):
    picture(tmp_path / "a.zarr")
    shutil.copy(photo, tmp_path / "a.zarr" / "in.tif")
    (tmp_path / "link.zarr").symlink_to(tmp_path / "a.zarr")
    for image, output in [
        ("a.zarr/in.tif", "a.zarr"),
        ("a.zarr/in.tif", "link.zarr"),
        ("a.zarr/s0", "a.zarr"),
        ("a.zarr", "a.zarr/out.tif"),
    ]:
        with pytest.raises(OutputError, match="lie one inside the other"):
            library.plan(tmp_path / image, tmp_path / output, **options)
    with pytest.raises(OutputError, match="would replace the input"):
        library.plan(tmp_path / "a.zarr", tmp_path / "link.zarr", **options)


def test_a_chunk_that_changes_is_noticed(tmp_path, options):
    before = picture(tmp_path / "a.zarr")
    plan = library.plan(tmp_path / "a.zarr", tmp_path / "out.zarr", **options)
    zarr.open_group(tmp_path / "a.zarr")["s0"][0, 1, 0, 100, 5] = 77
    with pytest.raises(InputError, match="was changed or removed since it was planned"):
        plan.run()
    before[100, 5, 1] = 77
    library.plan(tmp_path / "a.zarr", tmp_path / "out.zarr", **options).run()
    np.testing.assert_array_equal(opened(tmp_path / "out.zarr")[1], before)


def test_several_pictures_each_in_its_format(photo, tmp_path, options):
    images = [tmp_path / "a.ome.zarr", tmp_path / "b.zarr", photo]
    expected = [picture(images[0], 1), picture(images[1], 2), tifffile.imread(photo)]
    outcomes = run_images(images, tmp_path / "out", **options)
    assert [outcome.output.name for outcome in outcomes] == ["a.ome.zarr", "b.zarr", "photo.tif"]
    for outcome, pixels in zip(outcomes, expected, strict=True):
        assert outcome.status == "done", outcome.error
        np.testing.assert_array_equal(opened(outcome.output)[1], pixels)
    assert {outcome.status for outcome in run_images(images, tmp_path / "out", **options)} == {"unchanged"}
    (tmp_path / "out" / "b.zarr" / "0" / "c" / "0" / "0" / "0").write_bytes(b"")
    assert [outcome.code for outcome in run_images(images, tmp_path / "out", **options)] == [0, 4, 0]
    again = run_images(images, tmp_path / "out", overwrite=True, **options)
    assert [outcome.status for outcome in again] == ["unchanged", "done", "unchanged"]
    np.testing.assert_array_equal(opened(tmp_path / "out" / "b.zarr")[1], expected[1])


@pytest.mark.parametrize("exists", [False, True])
def test_several_pictures_do_not_go_into_one(photo, tmp_path, options, exists):
    if exists:
        picture(tmp_path / "a.zarr")
    with pytest.raises(OutputError, match="is the name of one picture; several images need a folder"):
        run_images([photo], tmp_path / "a.zarr", **options)


def test_a_mask_may_be_a_zarr(tmp_path, options):
    pixels = picture(tmp_path / "a.zarr")
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[:, 80:] = 255
    zarr.create_array(tmp_path / "mask.zarr", data=mask)
    options["psf"] = None
    flags = {"mask": str(tmp_path / "mask.zarr"), "priority": "denoise"}
    library.plan(tmp_path / "a.zarr", tmp_path / "out.zarr", **(options | flags)).run()
    rows = opened(tmp_path / "out.zarr")[1]
    np.testing.assert_array_equal(rows[:, :80], pixels[:, :80])
    assert (rows[:, 80:] != pixels[:, 80:]).mean() > 0.5
