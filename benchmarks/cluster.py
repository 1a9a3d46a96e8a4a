"""Scheduling on a dask cluster with tasks that sleep or do nothing: idle threads, and the cost of a task.

    python -m benchmarks.cluster [--workers 4] [--threads 1] [--one-process] [--sleep 0.2 --tiles 2000]
                                 [--empty 1000 10000 100000]

The tasks run on local workers, and read and write nothing.  Workers are processes, or threads of this one, so that a
thousand threads can be imitated. *Used* is the share of
the threads' time spent in tasks between a tenth and nine tenths of the run.
"""

from __future__ import annotations

import argparse
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
from distributed import get_worker

from tilepipe.cache.layout import chunks_touching
from tilepipe.events import Event, Receipt
from tilepipe.execution.executors import distributed as cluster_executor
from tilepipe.execution.executors.admission import Admission
from tilepipe.execution.graph import Todo
from tilepipe.execution.restore import Tally, run_tasks
from tilepipe.execution.tasks import Group
from tilepipe.tiling.grid import Box, Grid

CORE = 880


class StandIn:
    """Takes the place of the function that runs groups of tasks on workers: sleeps for tiles.

    Parameters
    ----------
    sleep : float
        Duration of a tile, s.
    """

    def __init__(self, sleep: float) -> None:
        self.sleep = sleep

    def __call__(self, _facts: dict[str, str], _folder: str, topic: str, ticket: int, group: Group) -> None:
        """Send receipts whose `peak` is the time at which the task ended, in microseconds."""
        receipts = []
        for task in group:
            if task.stage == "restore":
                time.sleep(self.sleep)
            receipts.append(replace(task.receipt("done"), seconds=self.sleep, peak=int(1e6 * time.time())))
        message = {"ticket": ticket, "receipts": [asdict(receipt) for receipt in receipts]}
        get_worker().log_event(topic, message)


class Everyone(Admission):
    """Admits every worker: there is no cache that it could share."""

    def admitted(self, _client: Any, threads: dict[str, int]) -> dict[str, int]:
        """Return `threads`."""
        return threads


def stand_in(tiles: int) -> tuple[Any, Todo]:
    """Return a job without a cache, of `tiles` tiles and the chunks that they complete, and its tasks."""
    edge = max(1, round(tiles**0.5))
    grid = Grid(edge * CORE, edge * CORE, CORE, 128)
    job = SimpleNamespace(
        grid=grid, folder=Path("nowhere"), is_stopped=False, hopeless=threading.Event(), release_workspaces=lambda: None
    )
    chunks = list(chunks_touching(Box(0, grid.height, 0, grid.width)))
    return job, Todo([(row, column) for row in range(edge) for column in range(edge)], chunks, grid.tiles)


def measure(client: Any, tiles: int, sleep: float, *, threads: int, process: psutil.Process) -> str:
    """Run `tiles` stand-ins and the chunks that they complete; return a row of the table."""
    job, todo = stand_in(tiles)
    ends: list[float] = []
    most = 0

    def listen(event: Event) -> None:
        nonlocal most
        most = max(most, len(executor._flights))
        if isinstance(event, Receipt) and event.stage == "restore":
            ends.append(event.peak / 1e6)

    plan: Any = SimpleNamespace(info=SimpleNamespace(path=Path("stand-in")))
    executor = cluster_executor.Cluster(client, plan, job)
    executor._admission = Everyone(plan, job.folder)
    cluster_executor.run_checked_group = StandIn(sleep)  # type: ignore[assignment]  # takes its place
    began = time.perf_counter()
    executor.check()
    run_tasks(job, todo, executor, Tally(listen, job.hopeless, None), lambda: None)
    seconds = time.perf_counter() - began
    executor.close()
    ends.sort()
    first, last = ends[len(ends) // 10], ends[-len(ends) // 10]
    used = 100 * sleep * (len(ends) * 0.8) / (threads * max(last - first, 1e-9))
    per_tile = 1e3 * seconds / len(ends)
    return (
        f"| {len(ends)} | {len(todo.chunks)} | {sleep} | {seconds:.1f} | {per_tile:.2f} | "
        f"{f'{used:.1f} %' if sleep else ''} | {most} | {process.memory_info().rss / 1e6:.0f} |"
    )


def main() -> None:
    """Start a cluster, measure, print a table."""
    import distributed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1, help="Of each worker.")
    parser.add_argument("--one-process", action="store_true", help="Workers are threads of this process.")
    parser.add_argument("--sleep", type=float, default=0.2)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--empty", type=int, nargs="*", default=[1000, 10_000])
    arguments = parser.parse_args()
    print("| tiles | chunks | sleep s | seconds | ms per tile | used | most in flight | process MB |")
    print("|---|---|---|---|---|---|---|---|")
    with (
        distributed.LocalCluster(
            n_workers=arguments.workers,
            threads_per_worker=arguments.threads,
            processes=not arguments.one_process,
            dashboard_address=None,
            host=None if arguments.one_process else "127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        own = psutil.Process()  # the scheduler runs in this process
        for tiles, sleep in [(arguments.tiles, arguments.sleep), *((tiles, 0.0) for tiles in arguments.empty)]:
            print(measure(client, tiles, sleep, threads=arguments.workers * arguments.threads, process=own), flush=True)


if __name__ == "__main__":
    main()
