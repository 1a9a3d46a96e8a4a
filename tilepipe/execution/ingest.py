"""Ingest: decode the image into the cache once, one band of rows at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import numpy.typing as npt

from tilepipe.cache.digests import stamp_of
from tilepipe.cache.layout import SOURCE_CHUNK
from tilepipe.cache.store import CheckedArray, piece_name
from tilepipe.errors import InputError
from tilepipe.events import Listener, Receipt, StageEnd, StageStart
from tilepipe.execution.job import Job, store_band
from tilepipe.image.readers import open_image
from tilepipe.planning.plan import Plan
from tilepipe.system.prefetch import prefetch

__all__ = ["check_input_unchanged", "count_not_finite", "find_bands", "ingest"]

Band = tuple[int, float, npt.NDArray[Any]]
"""Index of the band (a row of chunks), time at which reading began, and samples (rows, width, channels)."""


def ingest(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None]) -> None:
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

    Raises
    ------
    InputError
        If the image is damaged, or its file changed since it was planned: no band of another image is recorded.
    """
    info, source = plan.info, job.source
    todo = find_bands(plan, job, on_event, check)
    if todo:
        with closing(open_image(info.path, info.selection)) as reader:

            def bands() -> Iterator[Band]:
                for row in todo:
                    check()
                    began, top = time.perf_counter(), row * SOURCE_CHUNK[0]
                    yield row, began, reader.rows(top, min(top + SOURCE_CHUNK[0], info.height))

            for row, seconds in prefetch(lambda band: _store(plan, source, *band), bands(), plan.memory.threads):
                on_event(Receipt("ingest", piece_name((row,)), "done", seconds))
    on_event(StageEnd("ingest"))


def find_bands(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None]) -> list[int]:
    """Return the bands that the source array does not hold yet, and announce the stage; parameters as `ingest`."""
    states = dict(job.source.states(full=plan.settings.verify == "full", check=check))
    todo = [index[0] for index, state in states.items() if state != "done"]
    repaired = sum(state == "damaged" for state in states.values())
    pixels = plan.info.height * plan.info.width / 1e6
    on_event(StageStart("ingest", len(states), len(states) - len(todo), repaired, megapixels=pixels))
    return todo


def count_not_finite(job: Job) -> int:
    """Return the number of samples of the source that are not finite."""
    return sum(int(record.facts.get("not_finite", 0)) for record in job.source.ledger.records().values())


def check_input_unchanged(plan: Plan) -> None:
    """Raise InputError if the image file changed since it was planned."""
    try:
        same = stamp_of(plan.info.path) == plan.analysis.stamp
    except OSError:
        same = False
    if not same:
        raise InputError(f"{plan.info.path} was changed or removed since it was planned; run the same command again")


def _store(plan: Plan, source: CheckedArray, row: int, began: float, rows: npt.NDArray[Any]) -> tuple[int, float]:
    """Write and record a band of rows whose reading began at `began`; return its index and the seconds taken."""
    check_input_unchanged(plan)
    store_band(source, row, rows, plan.info.colours, began)
    return row, time.perf_counter() - began
