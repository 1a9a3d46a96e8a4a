"""The story of a run: hash, ingest, restore and blend, export.

Every stage asks its ledger what is done and does the rest, so that running again is going on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from tilepipe.cache.collection import collect, remove, runs_in, sweep
from tilepipe.cache.digests import FileDigest, digest_of, recall_digest
from tilepipe.cache.layout import DONE_FILE, IMAGE_FILE, PSF_FILE, RECIPE_FILE, run_folders, source_folder
from tilepipe.cache.lock import locked
from tilepipe.cache.store import reader_threads
from tilepipe.errors import (
    CacheError,
    DoesNotFitError,
    InputError,
    InterruptedRunError,
    SettingsError,
    TilepipeError,
    TilesFailedError,
)
from tilepipe.events import Listener, Note
from tilepipe.execution import tasks
from tilepipe.execution.export import export
from tilepipe.execution.ingest import check_input_unchanged, ingest
from tilepipe.execution.job import RunConfig, open_job
from tilepipe.execution.restore import restore_and_blend
from tilepipe.planning.memo import remember
from tilepipe.planning.plan import Plan, check_output, recipe_facts
from tilepipe.recipe import Recipe, differences
from tilepipe.system.files import is_disk_full, write_durably
from tilepipe.system.memory import peak_memory
from tilepipe.units import human_bytes, parse_bytes

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
                "file": self.plan.settings.psf or str(self.folder / PSF_FILE),
            },
            "recipe": recipe_facts(self.plan.recipe),
            "halo": self.plan.recipe.halo,
            "tile": self.plan.recipe.core,
            "check": self.plan.analysis.check,
            "cache": str(self.folder),
            "not_finite": self.not_finite,
            "workers": self.workers,
        }


def run(plan: Plan, on_event: Listener, *, overwrite: bool = False, fresh: bool = False) -> RunReport:
    """Carry out `plan`.

    Parameters
    ----------
    plan : from :func:`tilepipe.planning.plan.make_plan`, with an output.
    on_event : told of every stage, receipt and remark.
    overwrite : replace an existing output.
    fresh : use nothing that the cache holds of tiles and result.

    Raises
    ------
    OutputError, DoesNotFitError : before anything is written.
    InputError : the input is damaged in the middle, or changed meanwhile; what was read before stays cached.
    TilesFailedError : some tiles failed; running again tries them again.
    InterruptedRunError : ``tasks.stop`` was set; running again goes on.
    CacheError : another run uses this recipe's folder, or somebody removed it.
    """
    started = time.perf_counter()
    if plan.output is None:
        raise SettingsError("this plan has no output; give one to plan(image, output)")
    check_output(plan.output, overwrite=overwrite)
    if plan.settings.save_mask:
        check_output(Path(plan.settings.save_mask), overwrite=overwrite)
    plan.check()
    with _disk_errors(plan.root):
        picture = _same_picture(plan)
        recipe = msgspec.structs.replace(plan.recipe, source=picture.sha256)
        folder = run_folders(plan.root, recipe)[1]
        before = None if fresh else picture.before
        _announce_reuse(plan.root, folder, recipe, before, on_event)
        with locked(folder, plan.root) as lock:

            def check() -> None:
                lock.check()
                if tasks.stop.is_set():
                    raise InterruptedRunError("stopped; what is done is kept: run the same command to go on")

            _write_facts(plan, recipe, before, folder)
            reader_threads(plan.memory.jobs)
            job = open_job(folder)
            if fresh:
                job.tiles.forget_all()
                job.result.forget_all()
            try:
                not_finite = ingest(plan, job, on_event, check)
                counts, workers = restore_and_blend(plan, job, on_event, check)
                export(plan, job, on_event, check, overwrite=overwrite)
            except (CacheError, TilesFailedError):  # damage may be why: the next run is to find no record of it
                job.forget_damaged()
                raise
            write_durably(folder / DONE_FILE, json.dumps({"output": str(plan.output.absolute())}).encode())
        _clean_up(plan, folder, on_event)
    return RunReport(
        output=plan.output,
        seconds=time.perf_counter() - started,
        tiles=counts,
        memory={"allowed": plan.memory.allowed, "projected": plan.memory.projected, "peak": peak_memory()},
        plan=plan,
        folder=folder,
        not_finite=not_finite,
        workers=workers,
    )


def _same_picture(plan: Plan) -> FileDigest:
    """Hash the picture; InputError when it is another one than was planned."""
    check_input_unchanged(plan)
    known, _ = recall_digest(plan.root, plan.info.path)
    picture = digest_of(plan.root, plan.info.path, trust_stamp=plan.settings.verify == "quick")
    if known is not None and known != picture.sha256:
        raise InputError(
            f"{plan.info.path} has other bytes than before, though its size and times say that nobody touched it; "
            "run the same command again: it is taken as it is now"
        )
    return picture


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or failing disk under the cache into one sentence."""
    try:
        yield
    except TilepipeError:
        raise  # some are OSErrors as well
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(
                f"the disk under the cache {root} is full; what is done is kept: free some space and run the same "
                "command to go on, or give another --cache"
            ) from error
        raise CacheError(
            f"the cache in {root} cannot be written or read: {error.strerror or error}; "
            "free some space or give another --cache, then run the same command to go on"
        ) from error


