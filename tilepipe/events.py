"""Events of a run, shared by progress bars, logs, JSON output and tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "Listener", "Note", "Receipt", "StageEnd", "StageStart", "silent"]

Stage = Literal["ingest", "restore", "blend", "export", "images"]
Status = Literal["done", "failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class StageStart:
    """A stage starts.

    Parameters
    ----------
    stage : str
        Name of the stage.
    total : int
        Number of pieces.
    reused : int
        Pieces that are already done.
    repaired : int
        Damaged pieces that are recomputed.
    megapixels : float
        Size of the image, megapixels; 0 if not reported.
    """

    stage: Stage
    total: int
    reused: int = 0
    repaired: int = 0
    megapixels: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """Result of a task, without pixels.

    Parameters
    ----------
    stage : str
        Name of the stage.
    index : str
        Name of the piece.
    status : str
        "done", "failed" or "cancelled" (never started).
    seconds : float
        Computing time.
    host : str
        Host that ran the task.
    pid : int
        Process that ran the task.
    peak : int
        Peak memory of the process, bytes.
    error : str
        Error message of a failed task.
    disk_full : bool
        The task failed because the disk is full, so all other tasks would fail too.
    taken_over : bool
        The piece was already done, here or by an earlier run on the same pixels.
    """

    stage: Stage
    index: str
    status: Status
    seconds: float = 0.0
    host: str = ""
    pid: int = 0
    peak: int = 0
    error: str = ""
    disk_full: bool = False
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class StageEnd:
    """A stage ends, complete or not."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Note:
    """A message for the user."""

    text: str


Event = StageStart | Receipt | StageEnd | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore the event."""
