"""Whatever goes wrong: it is said in one sentence, nothing false is kept, and the same command finishes the job."""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest
import tifffile
from workplace import TILES, Workplace, at, reference

from tilepipe.cache.store import CheckedArray
from tilepipe.errors import (
    CacheError,
    DoesNotFitError,
    InputError,
    InterruptedRunError,
    OutputError,
    OutputExistsError,
    TilesFailedError,
)
from tilepipe.execution import tasks
from tilepipe.image.writers.beside import write_beside
from tilepipe.system import file_lock


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("stage", ["source", "tiles", "result"])
def test_a_full_disk_under_the_cache_stops_the_run_which_goes_on_later(place, template, monkeypatch, stage):
    real, calls = CheckedArray.write, []

    def write(self, *arguments):
        calls.append(self.folder.stem)
        if calls.count(stage) > 1 and self.folder.stem == stage:
            full_disk()
        real(self, *arguments)

    monkeypatch.setattr(CheckedArray, "write", write)
    with pytest.raises(DoesNotFitError, match=r"disk of the cache .* is full; finished work is kept"):
        place.run()
    assert calls.count(stage) == 2, "nothing else is begun"
    monkeypatch.undo()
    happened = place.run()
    assert len(happened.computed) == {"source": TILES, "tiles": TILES - 1, "result": 0}[stage]
    assert place.output.read_bytes() == reference(template)


def test_a_full_disk_under_a_record_is_no_record(place, template, monkeypatch):
    monkeypatch.setattr("tilepipe.cache.ledger.write_sealed", full_disk)
    with pytest.raises(DoesNotFitError):
        place.run()
    monkeypatch.undo()
    assert len(place.run().computed) == TILES
    assert place.output.read_bytes() == reference(template)


def test_a_full_disk_under_the_output_leaves_the_old_one(place, template, monkeypatch):
    place.output.write_bytes(b"precious")
    monkeypatch.setattr("tilepipe.image.writers.beside.flush", full_disk)
    with pytest.raises(DoesNotFitError, match="disk of the output"):
        place.run()
    assert place.output.read_bytes() == b"precious"
    assert list(place.folder.glob("*.partial")) == []
    monkeypatch.undo()
    assert place.run().computed == set()
    assert place.output.read_bytes() == reference(template)


def failing(monkeypatch, times, error, tile=(1, 1)):
    """Let one tile raise so many times; return the indices that were tried."""
    real, tried = tasks._restore, []

    def restore(job, row, column):
        tried.append((row, column))
        if (row, column) == tile and tried.count(tile) <= times:
            raise error
        return real(job, row, column)

    monkeypatch.setattr(tasks, "_restore", restore)
    return tried


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("a cosmic ray")])
def test_a_tile_that_fails_once_is_tried_again(place, template, monkeypatch, error):
    tried = failing(monkeypatch, 1, error)
    happened = place.run(jobs=2)
    assert len(tried) == TILES + 1
    assert f"retry    1 failed, the first: restore 1-1: {type(error).__name__}" in happened.notes
    assert place.output.read_bytes() == reference(template)


def test_a_tile_that_fails_again_is_reported_and_the_others_are_kept(place, template, monkeypatch):
    tried = failing(monkeypatch, 2, ValueError("no good"))
    with pytest.raises(TilesFailedError, match=r"1 of 12 tasks failed, the first restore 1-1: ValueError: no good"):
        place.run()
    assert sorted(set(tried)) == [(row, column) for row in range(2) for column in range(5)]
    monkeypatch.undo()
    assert place.run().computed == {"1-1"}
    assert place.output.read_bytes() == reference(template)


def test_too_many_failures_end_the_run(place, template, monkeypatch):
    tried = failing(monkeypatch, 9, ValueError("no good"), (0, 2))
    with pytest.raises(TilesFailedError):
        place.run(max_failures=0)
    assert tried[-1] == (0, 2), "nothing else was begun"
    monkeypatch.undo()
    assert len(place.run().computed) == TILES + 1 - len(tried)
    assert place.output.read_bytes() == reference(template)


@pytest.mark.parametrize("stage", ["ingest", "restore", "blend", "export"])
def test_a_cache_removed_during_the_run_ends_it_without_output(place, template, stage):
    def remove():
        for folder in (
            [place.cache] if stage == "blend" else [place.run_folder().parent / "source.zarr", place.run_folder()]
        ):
            shutil.rmtree(folder)

    with pytest.raises(CacheError, match=r"was removed .* run the same command again|is missing"):
        place.run(on_event=at(stage, remove))
    assert not place.output.exists()
    assert list(place.folder.glob("*.partial")) == []
    place.run()
    assert place.output.read_bytes() == reference(template)


@pytest.mark.parametrize("stage", ["source", "tiles", "result"])
def test_a_chunk_removed_during_the_run_is_never_taken_for_zeros(place, template, stage):
    def remove():
        for chunk in place.cache.rglob(f"{stage}.zarr/c.*"):
            chunk.unlink()

    when = {"source": ("restore", 1), "tiles": ("restore", TILES), "result": ("blend", 2)}[stage]
    try:
        place.run(on_event=at(when[0], remove, when[1]))
    except (CacheError, TilesFailedError):
        assert not place.output.exists()
        place.run()
    assert place.output.read_bytes() == reference(template)


