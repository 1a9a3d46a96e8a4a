"""Executor on threads of this process, the default.

dask's threaded scheduler runs one graph from start to end: with tasks that are added as others finish, a pool of
threads is all that is needed.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

from tilepipe.events import Receipt
from tilepipe.execution.executors.executor import Finished
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import Group, run_group
from tilepipe.planning.plan import Plan

__all__ = ["Threads"]


class Threads:
    """Run tasks on `jobs` threads, which end with the run."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._pool = ThreadPoolExecutor(jobs, "tilepipe")
        self._ended: queue.SimpleQueue[tuple[Group, Future[list[Receipt]]]] = queue.SimpleQueue()

    def check(self, plan: Plan, job: Job) -> None:
        """Do nothing: all tasks run in this process."""

    def slots(self, *, retry: bool = False) -> int:
        """Return the number of threads; 1 for retries, as memory may have been short."""
        return 1 if retry else self._jobs

    def submit(self, job: Job, groups: Sequence[Group]) -> None:
        """Queue `groups` for the threads."""
        for group in groups:
            future = self._pool.submit(run_group, str(job.folder), group)
            future.add_done_callback(lambda future, group=group: self._ended.put((group, future)))  # type: ignore[misc]

    def wait(self) -> list[Finished]:
        """Wait until a group ends, and return all that ended."""
        ended = [self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get())
        return [(group, _receipts(group, future)) for group, future in ended]

    def cancel(self) -> None:
        """Cancel the groups that no thread has started."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self, job: Job) -> None:
        """End the threads, and free the workspaces of the tiles before the export."""
        self._pool.shutdown(cancel_futures=True)
        job.release_workspaces()


def _receipts(group: Group, future: Future[list[Receipt]]) -> list[Receipt]:
    try:
        return future.result()
    except CancelledError:
        return [task.receipt("cancelled") for task in group]
