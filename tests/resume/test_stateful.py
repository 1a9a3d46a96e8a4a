"""Any sequence of runs, kills, damage, changes of mind, full disks and collections, against a simple model.

The model: which tiles are done, for each setting.  It is told of tiles by receipts, and of damage by whoever does it.
Nothing that the model holds for done is ever computed again, and every complete run writes the bytes of an
undisturbed one.
"""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from workplace import PRIORITIES, TILES, Happened, Workplace, adopted, begun, reference

from tilepipe.cache.collection import collect, runs_in
from tilepipe.errors import DoesNotFitError, InterruptedRunError
from tilepipe.events import Receipt

SETTING = st.sampled_from(PRIORITIES)
DEAD = 2**22 + 1
"""A process number beyond the largest that Linux gives."""


class KilledError(BaseException):
    """The process is gone: not to be caught by anybody."""


class Hook:
    """Counts flushes to the disk; at a chosen one it does something."""

    def __init__(self, number, act):
        self.number, self.act, self.real = number, act, os.fsync

    def __enter__(self):
        os.fsync = self
        return self

    def __exit__(self, *_):
        os.fsync = self.real

    def __call__(self, descriptor):
        self.number -= 1
        if self.number == 0:
            self.act()


class Machine(RuleBasedStateMachine):
    template: Workplace

    @initialize()
    def start(self):
        self.root = Path(tempfile.mkdtemp())
        shutil.copytree(self.template.folder, self.root / "place")
        self.place = begun(adopted(Workplace(self.root / "place")))
        self.done = {priority: set() for priority in PRIORITIES}

    def teardown(self):
        shutil.rmtree(self.root, ignore_errors=True)

    def attempt(self, priority, on_event=None):
        """Run; whatever becomes of it, the model learns which tiles are done."""
        heard = Happened([])

        def listen(event):
            heard.events.append(event)
            if on_event:
                on_event(event)

        try:
            self.place.run(priority=priority, on_event=listen)
        finally:
            again = heard.computed & self.done[priority]
            assert not again, f"computed again: {again}"
            self.done[priority] |= {
                event.index
                for event in heard.events
                if isinstance(event, Receipt) and (event.stage, event.status) == ("restore", "done")
            }

    @rule(priority=SETTING)
    def run_to_the_end(self, priority):
        self.attempt(priority)
        assert self.place.output.read_bytes() == reference(self.template, priority)
        self.place.output.unlink()

    @rule(priority=SETTING, tiles=st.integers(1, TILES))
    def stop_after_some_tiles(self, priority, tiles):
        left = [tiles]

        def listen(event):
            if isinstance(event, Receipt) and event.stage == "restore":
                left[0] -= 1
                if left[0] == 0:
                    self.place.stop()

        with contextlib.suppress(InterruptedRunError):
            self.attempt(priority, listen)

    @rule(priority=SETTING, moment=st.integers(1, 90))
    def kill(self, priority, moment):
        """Take a picture of the cache at some moment, and go on from the picture: no `finally` has run in it."""
        picture = self.root / "picture"

        def act():
            shutil.copytree(self.place.folder, picture, symlinks=True)
            raise KilledError

        try:
            with Hook(moment, act):
                self.attempt(priority)
        except KilledError:
            shutil.rmtree(self.place.folder)
            picture.rename(self.place.folder)
            adopted(self.place)
            for lock in self.place.cache.rglob("lock"):
                lock.write_text(re.sub(r'"pid": \d+', f'"pid": {DEAD}', lock.read_text()))

    @rule(priority=SETTING, moment=st.integers(1, 90))
    def fill_the_disk(self, priority, moment):
        def act():
            hook.number = 1  # and it stays full
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with Hook(moment, act) as hook:
            try:
                self.attempt(priority)
            except DoesNotFitError as error:
                assert "is full" in str(error)  # noqa: PT017  # it may also have finished

    @rule(
        damage=st.sampled_from(["flip", "truncate", "delete"]),
        which=st.integers(0, 2**16),
        where=st.integers(0, 2**16),
        bits=st.integers(1, 255),
    )
    def corrupt(self, damage, which, where, bits):
        """Damage one file. Which one, and where, are counted modulo what there is: records vary in length between
        runs (times, numbers of processes), and what hypothesis draws must not."""
        files = sorted(path for path in self.place.cache.rglob("*") if path.is_file() and path.name != "guard")
        file = files[which % len(files)]
        content = bytearray(file.read_bytes())
        if damage == "delete" or not content:
            file.unlink()
        elif damage == "truncate":
            file.write_bytes(content[: where % len(content)])
        else:
            content[where % len(content)] ^= bits
            file.write_bytes(content)
        path = str(file.relative_to(self.place.cache))
        self.model_damage(path)

    def model_damage(self, path):
        """A damaged tile, or its record, is to be made again; what else is damaged costs no tile."""
        found = re.search(r"(tiles\.zarr/c\.(\d+)\.(\d+)\.0\.0\.0|tiles\.ledger/(\d+)-(\d+)\.json)$", path)
        if found:
            row, column = (found[2], found[3]) if found[2] else (found[4], found[5])
            for priority in PRIORITIES:  # which run it belongs to is not asked
                self.done[priority].discard(f"{row}-{column}")

    @rule(resumable=st.booleans())
    def collect_everything(self, resumable):
        before = {run.recipe.priority: run.complete for run in runs_in(self.place.cache)}
        collect(self.place.cache, 0, resumable=resumable)
        after = {run.recipe.priority for run in runs_in(self.place.cache)}
        assert after == {priority for priority, complete in before.items() if not complete and not resumable}
        for priority in PRIORITIES:
            if priority not in after:
                self.done[priority] = set()

    @invariant()
    def nobody_holds_a_lock_that_lives(self):
        if hasattr(self, "place"):
            for lock in self.place.cache.rglob("lock"):
                assert f'"pid": {os.getpid()}' not in lock.read_text()


def machine_for(template):
    return type("MachineHere", (Machine,), {"template": template})


COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}


def test_any_sequence(template):
    run_state_machine_as_test(machine_for(template), settings=settings(max_examples=4, stateful_step_count=8, **COMMON))


@pytest.mark.thorough
def test_any_sequence_of_some(template):
    run_state_machine_as_test(
        machine_for(template), settings=settings(max_examples=12, stateful_step_count=8, **COMMON)
    )


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_many_sequences(template):
    run_state_machine_as_test(
        machine_for(template), settings=settings(max_examples=150, stateful_step_count=15, **COMMON)
    )
