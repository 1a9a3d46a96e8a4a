"""The plan as users hold it: the value that planning returns, with the verb ``run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import ParamSpec

from tilepipe.events import Listener, silent
from tilepipe.execution.pipeline import RunReport, run
from tilepipe.planning.make_plan import make_plan
from tilepipe.planning.plan import Plan

__all__ = ["RunnablePlan", "plan"]

P = ParamSpec("P")


@dataclass(frozen=True)
class RunnablePlan(Plan):
    """A plan that can be carried out."""

    def run(self, on_event: Listener = silent, *, overwrite: bool = False, fresh: bool = False) -> RunReport:
        """Ingest, restore, blend and export; see :func:`tilepipe.execution.pipeline.run`."""
        return run(self, on_event, overwrite=overwrite, fresh=fresh)


def _runnable(make: Callable[P, Plan]) -> Callable[P, RunnablePlan]:
    @wraps(make)
    def plan(*args: P.args, **kwargs: P.kwargs) -> RunnablePlan:
        made = make(*args, **kwargs)
        return RunnablePlan(**{field.name: getattr(made, field.name) for field in fields(made)})

    return plan


# This module imports all that a run needs: the memory of the process that the plan measures includes it.
plan = _runnable(make_plan)
