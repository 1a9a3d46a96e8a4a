"""Which workers of a cluster take part: each is asked once, and counts when it has answered."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import CancelledError
from typing import TYPE_CHECKING, Any

from tilepipe.errors import SettingsError
from tilepipe.execution.executors.worker_checks import PROBE, check_answer, probe
from tilepipe.planning.plan import Plan
from tilepipe.system.files import write_durably
from tilepipe.system.object_store import StoragePath

if TYPE_CHECKING:
    from distributed import Client, Future

__all__ = ["Admission"]

URGENT = 100
"""Priority of the questions among the tasks of a worker."""

POLL = 0.05
"""Time between two looks for answers, s."""


class Admission:
    """Ask the workers of a cluster; keep the questions of busy workers pending.

    Parameters
    ----------
    plan : Plan
        Gives the memory of a tile.
    folder : Path or ObjectPath
        Recipe folder of the run, in which client and workers show each other a file.
    """

    def __init__(self, plan: Plan, folder: StoragePath) -> None:
        self._plan, self._folder = plan, folder
        self._token = folder / f"{PROBE}{uuid.uuid4().hex}"
        self._questions: dict[str, Future[dict[str, Any]]] = {}
        self._suitable: set[str] = set()
        self._is_token_written = False
        self.image_is_shared = True
        """Whether every worker that answered sees the image file."""

    def admitted(self, client: Client, threads: dict[str, int]) -> dict[str, int]:
        """Ask workers that joined; return the threads of those that have answered and suit.

        Parameters
        ----------
        client : distributed.Client
            Connected to the scheduler.
        threads : dict of str to int
            Number of threads of each worker that is connected now, by its address.

        Raises
        ------
        SettingsError
            If a worker would compute other bytes or does not share the cache.
        DoesNotFitError
            If the threads of a worker need more memory than it may use.
        """
        self._suitable &= threads.keys()
        for worker in self._questions.keys() - threads.keys():
            del self._questions[worker]
        self._ask(client, threads.keys() - self._suitable - self._questions.keys())
        for worker in [worker for worker, question in self._questions.items() if question.done()]:
            self._read(worker, self._questions.pop(worker))
        if not self._questions:
            self._remove_files()
        return {worker: number for worker, number in threads.items() if worker in self._suitable}

    def wait(self, seconds: float) -> None:
        """Wait until all workers that were asked have answered, at most `seconds`."""
        end = time.monotonic() + seconds
        while not all(question.done() for question in self._questions.values()) and time.monotonic() < end:
            time.sleep(POLL)

    def close(self) -> None:
        """Forget the questions that are pending, and remove the files."""
        self._questions.clear()  # dask cancels a task whose last future is gone
        self._remove_files()

    def _ask(self, client: Client, workers: set[str]) -> None:
        if workers and not self._is_token_written:
            write_durably(self._token, b"", durable=False)
            self._is_token_written = True
        for worker in workers:
            self._questions[worker] = client.submit(
                probe,
                str(self._folder),
                self._token.name,
                workers=[worker],
                allow_other_workers=False,
                pure=False,
                priority=URGENT,
            )

    def _read(self, worker: str, question: Future[dict[str, Any]]) -> None:
        """Check an answer; a worker that was lost before it answered is asked again if it comes back."""
        from distributed import KilledWorker

        try:
            answer = question.result()
        except (OSError, TimeoutError, CancelledError, KilledWorker):
            return
        except Exception as error:  # whatever the worker raised: it cannot take part
            raise SettingsError(f"worker {worker} cannot run this version of tilepipe: {error!r}") from error
        check_answer(self._plan, self._folder, worker, answer)
        self.image_is_shared &= answer["image_is_here"]
        self._suitable.add(worker)

    def _remove_files(self) -> None:
        if self._is_token_written:
            for path in self._folder.glob(f"{PROBE}*"):
                path.unlink(missing_ok=True)
        self._is_token_written = False
