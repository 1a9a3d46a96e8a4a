"""Executor on threads of this process, the default."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dask
from dask.callbacks import Callback

from tilepipe.events import Receipt
from tilepipe.execution.job import Job

__all__ = ["Threads"]


class Threads:
    """Run graphs on `jobs` threads of this process."""

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs

    def check(self, job: Job) -> None:
        """Do nothing: all tasks run in this process."""

    def run(self, tasks: list[Any], on_receipt: Callable[[Receipt], None]) -> None:
        """Run the tasks of a band; call `on_receipt` in this thread as each one ends."""

        def report(key: Any, result: Any, *_: Any) -> None:
            if isinstance(result, Receipt):
                on_receipt(result)

        with Callback(posttask=report):
            dask.compute(*tasks, scheduler="threads", num_workers=self.jobs, optimize_graph=False)

    def close(self, job: Job) -> None:
        """Free the workspaces of the tiles before the export."""
        job.release_workspaces()
