"""Several images as one command: same bytes, no image stops another, a repeated command does what is missing."""

import json
import shutil
import threading

import numpy as np
import pytest
import tifffile

import tilepipe
from tilepipe.events import Receipt
from tilepipe.execution import batch
from tilepipe.execution.batch import run_images


def write_photo(path, height, width):
    """Write noise on a few edges, in 8 bits."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = 90 + 60 * ((x // 40 + y // 30) % 2) + np.random.default_rng(3).integers(0, 8, (height, width))
    tifffile.imwrite(path, pixels.astype(np.uint8), photometric="minisblack", rowsperstrip=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Five photographs, one of them truncated, and a list of them."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(4):
        write_photo(folder / f"{index}.tif", 120 + 10 * index, 160)
    content = (folder / "0.tif").read_bytes()
    (folder / "bad.tif").write_bytes(content[: len(content) // 2])
    (folder / "list.txt").write_text("# photographs\n0.tif\n\n1.tif\nbad.tif\n2.tif\n3.tif\n")
    return folder


@pytest.fixture
def copies(photos, tmp_path):
    return shutil.copytree(photos, tmp_path / "photos")


def statuses(outcomes):
    return {outcome.image.name: outcome.status for outcome in outcomes}


def good(folder):
    return [folder / f"{index}.tif" for index in range(4)]


def restore(images, tmp_path, **options):
    options = {"psf": str(options.pop("psf")), "cache": str(tmp_path / "cache"), "quality": "fast"} | options
    return run_images(images, tmp_path / "out", **options)


def test_a_list_with_a_bad_image(command, photos, psf, tmp_path):
    """What a script sees: statuses and exit codes in order, paths of what was written, and the bytes of single runs."""
    common = ["--psf", psf, "--quality", "fast", "--cache", tmp_path / "cache"]
    done = command("run", "--manifest", photos / "list.txt", "-o", tmp_path / "out", *common, "--json")
    assert done.returncode == 6
    facts = json.loads(done.stdout)
    assert [(one["status"], one["exit"]) for one in facts] == [
        ("done", 0),
        ("done", 0),
        ("failed", 3),
        *[("done", 0)] * 2,
    ]
    assert "bad.tif is truncated" in facts[2]["error"]
    assert facts[0]["tiles"]["total"] == 1
    assert "bad.tif (exit 3)" in done.stderr
    assert "images   5: 4 done, 1 failed" in done.stderr
    alone = command("run", photos / "1.tif", "-o", tmp_path / "alone.tif", *common)
    assert alone.returncode == 0
    assert (tmp_path / "out" / "1.tif").read_bytes() == (tmp_path / "alone.tif").read_bytes()
    again = command("run", *good(photos), "-o", tmp_path / "out", *common)
    assert again.returncode == 0
    assert again.stdout.split() == [str(tmp_path / "out" / f"{index}.tif") for index in range(4)]
    assert "images   4: 4 unchanged" in again.stderr


def test_the_cache_of_each_image_is_removed_unless_it_is_to_be_kept(copies, psf, tmp_path):
    images = good(copies)[:2]
    restore(images, tmp_path, psf=psf)
    assert not list((tmp_path / "cache").rglob("tiles.zarr"))
    restore(images, tmp_path, psf=psf, keep_cache=True, overwrite=True, fresh=True)
    assert len(list((tmp_path / "cache").rglob("tiles.zarr"))) == 2


def test_a_repeated_command_does_what_is_missing(copies, psf, tmp_path):
    images = good(copies)
    assert set(statuses(restore(images, tmp_path, psf=psf)).values()) == {"done"}
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "2.tif").unlink()
    again = statuses(restore(images, tmp_path, psf=psf))
    assert again == {"0.tif": "unchanged", "1.tif": "unchanged", "2.tif": "done", "3.tif": "unchanged"}
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == written


def test_what_is_not_as_it_was_written_is_neither_kept_nor_replaced(copies, psf, tmp_path):
    """An edited input, an edited output, other settings: the output exists, and only --overwrite replaces it."""
    images = good(copies)[:3]
    restore(images, tmp_path, psf=psf)
    write_photo(images[0], 200, 100)
    with (tmp_path / "out" / "1.tif").open("ab") as file:
        file.write(b"notes")
    outcomes = restore(images, tmp_path, psf=psf)
    assert statuses(outcomes) == {"0.tif": "failed", "1.tif": "failed", "2.tif": "unchanged"}
    assert {outcome.code for outcome in outcomes} == {0, 4}
    others = restore(images, tmp_path, psf=psf, priority=0.5)
    assert {outcome.code for outcome in others} == {4}
    assert set(statuses(restore(images, tmp_path, psf=psf, overwrite=True)).values()) == {"done", "unchanged"}


def test_images_side_by_side_and_one_after_the_other_give_the_same_bytes(photos, psf, tmp_path, monkeypatch):
    """With many lanes, with one, and as large images, which report their stages."""
    written, stages = [], []
    for index, (lanes, small) in enumerate([(3, batch.SMALL), (1, batch.SMALL), (3, 0)]):
        monkeypatch.setattr(batch, "_lanes", lambda settings, lanes=lanes: lanes)
        monkeypatch.setattr(batch, "SMALL", small)
        events = []
        folder = tmp_path / str(index)
        folder.mkdir()
        restore(good(photos), folder, psf=psf, on_event=events.append)
        written.append([path.read_bytes() for path in sorted((folder / "out").iterdir())])
        stages.append({event.stage for event in events if isinstance(event, Receipt)})
    assert written[0] == written[1] == written[2]
    assert stages == [{"images"}, {"images", *ALL_STAGES}, {"images", *ALL_STAGES}]


ALL_STAGES = {"ingest", "restore", "blend", "export"}


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_stop_leaves_the_rest_for_the_same_command(copies, psf, tmp_path, monkeypatch, lanes):
    monkeypatch.setattr(batch, "_lanes", lambda settings: lanes)
    stop = threading.Event()

    def listen(event):
        if isinstance(event, Receipt) and event.stage == "images":
            stop.set()

    outcomes = restore(good(copies), tmp_path, psf=psf, on_event=listen, stop=stop)
    found = [outcome.status for outcome in outcomes]
    assert "done" in found
    assert "not started" in found
    assert set(found) <= {"done", "interrupted", "not started"}
    assert {outcome.code for outcome in outcomes} == {0, 130}
    assert set(statuses(restore(good(copies), tmp_path, psf=psf)).values()) == {"done", "unchanged"}


def test_an_unexpected_error_of_one_image_stops_no_other(photos, psf, tmp_path, monkeypatch):
    real = tilepipe.plan

    def plan(image, *arguments, **options):
        if image.name == "1.tif":
            raise RuntimeError("a cosmic ray")
        return real(image, *arguments, **options)

    monkeypatch.setattr("tilepipe.execution.batch.make_plan", plan)
    outcomes = restore(good(photos), tmp_path, psf=psf)
    assert statuses(outcomes) == {"0.tif": "done", "1.tif": "failed", "2.tif": "done", "3.tif": "done"}
    assert outcomes[1].error.startswith("unexpected RuntimeError: a cosmic ray (")
    assert 'raise RuntimeError("a cosmic ray")' in outcomes[1].trace
    assert outcomes[1].code == 1


def test_the_inputs_are_never_the_outputs(copies, psf, tmp_path, command):
    before = (copies / "0.tif").read_bytes()
    done = command("run", copies / "0.tif", copies / "1.tif", "-o", copies, "--psf", psf, "--overwrite")
    assert done.returncode == 4
    assert "would replace the input" in done.stderr
    assert (copies / "0.tif").read_bytes() == before
