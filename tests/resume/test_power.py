"""The power goes: whatever was not flushed is lost, and the ledger never speaks of a tile that is not there."""

import os
import random
import shutil
import stat

import pytest
from workplace import TILES, Workplace, at, reference

from tilepipe.cache.collection import runs_in
from tilepipe.execution.job import Job
from tilepipe.system.files import read_at


class Disk:
    """What POSIX promises of the folder `root` and no more: only what was flushed is there after a power failure.

    Of a file that is what it held when it was flushed last, of a folder the names that it held then.  A name that
    was flushed for a file that was not leads to a file that may hold anything.
    """

    def __init__(self, root):
        self.root = root
        self.files, self.folders, self._held = {}, {}, []
        self.flushes, self.stop_at = 0, None
        for folder, names, files in os.walk(root):
            for name in files:
                self._remember_file(os.open(os.path.join(folder, name), os.O_RDONLY))
            del names
            self._remember_folder(folder)

    def fsync(self, descriptor):
        """In place of os.fsync."""
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            self._remember_folder(os.readlink(f"/proc/self/fd/{descriptor}"))
        else:
            self._remember_file(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))
        self.flushes += 1
        if self.flushes == self.stop_at:
            raise PowerFailureError

    def left(self, target, generator):
        """Write what is left of the root's folder to `target`."""
        self._write(os.stat(self.root).st_ino, target, generator)

    def _remember_file(self, descriptor):
        self._held.append(descriptor)  # held open, so that no other file gets its inode
        size = os.fstat(descriptor).st_size
        self.files[os.fstat(descriptor).st_ino] = read_at(descriptor, size, 0)

    def _remember_folder(self, path):
        descriptor = os.open(path, os.O_RDONLY)
        self._held.append(descriptor)
        entries = {entry.name: (entry.inode(), entry.is_dir(), entry.path) for entry in os.scandir(path)}
        self.folders[os.fstat(descriptor).st_ino] = entries

    def _write(self, inode, target, generator):
        target.mkdir()
        for name, (child, is_folder, path) in self.folders.get(inode, {}).items():
            if is_folder:
                self._write(child, target / name, generator)
            elif child in self.files:
                (target / name).write_bytes(self.files[child])
            else:
                size = os.path.getsize(path) if os.path.exists(path) else 100
                (target / name).write_bytes(
                    generator.choice([b"", bytes(size), generator.randbytes(size), generator.randbytes(size // 2)])
                )

    def close(self):
        for descriptor in self._held:
            os.close(descriptor)


class PowerFailureError(BaseException):
    """Not to be caught by anybody."""


@pytest.fixture
def disk(place, monkeypatch):
    disk = Disk(place.folder)
    monkeypatch.setattr(os, "fsync", disk.fsync)
    yield disk
    monkeypatch.undo()
    disk.close()


def restored(disk, place, seed, monkeypatch):
    """The place as it is found when the power is back."""
    target = place.folder.with_name(f"after-{seed}")
    disk.left(target, random.Random(seed))
    monkeypatch.undo()
    shutil.rmtree(place.folder)
    target.rename(place.folder)
    return Workplace(place.folder)


def claimed(place):
    """Check that every record tells the truth; count the tiles."""
    tiles = 0
    for run in runs_in(place.cache):
        job = Job(run.folder)
        for array in (job.source, job.tiles, job.result):
            for index in array.indices():
                assert array.state(index) != "damaged", f"{array.folder} {index}"
                assert array.state(index, full=False) != "damaged"
        tiles += len(job.tiles.ledger.records())
    return tiles


def test_a_finished_run_is_there_altogether(place, template, disk, monkeypatch):
    place.run()
    after = restored(disk, place, 0, monkeypatch)
    assert after.output.read_bytes() == reference(template)
    assert claimed(after) == TILES
    assert after.run().computed == set()


@pytest.mark.parametrize("seed", [*range(3), *(pytest.param(one, marks=pytest.mark.thorough) for one in range(3, 12))])
def test_at_any_moment_no_record_speaks_of_what_is_not_there(place, template, disk, monkeypatch, seed):
    disk.stop_at = random.Random(seed).randrange(1, 100)
    with pytest.raises(PowerFailureError):
        place.run()
    after = restored(disk, place, seed, monkeypatch)
    kept = claimed(after)
    assert len(after.run().computed) == TILES - kept
    assert after.output.read_bytes() == reference(template)


def test_no_work_is_lost_that_was_recorded(place, disk, monkeypatch):
    def fail():
        raise PowerFailureError

    with pytest.raises(PowerFailureError):
        place.run(on_event=at("restore", fail, 5))
    after = restored(disk, place, 0, monkeypatch)
    assert claimed(after) == 5
    assert len(after.run().computed) == TILES - 5


@pytest.mark.parametrize("seed", range(3))
def test_without_flushing_what_was_lost_is_found_and_made_again(place, template, disk, monkeypatch, seed):
    """Names are flushed here although contents are not: the worst case."""
    monkeypatch.setattr("tilepipe.image.writers.beside.sync", lambda path: None)
    place.run(durable=False)
    for folder, *_ in os.walk(place.folder):
        disk._remember_folder(folder)
    after = restored(disk, place, seed, monkeypatch)
    assert after.run().computed, "nothing was flushed"
    assert after.output.read_bytes() == reference(template)
