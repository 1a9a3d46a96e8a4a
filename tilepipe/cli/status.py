"""``tilepipe status CACHE``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["status_verb"]


@click.command("status")
@click.argument("cache", metavar="CACHE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--verify", type=click.Choice(["full", "quick"]), default="full", help="Check contents, or sizes only.")
def status_verb(cache: str, as_json: bool, verify: str) -> None:
    """Show what a cache (or one run in it) holds: done, left, damaged."""
    import json

    from tilepipe.cache.lifecycle import runs_in
    from tilepipe.errors import CacheError

    runs = [_progress(run, full=verify == "full") for run in runs_in(Path(cache))]
    if not runs:
        raise CacheError(f"{cache} holds no run; give a cache folder, or one run's folder in it")
    if as_json:
        click.echo(json.dumps({"cache": cache, "runs": runs}))
        return
    for run in runs:
        click.echo(f"{run['run']}  {run['image']}")
        click.echo(
            f"  source {run['source']['done']}/{run['source']['total']}"
            f"  tiles {run['tiles']['done']}/{run['tiles']['total']}"
            f"  result {run['result']['done']}/{run['result']['total']}  damaged {run['damaged']}"
        )
        click.echo(f"  {run['verdict']}")


def _progress(run: Any, *, full: bool) -> dict[str, Any]:
    from tilepipe.cache.ledger import Ledger
    from tilepipe.cache.store import CHUNK
    from tilepipe.runtime.graph import find_todo
    from tilepipe.runtime.job import Job

    job = Job(run.folder)
    recipe = job.recipe
    ledger = Ledger(run.folder.parent / "source.ledger", recipe.source)
    bands = -(-recipe.height // CHUNK[0])
    columns = range(-(-recipe.width // CHUNK[1]))
    sources = sum(
        ledger.accepts(str(i), [job.source.chunk_file(0, i, column) for column in columns], full=full)
        for i in range(bands)
    )
    todo = find_todo(job, full=full)
    results = todo.chunks_total - len(todo.chunks)
    left = len(todo.tiles) + len(todo.chunks)
    if not left:
        verdict = "complete: the same command only writes the output"
    else:
        verdict = f"{len(todo.tiles)} tiles and {len(todo.chunks)} chunks left: run the same command to go on"
    return {
        "run": run.name,
        "image": run.image,
        "source": {"done": sources, "total": bands},
        "tiles": {"done": todo.tiles_total - len(todo.tiles), "total": todo.tiles_total},
        "result": {"done": results, "total": todo.chunks_total},
        "damaged": todo.tiles_repaired + todo.chunks_repaired,
        "complete": not left,
        "verdict": verdict,
    }
