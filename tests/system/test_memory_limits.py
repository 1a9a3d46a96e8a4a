"""What may be used is what the tightest control group round the process has left."""

import pytest

from tilepipe.settings import Settings
from tilepipe.system import memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    """Control groups in a folder: write(path, file, value); the process is in what `own` says."""
    root, own = tmp_path / "cgroup", tmp_path / "own"
    monkeypatch.setattr(memory, "CGROUP", root)
    monkeypatch.setattr(memory, "OWN_GROUPS", own)

    def write(path, **files):
        (root / path).mkdir(parents=True, exist_ok=True)
        for name, value in files.items():
            (root / path / name.replace("memory_", "memory.", 1)).write_text(f"{value}\n")

    return own, write


def test_without_limits_the_machine_decides(groups):
    own, write = groups
    own.write_text("0::/\n")
    write("", memory_max="max", memory_current=5)
    assert memory.available() > 10**7


@pytest.mark.parametrize("tight", ["", "user.slice", "user.slice/job"])
def test_every_group_above_counts(groups, tight):
    own, write = groups
    own.write_text("0::/user.slice/job\n")
    for path in ("", "user.slice", "user.slice/job"):
        write(path, memory_max=3_000_000 if path == tight else "max", memory_current=1_000_000)
    assert memory.available() == 2_000_000


def test_version_1_and_groups_that_are_over_their_limit(groups):
    own, write = groups
    own.write_text("7:cpu:/a\n4:memory:/a/b\n0::/\n")
    write("memory/a/b", memory_limit_in_bytes=4_000_000, memory_usage_in_bytes=1_000_000)
    assert memory.available() == 3_000_000
    write("memory/a", memory_limit_in_bytes=500, memory_usage_in_bytes=900)
    assert memory.available() == 0


def test_no_groups_at_all(groups):
    assert memory.available() > 10**7


def test_auto_is_the_default():
    assert Settings(memory="auto").memory_bytes is None
    assert Settings(memory="2GB").memory_bytes == 2 * 10**9
