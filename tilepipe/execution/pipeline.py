"""Run a plan: hash the input, ingest, restore and blend, export.

Every stage reads its ledger and computes only what is missing, so rerunning resumes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tilepipe.cache.collection import collect, remove, runs_in, sweep
from tilepipe.cache.digests import FileDigest, digest_of, recall_digest
from tilepipe.cache.layout import DONE_FILE, IMAGE_FILE, PSF_FILE, RECIPE_FILE, run_folders, source_folder
from tilepipe.cache.lock import locked
from tilepipe.errors import (
    CacheError,
    DoesNotFitError,
    InputError,
    InterruptedRunError,
    SettingsError,
    StorageError,
    TilepipeError,
    TilesFailedError,
)
from tilepipe.events import Listener, Note
from tilepipe.execution.export import export
from tilepipe.execution.ingest import check_input_unchanged, count_not_finite
from tilepipe.execution.job import RunConfig, running, shared_stamp
from tilepipe.execution.restore import restore_and_blend
from tilepipe.planning.memo import remember
from tilepipe.planning.plan import Plan, check_output, recipe_facts
from tilepipe.recipe import Recipe, differences
from tilepipe.system.files import is_disk_full, printable, write_durably
from tilepipe.system.memory import peak_memory, peak_since
from tilepipe.system.object_store import StoragePath
from tilepipe.units import human_bytes, parse_bytes

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["RunReport", "run"]


@dataclass(frozen=True)
class RunReport:
    """Report of a run; ``run --json`` prints :meth:`to_dict`.

    Parameters
    ----------
    output : Path
        The file written.
    seconds : float
        Duration of the run.
    tiles : dict of str to int
        Tiles in total, computed, reused, repaired and failed.
    memory : dict of str to int
        Memory allowed, projected and used at the peak, bytes.
    plan : Plan
        The plan that was run.
    folder : Path
        Folder of the run in the cache.
    not_finite : int
        Input samples that are NaN or infinite.
    workers : list of str
        Processes that computed pieces, as "host:pid".
    """

    output: Path
    seconds: float
    tiles: dict[str, int]
    memory: dict[str, int]
    plan: Plan
    folder: StoragePath
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


def run(
    plan: Plan,
    on_event: Listener,
    *,
    overwrite: bool = False,
    fresh: bool = False,
    stop: threading.Event | None = None,
    client: Client | None = None,
) -> RunReport:
    """Run `plan`: ingest, restore, blend and export.

    Parameters
    ----------
    plan : Plan
        From :func:`tilepipe.planning.make_plan.make_plan`, with an output.
    on_event, overwrite, fresh, stop, client
        As for :meth:`tilepipe.execution.runnable.RunnablePlan.run`, which also lists the errors.
    """
    started, before_run = time.perf_counter(), peak_memory()
    if plan.output is None:
        raise SettingsError("this plan has no output; pass one to plan(image, output)")
    stop = stop or threading.Event()

    def check_stop() -> None:
        if stop.is_set():
            raise InterruptedRunError("stopped; finished work is kept: run the same command to resume")

    with _disk_errors(plan.root):
        check_output(plan.output, overwrite=overwrite, is_folder=plan.format.is_folder)
        if plan.settings.save_mask:
            check_output(Path(plan.settings.save_mask), overwrite=overwrite)
        for _, copy in plan.sidecars:
            check_output(copy, overwrite=overwrite)
        plan.check()
        digest = _hash_input(plan, check_stop)
        selection = plan.info.selection
        recipe = msgspec.structs.replace(plan.recipe, source=selection.digest(digest.sha256))
        folder = run_folders(plan.root, recipe)[1]
        before = None if fresh or digest.before is None else selection.digest(digest.before)
        _announce_reuse(plan.root, folder, recipe, before, on_event)
        with locked(folder, plan.root, on_event) as lock:

            def check() -> None:
                lock.check()
                check_stop()

            _write_facts(plan, recipe, before, folder)
            with running(folder, stop) as job:
                if fresh:
                    job.tiles.forget_all()
                    job.result.forget_all()
                try:
                    counts, workers = restore_and_blend(plan, job, on_event, check, client)
                    not_finite = count_not_finite(job)
                    export(plan, job, on_event, check, overwrite=overwrite)
                except StorageError:
                    raise
                except (CacheError, TilesFailedError):  # damage may be the cause: drop its records for the next run
                    with suppress(CacheError, OSError):  # without the lock the folder is no longer this run's
                        lock.check()
                        job.forget_damaged(lock.check)
                    raise
            write_durably(folder / DONE_FILE, json.dumps({"output": str(plan.output.absolute())}).encode())
        _clean_up(plan, folder, on_event)
    peak = max(plan.model.planning, peak_since(before_run))
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


def _hash_input(plan: Plan, check: Callable[[], None]) -> FileDigest:
    """Hash the input; raise InputError if it changed since it was planned or last hashed."""
    check_input_unchanged(plan)
    known, _ = recall_digest(plan.root, plan.info.path)
    digest = digest_of(plan.root, plan.info.path, trust_stamp=plan.settings.verify == "quick", check=check)
    if known is not None and known != digest.sha256:
        raise InputError(
            f"the content of {plan.info.path} changed although its size and timestamps did not; "
            "run the same command again to use the new content"
        )
    return digest


@contextmanager
def _disk_errors(root: StoragePath) -> Iterator[None]:
    """Convert errors of the cache's disk, and lack of memory, into errors with a one-line message."""
    try:
        yield
    except TilepipeError:
        raise  # some are also OSErrors
    except MemoryError as error:
        raise DoesNotFitError(
            "the system has no memory left; finished work is kept: close other programs or give a smaller --memory, "
            "then run the same command to resume"
        ) from error
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(
                f"the disk of the cache {root} is full; finished work is kept: free some space and run the same "
                "command to resume, or give another --cache"
            ) from error
        raise CacheError(
            f"the cache in {root} cannot be written or read: {error.strerror or error} ({error.filename or 'a file'}); "
            "run the same command to resume, or give another --cache"
        ) from error


