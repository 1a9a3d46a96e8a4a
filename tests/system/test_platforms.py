"""Nothing that only Linux has is needed: locks, positioned reads, limits, names of hosts."""

import subprocess
import sys
from pathlib import Path

import pytest

from tilepipe.system import file_lock
from tilepipe.system.file_lock import try_lock, wait_for_lock

TESTS = Path(__file__).parents[1]


def run_blocked(*tests):
    """Run tests in a process without the modules and functions of ``blocked_modules``."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.blocked_modules", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, *(str(TESTS / test) for test in tests)],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.thorough
def test_locks_and_ledgers_without_them():
    done = run_blocked("cache", "system/test_memory_limits.py", "image/test_bounds.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.thorough
def test_resuming_without_them():
    done = run_blocked("resume/test_resume.py", "resume/test_two_runs.py", "resume/test_invalidation.py")
    assert done.returncode == 0, done.stdout


@pytest.mark.thorough
def test_readers_and_plans_without_them():
    done = run_blocked("image", "planning", "fidelity/test_roundtrip.py")
    assert done.returncode == 0, done.stdout


class Windows:
    """The part of msvcrt that is used, on top of fcntl."""

    LK_NBLCK = 2

    def __init__(self):
        self.at = []

    def locking(self, descriptor, mode, size):
        import fcntl
        import os

        assert (mode, size) == (self.LK_NBLCK, 1)
        self.at.append(os.lseek(descriptor, 0, os.SEEK_CUR))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PermissionError from None


@pytest.mark.parametrize("system", ["own", "Windows"])
def test_one_holder_at_a_time(tmp_path, monkeypatch, system):
    if system == "Windows":
        monkeypatch.setattr(file_lock, "fcntl", None)
        monkeypatch.setattr(file_lock, "msvcrt", Windows())
    elif not file_lock.is_available():
        pytest.skip("this system has no file locks")
    with (tmp_path / "file").open("ab") as first, (tmp_path / "file").open("ab") as second:
        assert try_lock(first)
        assert not try_lock(second)
        first.close()
        wait_for_lock(second)
    assert (tmp_path / "file").stat().st_size == 0


def test_without_any_lock_it_is_an_error_that_callers_know(tmp_path, monkeypatch):
    monkeypatch.setattr(file_lock, "fcntl", None)
    monkeypatch.setattr(file_lock, "msvcrt", None)
    with (tmp_path / "file").open("ab") as file, pytest.raises(OSError, match="no file locks"):
        try_lock(file)
