"""An output that is a folder is whole or not there, and replaces nothing but a zarr folder."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tilepipe.errors import DoesNotFitError, OutputError, OutputExistsError
from tilepipe.image.writers import beside
from tilepipe.image.writers.beside import partial_of, write_folder_beside


def writer(content, then=lambda: None):
    """A writer of a small zarr folder that calls `then` before its last file."""

    def write(partial):
        (partial / "0").mkdir(parents=True)
        (partial / "zarr.json").write_text("{}")
        then()
        (partial / "0" / "chunk").write_text(content)

    return write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["exchange", "two renames"])
def _any_system(request, monkeypatch):
    if request.param == "two renames":
        monkeypatch.setattr(beside, "exchange", lambda one, other: False)


def test_a_new_folder_is_all_that_is_left(tmp_path):
    write_folder_beside(tmp_path / "a.zarr", writer("new"))
    assert names(tmp_path) == ["a.zarr"]
    assert (tmp_path / "a.zarr" / "0" / "chunk").read_text() == "new"


@pytest.mark.usefixtures("_any_system")
def test_overwriting_replaces_all_of_a_zarr_folder(tmp_path):
    write_folder_beside(tmp_path / "a.zarr", writer("old"))
    (tmp_path / "a.zarr" / "5").mkdir()
    write_folder_beside(tmp_path / "a.zarr", writer("new"), overwrite=True)
    assert names(tmp_path) == ["a.zarr"]
    assert names(tmp_path / "a.zarr") == ["0", "zarr.json"]
    assert (tmp_path / "a.zarr" / "0" / "chunk").read_text() == "new"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device"), RuntimeError])
@pytest.mark.parametrize("exists", [False, True])
def test_a_failure_leaves_what_was_there(tmp_path, error, exists):
    def fail():
        raise error

    if exists:
        write_folder_beside(tmp_path / "a.zarr", writer("old"))
    with pytest.raises((KeyboardInterrupt, DoesNotFitError, RuntimeError)):
        write_folder_beside(tmp_path / "a.zarr", writer("new", fail), overwrite=True)
    assert names(tmp_path) == ["a.zarr"] * exists
    if exists:
        assert (tmp_path / "a.zarr" / "0" / "chunk").read_text() == "old"


@pytest.mark.parametrize("left", [{}, {"zarr.123.partial": ""}, {"zarr.json": "{}", "chunk": "half"}])
def test_what_a_killed_run_left_is_replaced(tmp_path, left):
    partial = partial_of(tmp_path / "a.zarr")
    partial.mkdir()
    for name, content in left.items():
        (partial / name).write_text(content)
    (tmp_path / "a.zarr.partial.lock").touch()
    write_folder_beside(tmp_path / "a.zarr", writer("new"))
    assert names(tmp_path) == ["a.zarr"]
    assert names(tmp_path / "a.zarr") == ["0", "zarr.json"]


def test_removing_can_be_resumed(tmp_path, monkeypatch):
    """A run that is killed while it removes what it replaced leaves a folder that the next one recognises."""
    write_folder_beside(tmp_path / "a.zarr", writer("old"))

    def killed(folder, last):
        for path in folder.rglob("chunk"):
            path.unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(beside, "remove_folder", killed)
    with pytest.raises(KeyboardInterrupt):
        write_folder_beside(tmp_path / "a.zarr", writer("new"), overwrite=True)
    monkeypatch.undo()
    assert (tmp_path / "a.zarr" / "0" / "chunk").read_text() == "new"
    write_folder_beside(tmp_path / "a.zarr", writer("newer"), overwrite=True)
    assert names(tmp_path) == ["a.zarr"]


def test_a_foreign_folder_is_neither_replaced_nor_removed(tmp_path):
    for name in ("a.zarr", "b.zarr.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "letters.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists and is not a zarr folder"):
        write_folder_beside(tmp_path / "a.zarr", writer("new"), overwrite=True)
    with pytest.raises(OutputError, match="is in the way"):
        write_folder_beside(tmp_path / "b.zarr", writer("new"), overwrite=True)
    assert names(tmp_path) == ["a.zarr", "b.zarr.partial"]
    assert names(tmp_path / "a.zarr") == names(tmp_path / "b.zarr.partial") == ["letters.txt"]


@pytest.mark.parametrize("kind", ["zarr", "file", "folder"])
def test_what_was_created_during_the_run_is_kept(tmp_path, kind):
    path = tmp_path / "a.zarr"

    def create():
        if kind == "file":
            path.write_text("mine")
            return
        path.mkdir()
        (path / ("zarr.json" if kind == "zarr" else "b.txt")).write_text("mine")

    with pytest.raises(OutputExistsError, match="was created during the run"):
        write_folder_beside(path, writer("new", create))
    assert names(tmp_path) == ["a.zarr"]
    assert (path if path.is_file() else next(path.iterdir())).read_text() == "mine"


def test_two_runs_that_write_one_output(tmp_path):
    """One of them fails with one line; the other one's output is whole."""
    started, go_on = threading.Event(), threading.Event()

    def wait():
        started.set()
        assert go_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(write_folder_beside, tmp_path / "a.zarr", writer("first", wait))
        assert started.wait(60)
        with pytest.raises(OutputError, match="is being written by another run"):
            write_folder_beside(tmp_path / "a.zarr", writer("second"), overwrite=True)
        go_on.set()
        first.result()
    assert names(tmp_path) == ["a.zarr"]
    assert (tmp_path / "a.zarr" / "0" / "chunk").read_text() == "first"


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    write_folder_beside(tmp_path / "disk" / "a.zarr", writer("old"))
    (tmp_path / "link.zarr").symlink_to(tmp_path / "disk" / "a.zarr")
    write_folder_beside(tmp_path / "link.zarr", writer("new"), overwrite=True)
    assert (tmp_path / "link.zarr").is_symlink()
    assert (tmp_path / "disk" / "a.zarr" / "0" / "chunk").read_text() == "new"
    assert names(tmp_path / "disk") == ["a.zarr"]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        write_folder_beside(tmp_path / "a.zarr", writer("new"))
