"""Executor on a dask cluster: the same tasks on other processes or machines.

The workers read and write the cache, so its folder must have the same path on all of them.  They must also compute the
same bytes, so versions and processors are compared before the first task, and again with every worker that joins.
"""

from __future__ import annotations

import math
import os
import queue
import re
import time
import uuid
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from tilepipe.errors import SettingsError, TilesFailedError
from tilepipe.events import Receipt
from tilepipe.execution.executors.admission import Admission
from tilepipe.execution.executors.executor import Finished
from tilepipe.execution.executors.worker_checks import run_checked_group, worker_facts
from tilepipe.execution.job import Job
from tilepipe.execution.tasks import Group
from tilepipe.planning.plan import Plan

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Cluster", "connect"]

CONNECT_TIMEOUT = 10
"""Time to wait for the scheduler, and for the first worker, s."""

IN_FLIGHT = 3
"""Groups in flight for each thread of the workers: one runs, others are on their way, so that no thread waits."""

MOST_IN_FLIGHT = 5000
"""Bound on the groups in flight, and on the keys that the scheduler holds for this run."""

GROUPS_PER_SECOND = 50
"""Groups that may end in a second before more tiles are run in one go: half of what a scheduler handled that shared two
cores with four workers (benchmarks/results/2026-11-27-cluster.md)."""

MOST_TILES = 16
"""Largest number of tiles in one go."""

SHORTEST = 1e-3
"""Least duration of a tile that counts, s."""

ANSWER_SECONDS = 20
"""Time to wait, before the first task, for workers whose threads are busy with other runs, s; then others begin."""

LOOK_AROUND = 1.0
"""Time between two looks at the workers, s."""

RECONNECT = 60
"""Time to wait for a scheduler that was lost, and for a worker when all were lost, s."""

SLOW = 4
"""A group is given to a second worker if threads are idle and it takes so many times the median of the last tiles."""

SLOW_SECONDS = 10.0
"""Least time after which a group is given to a second worker, s."""


def connect(address: str) -> Client:
    """Return a client of the dask scheduler at `address`.

    Parameters
    ----------
    address : str
        ``tcp://host:port``, ``tls://host:port`` or ``file:path`` of the scheduler; ``inproc://...`` of one in
        this process.

    Raises
    ------
    SettingsError
        If no scheduler with workers answers.
    """
    from distributed import Client

    if address.startswith("inproc://") and f"/{os.getpid()}/" not in address:
        raise SettingsError(f"--scheduler {address} is in another process; give its tcp:// address")
    options = {"scheduler_file": address[5:]} if address.startswith("file:") else {"address": address}
    try:
        client = Client(timeout=CONNECT_TIMEOUT, set_as_default=False, **options)
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError, TimeoutError) as error:
        raise SettingsError(f"--scheduler {address}: no scheduler with workers answers there ({error})") from error
    return client


@dataclass(slots=True)
class Flight:
    """A group in flight: when it was submitted, and its futures (a second one if the first is slow)."""

    submitted: float
    futures: list[Future[None]]


Ended = tuple[int, "list[Receipt] | Future[None]"]
"""Ticket of a group that was sent, and its receipts, or its future: without receipts if it failed or was lost."""


