"""Progress on stderr: bars in a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, TextIO

from tilepipe.events import Event, Note, Receipt, StageEnd, StageStart
from tilepipe.report.summary import duration

__all__ = ["Progress", "make_progress"]

PLAIN_INTERVAL = 5.0
"""Time between plain lines of one stage, s."""


def make_progress(*, quiet: bool, stream: TextIO | None = None) -> Progress:
    """Return the listener for `stream` (default: stderr): silent, bars or lines."""
    stream = stream or sys.stderr
    if quiet:
        return Progress()
    return Bar(stream) if stream.isatty() else Lines(stream)


class Progress:
    """Silent listener; a context manager, because bars must be closed."""

    def __call__(self, event: Event) -> None:
        """Ignore the event."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Do nothing."""


class _Stage:
    """Counts of one stage, and the speed and remaining time derived from them."""

    def __init__(self, start: StageStart) -> None:
        self.start = start
        self.done = start.reused
        self.failed = 0
        self.began = time.monotonic()
        self.reported = 0.0

    def speed(self) -> str:
        """Return Mpx/s and the remaining time; an empty string before the first new piece."""
        fresh, elapsed = self.done - self.start.reused, time.monotonic() - self.began
        if fresh < 1 or elapsed <= 0:
            return ""
        left = duration((self.start.total - self.done) * elapsed / fresh)
        if not self.start.megapixels:
            return f"{left} left"
        rate = self.start.megapixels * fresh / self.start.total / elapsed
        return f"{rate:.2f} Mpx/s, {left} left"


class Lines(Progress):
    """Listener that prints plain lines: notes, failures, counts every few seconds and at the end of a stage."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._stages: dict[str, _Stage] = {}

    def __call__(self, event: Event) -> None:
        """Print the lines of an event."""
        if isinstance(event, Note):
            self._say(event.text)
        elif isinstance(event, StageStart):
            self._stages[event.stage] = _Stage(event)
        elif isinstance(event, Receipt):
            self._receipt(event)
        elif isinstance(event, StageEnd) and event.stage in self._stages:
            stage = self._stages[event.stage]
            self._say(
                f"{event.stage:8s} {stage.done}/{stage.start.total} in {duration(time.monotonic() - stage.began)}"
            )

    def _receipt(self, receipt: Receipt) -> None:
        stage = self._stages[receipt.stage]
        if receipt.status == "failed" and receipt.stage != "images":  # listed at the end
            self._say(f"{receipt.stage:8s} {receipt.index} failed: {receipt.error}")
        stage.done += receipt.status == "done"
        now = time.monotonic()
        if now - max(stage.reported, stage.began) >= PLAIN_INTERVAL:
            stage.reported = now
            self._say(f"{receipt.stage:8s} {stage.done}/{stage.start.total}  {stage.speed()}")

    def _say(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Bar(Progress):
    """Listener that shows a rich progress bar per stage; notes appear above it."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bars = RichProgress(
            TextColumn("{task.description:8s}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            console=Console(file=stream),
        )
        self._stages: dict[str, tuple[Any, _Stage]] = {}

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display and leave the bars on screen."""
        self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Update the bar of the event's stage, or print a note."""
        if isinstance(event, Note):
            self._bars.console.print(event.text, markup=False, highlight=False)
        elif isinstance(event, StageStart):
            if event.stage in self._stages:  # of an earlier image
                self._bars.remove_task(self._stages[event.stage][0])
            bar = self._bars.add_task(event.stage, total=event.total, completed=event.reused, speed="")
            self._stages[event.stage] = (bar, _Stage(event))
        elif isinstance(event, Receipt):
            bar, stage = self._stages[event.stage]
            stage.done += event.status == "done"
            if event.status == "failed" and event.stage != "images":  # listed at the end
                self._bars.console.print(f"{event.stage} {event.index} failed: {event.error}", markup=False)
            self._bars.update(bar, completed=stage.done, speed=stage.speed())
        elif isinstance(event, StageEnd) and event.stage in self._stages:
            self._bars.update(self._stages[event.stage][0], speed="")
