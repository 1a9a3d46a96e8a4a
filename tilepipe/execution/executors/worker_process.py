"""Set-up of a worker process: dask loads this module with ``--preload``; `tilepipe worker` passes it."""

from __future__ import annotations

from typing import Any

from tilepipe.system.memory import keep_freed_memory

__all__ = ["dask_setup"]


def dask_setup(worker: Any) -> None:
    """Load what tasks need and set the process up for them, before the worker accepts the first one.

    zarr reads with as many threads as the worker has, and freed memory is kept for the next tile.

    Parameters
    ----------
    worker : distributed.Worker
        Passed by dask.
    """
    import zarr

    import tilepipe.execution.tasks  # noqa: F401  # imports take seconds

    threads = worker.state.nthreads
    zarr.config.set({"threading.max_workers": threads, "async.concurrency": threads})
    keep_freed_memory()
