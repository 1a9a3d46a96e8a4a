"""Faults of a cluster: workers hang, leave and join, the scheduler dies, machines do not suit each other."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from tilepipe.errors import DoesNotFitError, SettingsError, TilesFailedError
from tilepipe.events import Receipt
from tilepipe.execution.executors import distributed as cluster_executor
from tilepipe.execution.executors.worker_checks import check_answer, probe, worker_facts
from tilepipe.execution.runnable import plan as make_plan

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.thorough]


class Processes:
    """A scheduler and workers as processes of their own, as a user starts them."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.folder = folder
        self.started = []
        self.scheduler = self.start_scheduler()

    def start(self, *command, **environment):
        log = (self.folder / f"process-{len(self.started)}.log").open("wb")
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, env=os.environ | environment, cwd=self.folder
        )
        self.started.append(process)
        return process

    def start_scheduler(self):
        where = ["--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"]
        process = self.start("distributed.cli.dask_scheduler", *where)
        wait_until(lambda: socket.create_connection(("127.0.0.1", self.port), 1).close())
        return process

    def start_worker(self, *options, **environment):
        return self.start("tilepipe", "worker", self.address, "-j", "1", *options, "--no-dashboard", **environment)

    def end(self):
        for process in self.started:
            with suppress(psutil.NoSuchProcess):
                for child in [*psutil.Process(process.pid).children(recursive=True), process]:
                    with suppress(psutil.NoSuchProcess):
                        child.kill()
            process.wait()


def wait_until(attempt, seconds=120):
    """Repeat `attempt` until it raises nothing and does not return False."""
    end = time.monotonic() + seconds
    while True:
        with suppress(OSError):
            if attempt() is not False:
                return
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.fixture
def processes(tmp_path):
    folder = tmp_path / "processes"
    folder.mkdir()
    processes = Processes(folder)
    yield processes
    processes.end()


def planned(moving, folder, **settings):
    return make_plan(
        moving / "blurred.tif",
        folder / "out.tif",
        psf=moving / "psf.tif",
        tile=100,
        quality="fast",
        cache=str(folder / "c"),
        **settings,
    )


@pytest.fixture(scope="module")
def expected(moving, tmp_path_factory):
    folder = tmp_path_factory.mktemp("threads")
    planned(moving, folder).run()
    return (folder / "out.tif").read_bytes()


def once(number, act):
    """A listener that acts when `number` tiles are done."""
    seen = []

    def listen(event):
        if isinstance(event, Receipt) and (event.stage, event.status) == ("restore", "done"):
            seen.append(event)
            if len(seen) == number:
                act(event)

    return listen


def test_a_worker_that_hangs_does_not_hold_up_the_run(moving, tmp_path, processes, expected, monkeypatch):
    monkeypatch.setattr(cluster_executor, "SLOW_SECONDS", 1.0)
    processes.start_worker()
    processes.start_worker()
    hung = []

    def hang(event):
        hung.append(event.pid)
        os.kill(event.pid, signal.SIGSTOP)

    plan = planned(moving, tmp_path, scheduler=processes.address)
    with distributed.Client(processes.address) as client:
        client.wait_for_workers(2, timeout=120)
    try:
        report = plan.run(once(4, hang))
    finally:
        for pid in hung:
            os.kill(pid, signal.SIGCONT)
    assert hung
    assert report.tiles["failed"] == 0
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_a_worker_that_hangs_from_the_start_is_left_out(moving, tmp_path, processes, expected, monkeypatch):
    monkeypatch.setattr(cluster_executor, "ANSWER_SECONDS", 3)
    hanging = processes.start_worker("--no-nanny")
    processes.start_worker("--no-nanny")
    wait_until(lambda: len(workers_of(processes)) == 2)
    hanging.send_signal(signal.SIGSTOP)
    report = planned(moving, tmp_path, scheduler=processes.address).run()
    assert len(report.workers) == 1
    assert f":{hanging.pid}" not in report.workers[0]
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_a_scheduler_that_is_killed_and_restarted(moving, tmp_path, processes, expected):
    processes.start_worker()

    def restart(_):
        processes.scheduler.kill()
        processes.scheduler.wait()
        processes.scheduler = processes.start_scheduler()
        processes.start_worker()

    report = planned(moving, tmp_path, scheduler=processes.address).run(once(3, restart))
    assert report.tiles["failed"] == 0
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_a_scheduler_that_does_not_come_back(moving, tmp_path, processes, expected, monkeypatch):
    monkeypatch.setattr(cluster_executor, "RECONNECT", 3)
    monkeypatch.setattr(cluster_executor, "CONNECT_TIMEOUT", 30)
    processes.start_worker()
    plan = planned(moving, tmp_path, scheduler=processes.address)
    monkeypatch.setattr(cluster_executor, "CONNECT_TIMEOUT", 2)
    with distributed.Client(processes.address) as client:
        client.wait_for_workers(1, timeout=120)
    with pytest.raises(TilesFailedError, match=r"no scheduler with workers answers any longer .* to resume"):
        plan.run(once(3, lambda _: processes.scheduler.kill()))
    assert not (tmp_path / "out.tif").exists()
    report = planned(moving, tmp_path).run()
    assert report.tiles["reused"] >= 3
    assert (tmp_path / "out.tif").read_bytes() == expected