def _announce_reuse(root: Path, folder: Path, recipe: Recipe, before: str | None, on_event: Listener) -> None:
    """Say why nothing is reused, when something like it is there."""
    if (folder / RECIPE_FILE).is_file():
        return
    if before is not None:
        old = msgspec.structs.replace(recipe, source=before)
        if run_folders(root, old)[1].is_dir():
            on_event(Note(f"edited   tiles of {before[:12]} serve where {recipe.source[:12]} has the same pixels"))
            return
        on_event(Note(f"fresh    the pixels changed since the last run: {before[:12]} -> {recipe.source[:12]}"))
    others = sorted(runs_in(folder.parent), key=lambda run: run.used)
    if not others and before is not None:
        others = sorted(runs_in(source_folder(root, before)), key=lambda run: run.used)
    if others:
        changed = "; ".join(differences(others[-1].recipe, recipe))
        on_event(Note(f"fresh    cache {others[-1].name} is for other settings: {changed}"))


def _write_facts(plan: Plan, recipe: Recipe, before: str | None, folder: Path) -> None:
    """Write what the run stands on: the recipe, its PSF, what was found out; what the last run left half done goes."""
    durable = plan.settings.durable
    image = {"path": str(plan.info.path.resolve()), "sha256": recipe.source, "dtype": recipe.dtype}
    write_durably(folder.parent / IMAGE_FILE, json.dumps(image).encode(), durable=durable)
    remember(plan.root, recipe.source, plan.analysis.asked, plan.analysis.memo)
    RunConfig(durable=durable, edited_from=before).save(folder)
    plan.psf.save(folder / PSF_FILE, overwrite=True)
    write_durably(folder / RECIPE_FILE, recipe.to_json(), durable=durable)
    (folder / DONE_FILE).unlink(missing_ok=True)
    sweep(folder)


def _clean_up(plan: Plan, folder: Path, on_event: Listener) -> None:
    """Remove the run's cache when it is not to be kept, and older ones when there is a limit."""
    if not plan.settings.keep_cache:
        with suppress(CacheError):  # the next run has begun in it
            remove(folder, plan.root)
    if plan.settings.cache_limit is None:
        return
    gone = collect(plan.root, parse_bytes(plan.settings.cache_limit, "cache_limit"), keep=folder)
    if gone:
        size = human_bytes(sum(item.size for item in gone))
        on_event(Note(f"cache    {size} of {len(gone)} older runs removed (cache_limit {plan.settings.cache_limit})"))
