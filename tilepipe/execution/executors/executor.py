"""The interface of the executors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tilepipe.events import Receipt
from tilepipe.execution.tasks import Group

__all__ = ["Executor", "Finished"]

Finished = tuple[Group, list[Receipt]]
"""A group of tasks that ended, and their receipts."""


class Executor(Protocol):
    """Runs groups of tasks of one job, in any order, and returns their receipts.

    The caller keeps up to :meth:`slots` groups in flight and decides which comes next.
    """

    def check(self) -> None:
        """Raise an error, before the first task, if the tasks cannot run as planned."""

    def slots(self, *, retry: bool = False) -> int:
        """Return the number of groups to keep in flight now; `retry` for tasks that failed once."""

    def reads_image(self) -> bool:
        """Return whether tasks may read the image, called after :meth:`check`."""

    def group_size(self) -> int:
        """Return the number of tiles that are best run in one go."""

    def submit(self, groups: Sequence[Group]) -> None:
        """Start `groups`, which depend on no other task."""

    def wait(self) -> list[Finished]:
        """Wait until a group ends, and return all that ended; the list may be empty."""

    def cancel(self) -> None:
        """Cancel the groups that have not started; :meth:`wait` returns receipts for them as well."""

    def close(self) -> None:
        """Release what the executor holds."""
