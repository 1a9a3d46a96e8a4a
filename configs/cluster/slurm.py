"""Run tilepipe on a SLURM cluster, from its login node: python slurm.py PHOTO OUTPUT CACHE.

The cache must lie on storage that all nodes mount at the same path, or in an object store.  `tilepipe plan PHOTO
--workers 50 --jobs 8` prints the memory that each job needs.  Needs dask-jobqueue.
"""

import sys

from dask.distributed import Client
from dask_jobqueue import SLURMCluster

import tilepipe

MOST_JOBS = 50
"""Jobs that are queued at the same time; each is one worker."""

OPTIONS = {
    "cores": 8,  # tiles in flight in each job
    "processes": 1,
    "memory": "4GB",
    "walltime": "02:00:00",
    # of SLURM, as needed: "queue": "normal", "account": "optics",
    "job_script_prologue": ["export DASK_DISTRIBUTED__WORKER__MEMORY__PAUSE=0.95"],
    "worker_extra_args": ["--preload", "tilepipe.execution.executors.worker_process"],
}


def main(photo: str, output: str, cache: str) -> None:
    """Restore `photo` on as many jobs as there is work for; the same command resumes."""
    plan = tilepipe.plan(photo, output, cache=cache)
    with SLURMCluster(**OPTIONS) as cluster, Client(cluster) as client:
        cluster.adapt(minimum_jobs=1, maximum_jobs=MOST_JOBS)
        client.wait_for_workers(1)
        plan.run(client=client)


if __name__ == "__main__":
    main(*sys.argv[1:])
