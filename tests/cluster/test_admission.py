"""Workers of a cluster are admitted when they answer, however late; a busy one does not hold up the others."""

from concurrent.futures import Future

import pytest

from tilepipe.errors import SettingsError
from tilepipe.execution.executors.admission import Admission
from tilepipe.execution.executors.worker_checks import PROBE, probe
from tilepipe.execution.runnable import plan as make_plan

pytest.importorskip("distributed")


class Scheduler:
    """Takes the place of a client: workers answer when the test makes them."""

    def __init__(self):
        self.asked = {}

    def submit(self, function, folder, token, *, workers, **_):
        assert function is probe
        future = Future()
        self.asked.setdefault(workers[0], []).append((future, folder, token))
        return future

    def answer(self, worker, **changes):
        class Worker:
            class state:
                nthreads = 1

        future, folder, token = self.asked[worker][-1]
        future.set_result(probe(folder, token, Worker) | changes)


@pytest.fixture(scope="module")
def plan(moving, tmp_path_factory):
    """A plan for which workers are checked; it is not run."""
    output = tmp_path_factory.mktemp("admission") / "out.tif"
    return make_plan(moving / "blurred.tif", output, psf=moving / "psf.tif", tile=100, quality="fast", jobs=1)


@pytest.fixture
def admission(plan, tmp_path):
    (tmp_path / "run").mkdir()
    admission = Admission(plan, tmp_path / "run")
    yield admission
    admission.close()
    assert not list((tmp_path / "run").glob(f"{PROBE}*"))


def test_a_busy_worker_is_admitted_when_it_answers(admission):
    there = Scheduler()
    both = {"tcp://free": 2, "tcp://busy": 3}
    assert admission.admitted(there, both) == {}
    there.answer("tcp://free")
    admission.wait(0.2)  # returns although one has not answered
    for _ in range(3):
        assert admission.admitted(there, both) == {"tcp://free": 2}
    there.answer("tcp://busy")
    admission.wait(60)
    assert admission.admitted(there, both) == both
    assert all(len(questions) == 1 for questions in there.asked.values())


def test_a_worker_that_left_and_came_back_is_asked_again(admission):
    there = Scheduler()
    admission.admitted(there, {"tcp://one": 1})
    there.answer("tcp://one")
    assert admission.admitted(there, {"tcp://one": 1}) == {"tcp://one": 1}
    assert admission.admitted(there, {}) == {}
    assert admission.admitted(there, {"tcp://one": 1}) == {}
    assert len(there.asked["tcp://one"]) == 2


def test_a_worker_that_dies_while_asked_is_asked_again(admission):
    there = Scheduler()
    admission.admitted(there, {"tcp://one": 1})
    there.asked["tcp://one"][0][0].set_exception(OSError("lost"))
    assert admission.admitted(there, {"tcp://one": 1}) == {}
    admission.admitted(there, {"tcp://one": 1})
    there.answer("tcp://one")
    assert admission.admitted(there, {"tcp://one": 1}) == {"tcp://one": 1}


def test_a_late_worker_that_does_not_suit_stops_the_run(admission):
    there = Scheduler()
    admission.admitted(there, {"tcp://one": 1})
    there.answer("tcp://one", facts={"algorithm": "0"})
    with pytest.raises(SettingsError, match=r"worker tcp://one has algorithm 0, this process"):
        admission.admitted(there, {"tcp://one": 1})


def test_a_worker_without_tilepipe_stops_the_run(admission):
    there = Scheduler()
    admission.admitted(there, {"tcp://one": 1})
    there.asked["tcp://one"][0][0].set_exception(ModuleNotFoundError("No module named 'tilepipe'"))
    with pytest.raises(SettingsError, match=r"cannot run this version of tilepipe: .*No module named"):
        admission.admitted(there, {"tcp://one": 1})
