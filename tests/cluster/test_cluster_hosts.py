"""Workers on hosts of their own: network namespaces, joined by a bridge, whose links are cut in mid-run.

Needs root on Linux, and is skipped elsewhere.  The file system is shared, as the cache of a cluster must be.
"""

import os
import socket
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest

from tilepipe.events import Receipt
from tilepipe.execution.executors import distributed as cluster_executor
from tilepipe.execution.runnable import plan as make_plan

distributed = pytest.importorskip("distributed")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.thorough]

NAME = f"tp{os.getpid() % 100000}"
NETWORK = f"10.{200 + os.getpid() % 50}.{os.getpid() % 250}"
PORT = 8786


def ip(*arguments, check=True):
    """Run ``ip``; OSError if it is not there."""
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class Hosts:
    """Three hosts with one worker each; scheduler and client are on the host of the test, at the bridge."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.names = [f"{NAME}h{index}" for index in range(3)]

    def make(self):
        """Make the bridge, and a namespace with a link to it for each host."""
        ip("link", "add", NAME, "type", "bridge")
        ip("addr", "add", f"{NETWORK}.1/24", "dev", NAME)
        ip("link", "set", NAME, "up")
        for index, name in enumerate(self.names):
            ip("netns", "add", name)
            ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b")
            ip("link", "set", f"{name}b", "netns", name)
            ip("link", "set", f"{name}a", "master", NAME, "up")
            inside = ["netns", "exec", name, "ip"]
            ip(*inside, "addr", "add", f"{NETWORK}.{index + 11}/24", "dev", f"{name}b")
            ip(*inside, "link", "set", f"{name}b", "up")
            ip(*inside, "link", "set", "lo", "up")
        self._check_links()

    def _check_links(self):
        """Raise CalledProcessError if the hosts do not reach the bridge, as where a firewall drops what crosses it."""
        with socket.create_server((f"{NETWORK}.1", 0)) as server:
            connect = f"import socket; socket.create_connection({server.getsockname()!r}, 20)"
            for name in self.names:
                ip("netns", "exec", name, sys.executable, "-c", connect)

    def start(self):
        """Start scheduler and workers; return the address of the scheduler."""
        scheduler = ["-m", "distributed.cli.dask_scheduler", "--host", f"{NETWORK}.1", "--port", str(PORT)]
        self._start(sys.executable, *scheduler, "--no-dashboard")
        address = f"tcp://{NETWORK}.1:{PORT}"
        for index, name in enumerate(self.names):
            worker = ["-m", "tilepipe", "worker", address, "-j", "1", "--host", f"{NETWORK}.{index + 11}"]
            self._start("ip", "netns", "exec", name, sys.executable, *worker, "--no-dashboard")
        with distributed.Client(address, timeout=60) as client:
            client.wait_for_workers(3, timeout=180)
        return address

    def _start(self, *command):
        log = (self.folder / f"{len(self.processes)}.log").open("wb")
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder))

    def cut(self, index):
        ip("link", "set", f"{self.names[index]}a", "down")

    def join(self, index):
        ip("link", "set", f"{self.names[index]}a", "up")

    def kill(self, index):
        """Kill the worker of a host, and the nanny that would start it again."""
        process = psutil.Process(self.processes[index + 1].pid)
        for one in [process, *process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                one.kill()

    def end(self):
        for index in range(3):
            if len(self.processes) > index + 1:
                self.kill(index)
        for process in self.processes:
            process.kill()
            process.wait()
        for name in self.names:
            ip("link", "del", f"{name}a", check=False)
            ip("netns", "del", name, check=False)
        ip("link", "del", NAME, check=False)


@pytest.fixture
def hosts(tmp_path):
    folder = tmp_path / "hosts"
    folder.mkdir()
    hosts = Hosts(folder)
    try:
        try:
            hosts.make()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"network namespaces cannot be made here: {getattr(error, 'stderr', '') or error}")
        yield hosts
    finally:
        hosts.end()


def run(moving, folder, on_event=lambda event: None, **settings):
    folder.mkdir()
    settings = {"psf": moving / "psf.tif", "tile": 100, "quality": "fast", "cache": str(folder / "c")} | settings
    report = make_plan(moving / "blurred.tif", folder / "out.tif", **settings).run(on_event)
    return (folder / "out.tif").read_bytes(), report


def test_links_are_cut_and_workers_killed_in_mid_run(moving, tmp_path, hosts, monkeypatch):
    monkeypatch.setattr(cluster_executor, "SLOW_SECONDS", 2.0)
    expected, _ = run(moving, tmp_path / "threads")
    address = hosts.start()
    done, happened = [], []

    def disturb(event):
        if not (isinstance(event, Receipt) and (event.stage, event.status) == ("restore", "done")):
            return
        done.append(event.pid)
        if len(done) == 6:
            hosts.cut(0)
            happened.append("cut")
        elif len(done) == 20:
            hosts.join(0)
            hosts.kill(1)
            happened.append("joined, killed")

    written, report = run(moving, tmp_path / "hosts-run", disturb, scheduler=address)
    assert happened == ["cut", "joined, killed"]
    assert written == expected
    assert report.tiles["failed"] == 0
    assert len(report.workers) >= 2
