"""The story of a run: hash, ingest, restore and blend, export.

Every stage asks its ledger what is done and does the rest, so that running again is going on.
"""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from tilepipe.cache.ledger import Ledger, write_durably
from tilepipe.cache.lifecycle import content_hash, remove, run_folders, runs_in
from tilepipe.cache.lock import locked
from tilepipe.cache.store import CHUNK, ChunkArray, reader_threads
from tilepipe.decisions import remember
from tilepipe.errors import (
    CacheError,
    DoesNotFitError,
    InputError,
    InterruptedRunError,
    SettingsError,
    TilepipeError,
    TilesFailedError,
)
from tilepipe.export import export
from tilepipe.image.info import ImageInfo
from tilepipe.image.read import open_image
from tilepipe.planning import Plan, check_output, recipe_facts
from tilepipe.recipe import Recipe, differences
from tilepipe.runtime import tasks
from tilepipe.runtime.events import Listener, Note, Receipt, StageEnd, StageStart
from tilepipe.runtime.graph import Todo, bands, find_todo
from tilepipe.runtime.job import Job, job_in, source_array
from tilepipe.runtime.local import Threads
from tilepipe.runtime.memory import peak_memory

__all__ = ["RunReport", "run"]


@dataclass(frozen=True)
class RunReport:
    """What a run did; :meth:`to_dict` is what ``run --json`` prints."""

    output: Path
    seconds: float
    tiles: dict[str, int]
    memory: dict[str, int]
    plan: Plan
    folder: Path
    not_finite: int
    workers: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "output": str(self.output),
            "seconds": round(self.seconds, 2),
            "tiles": self.tiles,
            "memory": self.memory,
            "psf": {
                "size": self.plan.psf.size,
                "confidence": self.plan.psf.confidence,
                "file": self.plan.settings.psf or str(self.folder / "psf.tif"),
            },
            "recipe": recipe_facts(self.plan.recipe),
            "halo": self.plan.recipe.halo,
            "tile": self.plan.recipe.core,
            "cache": str(self.folder),
            "not_finite": self.not_finite,
            "workers": self.workers,
        }


class Runtime(Protocol):
    """Where graphs run."""

    def check(self, job: Job) -> None: ...

    def run(self, tasks: list[Any], on_receipt: Any) -> None: ...

    def close(self, job: Job) -> None: ...


