"""One run at a time, and no lock outlives its process."""

import json
import os
import subprocess
import sys
import time

import pytest

from tilepipe.cache.lock import STALE, locked
from tilepipe.errors import CacheError


def write_lock(folder, host, pid):
    (folder / "lock").write_text(json.dumps({"host": host, "pid": pid}))


def test_a_second_holder_is_refused_with_the_first_ones_name(tmp_path):
    with locked(tmp_path), pytest.raises(CacheError, match=f"process {os.getpid()}"), locked(tmp_path):
        pass
    assert not (tmp_path / "lock").exists()


def test_a_dead_process_of_this_host_is_taken_over_at_once(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    write_lock(tmp_path, os.uname().nodename, dead.pid)
    with locked(tmp_path):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_another_host_is_believed_while_its_heart_beats(tmp_path):
    write_lock(tmp_path, "elsewhere", 1)
    with pytest.raises(CacheError, match="elsewhere"), locked(tmp_path):
        pass
    old = time.time() - STALE - 1
    os.utime(tmp_path / "lock", (old, old))
    with locked(tmp_path):
        pass


def test_a_torn_lock_is_taken_over(tmp_path):
    (tmp_path / "lock").write_text('{"ho')
    with locked(tmp_path):
        pass
