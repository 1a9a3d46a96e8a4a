"""The public plan: the value that planning returns, with a method to run it."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from tilepipe.errors import SettingsError
from tilepipe.events import Listener, silent
from tilepipe.execution.pipeline import RunReport, run
from tilepipe.planning.make_plan import make_plan
from tilepipe.planning.plan import Plan

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["RunnablePlan", "plan"]

P = ParamSpec("P")


@dataclass(frozen=True)
class RunnablePlan(Plan):
    """A plan that can be run, as returned by :func:`tilepipe.plan`.

    It is a frozen value: ``memory``, ``disk``, ``recipe``, ``grid``, ``psf``, ``seam`` and ``seconds`` state what a run
    will need and do, :meth:`to_dict` returns all of it as JSON values, and :meth:`check` raises if it does not fit.
    The parameters are those of :class:`tilepipe.planning.plan.Plan`.
    """

    def run(
        self,
        on_event: Listener = silent,
        *,
        overwrite: bool = False,
        fresh: bool = False,
        stop: threading.Event | None = None,
        client: Client | None = None,
    ) -> RunReport:
        """Ingest, restore, blend and export; rerunning resumes an interrupted run.

        Parameters
        ----------
        on_event : callable, optional
            Receives every event of :mod:`tilepipe.events`: stages, receipts and notes.
        overwrite : bool, default False
            Replace an existing output.
        fresh : bool, default False
            Ignore cached tiles and results.
        stop : threading.Event, optional
            Set it, from a listener or another thread, to stop the run: tiles in flight are finished, then
            InterruptedRunError is raised.
        client : distributed.Client, optional
            Run the tiles on the workers of this dask cluster; by default where the setting ``scheduler`` says.

        Returns
        -------
        RunReport
            Counts, memory and duration of the run.

        Raises
        ------
        SettingsError
            If the plan has no output.
        OutputError
            If the output exists or cannot be written.
        DoesNotFitError
            If memory or disk does not suffice.
        InputError
            If the input is damaged or changes during the run.
        TilesFailedError
            If some tiles failed; rerunning retries them.
        InterruptedRunError
            If the run was asked to stop; rerunning resumes.
        CacheError
            If another run uses the same cache folder, or the folder was removed or cannot be read or written.
        """
        return run(self, on_event, overwrite=overwrite, fresh=fresh, stop=stop, client=client)


def _runnable(make: Callable[P, Plan]) -> Callable[P, RunnablePlan]:
    @wraps(make)
    def plan(*args: P.args, **kwargs: P.kwargs) -> RunnablePlan:
        _check_main_module()
        made = make(*args, **kwargs)
        return RunnablePlan(**{field.name: getattr(made, field.name) for field in fields(made)})

    return plan


def _check_main_module() -> None:
    """Raise SettingsError if a process that was just started runs the script of its parent again."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SettingsError(
            "this script starts processes, and each of them runs it from the beginning: put the code that starts them "
            'and uses tilepipe below `if __name__ == "__main__":`'
        )


# This module imports everything that a run needs, so that the process memory measured by the plan includes it.
plan = _runnable(make_plan)
"""Plan the restoration of an image file; :func:`tilepipe.planning.make_plan.make_plan` documents the parameters."""
