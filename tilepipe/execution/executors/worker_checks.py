"""What the workers of a cluster must have in common, and what each must be able to hold.

These functions run on the workers, or compare what the workers answered.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict
from functools import cache
from typing import Any

from tilepipe.errors import DoesNotFitError, SettingsError
from tilepipe.execution.job import RunConfig, shared_stamp
from tilepipe.execution.tasks import Group, run_group
from tilepipe.planning.memory_model import threads_that_fit
from tilepipe.planning.plan import Plan
from tilepipe.system.files import write_durably
from tilepipe.system.memory import used_memory
from tilepipe.system.object_store import StoragePath, storage_path
from tilepipe.units import human_bytes

__all__ = ["check_answer", "probe", "run_checked_group", "worker_facts"]

PROBE = "probe-"
"""Start of the names of the files by which a worker shows that it shares the cache."""


@cache
def worker_facts() -> dict[str, str]:
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
        "processor (NUMBA_CPU_NAME)": numba.config.CPU_NAME or llvmlite.binding.get_host_cpu_name(),
        "numpy SIMD (NPY_DISABLE_CPU_FEATURES)": " ".join(_simd_features()),
    }


def _simd_features() -> list[str]:
    """Return the optional processor features that numpy uses here: its functions differ in the last bit."""
    import numpy

    found = numpy.show_config(mode="dicts") or {}
    return sorted(found.get("SIMD Extensions", {}).get("found", []))


def run_checked_group(facts: dict[str, str], folder: str, topic: str, ticket: int, group: Group) -> None:
    """Run tasks on a worker, and send their receipts to the client.

    Receipts are events of a topic, not the task's result: a result would have to be fetched from the worker, which may
    hang by then.

    Raises
    ------
    SettingsError
        On a worker that joined and would compute other bytes.
    """
    from distributed import get_worker

    difference = _difference(worker_facts(), facts)
    if difference:
        raise SettingsError(f"a worker that joined has {difference}")
    receipts = [asdict(receipt) for receipt in run_group(folder, group)]
    get_worker().log_event(topic, {"ticket": ticket, "receipts": receipts})


def probe(folder: str, token: str, worker: Any = None) -> dict[str, Any]:
    """Answer, on a worker, what :func:`check_answer` compares.

    Parameters
    ----------
    folder : str
        Recipe folder of the run.
    token : str
        Name of a file that the client wrote into it.
    worker : distributed.Worker, optional
        By default the one that runs this task.

    Returns
    -------
    dict
        The facts; whether the client's file, and the image, are visible; the name of a file written in answer, or the
        error; threads, memory limit, share of it at which the worker pauses, and memory used so far.
    """
    from distributed import get_worker

    worker = worker or get_worker()
    answer, visible, image_is_here, error = f"{PROBE}{uuid.uuid4().hex}", True, False, ""
    try:
        path = storage_path(folder)
        visible = (path / token).is_file()
        if visible:
            write_durably(path / answer, token.encode())
            config = RunConfig.of(path)
            image_is_here = config.image_stamp is not None and shared_stamp(config.image) == config.image_stamp
    except (OSError, ImportError) as failure:
        error = str(failure)
    manager = getattr(worker, "memory_manager", None)
    return {
        "facts": worker_facts(),
        "visible": visible,
        "answer": answer,
        "image_is_here": image_is_here,
        "error": error,
        "threads": worker.state.nthreads,
        "limit": getattr(manager, "memory_limit", None) or 0,
        "pause": getattr(manager, "memory_pause_fraction", None) or 1.0,
        "used": used_memory(),
    }


def check_answer(plan: Plan, folder: StoragePath, worker: str, answer: dict[str, Any]) -> None:
    """Raise an error if a worker would compute other bytes, does not share the cache, or has too little memory.

    Raises
    ------
    SettingsError
        If its versions or processor differ, or it does not see, or cannot write, the cache.
    DoesNotFitError
        If its threads together need more than its memory limit, or than ``--memory``.
    """
    difference = _difference(answer["facts"], worker_facts())
    if difference:
        raise SettingsError(f"worker {worker} has {difference}")
    if not answer["visible"]:
        raise SettingsError(
            f"worker {worker} does not see the cache folder {folder}: "
            "give a --cache on storage that all workers mount at the same path"
        )
    if answer["error"]:
        raise SettingsError(f"worker {worker} cannot use the cache {folder}: {answer['error']}")
    if not (folder / answer["answer"]).is_file():
        raise SettingsError(
            f"the file that worker {worker} wrote into {folder} is not visible here: "
            "the path is the same, but not the storage"
        )
    _check_memory(plan, worker, answer)


def _difference(theirs: dict[str, str], mine: dict[str, str]) -> str:
    """Return the first fact that differs, as text; empty if none does."""
    for name, value in mine.items():
        if theirs.get(name) != value:
            return f"{name} {theirs.get(name)}, this process {value}: identical output needs equal values"
    return ""


def _check_memory(plan: Plan, worker: str, answer: dict[str, Any]) -> None:
    limits = [int(answer["limit"] * answer["pause"]), plan.settings.memory_bytes or 0]
    limit = min((limit for limit in limits if limit), default=0)
    needed, fitting = threads_that_fit(plan.model, plan.recipe.grid, answer["used"], answer["threads"], limit)
    if limit and needed > limit:
        paused = (
            f" (it pauses at {answer['pause']:.0%} of its limit)" if limit == limits[0] and answer["pause"] < 1 else ""
        )
        remedy = f"start it with {fitting} threads, or with" if fitting else "start it with"
        raise DoesNotFitError(
            f"worker {worker} has {answer['threads']} threads, which need {human_bytes(needed)}; {human_bytes(limit)} "
            f"are allowed{paused}; {remedy} a memory limit of {human_bytes(int(needed / answer['pause']))}"
        )
