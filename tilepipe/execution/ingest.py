"""Ingest: decode the image into the cache once, one band of rows at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.cache.digests import stamp_of
from tilepipe.cache.layout import SOURCE_CHUNK
from tilepipe.cache.store import CheckedArray, Index, piece_name
from tilepipe.errors import InputError
from tilepipe.events import Listener, Receipt, StageEnd, StageStart
from tilepipe.execution.job import Job
from tilepipe.image.readers import open_image
from tilepipe.planning.plan import Plan
from tilepipe.system.memory import peak_memory
from tilepipe.system.prefetch import prefetch

__all__ = ["check_input_unchanged", "ingest"]

Band = tuple[Index, float, npt.NDArray[Any]]
"""Index of the piece (a row of chunks), time at which reading began, and samples (rows, width, channels)."""


def ingest(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None]) -> int:
    """Decode the bands that the source array does not hold yet.

    Parameters
    ----------
    plan : Plan
        Gives the input and how to verify bands that are already stored.
    job : Job
        Holds the source array.
    on_event : Listener
        Receives the events of the stage.
    check : callable
        Called before every band is verified or read; raises to stop the run.

    Returns
    -------
    int
        Number of samples that are not finite.

    Raises
    ------
    InputError
        If the image is damaged, or its file changed since it was planned: no band of another image is recorded.
    """
    info, source = plan.info, job.source
    states = dict(source.states(full=plan.settings.verify == "full", check=check))
    todo = [index for index, state in states.items() if state != "done"]
    repaired = sum(state == "damaged" for state in states.values())
    pixels = info.height * info.width / 1e6
    on_event(StageStart("ingest", len(states), len(states) - len(todo), repaired, megapixels=pixels))
    if todo:
        with closing(open_image(info.path)) as reader:

            def bands() -> Iterator[Band]:
                for index in todo:
                    check()
                    began, top = time.perf_counter(), index[0] * SOURCE_CHUNK[0]
                    yield index, began, reader.rows(top, min(top + SOURCE_CHUNK[0], info.height))

            for index, seconds in prefetch(lambda band: _store(plan, source, *band), bands(), plan.memory.threads):
                on_event(Receipt("ingest", piece_name(index), "done", seconds))
    on_event(StageEnd("ingest"))
    return sum(int(record.facts.get("not_finite", 0)) for record in source.ledger.records().values())


def check_input_unchanged(plan: Plan) -> None:
    """Raise InputError if the image file changed since it was planned."""
    try:
        same = stamp_of(plan.info.path) == plan.analysis.stamp
    except OSError:
        same = False
    if not same:
        raise InputError(f"{plan.info.path} was changed or removed since it was planned; run the same command again")


def _store(plan: Plan, source: CheckedArray, index: Index, began: float, rows: npt.NDArray[Any]) -> tuple[Index, float]:
    """Write and record a band of rows whose reading began at `began`; return its index and the seconds taken."""
    top, info = index[0] * SOURCE_CHUNK[0], plan.info
    source.write(np.moveaxis(rows, -1, 0), slice(None), slice(top, top + len(rows)), slice(None))
    facts = {"not_finite": int((~np.isfinite(rows[:, :, : info.colours])).sum())} if info.is_float else {}
    check_input_unchanged(plan)
    source.record(index, began, peak_memory(), facts=facts)
    return index, time.perf_counter() - began
