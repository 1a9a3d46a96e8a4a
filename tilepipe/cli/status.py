"""``tilepipe status CACHE``."""

from __future__ import annotations

import click

__all__ = ["status_verb"]


@click.command("status")
@click.argument("cache", metavar="CACHE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--verify", type=click.Choice(["full", "quick"]), default="full", help="Check contents (default) or only sizes."
)
def status_verb(cache: str, as_json: bool, verify: str) -> None:
    """Show the finished and damaged pieces in a cache, or in one of its runs."""
    import json

    from tilepipe.cache.collection import runs_in
    from tilepipe.cache.layout import cache_root
    from tilepipe.errors import CacheError
    from tilepipe.execution.status import read_status

    runs = [(run, read_status(run.folder, full=verify == "full")) for run in runs_in(cache_root(cache))]
    if not runs:
        raise CacheError(f"{cache} holds no run; give a cache folder, or the folder of a run in it")
    if as_json:
        rows = [{"run": run.name, "image": run.image} | status.to_dict() for run, status in runs]
        click.echo(json.dumps({"cache": cache, "runs": rows}))
        return
    for run, status in runs:
        click.echo(f"{run.name}  {run.image}")
        stages = (("source", status.source), ("tiles", status.tiles), ("result", status.result))
        counts = "  ".join(f"{name} {done}/{total}" for name, (done, total) in stages)
        click.echo(f"  {counts}  damaged {status.damaged}")
        click.echo(f"  {status.verdict}")
