"""``tilepipe cache ls | verify | rm``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

__all__ = ["cache_verb"]

cache_option = click.option("--cache", metavar="DIR", help="Cache folder (default: the user's cache folder).")


@click.group("cache")
def cache_verb() -> None:
    """List, verify and remove caches."""


def _root(cache: str | None) -> Path:
    from tilepipe.cache.lifecycle import default_root

    return Path(cache).expanduser() if cache else default_root()


@cache_verb.command("ls")
@cache_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def ls(cache: str | None, as_json: bool) -> None:
    """List the runs in the cache: size, settings, image."""
    import json

    from tilepipe.cache.lifecycle import runs_in, size_of
    from tilepipe.tiling.budget import human_bytes

    root = _root(cache)
    rows = [
        {
            "run": run.name,
            "bytes": size_of(run.folder) + size_of(run.folder.parent / "source.zarr"),
            "solver": run.recipe.solver,
            "noise": run.recipe.noise,
            "priority": run.recipe.priority,
            "tile": run.recipe.core,
            "halo": run.recipe.halo,
            "image": run.image,
        }
        for run in runs_in(root)
    ]
    if as_json:
        click.echo(json.dumps({"cache": str(root), "runs": rows}))
        return
    if not rows:
        click.echo(f"{root} holds no runs", err=True)
    for row in rows:
        click.echo(
            f"{row['run']}  {human_bytes(float(str(row['bytes']))):>8s}  {row['solver']}, noise {row['noise']}, "
            f"priority {row['priority']}, tile {row['tile']}, halo {row['halo']}  {row['image']}"
        )


@cache_verb.command("verify")
@cache_option
def verify(cache: str | None) -> None:
    """Check every finished piece against its checksum; exit 7 when one is damaged."""
    from tilepipe.cache.ledger import Ledger
    from tilepipe.cache.lifecycle import runs_in
    from tilepipe.cache.store import CHUNK
    from tilepipe.errors import CacheError
    from tilepipe.runtime.job import Job
    from tilepipe.runtime.tasks import chunk_files, tile_files

    checked, damaged = 0, []
    for run in runs_in(_root(cache)):
        job = Job(run.folder)
        columns = range(-(-job.recipe.width // CHUNK[1]))
        source_ledger = Ledger(run.folder.parent / "source.ledger", job.recipe.source)
        pieces = [
            (source_ledger, index, [job.source.chunk_file(0, int(index), column) for column in columns], "source")
            for index in source_ledger.records()
        ]
        for ledger, files_of, stage in (
            (job.tile_ledger, tile_files, "tile"),
            (job.result_ledger, chunk_files, "chunk"),
        ):
            for index in ledger.records():
                row, column = (int(part) for part in index.split("-"))
                pieces.append((ledger, index, files_of(job, row, column), stage))
        for ledger, index, files, stage in pieces:
            checked += 1
            if not ledger.accepts(index, files):
                damaged.append(f"{run.name} {stage} {index}")
                click.echo(f"damaged  {damaged[-1]}", err=True)
    if damaged:
        raise CacheError(f"{len(damaged)} of {checked} pieces are damaged; the next run makes them anew")
    click.echo(f"{checked} pieces checked, all sound")


@cache_verb.command("rm")
@cache_option
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option("--all", "everything", is_flag=True, help="Remove every run.")
def rm(cache: str | None, runs: tuple[str, ...], everything: bool) -> None:
    """Remove RUN (as `cache ls` names it), or --all."""
    from tilepipe.cache.lifecycle import remove, runs_in
    from tilepipe.cache.lock import locked
    from tilepipe.errors import CacheError, SettingsError
    from tilepipe.tiling.budget import human_bytes

    if bool(runs) == everything:
        raise SettingsError("cache rm needs the RUNs to remove, as `tilepipe cache ls` names them, or --all")
    root = _root(cache)
    known = {run.name: run for run in runs_in(root)}
    for name in known if everything else runs:
        if name not in known:
            raise CacheError(f"{root} holds no run {name!r}; `tilepipe cache ls` lists them")
        with locked(known[name].folder):
            pass  # refused while another run works in it
        click.echo(f"removed  {name}  {human_bytes(remove(known[name].folder))}", file=sys.stdout)
