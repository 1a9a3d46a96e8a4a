"""``tilepipe cache ls | verify | rm | gc``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tilepipe.system.object_store import StoragePath

__all__ = ["cache_verb"]

cache_option = click.option(
    "--cache", metavar="DIR", help="Cache folder, or s3://BUCKET/NAME (default: in the user's cache folder)."
)


@click.group("cache")
def cache_verb() -> None:
    """List, verify and remove cached runs."""


def _root(cache: str | None) -> StoragePath:
    from tilepipe.cache.layout import cache_root
    from tilepipe.settings import resolve

    return cache_root(resolve({"cache": cache}).settings.cache)


@cache_verb.command("ls")
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ls(cache: str | None, as_json: bool) -> None:
    """List the runs: progress, size, age, settings, image."""
    import json
    import time

    from tilepipe.cache.collection import runs_in, size_of
    from tilepipe.cache.layout import source_pixels
    from tilepipe.cache.lock import holder_of
    from tilepipe.execution.status import read_status
    from tilepipe.report.summary import duration
    from tilepipe.units import human_bytes

    root = _root(cache)
    rows: list[dict[str, Any]] = []
    for run in runs_in(root):
        status = read_status(run.folder, full=False)
        rows.append(
            {
                "run": run.name,
                "bytes": size_of(run.folder) + size_of(source_pixels(run.folder.parent)),
                "tiles": {"done": status.tiles[0], "total": status.tiles[1]},
                "complete": status.complete,
                "in_use_by": holder_of(run.folder),
                "age": max(0.0, time.time() - run.used),
                "solver": run.recipe.solver,
                "noise": run.recipe.noise,
                "priority": run.recipe.priority,
                "tile": run.recipe.core,
                "halo": run.recipe.halo,
                "image": run.image,
            }
        )
    if as_json:
        click.echo(json.dumps({"cache": str(root), "bytes": size_of(root), "runs": rows}))
        return
    if not rows:
        click.echo(f"{root} holds no runs", err=True)
    for row in rows:
        done = "complete" if row["complete"] else "{done}/{total} tiles".format(**row["tiles"])
        state = f"{done}, in use by {row['in_use_by']}" if row["in_use_by"] else done
        click.echo(
            f"{row['run']}  {human_bytes(row['bytes']):>8s}  {state}, used {duration(row['age'])} ago  "
            f"{row['solver']}, noise {row['noise']}, priority {row['priority']}, tile {row['tile']}, "
            f"halo {row['halo']}  {row['image']}"
        )


@cache_verb.command("verify")
@cache_option
@click.option("--fix", is_flag=True, help="Drop damaged pieces, so that the next run recomputes them.")
def verify(cache: str | None, fix: bool) -> None:
    """Check every finished piece against its checksum.

    Exits with 7 if a piece is damaged and not dropped.
    """
    from tilepipe.cache.collection import runs_in
    from tilepipe.cache.lock import locked
    from tilepipe.errors import CacheError
    from tilepipe.execution.job import Job

    root = _root(cache)
    checked, damaged = 0, 0
    for run in runs_in(root):
        job = Job(run.folder)
        for stage, array in (("source", job.source), ("tile", job.tiles), ("chunk", job.result)):
            states = dict(array.states())
            checked += len(states) - list(states.values()).count("absent")
            for index in (index for index, state in states.items() if state == "damaged"):
                damaged += 1
                click.echo(f"damaged  {run.name} {stage} {'-'.join(map(str, index))}", err=True)
        if fix:
            with locked(run.folder, root):
                job.forget_damaged()
    if damaged and not fix:
        raise CacheError(
            f"{damaged} of {checked} pieces are damaged; the next run recomputes them, `cache verify --fix` drops them"
        )
    click.echo(f"{checked} pieces checked, {f'{damaged} damaged ones dropped' if damaged else 'none damaged'}")


@cache_verb.command("rm")
@cache_option
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "everything", is_flag=True, help="Remove every run.")
def rm(cache: str | None, runs: tuple[str, ...], everything: bool) -> None:
    """Remove the given runs (names as printed by `cache ls`), or all."""
    from tilepipe.cache.collection import remove, runs_in
    from tilepipe.errors import CacheError, SettingsError
    from tilepipe.units import human_bytes

    if bool(runs) == everything:
        raise SettingsError("cache rm needs the names of runs, as printed by `tilepipe cache ls`, or --all")
    root = _root(cache)
    known = {run.name: run for run in runs_in(root)}
    for name in known if everything else runs:
        if name not in known:
            raise CacheError(f"{root} holds no run {name!r}; `tilepipe cache ls` lists them")
        click.echo(f"removed  {name}  {human_bytes(remove(known[name].folder, root))}")


@cache_verb.command("gc")
@cache_option
@click.option("--limit", metavar="SIZE", help="Reduce the cache to SIZE, removing least recently used runs first.")
@click.option("--resumable", is_flag=True, help="Remove unfinished runs as well, after the complete ones.")
@click.option("--dry-run", is_flag=True, help="Only print what would be removed.")
def gc(cache: str | None, limit: str | None, resumable: bool, dry_run: bool) -> None:
    """Remove leftovers of killed runs, and old runs.

    Complete runs are removed only beyond --limit (or cache_limit).
    """
    from tilepipe.cache.collection import collect
    from tilepipe.settings import resolve
    from tilepipe.units import human_bytes, parse_bytes

    size = limit or resolve().settings.cache_limit
    most = None if size is None else 0 if str(size).strip() == "0" else parse_bytes(size, "limit")
    removed = collect(_root(cache), most, resumable=resumable, dry_run=dry_run)
    for item in removed:
        click.echo(
            f"{'would remove' if dry_run else 'removed'}  {item.name}  {human_bytes(item.size)}  ({item.reason})"
        )
    total = human_bytes(sum(item.size for item in removed))
    click.echo(f"{total} {'would be freed' if dry_run else 'freed'}", err=True)
