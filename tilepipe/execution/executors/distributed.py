"""Executor on a dask cluster: the same graphs and tasks on other processes or machines.

The workers read and write the cache, so its folder must have the same path on all of them.  They must also compute the
same bytes, so versions and processors are compared before the first task.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tilepipe.cache.layout import RECIPE_FILE
from tilepipe.errors import SettingsError
from tilepipe.events import Receipt
from tilepipe.execution.job import Job

__all__ = ["Cluster", "worker_facts"]

CONNECT_TIMEOUT = 10
"""Time to wait for the scheduler, and for the first worker, s."""


class Cluster:
    """Run graphs on the workers of a dask scheduler.

    Parameters
    ----------
    address : str
        ``tcp://host:port``, ``tls://host:port`` or ``file:path`` of the scheduler; ``inproc://...`` of one in
        this process.

    Raises
    ------
    SettingsError
        If no scheduler with workers answers.
    """

    def __init__(self, address: str) -> None:
        from distributed import Client

        if address.startswith("inproc://") and f"/{os.getpid()}/" not in address:
            raise SettingsError(f"--scheduler {address} is in another process; give its tcp:// address")
        options = {"scheduler_file": address[5:]} if address.startswith("file:") else {"address": address}
        try:
            self._client = Client(timeout=CONNECT_TIMEOUT, set_as_default=False, **options)
            self._client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError, TimeoutError) as error:
            raise SettingsError(f"--scheduler {address}: no scheduler with workers answers there ({error})") from error

    def check(self, job: Job) -> None:
        """Compare every worker with this process; raise SettingsError on the first difference."""
        mine = worker_facts(str(job.folder))
        for worker, theirs in self._client.run(worker_facts, str(job.folder)).items():
            for name, value in mine.items():
                if theirs[name] != value:
                    raise SettingsError(
                        f"worker {worker} has {name} {theirs[name]}, this process {value}: "
                        "identical output needs equal values (cache: the same folder at the same path)"
                    )

    def run(self, job: Job, tasks: list[Any], on_receipt: Callable[[Receipt], None]) -> None:
        """Run the tasks of a band; call `on_receipt` in this thread as each one ends."""
        from distributed import as_completed

        futures = self._client.compute(tasks, optimize_graph=False)
        cancelled = False
        for future in as_completed(futures, loop=self._client.loop):
            if future.status == "finished":
                on_receipt(future.result())
            elif not future.cancelled():
                stage, _, row, column = str(future.key).split("-")
                on_receipt(Receipt(stage, f"{row}-{column}", "failed", error=str(future.exception())))  # type: ignore[arg-type]
            if job.is_stopped and not cancelled:
                self._client.cancel([f for f in futures if not f.done()])
                cancelled = True

    def close(self, job: Job) -> None:
        """Disconnect; scheduler and workers keep running."""
        self._client.close()


def worker_facts(folder: str) -> dict[str, str]:
    """Return the facts that must be equal on all machines to compute the same bytes."""
    import llvmlite.binding
    import numba
    import numpy
    import scipy
    import zarr

    from tilepipe.deconv.parameters import ALGORITHM_VERSION
    from tilepipe.deconv.transforms import LIBRARY

    return {
        "algorithm": str(ALGORITHM_VERSION),
        "transforms": LIBRARY,
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "numba": numba.__version__,
        "zarr": zarr.__version__,
        "processor": llvmlite.binding.get_host_cpu_name(),
        "cache": str((Path(folder) / RECIPE_FILE).is_file()),
    }
