"""The picture into the cache: decoded once, a band of rows at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.cache.lifecycle import stamp_of
from tilepipe.cache.store import CHUNK, CheckedArray, piece_name
from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo
from tilepipe.image.read import open_image
from tilepipe.planning import Plan
from tilepipe.runtime.events import Listener, Receipt, StageEnd, StageStart
from tilepipe.runtime.job import Job
from tilepipe.runtime.memory import peak_memory

__all__ = ["ingest", "refuse_if_touched"]


def ingest(plan: Plan, job: Job, on_event: Listener, check: Callable[[], None]) -> int:
    """Decode what is not yet in the source array; return how many samples are not finite.

    `check` raises when the run has to stop; it is asked before every band.

    Raises
    ------
    InputError : the picture is damaged, or was touched since it was planned: no band of another picture is recorded.
    """
    info, source = plan.info, job.source
    full = plan.settings.verify == "full"
    states = {index: source.state(index, full=full) for index in source.indices()}
    todo = [index for index, state in states.items() if state != "done"]
    repaired = sum(state == "damaged" for state in states.values())
    pixels = info.height * info.width / 1e6
    on_event(StageStart("ingest", len(states), len(states) - len(todo), repaired, megapixels=pixels))
    if todo:
        with closing(open_image(info.path)) as reader:
            for index in todo:
                check()
                began = time.perf_counter()
                top = index[0] * CHUNK[0]
                facts = _ingest_band(source, info, reader.rows(top, min(top + CHUNK[0], info.height)), top)
                refuse_if_touched(plan)
                source.record(index, began, peak_memory(), facts=facts)
                on_event(Receipt("ingest", piece_name(index), "done", time.perf_counter() - began))
    on_event(StageEnd("ingest"))
    return sum(int(record.facts.get("not_finite", 0)) for record in source.ledger.records().values())


def refuse_if_touched(plan: Plan) -> None:
    """Raise InputError when the picture's file is another one than was planned."""
    try:
        same = stamp_of(plan.info.path) == plan.chosen.stamp
    except OSError:
        same = False
    if not same:
        raise InputError(f"{plan.info.path} changed or went away since it was planned; run the same command again")


def _ingest_band(source: CheckedArray, info: ImageInfo, rows: npt.NDArray[Any], top: int) -> dict[str, int]:
    source.write(np.moveaxis(rows, -1, 0), slice(None), slice(top, top + len(rows)), slice(None))
    if not info.is_float:
        return {}
    return {"not_finite": int((~np.isfinite(rows[:, :, : info.colours])).sum())}