def test_workers_that_join_and_leave(moving, tmp_path, processes, expected):
    first = processes.start_worker()

    def swap(_):
        processes.start_worker()
        with distributed.Client(processes.address) as client:
            client.wait_for_workers(2, timeout=120)
        for child in psutil.Process(first.pid).children(recursive=True):
            child.kill()
        first.kill()

    with distributed.Client(processes.address) as client:
        client.wait_for_workers(1, timeout=120)
    report = planned(moving, tmp_path, scheduler=processes.address).run(once(2, swap))
    assert len(report.workers) >= 2
    assert (tmp_path / "out.tif").read_bytes() == expected


FULL_DISK = """
mount -t tmpfs -o size=1m tmpfs "$DISK" || exit 99
export TMPDIR="$DISK"
"$PYTHON" -m tilepipe worker "$ADDRESS" -j 1 --no-dashboard --local-directory "$DISK" &
while [ ! -e "$FULL" ]; do sleep 0.1; done
dd if=/dev/zero of="$DISK/filled" bs=4k 2>/dev/null
touch "$FULL.done"
wait
"""
"""A worker in a mount namespace of its own, whose disk for temporary files becomes full when ``$FULL`` exists."""


def test_a_worker_whose_own_disk_becomes_full_works_on(moving, tmp_path, processes, expected):
    if not shutil.which("unshare"):
        pytest.skip("no unshare: cannot mount a small disk")
    disk, flag = tmp_path / "disk", tmp_path / "full"
    disk.mkdir()
    names = {"DISK": str(disk), "FULL": str(flag), "ADDRESS": processes.address, "PYTHON": sys.executable}
    worker = subprocess.Popen(
        ["unshare", "-rm", "sh", "-c", FULL_DISK], env=os.environ | names, stderr=subprocess.PIPE, text=True
    )
    processes.started.append(worker)
    try:
        wait_until(lambda: worker.poll() is not None or len(workers_of(processes)) == 1)
    except AssertionError:
        worker.kill()
        raise
    if worker.poll() == 99 or worker.poll() == 1:
        pytest.skip(f"cannot mount a small disk: {worker.stderr.read()}")

    def fill(event):
        flag.touch()
        wait_until(Path(f"{flag}.done").exists)

    report = planned(moving, tmp_path, scheduler=processes.address).run(once(3, fill))
    assert report.tiles["computed"] == report.tiles["total"] > 20
    assert (tmp_path / "out.tif").read_bytes() == expected


def workers_of(processes):
    """Return the workers that the scheduler knows."""
    with distributed.Client(processes.address, set_as_default=False) as client:
        return client.nthreads()


def test_a_worker_with_too_little_memory_is_refused_with_what_would_fit(moving, tmp_path, processes):
    processes.start_worker("--nthreads", "64", "--memory", "1GB")
    with distributed.Client(processes.address) as client:
        client.wait_for_workers(1, timeout=120)
    plan = planned(moving, tmp_path, scheduler=processes.address)
    with pytest.raises(
        DoesNotFitError, match=r"has 64 threads, which need .* start it with \d+ threads, or with a mem"
    ):
        plan.run()


def test_a_worker_with_another_processor_is_refused(moving, tmp_path, processes):
    processes.start_worker(NUMBA_CPU_NAME="x86-64")
    with distributed.Client(processes.address) as client:
        client.wait_for_workers(1, timeout=120)
    with pytest.raises(SettingsError, match=r"has processor \(NUMBA_CPU_NAME\) x86-64, this process "):
        planned(moving, tmp_path, scheduler=processes.address).run()


def test_a_client_given_stays_open_and_its_threads_are_used(moving, tmp_path, expected):
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        report = planned(moving, tmp_path).run(client=client)
        assert client.status == "running"
    assert report.tiles["computed"] == report.tiles["total"]
    assert (tmp_path / "out.tif").read_bytes() == expected


@contextmanager
def answers(folder, **changes):
    """What a worker like this process answers, with changes."""

    class Worker:
        class state:
            nthreads = 1

    (folder / "token").touch()
    yield probe(str(folder), "token", Worker) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"facts": worker_facts() | {"numpy": "1.0"}}, "numpy 1.0, this process"),
        ({"visible": False}, "does not see the cache folder"),
        ({"error": "Read-only file system"}, "cannot use the cache .*: Read-only file system"),
        ({"answer": "elsewhere"}, "the path is the same, but not the storage"),
    ],
)
def test_a_worker_that_does_not_suit_is_refused(moving, tmp_path, changes, message):
    plan = planned(moving, tmp_path)
    with answers(tmp_path) as answer:
        check_answer(plan, Path(tmp_path), "tcp://there", answer)
    with answers(tmp_path, **changes) as answer, pytest.raises(SettingsError, match=message):
        check_answer(plan, Path(tmp_path), "tcp://there", answer)
