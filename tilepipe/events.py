"""What a run tells: progress bars, logs, JSON and tests all listen to the same events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Event", "Listener", "Note", "Receipt", "StageEnd", "StageStart", "silent"]

Stage = Literal["ingest", "restore", "blend", "export"]


@dataclass(frozen=True, slots=True)
class StageStart:
    """A stage begins: `total` pieces, of which `reused` are done already and `repaired` were found damaged."""

    stage: Stage
    total: int
    reused: int = 0
    repaired: int = 0
    megapixels: float = 0.0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a task returns: never pixels, always under 1 KiB.

    `status` is "done", "failed" (then `error` says why) or "cancelled" (it never began).  `disk_full`: what failed
    it will fail every other task.  `taken_over`: done by a run before, on the same pixels.
    """

    stage: Stage
    index: str
    status: Literal["done", "failed", "cancelled"]
    seconds: float = 0.0
    host: str = ""
    pid: int = 0
    peak: int = 0
    error: str = ""
    disk_full: bool = False
    taken_over: bool = False


@dataclass(frozen=True, slots=True)
class StageEnd:
    """A stage is over, complete or not."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence for the user."""

    text: str


Event = StageStart | Receipt | StageEnd | Note
Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Listen and say nothing."""