def run(plan: Plan, on_event: Listener, *, overwrite: bool = False, fresh: bool = False) -> RunReport:
    """Carry out `plan`.

    Parameters
    ----------
    plan : from :func:`tilepipe.planning.make_plan`, with an output.
    on_event : told of every stage, receipt and remark.
    overwrite : replace an existing output.
    fresh : drop what the cache holds of this recipe first.

    Raises
    ------
    OutputError, DoesNotFitError : before anything is written.
    InputError : the input is damaged in the middle; what was read stays cached.
    TilesFailedError : some tiles failed; running again tries them again.
    InterruptedRunError : ``tasks.stop`` was set; running again goes on.
    CacheError : another run uses this recipe's folder.
    """
    started = time.perf_counter()
    if plan.output is None:
        raise SettingsError("this plan has no output; give one to plan(image, output)")
    check_output(plan.output, overwrite=overwrite)
    if plan.settings.save_mask:
        check_output(Path(plan.settings.save_mask), overwrite=overwrite)
    plan.check()
    with _disk_errors(plan.root):
        content, before = content_hash(plan.root, plan.info.path)
        recipe = msgspec.structs.replace(plan.recipe, source=content)
        source_folder, folder = run_folders(plan.root, recipe)
        _announce_reuse(plan.root, source_folder, folder, recipe, before, on_event)
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if fresh:
                _forget(folder)
            _write_facts(plan, recipe, source_folder, folder)
            reader_threads(plan.memory.jobs)
            not_finite = _ingest(plan, recipe, source_folder, on_event)
            job = job_in(folder)
            counts, workers = _restore_and_blend(plan, job, on_event)
            export(plan, job, on_event, lambda: _stop_if_asked(plan))
    if not plan.settings.keep_cache:
        remove(folder)
    peak = peak_memory()
    return RunReport(
        output=plan.output,
        seconds=time.perf_counter() - started,
        tiles=counts,
        memory={"allowed": plan.memory.allowed, "projected": plan.memory.projected, "peak": peak},
        plan=plan,
        folder=folder,
        not_finite=not_finite,
        workers=workers,
    )


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or failing disk under the cache into one sentence."""
    try:
        yield
    except TilepipeError:
        raise  # some are OSErrors as well
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DoesNotFitError(
                f"the disk under the cache {root} is full; what is done is kept: free some space and run the same "
                "command to go on, or give another --cache"
            ) from error
        raise CacheError(
            f"the cache in {root} cannot be written or read: {error.strerror or error}; "
            "free some space or give another --cache, then run the same command to go on"
        ) from error


def _announce_reuse(
    root: Path, source_folder: Path, folder: Path, recipe: Recipe, before: str | None, on_event: Listener
) -> None:
    """Say why nothing is reused, when something like it is there."""
    if folder.is_dir():
        return
    if before is not None and not source_folder.is_dir():
        on_event(Note(f"fresh    the pixels changed since the last run: {before[:12]} -> {recipe.source[:12]}"))
    others = sorted(runs_in(source_folder), key=lambda run: (run.folder / "recipe.json").stat().st_mtime)
    if others:
        changed = "; ".join(differences(others[-1].recipe, recipe))
        on_event(Note(f"fresh    cache {others[-1].name} is for other settings: {changed}"))


def _forget(folder: Path) -> None:
    """Drop the ledgers: without records nothing counts as done."""
    for ledger in ("tiles.ledger", "result.ledger"):
        for record in (folder / ledger).glob("*.json"):
            record.unlink()


def _write_facts(plan: Plan, recipe: Recipe, source_folder: Path, folder: Path) -> None:
    image = {"path": str(plan.info.path.resolve()), "sha256": recipe.source, "dtype": recipe.dtype}
    write_durably(source_folder / "image.json", json.dumps(image).encode())
    remember(source_folder, recipe.source, plan.asked, plan.psf, plan.tuning)
    plan.psf.save(folder / "psf.tif", overwrite=True)
    write_durably(folder / "recipe.json", recipe.to_json())


def _ingest(plan: Plan, recipe: Recipe, folder: Path, on_event: Listener) -> int:
    """Decode the picture band by band into the source array; return how many samples are not finite."""
    info = plan.info
    source = source_array(folder, recipe)
    ledger = Ledger(folder / "source.ledger", recipe.source)
    band, width = CHUNK
    columns = range(-(-info.width // width))
    starts = list(range(0, info.height, band))
    files = {str(i): [source.chunk_file(0, i, column) for column in columns] for i in range(len(starts))}
    full = plan.settings.verify == "full"
    todo = [index for index, paths in files.items() if not ledger.accepts(index, paths, full=full)]
    on_event(StageStart("ingest", len(starts), len(starts) - len(todo), megapixels=info.height * info.width / 1e6))
    if todo:
        reader = open_image(info.path)
        try:
            for index in todo:
                _stop_if_asked(plan)
                began = time.perf_counter()
                top = int(index) * band
                facts = _ingest_band(source, info, reader.rows(top, min(top + band, info.height)), top)
                ledger.put(index, files[index], seconds=time.perf_counter() - began, peak=peak_memory(), facts=facts)
                on_event(Receipt("ingest", index, "done", time.perf_counter() - began))
        finally:
            reader.close()
        if content_hash(plan.root, info.path)[0] != recipe.source:
            raise InputError(f"{info.path} changed while it was read; run again")
    on_event(StageEnd("ingest"))
    return sum(int(record.facts.get("not_finite", 0)) for record in ledger.records().values())


def _ingest_band(source: ChunkArray, info: ImageInfo, rows: npt.NDArray[Any], top: int) -> dict[str, int]:
    source.write(np.moveaxis(rows, -1, 0), slice(None), slice(top, top + len(rows)), slice(None))
    if not info.is_float:
        return {}
    return {"not_finite": int((~np.isfinite(rows[:, :, : info.colours])).sum())}


def _restore_and_blend(plan: Plan, job: Job, on_event: Listener) -> tuple[dict[str, int], list[str]]:
    """Run the graph band by band; return tile counts and the processes that did the work."""
    todo = find_todo(job, full=plan.settings.verify == "full")
    pixels = plan.info.height * plan.info.width / 1e6
    _announce(todo, pixels, on_event)
    runtime = _runtime(plan)
    failed: list[Receipt] = []
    done = {"restore": 0, "blend": 0}
    workers: set[str] = set()

    def on_receipt(receipt: Receipt) -> None:
        if receipt.status == "done":
            done[receipt.stage] += 1
            workers.add(f"{receipt.host}:{receipt.pid}")
        elif receipt.status == "failed":
            failed.append(receipt)
        on_event(receipt)

    try:
        if todo.tiles or todo.chunks:
            runtime.check(job)
        for band in bands(job, todo):
            _stop_if_asked(plan)
            runtime.run(band, on_receipt)
    finally:
        runtime.close(job)
    on_event(StageEnd("restore"))
    _stop_if_asked(plan)
    if failed:
        raise TilesFailedError(_failure_text(failed, todo, job))
    repaired = todo.tiles_repaired
    return {
        "total": todo.tiles_total,
        "computed": done["restore"],
        "reused": todo.tiles_total - done["restore"],
        "repaired": repaired,
        "failed": 0,
    }, sorted(workers)


def _announce(todo: Todo, megapixels: float, on_event: Listener) -> None:
    reused = todo.tiles_total - len(todo.tiles)
    if reused or todo.tiles_repaired:
        damaged = f", {todo.tiles_repaired} damaged (made anew)" if todo.tiles_repaired else ""
        on_event(Note(f"resume   {reused} of {todo.tiles_total} tiles done{damaged}, {len(todo.tiles)} left"))
    on_event(StageStart("restore", todo.tiles_total, reused, todo.tiles_repaired, megapixels))
    on_event(StageStart("blend", todo.chunks_total, todo.chunks_total - len(todo.chunks), todo.chunks_repaired))


def _failure_text(failed: list[Receipt], todo: Todo, job: Job) -> str:
    first = failed[0]
    return (
        f"{len(failed)} of {len(todo.tiles) + len(todo.chunks)} tasks failed, the first {first.stage} {first.index}: "
        f"{first.error}; the others are kept in {job.folder}: run the same command to try again"
    )


def _runtime(plan: Plan) -> Runtime:
    if plan.settings.scheduler == "threads":
        return Threads(plan.memory.jobs)
    from tilepipe.runtime.cluster import Cluster

    return Cluster(plan.settings.scheduler)


def _stop_if_asked(plan: Plan) -> None:
    if tasks.stop.is_set():
        raise InterruptedRunError("stopped; what is done is kept: run the same command to go on")
