"""Executor on threads of this process, the default."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dask

from tilepipe.events import Receipt
from tilepipe.execution.job import Job

__all__ = ["Threads"]


class Threads:
    """Run graphs on `jobs` threads of this process, which end with the run."""

    def __init__(self, jobs: int) -> None:
        self._pool = ThreadPoolExecutor(jobs)

    def check(self, job: Job) -> None:
        """Do nothing: all tasks run in this process."""

    def run(self, job: Job, tasks: list[Any], on_receipt: Callable[[Receipt], None]) -> None:
        """Run the tasks of a band; call `on_receipt` in this thread as each one ends."""

        def report(key: Any, result: Any, *_: Any) -> None:
            if isinstance(result, Receipt):
                on_receipt(result)

        # dask's global callbacks would also receive the tasks of other computations in this process
        callbacks = {(None, None, None, report, None)}
        dask.compute(*tasks, scheduler="threads", pool=self._pool, callbacks=callbacks, optimize_graph=False)

    def close(self, job: Job) -> None:
        """End the threads, and free the workspaces of the tiles before the export."""
        self._pool.shutdown()
        job.release_workspaces()
