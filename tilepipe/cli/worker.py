"""``tilepipe worker ADDRESS``."""

from __future__ import annotations

import os

import click

__all__ = ["worker_verb"]

LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Variables that set the number of threads of a library: tiles run in parallel, so libraries need only one each."""

MEMORY_MANAGEMENT = {"TARGET": "False", "SPILL": "False", "TERMINATE": "0.98"}
"""dask's shares of the memory limit: receipts are too small to be moved to disk, and runs check the limit."""


@click.command("worker", context_settings={"ignore_unknown_options": True})
@click.argument("address", metavar="ADDRESS")
@click.argument("dask_options", nargs=-1, metavar="[DASK OPTIONS]")
@click.option("--jobs", "-j", type=click.IntRange(1), metavar="N", help="Tiles in flight (default: one for each core).")
@click.option("--memory", metavar="SIZE", help="Memory limit of the worker (default: half of the free memory).")
def worker_verb(address: str, dask_options: tuple[str, ...], jobs: int | None, memory: str | None) -> int:
    """Start a dask worker for `run --scheduler ADDRESS`; it works until it is interrupted.

    ADDRESS is tcp://HOST:PORT or file:PATH of a dask scheduler (`dask scheduler`). Further options are passed to
    `dask worker`. Each run compares versions, processor, memory and storage with its own before the first tile.
    """
    from tilepipe.planning.memory_model import WORKER_SHARE
    from tilepipe.system.memory import available, cores
    from tilepipe.units import human_bytes, parse_bytes

    limit = parse_bytes(memory, "--memory") if memory else available() // 2
    jobs = jobs or cores()
    os.environ.update(dict.fromkeys(LIBRARY_THREADS, "1"))
    prefix = "DASK_DISTRIBUTED__WORKER__MEMORY__"
    shares = MEMORY_MANAGEMENT | {"PAUSE": str(WORKER_SHARE)}
    os.environ.update({f"{prefix}{name}": value for name, value in shares.items()})
    click.echo(f"tilepipe worker: {jobs} tiles in flight, {human_bytes(limit)}, scheduler {address}", err=True)

    from distributed.cli.dask_worker import main  # after the environment is set

    where = ["--scheduler-file", address[5:]] if address.startswith("file:") else [address]
    options = ["--nworkers", "1", "--nthreads", str(jobs), "--memory-limit", str(limit)]
    preload = ["--preload", "tilepipe.execution.executors.worker_process"]
    main.main([*where, *options, *preload, *dask_options], prog_name="tilepipe worker", standalone_mode=False)
    return 0