class Cluster:
    """Run the tasks of `job` on the workers of a dask scheduler.

    Parameters
    ----------
    scheduler : str or distributed.Client
        Address of the scheduler, or a connected client, which stays open.
    plan : Plan
        Gives the memory of a tile, and the name of the image, which the names of the tasks show.
    job : Job
        Gives the folder.
    """

    def __init__(self, scheduler: str | Client, plan: Plan, job: Job) -> None:
        self._plan, self._job = plan, job
        self._address = scheduler if isinstance(scheduler, str) else None
        self._client = connect(scheduler) if isinstance(scheduler, str) else scheduler
        self._name = re.sub(r"\W+", "_", plan.info.path.stem)[:40]
        self._run = uuid.uuid4().hex[:8]  # a scheduler returns the result of a key that it knows
        self._topic = f"tilepipe-{self._run}"
        self._tickets: dict[int, Group] = {}
        self._sent = 0
        self._flights: dict[Group, Flight] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()
        self._durations: deque[float] = deque(maxlen=100)
        self._threads: dict[str, int] = {}
        self._admission = Admission(plan, job.folder)
        self._lost: list[Group] = []
        self._looked, self._alive = -LOOK_AROUND, time.monotonic()
        self._is_cancelled = False
        self._client.subscribe_topic(self._topic, self._receive)

    def check(self) -> None:
        """Compare every worker with this process, and its memory limit with what its threads need.

        Raises
        ------
        SettingsError
            If a worker would compute other bytes or does not share the cache.
        DoesNotFitError
            If the threads of a worker need more memory than it may use.
        """
        self._look_around()
        self._admission.wait(ANSWER_SECONDS)
        self._look_around()

    def slots(self, *, retry: bool = False) -> int:
        """Return three times the number of the workers' threads, as last seen; at least 1."""
        return max(1, min(IN_FLIGHT * sum(self._threads.values()), MOST_IN_FLIGHT))

    def reads_image(self) -> bool:
        """Return whether every worker sees the image file, and a band of it takes no more memory than a tile.

        Not if it is decoded from the top down: each worker would decode all of it.
        """
        model, grid = self._plan.model, self._plan.grid
        fits = model.ingest(grid, 1) - model.process <= model.per_job(grid)
        return self._admission.image_is_shared and fits and not self._plan.info.streams

    def group_size(self) -> int:
        """Return the number of tiles in one go with which the scheduler handles at most ``GROUPS_PER_SECOND``."""
        if not self._durations:
            return 1
        groups = sum(self._threads.values()) / max(median(self._durations), SHORTEST)
        return min(MOST_TILES, math.ceil(groups / GROUPS_PER_SECOND))

    def submit(self, groups: Sequence[Group]) -> None:
        """Send `groups` to the scheduler."""
        if groups:
            self._send(groups)

    def wait(self) -> list[Finished]:
        """Wait until a group ends, at most a second; return all that ended."""
        ended = []
        with suppress(queue.Empty):  # until nothing else has ended
            ended.append(self._ended.get(timeout=LOOK_AROUND))
            while True:
                ended.append(self._ended.get_nowait())
        finished = self._finished(ended)
        if not self._is_cancelled and time.monotonic() - self._looked >= LOOK_AROUND:
            self._look_around()
            self._repeat_slow()
        return finished

    def cancel(self) -> None:
        """Cancel all groups; tasks that a worker has started end there, and are recorded."""
        if not self._is_cancelled:
            self._is_cancelled = True
            if self._client.status == "closed":  # its futures ended with it
                return
            self._client.cancel([future for flight in self._flights.values() for future in flight.futures])

    def close(self) -> None:
        """Disconnect; scheduler and workers keep running."""
        self._admission.close()
        if self._address is not None:
            self._client.close()
        elif self._client.status == "running":
            self._client.unsubscribe_topic(self._topic)

    def _send(self, groups: Sequence[Group], **where: Any) -> None:
        """Submit `groups` as one graph, each under a new key."""
        tickets = range(self._sent, self._sent + len(groups))
        self._sent += len(groups)
        self._tickets.update(zip(tickets, groups, strict=True))
        futures = self._client.map(
            partial(run_checked_group, worker_facts(), str(self._job.folder), self._topic),
            tickets,
            groups,
            key=[
                (f"{group[0].stage}-{self._name}-{self._run}", group[0].row, group[0].column, ticket)
                for ticket, group in zip(tickets, groups, strict=True)
            ],
            pure=False,
            **where,
        )
        for ticket, group, future in zip(tickets, groups, futures, strict=True):
            self._flights.setdefault(group, Flight(time.monotonic(), [])).futures.append(future)
            future.add_done_callback(lambda future, ticket=ticket: self._ended.put((ticket, future)))

    def _receive(self, event: tuple[float, dict[str, Any]]) -> None:
        """Queue the receipts that a worker sent; dask calls this in its own thread."""
        message = event[1]
        self._ended.put((message["ticket"], [Receipt(**receipt) for receipt in message["receipts"]]))

    def _finished(self, ended: Iterable[Ended]) -> list[Finished]:
        """Return the receipts of the groups that ended; note those that were lost with the scheduler."""
        finished = []
        for ticket, result in ended:
            # the future ends after its receipts were sent
            group = self._tickets.get(ticket) if isinstance(result, list) else self._tickets.pop(ticket)
            flight = self._flights.get(group) if group is not None else None
            if group is None or flight is None:
                continue  # the receipts came before the end of the future, or from the other one
            receipts = result if isinstance(result, list) else self._failures(group, result)
            if not isinstance(result, list):
                flight.futures = [future for future in flight.futures if future is not result]
                if flight.futures:
                    continue  # the other one may yet succeed
            del self._flights[group]
            if receipts is None:
                self._lost.append(group)
                continue
            if len(flight.futures) > 1:
                self._client.cancel(flight.futures)
            self._durations.extend(r.seconds for r in receipts if r.stage == "restore" and not r.taken_over)
            finished.append((group, receipts))
        return finished

    def _failures(self, group: Group, future: Future[None]) -> list[Receipt] | None:
        """Return the receipts of a group whose future ended without any; None if it was lost with the scheduler."""
        if future.status == "error":
            error = future.exception()
            if isinstance(error, SettingsError):
                raise error
            return [task.receipt("failed", str(error)) for task in group]
        return [task.receipt("cancelled") for task in group] if self._is_cancelled else None

    def _look_around(self) -> None:
        """Count the threads of the workers that may take part, and send again what was lost.

        Raises
        ------
        TilesFailedError
            If there was no scheduler, or no worker, for a minute.
        """
        self._looked = time.monotonic()
        if self._client.status == "closed" and self._address is not None:
            with suppress(SettingsError):  # not there yet: the next look tries again, for a minute
                self._client = connect(self._address)
        threads: dict[str, int] = {}
        if self._client.status == "running":
            with suppress(OSError, TimeoutError):  # the scheduler was lost meanwhile, which counts as no threads
                threads = dict(self._client.nthreads())
        if threads:
            self._alive = time.monotonic()
        elif time.monotonic() - self._alive > RECONNECT:
            raise TilesFailedError(
                f"no scheduler with workers answers any longer ({self._address or 'the client given'}); "
                "finished tasks are kept: run the same command to resume"
            )
        self._threads = self._admission.admitted(self._client, threads)
        if self._threads and self._lost:
            lost, self._lost = self._lost, []
            self._client.subscribe_topic(self._topic, self._receive)  # a scheduler that was restarted knows no topic
            self._send(lost)

    def _repeat_slow(self) -> None:
        """Give groups that take much longer than others to a second worker, if threads are idle."""
        if len(self._flights) >= self.slots() or not self._durations:
            return  # there are other groups to do
        now, usual = time.monotonic(), median(self._durations)
        slow = [
            group
            for group, flight in self._flights.items()
            if len(flight.futures) == 1 and now - flight.submitted > max(SLOW_SECONDS, SLOW * usual * len(group))
        ]
        if not slow:
            return
        with suppress(OSError, TimeoutError):  # the scheduler was lost meanwhile: the next look deals with it
            processing = self._client.processing()
            idle = [address for address, n in self._threads.items() if len(processing.get(address, ())) < n]
            busy = {key: address for address, keys in processing.items() for key in keys}
            for group in slow:
                worker = busy.get(self._flights[group].futures[0].key)
                others = [address for address in idle if address != worker]
                if worker and others:
                    self._send([group], workers=others, allow_other_workers=True)
                    return