def test_quick_verification_repairs_what_it_could_not_see(finished, template):
    (chunk, _) = sorted(finished.run_folder().glob("result.zarr/c.*"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with pytest.raises(CacheError, match=r"is damaged .* recompute"):
        finished.run(verify="quick")
    assert not finished.output.exists()
    assert finished.run(verify="quick").computed == set()
    assert finished.output.read_bytes() == reference(template)


@pytest.mark.parametrize("stage", ["source", "tiles"])
def test_quick_verification_repairs_what_made_tiles_fail(finished, template, stage):
    folder = finished.run_folder()
    for record in folder.glob("result.ledger/*.json"):
        record.unlink()
    if stage == "source":
        for record in folder.glob("tiles.ledger/*.json"):
            record.unlink()
    chunk = min((folder.parent if stage == "source" else folder).glob(f"{stage}.zarr/c.*"))
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(content)
    with contextlib.suppress(TilesFailedError):  # a tile can be made again at once, the source by the next run
        finished.run(verify="quick")
    finished.run(verify="quick")
    assert finished.output.read_bytes() == reference(template)


def test_a_source_replaced_while_it_is_read_is_refused_and_leaves_no_trace(place, template):
    original = place.folder / "original.tif"
    shutil.copy(place.picture, original)

    def replace():
        other = place.folder / "other.tif"
        shutil.copy(original, other)
        tifffile.memmap(other)[...] = 0
        other.replace(place.picture)

    with pytest.raises(InputError, match="was changed or removed"):
        place.run(on_event=at("ingest", replace))
    assert not place.output.exists()
    place.run(picture=original)
    assert place.output.read_bytes() == reference(template)


def test_a_source_edited_in_place_while_it_is_read_is_refused_and_leaves_no_trace(place, template):
    original = place.folder / "original.tif"
    shutil.copy(place.picture, original)
    with pytest.raises(InputError, match="was changed or removed"):
        place.run(on_event=at("ingest", lambda: place.edit(lambda pixels: pixels[-9:].fill(0))))
    place.run(picture=original)
    assert place.output.read_bytes() == reference(template)


def test_a_source_replaced_between_plan_and_run_is_refused(place):
    plan = place.plan()
    place.edit(lambda pixels: pixels[-9:].fill(0))
    with pytest.raises(InputError, match="since it was planned"):
        plan.run()


def test_a_source_removed_after_it_was_read_is_needed_no_more(place, template):
    place.run(on_event=at("restore", place.picture.unlink))
    assert place.output.read_bytes() == reference(template)


def test_a_read_only_source_and_strange_paths(place, template, tmp_path):
    folder = tmp_path / "a folder, with Ümläuts' & [brackets] 100%"
    folder.mkdir()
    strange = Workplace(folder)
    place.picture.rename(folder / "real picture.tif")
    (folder / "real picture.tif").chmod(0o444)
    strange.picture.symlink_to("real picture.tif")
    strange.run()
    assert strange.output.read_bytes() == reference(template)
    assert oct((folder / "real picture.tif").stat().st_mode & 0o777) == "0o444"
    assert strange.run().computed == set()


def test_an_output_on_another_file_system(place, template):
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == place.folder.stat().st_dev:
        pytest.skip("no second file system at /dev/shm")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        place.run(output=Path(folder) / "out.tif")
        assert (Path(folder) / "out.tif").read_bytes() == reference(template)
        assert os.listdir(folder) == ["out.tif"]


def test_a_cache_that_cannot_be_a_folder_is_said(place, template):
    blocked = place.folder / "blocked"
    blocked.write_text("a file")
    with pytest.raises(CacheError, match="cannot be written or read"):
        place.run(cache=str(blocked))


def test_a_clock_that_goes_back_changes_nothing(place, template, monkeypatch):
    with pytest.raises(InterruptedRunError):
        place.run(on_event=at("restore", place.stop, 4))
    for path in place.cache.rglob("*"):  # all of it lies in the future now
        os.utime(path, (4e9, 4e9))
    monkeypatch.setattr(time, "time", lambda: 1.0)
    assert len(place.run().computed) == TILES - 4
    assert place.output.read_bytes() == reference(template)


def test_an_output_that_comes_to_be_meanwhile_is_left_alone(place, template):
    theirs = partial(place.output.write_bytes, b"somebody else's")
    with pytest.raises(OutputExistsError, match="was created during the run"):
        place.run(on_event=at("export", theirs), overwrite=False)
    assert place.output.read_bytes() == b"somebody else's"
    assert list(place.folder.glob("*.partial")) == []
    assert place.run(overwrite=True).computed == set()
    assert place.output.read_bytes() == reference(template)


@pytest.mark.skipif(not file_lock.is_available(), reason="this system has no file locks")
def test_two_runs_do_not_write_one_output_at_once(tmp_path):
    def write(partial):
        with pytest.raises(OutputError, match="being written by another run"):
            write_beside(tmp_path / "out.tif", lambda path: path.write_bytes(b"second"))
        partial.write_bytes(b"first")

    write_beside(tmp_path / "out.tif", write)
    assert (tmp_path / "out.tif").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tif"]


def test_a_run_killed_as_it_named_its_output_can_be_run_again(place, template):
    place.run()
    os.link(place.output, place.folder / "out.tif.partial")
    place.run(overwrite=False)
    assert place.output.read_bytes() == reference(template)
    assert list(place.folder.glob("*.partial")) == []


def test_stopping_in_the_export_leaves_no_unfinished_file(place, template):
    with pytest.raises(InterruptedRunError):
        place.run(on_event=at("export", place.stop))
    assert not place.output.exists()
    assert list(place.folder.glob("*.partial")) == []
    assert place.run().computed == set()
    assert place.output.read_bytes() == reference(template)


def test_unfinished_files_of_killed_runs_are_swept_away(place):
    folder = place.run().report.folder
    for name in ("tiles.zarr/c.0.0.0.0.abc.partial", "tiles.ledger/.0-0.json.1-2.partial"):
        (folder / name).write_bytes(b"half")
    place.run()
    assert list(folder.rglob("*.partial")) == []
