"""Executor on threads of this process, the default.

dask's threaded scheduler runs one graph from start to end: with tasks that are added as others finish, a pool of
threads is all that is needed.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial

from tilepipe.events import Receipt
from tilepipe.execution.executors.executor import Finished
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import Group, run_group

__all__ = ["Threads"]


class Threads:
    """Run the tasks of `job` on `jobs` threads, which end with the run."""

    def __init__(self, job: Job, jobs: int) -> None:
        self._job, self._jobs = job, jobs
        self._pool = ThreadPoolExecutor(jobs, "tilepipe")
        self._ended: queue.SimpleQueue[tuple[Group, Future[list[Receipt]]]] = queue.SimpleQueue()

    def check(self) -> None:
        """Do nothing: all tasks run in this process."""

    def slots(self, *, retry: bool = False) -> int:
        """Return the number of threads; 1 for retries, as memory may have been short."""
        return 1 if retry else self._jobs

    def reads_image(self) -> bool:
        """Return False: reading beside the tiles would need the memory of both."""
        return False

    def group_size(self) -> int:
        """Return 1: a group costs less than a millisecond."""
        return 1

    def submit(self, groups: Sequence[Group]) -> None:
        """Queue `groups` for the threads."""
        for group in groups:
            future = self._pool.submit(run_group, str(self._job.folder), group)
            future.add_done_callback(partial(self._note_end, group))

    def wait(self) -> list[Finished]:
        """Wait until a group ends, and return all that ended."""
        ended = [self._ended.get()]
        while not self._ended.empty():
            ended.append(self._ended.get())
        return [(group, _receipts(group, future)) for group, future in ended]

    def cancel(self) -> None:
        """Cancel the groups that no thread has started."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the threads, and free the workspaces of the tiles before the export."""
        self._pool.shutdown(cancel_futures=True)
        self._job.release_workspaces()

    def _note_end(self, group: Group, future: Future[list[Receipt]]) -> None:
        self._ended.put((group, future))


def _receipts(group: Group, future: Future[list[Receipt]]) -> list[Receipt]:
    try:
        return future.result()
    except CancelledError:
        return [task.receipt("cancelled") for task in group]
