"""Errors that pass, at any moment: the run finishes or stops with one line, and no good tile is computed again."""

import builtins
import errno
import gc
import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings
from workplace import Workplace, adopted, at, begun, reference

from tilepipe.cache import lock
from tilepipe.cache.digests import digest_of
from tilepipe.cache.lock import locked
from tilepipe.cache.store import CheckedArray
from tilepipe.cache.zarr_arrays import DamagedError, open_array, open_complete_array
from tilepipe.errors import CacheError, InputError, TilepipeError
from tilepipe.events import Note, Receipt
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.psf.shapes import gaussian
from tilepipe.testing import BlurredScene, Scene, write_scene

ERRORS = [errno.EIO, errno.EMFILE, errno.ESTALE, errno.ENOMEM, errno.EINTR, "short", "memory"]

CALLS = {os: ("open", "pread", "fsync", "replace", "link", "mkdir", "stat"), io: ("open",), builtins: ("open",)}
"""Functions that read or write; files that they open count their calls as well."""


class Faults:
    """Count the calls that read or write below `root`; the one with the given number fails, once."""

    def __init__(self, root, number=0, error=errno.EIO):
        self.root, self.number, self.error, self.calls = os.fspath(root), number, error, 0
        self.real = [
            (module, name, getattr(module, name))
            for module, names in CALLS.items()
            for name in names
            if hasattr(module, name)
        ]

    def __enter__(self):
        for module, name, function in self.real:
            setattr(module, name, self._counting(name, function))
        return self

    def __exit__(self, *_):
        for module, name, function in self.real:
            setattr(module, name, function)

    def is_due(self):
        self.calls += 1
        return self.calls == self.number

    def fail(self):
        if self.error == "memory":
            raise MemoryError
        raise OSError(self.error, os.strerror(self.error))

    def _counting(self, name, function):
        def call(where, *arguments, **keywords):
            if not self._is_here(where):
                return function(where, *arguments, **keywords)
            if self.is_due():
                if self.error != "short":
                    self.fail()
                if name == "pread":
                    return function(where, arguments[0] // 2, arguments[1])
            opened = function(where, *arguments, **keywords)
            return Shaky(opened, self) if isinstance(opened, io.BufferedIOBase) else opened

        return call

    def _is_here(self, where):
        if isinstance(where, int):
            try:
                where = os.readlink(f"/proc/self/fd/{where}")
            except OSError:
                return False
        return os.fsdecode(where).startswith(self.root)


class Shaky:
    """An open binary file whose calls count."""

    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        self._file.__enter__()
        return self

    def __exit__(self, *details):
        return self._file.__exit__(*details)

    def read(self, *size):
        if not self._faults.is_due():
            return self._file.read(*size)
        if self._faults.error != "short":
            self._faults.fail()
        content = self._file.read(*size)
        return content[: len(content) // 2]

    def write(self, data):
        if self._faults.is_due() and self._faults.error != "short":
            self._faults.fail()
        return self._file.write(data)


def trial(template, number, error):
    """Run with one fault, then without; return the message of the first run, and how often it read or wrote."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(template.folder, Path(name) / "place")
        place = begun(adopted(Workplace(Path(name) / "place")))
        done, message = set(), ""

        def listen(event):
            if isinstance(event, Receipt) and (event.stage, event.status) == ("restore", "done"):
                done.add(event.index)

        with Faults(place.folder, number, error) as faults:
            try:
                place.run(on_event=listen)
            except TilepipeError as stopped:
                message = str(stopped)
            except MemoryError:  # while planning; the command line reports it in one line
                message = "out of memory"
        if not message:
            assert place.output.read_bytes() == reference(template)
        happened = place.run()
        assert not happened.computed & done, message
        assert place.output.read_bytes() == reference(template)
        assert not list(place.folder.rglob("*.partial"))
        return message, faults.calls


@pytest.fixture(scope="module")
def calls(template):
    """Number of times that an undisturbed run reads or writes."""
    return trial(template, 0, errno.EIO)[1]


def test_the_faults_reach_all_of_a_run(calls):
    assert calls > 300


@given(st.floats(0, 1), st.sampled_from(ERRORS))
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_fault_costs_no_good_tile(template, calls, moment, error):
    message, _ = trial(template, 1 + int(moment * (calls - 1)), error)
    assert "\n" not in message


@pytest.mark.thorough
@given(st.floats(0, 1), st.sampled_from(ERRORS))
@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
def test_one_fault_of_many_costs_no_good_tile(template, calls, moment, error):
    trial(template, 1 + int(moment * (calls - 1)), error)


@pytest.mark.parametrize("content", [b"", b'{"core": 1', b"\xff\xfe", b"[]", b"{}"])
def test_a_recipe_that_is_read_in_part_is_one_line(template, monkeypatch, content):
    with tempfile.TemporaryDirectory() as name:
        shutil.copytree(template.folder, Path(name) / "place")
        place = begun(adopted(Workplace(Path(name) / "place")))
        real = Path.read_bytes
        monkeypatch.setattr(Path, "read_bytes", lambda path: content if path.name == "recipe.json" else real(path))
        with pytest.raises(CacheError, match=r"recipe\.json is damaged; run the same command again") as stopped:
            place.run()
        assert "\n" not in str(stopped.value)
        monkeypatch.undo()
        place.run()
        assert place.output.read_bytes() == reference(template)


def test_an_image_of_which_a_part_was_read_is_not_known_by_that_part(place, template, monkeypatch):
    """The digest of a part would make the next run recompute everything for "new content"."""
    real = Path.open

    def short(path, *arguments, **keywords):
        if path != place.picture:
            return real(path, *arguments, **keywords)
        with real(path, *arguments, **keywords) as file:
            return io.BytesIO(file.read()[:-10])

    monkeypatch.setattr(Path, "open", short)
    with pytest.raises(InputError, match=r"\d+ of the \d+ bytes of .*picture\.tif were read"):
        digest_of(place.cache, place.picture)
    monkeypatch.undo()
    place.run()
    assert place.output.read_bytes() == reference(template)


@pytest.mark.parametrize("size", [0, 1, 20, 385, -1])
@pytest.mark.parametrize("reading", [open_array, open_complete_array])
def test_a_header_that_is_read_in_part_is_one_line(finished, size, reading):
    folder = finished.run_folder() / "tiles.zarr"
    header = folder / "zarr.json"
    header.write_bytes(header.read_bytes()[:size])
    with pytest.raises(DamagedError, match=r"the header of .* is damaged .*; run again to rewrite it"):
        reading(folder)


def always(error):
    def fail(*_, **__):
        raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ESTALE])
def test_records_that_cannot_be_read_for_a_while_are_kept(finished, template, monkeypatch, error):
    """As when the process has no file handles left: the tiles are there."""
    real = Path.read_bytes

    def read_bytes(path):
        return always(error)() if path.parent.name == "tiles.ledger" else real(path)

    for record in finished.run_folder().glob("result.ledger/*.json"):
        record.unlink()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    with pytest.raises(CacheError, match="cannot be written or read"):
        finished.run()
    monkeypatch.undo()
    assert finished.run().computed == set()
    assert finished.output.read_bytes() == reference(template)


def test_a_chunk_that_the_disk_cannot_read_is_computed_again(finished, template, monkeypatch):
    """A bad sector: the same error every time.  The chunk is written to another place."""
    for record in finished.run_folder().glob("result.ledger/*.json"):
        record.unlink()
    bad = min(finished.run_folder().glob("tiles.zarr/c.*"))
    inode, real = bad.stat().st_ino, Path.read_bytes

    def read_bytes(path):
        return always(errno.EIO)() if path == bad and path.stat().st_ino == inode else real(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert finished.run().computed == {"0-0"}
    assert finished.output.read_bytes() == reference(template)


def test_a_run_that_lost_its_lock_deletes_nothing(place):
    """Suspended for so long that another run took the folder over, and is in the middle of a tile."""
    chunk = []

    def taken_over():
        folder = place.run_folder()
        (folder / "lock").write_text((folder / "lock").read_text().replace('"token": "', '"token": "another-'))
        chunk.append(min(folder.glob("tiles.zarr/c.*")))
        chunk[0].write_bytes(b"half of what the other run writes")

    with pytest.raises(CacheError, match="taken over"):
        place.run(on_event=at("restore", taken_over, 4))
    row, column = chunk[0].name.split(".")[1:3]
    assert (place.run_folder() / "tiles.ledger" / f"{row}-{column}.json").exists()
    assert "another-" in (place.run_folder() / "lock").read_text()
    assert not place.output.exists()


def test_a_lock_that_cannot_be_read_or_touched_for_a_while_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with locked(tmp_path / "run", tmp_path) as held:
        file = tmp_path / "run" / "lock"
        monkeypatch.setattr(os, "utime", always(errno.ESTALE))
        monkeypatch.setattr(Path, "read_text", always(errno.EMFILE))
        held.check()
        touches = []
        monkeypatch.setattr(os, "utime", lambda path: touches.append(path))
        monkeypatch.undo()
        monkeypatch.setattr(os, "utime", lambda path: touches.append(path))
        for _ in range(500):
            if touches:
                break
            time.sleep(0.01)
        assert touches, "the heart stopped at the first failure"
        assert file.exists()


def test_what_does_not_read_back_as_written_is_not_recorded(place, template, monkeypatch):
    """The disk stored something else: the record would be true of it, but not of the tile."""
    real, written = CheckedArray.write, []

    def write(self, *arguments):
        real(self, *arguments)
        if self.folder.stem == "tiles" and not written:
            written.append(min(self.folder.glob("c.*")))
            content = bytearray(written[0].read_bytes())
            content[len(content) // 2] ^= 1
            written[0].write_bytes(content)

    monkeypatch.setattr(CheckedArray, "write", write)
    happened = place.run()
    assert "does not read back as written" in happened.notes
    assert place.output.read_bytes() == reference(template)


def planned(folder, output, cache):
    """Plan the picture in `folder` in small tiles."""
    settings = {"tile": 100, "quality": "fast", "cache": str(folder / cache)}
    return make_plan(folder / "in.tif", folder / output, psf=folder / "psf.tif", **settings)


ELSEWHERE = """
import sys
from tilepipe.cache import lock_owner
place = dict(lock_owner._place(), host="elsewhere")
lock_owner._place = lambda: place
from tilepipe.cli.main import main
main(sys.argv[1:])
"""
"""Runs the command line as on another host, which shares the cache."""


@pytest.mark.thorough
@pytest.mark.parametrize("moment", ["tiles.ledger/*.json", "result.ledger/*.json"])
def test_a_suspended_run_loses_its_lock_and_both_end_well(tmp_path, monkeypatch, moment):
    """Stopped past the heartbeat; another run takes the folder over and finishes; the first one wakes up."""
    gaussian(1.0).save(tmp_path / "psf.tif")
    write_scene(tmp_path / "in.tif", BlurredScene(Scene(900, 700), gaussian(1.0), 0.005))
    arguments = [tmp_path / "in.tif", "--psf", tmp_path / "psf.tif", "--tile", 100, "--cache", tmp_path / "c", "-j", 1]
    arguments = ["run", *map(str, arguments), "--json", "--quality", "fast"]
    first = subprocess.Popen(
        [sys.executable, "-c", ELSEWHERE, *arguments, "-o", str(tmp_path / "first.tif")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while len(list((tmp_path / "c").rglob(moment))) < 2:
        assert first.poll() is None, first.communicate()[1]
        time.sleep(0.002)
    first.send_signal(signal.SIGSTOP)
    recorded = len(list((tmp_path / "c").rglob("tiles.ledger/[0-9]*.json")))
    try:
        monkeypatch.setattr(lock, "STALE", 1.0)
        monkeypatch.setattr(lock, "POLL_SECONDS", 0.05)
        notes = []
        plan = planned(tmp_path, "second.tif", cache="c")
        report = plan.run(notes.append)
    finally:
        first.send_signal(signal.SIGCONT)
    assert any("waiting" in note.text for note in notes if isinstance(note, Note))
    assert report.tiles["reused"] >= recorded
    _, error = first.communicate(timeout=900)
    assert first.returncode == 7
    assert "taken over" in error.splitlines()[-1]
    assert not (tmp_path / "first.tif").exists()
    again = plan.run(overwrite=True)
    assert again.tiles["computed"] == 0
    planned(tmp_path, "whole.tif", cache="d").run()
    assert (tmp_path / "second.tif").read_bytes() == (tmp_path / "whole.tif").read_bytes()


@pytest.mark.thorough
@pytest.mark.parametrize("error", [errno.EIO, "memory"])
def test_a_fault_at_any_moment_of_the_export_leaves_no_file_open(template, calls, error):
    """A file left open is reported as an unraisable ResourceWarning, which fails the test."""
    for number in range(calls - 30, calls + 1):
        trial(template, number, error)
        gc.collect()
