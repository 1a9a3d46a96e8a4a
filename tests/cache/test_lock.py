"""One run at a time, and no lock outlives its process."""

import json
import os
import shutil
import subprocess
import sys
import threading

import pytest

from tilepipe.cache import lock, lock_owner
from tilepipe.cache.collection import remove
from tilepipe.cache.lock import locked
from tilepipe.errors import CacheError


def write_lock(folder, pid, started=None, **elsewhere):
    """Write a lock of this place, or of one that differs in the fields of `elsewhere`."""
    folder.mkdir(exist_ok=True)
    place = lock_owner._place() | elsewhere
    (folder / "lock").write_text(json.dumps(place | {"pid": pid, "started": started, "token": "x"}))


def test_a_second_holder_is_refused_with_the_first_ones_name(tmp_path):
    with (
        locked(tmp_path / "run", tmp_path),
        pytest.raises(CacheError, match=f"process {os.getpid()}"),
        locked(tmp_path / "run", tmp_path),
    ):
        pass
    assert not (tmp_path / "run" / "lock").exists()


def test_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    write_lock(tmp_path / "run", dead.pid)
    with locked(tmp_path / "run", tmp_path):
        assert json.loads((tmp_path / "run" / "lock").read_text())["pid"] == os.getpid()


def test_a_reused_process_number_is_not_the_process(tmp_path):
    write_lock(tmp_path / "run", os.getpid(), started=1)
    with locked(tmp_path / "run", tmp_path):
        pass


def test_another_host_is_believed_while_its_heart_beats(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    write_lock(tmp_path / "run", 1, host="elsewhere")
    file = tmp_path / "run" / "lock"
    beat = threading.Timer(0.1, lambda: os.utime(file, (1, 1)))  # its clock may be far behind
    beat.start()
    with pytest.raises(CacheError, match="elsewhere"), locked(tmp_path / "run", tmp_path):
        pass
    beat.join()


@pytest.mark.parametrize("clock", [1, 4e9], ids=["behind", "ahead"])
def test_another_host_that_is_silent_is_taken_over_whatever_its_clock(tmp_path, monkeypatch, clock):
    monkeypatch.setattr(lock, "STALE", 0.1)
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    write_lock(tmp_path / "run", 1, host="elsewhere")
    os.utime(tmp_path / "run" / "lock", (clock, clock))
    with locked(tmp_path / "run", tmp_path) as held:
        held.check()


def test_a_torn_lock_is_taken_over(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "lock").write_text('{"ho')
    with locked(tmp_path / "run", tmp_path):
        pass


def test_a_lock_that_somebody_removed_is_noticed_and_not_removed_twice(tmp_path):
    with locked(tmp_path / "run", tmp_path) as held:
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(CacheError, match="was removed"):
            held.check()
        write_lock(tmp_path / "run", 1, host="elsewhere")
    assert (tmp_path / "run" / "lock").exists(), "the other one's lock stays"


CONTEND = """
import os, sys, time
from pathlib import Path
from tilepipe.cache.lock import locked
from tilepipe.errors import CacheError
root, count = Path(sys.argv[1]), int(sys.argv[2])
children = []
for number in range(count):  # forked, so that one import does for all
    if (child := os.fork()) == 0:
        name = str(number)
        break
    children.append(child)
else:
    sys.exit(any([os.waitpid(child, 0)[1] for child in children]))

def wait_for(pattern):
    while len(list(root.glob(pattern))) < count:
        time.sleep(0.01)

(root / f"ready-{name}").touch()
wait_for("ready-*")
try:
    with locked(root / "run", root):
        (root / f"tried-in-{name}").touch()
        wait_for("tried-*")
except CacheError:
    (root / f"tried-out-{name}").touch()
"""


def test_one_of_eight_takes_a_dead_lock(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    write_lock(tmp_path / "run", dead.pid)
    subprocess.run([sys.executable, "-c", CONTEND, str(tmp_path), "8"], check=True, timeout=900)
    assert len(list(tmp_path.glob("tried-in-*"))) == 1


@pytest.mark.parametrize("field", ["host", "machine", "boot", "namespace"])
def test_a_number_is_only_valid_where_it_was_given(tmp_path, monkeypatch, field):
    """Two containers with one host name have their own numbers: a number that is free here says nothing."""
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(lock_owner, "INITIAL_NAMESPACE", "this test runs in a container")
    write_lock(tmp_path / "run", dead.pid, **{field: "elsewhere"})
    file = tmp_path / "run" / "lock"
    notes = []

    monkeypatch.setattr(lock, "_wait_until_stale", after_a_touch(lock._wait_until_stale, file))
    with pytest.raises(CacheError, match=f"process {dead.pid}"), locked(tmp_path / "run", tmp_path, notes.append):
        pass
    assert "waiting" in notes[0].text


def after_a_touch(wait, file):
    """Let the other holder touch its lock while it is watched."""

    def waiting(path, folder):
        beat = threading.Timer(0.1, lambda: os.utime(file, (2, 2)))
        beat.start()
        try:
            return wait(path, folder)
        finally:
            beat.join()

    return waiting


def test_after_a_restart_of_the_machine_its_lock_is_taken_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        lock_owner, "_place", lambda: dict.fromkeys(("host", "machine", "boot"), "x") | {"namespace": "n"}
    )
    monkeypatch.setattr(lock_owner, "INITIAL_NAMESPACE", "n")
    write_lock(tmp_path / "run", os.getpid(), boot="before")
    with locked(tmp_path / "run", tmp_path) as held:
        held.check()


def test_a_folder_in_use_is_not_removed(tmp_path):
    with locked(tmp_path / "source" / "run", tmp_path):
        (tmp_path / "source" / "run" / "recipe.json").touch()
        with pytest.raises(CacheError, match=f"process {os.getpid()}"):
            remove(tmp_path / "source" / "run", tmp_path)
    assert remove(tmp_path / "source" / "run", tmp_path) == 0
    assert not (tmp_path / "source").exists()


def test_a_source_stays_while_another_run_has_only_just_begun(tmp_path):
    for name in ("one", "two"):
        (tmp_path / "source" / name).mkdir(parents=True)
    (tmp_path / "source" / "one" / "recipe.json").touch()
    with locked(tmp_path / "source" / "two", tmp_path):
        remove(tmp_path / "source" / "one", tmp_path)
        assert (tmp_path / "source" / "two" / "lock").exists()