def _announce_reuse(
    root: StoragePath, folder: StoragePath, recipe: Recipe, before: str | None, on_event: Listener
) -> None:
    """Report why nothing is reused although the cache holds similar runs, or that tiles of an edited image are."""
    if (folder / RECIPE_FILE).is_file():
        return
    if before is not None:
        old = msgspec.structs.replace(recipe, source=before)
        if run_folders(root, old)[1].is_dir():
            on_event(Note(f"edited   tiles of {before[:12]} are reused where {recipe.source[:12]} has the same pixels"))
            return
        on_event(Note(f"fresh    the pixels changed since the last run: {before[:12]} -> {recipe.source[:12]}"))
    others = sorted(runs_in(folder.parent), key=lambda run: run.used)
    if not others and before is not None:
        others = sorted(runs_in(source_folder(root, before)), key=lambda run: run.used)
    if others:
        changed = "; ".join(differences(others[-1].recipe, recipe))
        on_event(Note(f"fresh    cache {others[-1].name} is for other settings: {changed}"))


def _write_facts(plan: Plan, recipe: Recipe, before: str | None, folder: StoragePath) -> None:
    """Write the image's digest, the memo, the configuration, the PSF and the recipe; remove partial files."""
    durable = plan.settings.durable
    absolute = str(plan.info.path.resolve())
    path = absolute if absolute.isprintable() else None  # JSON holds no bytes of a name that are not UTF-8
    image = {"path": printable(plan.info.path.resolve()), "sha256": recipe.source, "dtype": recipe.dtype}
    write_durably(folder.parent / IMAGE_FILE, json.dumps(image).encode(), durable=durable)
    remember(plan.root, recipe.source, plan.analysis.asked, plan.analysis.memo)
    RunConfig(
        durable=durable,
        edited_from=before,
        image=path,
        image_stamp=shared_stamp(path),
        selection=plan.info.selection,
    ).save(folder)
    write_durably(folder / PSF_FILE, plan.psf.to_bytes(), durable=durable)
    write_durably(folder / RECIPE_FILE, recipe.to_json(), durable=durable)
    (folder / DONE_FILE).unlink(missing_ok=True)
    sweep(folder)


def _clean_up(plan: Plan, folder: StoragePath, on_event: Listener) -> None:
    """Remove the run's cache unless it is kept, and older runs beyond the cache limit."""
    if not plan.settings.keep_cache:
        with suppress(CacheError):  # another run already uses it
            remove(folder, plan.root)
    if plan.settings.cache_limit is None:
        return
    items = collect(plan.root, parse_bytes(plan.settings.cache_limit, "cache_limit"), keep=folder)
    if items:
        size = human_bytes(sum(item.size for item in items))
        on_event(Note(f"cache    {size} of {len(items)} older runs removed (cache_limit {plan.settings.cache_limit})"))
