"""Read the image, restore the missing tiles and blend the missing chunks; failed tasks are retried, then reported."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tilepipe.cache.layout import chunk_box
from tilepipe.cache.store import Index
from tilepipe.errors import TilesFailedError
from tilepipe.events import Listener, Note, Receipt, StageEnd, StageStart
from tilepipe.execution.executors.executor import Executor
from tilepipe.execution.executors.threads import Threads
from tilepipe.execution.graph import Graph, Todo, find_todo
from tilepipe.execution.ingest import check_input_unchanged, find_bands, ingest
from tilepipe.execution.job import Job
from tilepipe.planning.plan import Plan

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["Tally", "restore_and_blend", "run_tasks"]


@dataclass
class Tally:
    """Totals of the receipts of a run.

    Parameters
    ----------
    on_event : Listener
        Receives every receipt.
    hopeless : threading.Event
        Set once all further tasks would fail too, or too many have failed.
    most : int or None
        Number of failures that the run tolerates; None means no limit.
    done : dict of str to int
        Finished tasks of each stage.
    taken_over : int
        Tiles that an earlier run computed.
    failed : list of Receipt
        Receipts of the failed tasks.
    workers : set of str
        Processes that computed pieces, as "host:pid".
    """

    on_event: Listener
    hopeless: threading.Event
    most: int | None
    done: dict[str, int] = field(default_factory=lambda: {"ingest": 0, "restore": 0, "blend": 0})
    taken_over: int = 0
    failed: list[Receipt] = field(default_factory=list)
    workers: set[str] = field(default_factory=set)

    def __call__(self, receipt: Receipt) -> None:
        """Count one receipt; set :attr:`hopeless` if the disk is full or more than `most` tasks failed."""
        if receipt.status == "done":
            self.done[receipt.stage] += 1
            self.taken_over += receipt.taken_over
            self.workers.add(f"{receipt.host}:{receipt.pid}")
        elif receipt.status == "failed":
            self.failed.append(receipt)
        self.on_event(receipt)
        # bands that workers cannot read are read by this process
        failures = sum(failed.stage != "ingest" for failed in self.failed)
        if receipt.disk_full or (self.most is not None and failures > self.most):
            self.hopeless.set()


def restore_and_blend(
    plan: Plan, job: Job, on_event: Listener, check: Callable[[], None], client: Client | None = None
) -> tuple[dict[str, int], list[str]]:
    """Read the bands, restore the tiles and blend the chunks that are missing.

    The image is read first, by this process; or by the workers of a cluster that share its file, beside the tiles.

    Parameters
    ----------
    plan : Plan
        Gives the executor and the limit on failures.
    job : Job
        The job.
    on_event : Listener
        Receives the events of the stages.
    check : callable
        Called whenever tasks ended; raises to stop the run.
    client : distributed.Client, optional
        Run on its workers, whatever the plan says.

    Returns
    -------
    counts : dict of str to int
        Tiles in total, computed, reused, repaired and failed.
    workers : list of str
        Processes that computed pieces, as "host:pid".

    Raises
    ------
    TilesFailedError
        If tasks failed twice (on threads, the second time one at a time), or more than ``max_failures`` failed.
    InputError
        If the image is damaged or was changed.
    OSError
        If the disk of the cache is full.
    """
    todo = find_todo(job, full=plan.settings.verify == "full", check=check)
    if plan.drops_tiles:
        _drop_blended(job, todo, check)
    executor = _executor(plan, job, client)
    tally = Tally(on_event, job.hopeless, plan.settings.max_failures)
    try:
        if todo.tiles or todo.chunks:
            executor.check()
        by_workers = bool(todo.tiles) and executor.reads_image()
        if by_workers:
            check_input_unchanged(plan)  # workers compare the file with its state when this run began
            todo.bands = find_bands(plan, job, on_event, check)
        else:
            ingest(plan, job, on_event, check)
        _announce(todo, plan.info.height * plan.info.width / 1e6, on_event)
        run_tasks(job, todo, executor, tally, check, drop=plan.drops_tiles)
        if by_workers:
            on_event(StageEnd("ingest"))
        if any(receipt.stage == "ingest" for receipt in tally.failed):
            ingest(plan, job, on_event, check)  # in this process: an error of the image is raised as such
        if tally.failed:
            on_event(Note(f"retry    {len(tally.failed)} failed, the first: {_describe(tally.failed[0])}"))
            check()
            job.tiles.forget_damaged(_tiles_of_chunks(job, tally.failed), check)
            tally.failed.clear()
            job.release_workspaces()  # lack of memory may be the cause
            run_tasks(job, find_todo(job, full=False), executor, tally, check, retry=True, drop=plan.drops_tiles)
    finally:
        executor.close()
    on_event(StageEnd("restore"))
    on_event(StageEnd("blend"))
    check()
    if tally.failed:
        raise TilesFailedError(_failure_text(tally.failed, todo, job))
    computed = tally.done["restore"] - tally.taken_over
    counts = {
        "total": todo.tiles_total,
        "computed": computed,
        "reused": todo.tiles_total - computed,
        "repaired": todo.tiles_damaged,
        "failed": 0,
    }
    return counts, sorted(tally.workers)


def run_tasks(
    job: Job,
    todo: Todo,
    executor: Executor,
    tally: Tally,
    check: Callable[[], None],
    *,
    retry: bool = False,
    drop: bool = False,
) -> None:
    """Run the tasks of `todo` in a sliding window: as tasks end, others take their slots.

    Parameters
    ----------
    job : Job
        Gives the grid and the folder, and is asked whether to stop.
    todo : Todo
        The missing tiles and chunks.
    executor : Executor
        Runs the tasks; every receipt goes through this function, whichever executor it is.
    tally : Tally
        Counts the receipts.
    check : callable
        Called whenever tasks ended; raises to stop the run.
    retry : bool
        The tasks failed once.
    drop : bool
        Remove tiles from the cache once all of their chunks are recorded.
    """
    graph, in_flight = Graph(job.grid, todo), 0
    try:
        while True:
            if job.is_stopped:
                executor.cancel()
            else:
                check()
                slots = executor.slots(retry=retry)
                most = 1 if retry else executor.group_size()  # tasks that failed do not share their fate with others
                ready = list(graph.take(slots - in_flight, graph.group_size(slots, most)))
                executor.submit(ready)
                in_flight += len(ready)
            if not in_flight:
                break
            for group, receipts in executor.wait():
                in_flight -= 1
                for task, receipt in zip(group, receipts, strict=True):
                    tally(receipt)
                    if receipt.status == "done":
                        graph.finish(task)
                        if drop and task.stage == "blend":
                            for index in graph.blended_tiles(task):
                                job.tiles.drop(index)
    except BaseException:
        executor.cancel()
        raise
    check()  # raises if the run was stopped, or the cache removed
    if job.hopeless.is_set():
        full = next((receipt for receipt in tally.failed if receipt.disk_full), None)
        if full is not None:
            raise OSError(errno.ENOSPC, full.error)
        raise TilesFailedError(_failure_text(tally.failed, todo, job))


def _drop_blended(job: Job, todo: Todo, check: Callable[[], None]) -> None:
    """Remove the tiles that an interrupted run had blended, but not yet removed."""
    graph = Graph(job.grid, todo)
    for name in job.tiles.ledger.names():
        row, column = map(int, name.split("-"))
        if graph.is_blended(job.grid.tile(row, column)):
            check()
            job.tiles.drop((row, column))


def _announce(todo: Todo, megapixels: float, on_event: Listener) -> None:
    reused = todo.tiles_total - len(todo.tiles)
    if reused or todo.tiles_damaged:
        damaged = f", {todo.tiles_damaged} damaged (recomputed)" if todo.tiles_damaged else ""
        on_event(Note(f"resume   {reused} of {todo.tiles_total} tiles done{damaged}, {len(todo.tiles)} left"))
    on_event(StageStart("restore", todo.tiles_total, reused, todo.tiles_damaged, megapixels))
    on_event(StageStart("blend", todo.chunks_total, todo.chunks_total - len(todo.chunks), todo.chunks_damaged))


def _tiles_of_chunks(job: Job, failed: list[Receipt]) -> set[Index]:
    """Return the tiles of the chunks that could not be blended: one of them may be damaged."""
    chunks = [tuple(map(int, receipt.index.split("-"))) for receipt in failed if receipt.stage == "blend"]
    boxes = [chunk_box(row, column, job.grid.height, job.grid.width) for row, column in chunks]
    return {(tile.row, tile.column) for box in boxes for tile in job.grid.touching(box)}


def _describe(receipt: Receipt) -> str:
    """Return stage, index and error of a failed task."""
    return f"{receipt.stage} {receipt.index}: {receipt.error}"


def _failure_text(failed: list[Receipt], todo: Todo, job: Job) -> str:
    return (
        f"{len(failed)} of {len(todo.tiles) + len(todo.chunks)} tasks failed, the first {_describe(failed[0])}; "
        f"finished tasks are kept in {job.folder}: run the same command to retry"
    )


def _executor(plan: Plan, job: Job, client: Client | None) -> Executor:
    if client is None and plan.settings.scheduler == "threads":
        return Threads(job, plan.memory.jobs)
    from tilepipe.execution.executors.distributed import Cluster

    return Cluster(client or plan.settings.scheduler, plan, job)
