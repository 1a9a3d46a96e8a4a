"""The digest of a folder is that of its files: it follows the content, and a stamp shows what was touched."""

import os
import shutil

import pytest

from tilepipe.cache.digests import digest_of, recall_digest, stamp_of
from tilepipe.errors import InputError
from tilepipe.system.folders import size_and_time


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "a.zarr"
    for name, content in {"zarr.json": b"{}", "0/c/0/0": b"chunk", "0/c/0/1": b"another", "1/c": b"small"}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def sha(tmp_path, path):
    return digest_of(tmp_path / "cache", path).sha256


def add(folder):
    (folder / "0/c/0/2").write_bytes(b"")


def remove(folder):
    (folder / "0/c/0/1").unlink()


def rename(folder):
    (folder / "0/c/0/1").rename(folder / "0/c/0/3")


def move_a_byte_to_the_next_file(folder):
    (folder / "0/c/0/0").write_bytes(b"chun")
    (folder / "0/c/0/1").write_bytes(b"kanother")


def change_in_place(folder):
    status = (folder / "0/c/0/0").stat()
    (folder / "0/c/0/0").write_bytes(b"chuNk")
    os.utime(folder / "0/c/0/0", ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = [add, remove, rename, move_a_byte_to_the_next_file, change_in_place]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_file_changes_digest_and_stamp(folder, tmp_path, change):
    before, stamp = digest_of(tmp_path / "cache", folder), stamp_of(folder)
    assert recall_digest(tmp_path / "cache", folder) == (before.sha256, None)
    change(folder)
    assert stamp_of(folder) != stamp
    assert recall_digest(tmp_path / "cache", folder) == (None, before.sha256)
    after = digest_of(tmp_path / "cache", folder)
    assert (after.sha256 != before.sha256, after.before) == (True, before.sha256)


@pytest.mark.parametrize("change", CHANGES[:4])
def test_a_change_shows_on_every_host_that_shares_the_folder(folder, change):
    before = size_and_time(folder)
    change(folder)
    assert size_and_time(folder) != before


def test_a_copy_has_the_same_digest(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copyfile)
    assert sha(tmp_path, copy) == sha(tmp_path, folder)
    assert stamp_of(copy) != stamp_of(folder)


def test_a_file_that_is_touched_keeps_the_digest(folder, tmp_path):
    before, stamp = sha(tmp_path, folder), stamp_of(folder)
    os.utime(folder / "1/c", ns=(5, 5))
    assert stamp_of(folder) != stamp
    assert sha(tmp_path, folder) == before


@pytest.mark.parametrize("target", ["0/c/0/0", "/etc/hostname", "..", "nothing"])
def test_a_symbolic_link_is_refused(folder, tmp_path, target):
    digest_of(tmp_path / "cache", folder)
    (folder / "link").symlink_to(target)
    with pytest.raises(InputError, match="contains a symbolic link, link; copy the folder"):
        digest_of(tmp_path / "cache", folder)
    assert recall_digest(tmp_path / "cache", folder)[0] is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_is_refused(folder):
    os.mkfifo(folder / "0" / "pipe")
    with pytest.raises(InputError, match="a pipe or a device, 0/pipe"):
        stamp_of(folder)


def test_hashing_can_be_stopped(folder, tmp_path):
    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digest_of(tmp_path / "cache", folder, check=stop)
