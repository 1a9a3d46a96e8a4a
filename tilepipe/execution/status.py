"""Progress of a run, read from its ledgers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tilepipe.execution.graph import find_todo
from tilepipe.execution.job import Job
from tilepipe.system.object_store import StoragePath

__all__ = ["CacheStatus", "read_status"]


@dataclass(frozen=True)
class CacheStatus:
    """Progress of one run.

    Parameters
    ----------
    source, tiles, result : (int, int)
        Pieces done, and pieces in total, of each array.
    damaged : int
        Damaged pieces of all arrays; they do not count as done.
    """

    source: tuple[int, int]
    tiles: tuple[int, int]
    result: tuple[int, int]
    damaged: int

    @property
    def complete(self) -> bool:
        """Whether only the export is left."""
        return self.source[0] == self.source[1] and self.result[0] == self.result[1]

    @property
    def verdict(self) -> str:
        """What is left and how to continue, as a sentence."""
        if self.complete:
            return "complete: the same command only writes the output"
        tiles, chunks = self.tiles[1] - self.tiles[0], self.result[1] - self.result[0]
        return f"{tiles} tiles and {chunks} chunks left: run the same command to resume"

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        stages = {"source": self.source, "tiles": self.tiles, "result": self.result}
        counts: dict[str, Any] = {name: {"done": done, "total": total} for name, (done, total) in stages.items()}
        return counts | {"damaged": self.damaged, "complete": self.complete, "verdict": self.verdict}


def read_status(folder: StoragePath, *, full: bool) -> CacheStatus:
    """Read the ledgers of the run in `folder`; `full` hashes every piece, otherwise only sizes are compared."""
    job = Job(folder)
    states = [state for _, state in job.source.states(full=full)]
    todo = find_todo(job, full=full)
    return CacheStatus(
        (states.count("done"), len(states)),
        (todo.tiles_total - len(todo.tiles), todo.tiles_total),
        (todo.chunks_total - len(todo.chunks), todo.chunks_total),
        states.count("damaged") + todo.tiles_damaged + todo.chunks_damaged,
    )
