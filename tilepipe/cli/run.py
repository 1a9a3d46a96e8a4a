"""``tilepipe run IMAGE... -o OUT``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tilepipe.cli.options import pipeline_flags, settings_from

__all__ = ["execute", "run_verb"]

SOME_FAILED = 6
"""Exit code when some of several images failed."""


@click.command("run", context_settings={"show_default": False})
@click.argument("images", metavar="IMAGE...", nargs=-1)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="Picture to write, in the format of its extension; a folder for several images (default: NAME-sharp.EXT).",
)
@click.option("--manifest", metavar="FILE", help="Text file that lists further images, one per line.")
@click.option("--shared-psf", is_flag=True, help="Estimate one blur for all images, from several of them.")
@pipeline_flags
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--keep-cache/--drop-cache",
    default=None,
    help="Keep or remove the cache after a complete run (default: keep it; remove it for several images).",
)
@click.option("--fresh", is_flag=True, help="Recompute every tile.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the output's path: a list for a folder.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def run_verb(images: tuple[str, ...], output: str | None, manifest: str | None, **values: Any) -> int:
    """Deblur IMAGE and write the result to OUT, whose extension is its format; OUT is a folder for several images.

    After an interruption, the same command resumes. With a folder, images that are already written are skipped, and a
    failure stops no other image (exit code 6).
    """
    import json

    if not images and manifest is None:
        raise click.UsageError("Missing argument 'IMAGE...'.", click.get_current_context())
    if len(images) == 1 and manifest is None and not _is_folder(output):
        result = execute(images[0], output, values)
        click.echo(json.dumps(result.to_dict()) if values["as_json"] else str(result.output))
        return 0
    outcomes, caught = _execute_all(images, manifest, output, values)
    if values["as_json"]:
        click.echo(json.dumps([outcome.to_dict() for outcome in outcomes]))
    else:
        click.echo("\n".join(str(outcome.output) for outcome in outcomes if not outcome.code))
    if caught:
        return 128 + caught[0]
    return SOME_FAILED if any(outcome.code for outcome in outcomes) else 0


def _is_folder(output: str | None) -> bool:
    """Return whether an output is a folder for pictures; one of zarr, or with its extension, is a picture."""
    from tilepipe.image.writers.formats import is_folder_name
    from tilepipe.image.zarr_folder import is_zarr

    if output is None or is_folder_name(Path(output)) or is_zarr(Path(output)):
        return False
    return Path(output).is_dir() or output.endswith(("/", os.sep))


def _execute_all(
    images: tuple[str, ...], manifest: str | None, folder: str | None, values: dict[str, Any]
) -> tuple[list[Any], list[int]]:
    """Run several images with the flags of a verb; return their outcomes, and the signals received."""
    from tilepipe.execution.batch import read_manifest, run_images
    from tilepipe.report.progress import make_progress
    from tilepipe.report.summary import failure_lines, outcome_line
    from tilepipe.system.memory import cores, keep_freed_memory

    listed = [] if manifest is None else read_manifest(manifest)
    quiet = bool(values["quiet"])
    keep_freed_memory()
    _limit_reading(values["jobs"] or cores())
    with _stop_on_signals() as (stop, caught), make_progress(quiet=quiet) as progress:
        outcomes = run_images(
            [*map(Path, images), *listed],
            None if folder is None else Path(folder),
            config=values["config"],
            sets=values["sets"],
            on_event=_saving_memory(progress),
            overwrite=values["overwrite"],
            fresh=values["fresh"],
            stop=stop,
            shared_psf=values["shared_psf"],
            **settings_from(values),
            keep_cache=values["keep_cache"],
        )
    traces = [outcome.trace for outcome in outcomes if outcome.trace] if values["verbose"] else []
    for line in [*traces, *failure_lines(outcomes), *([] if quiet else [outcome_line(outcomes)])]:
        click.echo(line, err=True)
    return outcomes, caught


def execute(image: str, output: str | None, values: dict[str, Any]) -> Any:
    """Plan and run with the flags of a verb; write progress to stderr and return the report."""
    from tilepipe.errors import InterruptedRunError
    from tilepipe.execution.runnable import plan as make_plan
    from tilepipe.image.writers.formats import is_folder_name, output_beside
    from tilepipe.planning.plan import check_output
    from tilepipe.report.progress import make_progress
    from tilepipe.report.summary import plan_lines, report_lines
    from tilepipe.settings import resolve
    from tilepipe.system.memory import keep_freed_memory, return_memory_at_once

    quiet = bool(values["quiet"])
    kind = resolve(settings_from(values), values["sets"], values["config"]).settings.format
    if output is None:
        output = str(output_beside(Path(image), kind))
    check_output(Path(output), overwrite=values["overwrite"], is_folder=is_folder_name(Path(output), kind))
    if values.get("save_mask"):
        check_output(Path(values["save_mask"]), overwrite=values["overwrite"])
    flags = settings_from(values) | {"keep_cache": values["keep_cache"]}
    keep_freed_memory()
    with make_progress(quiet=quiet) as progress:
        plan = make_plan(
            image,
            output,
            config=values["config"],
            sets=values["sets"],
            on_event=progress,
            keep=True,
            fresh=values["fresh"],
            **flags,
        )
    return_memory_at_once()
    if not quiet:
        click.echo("\n".join(plan_lines(plan)), err=True)
    _limit_reading(plan.memory.jobs)
    with _stop_on_signals() as (stop, caught), make_progress(quiet=quiet) as progress:
        try:
            report = plan.run(_saving_memory(progress), overwrite=values["overwrite"], fresh=values["fresh"], stop=stop)
        except InterruptedRunError as error:
            raise InterruptedRunError(str(error), 128 + (caught[0] if caught else signal.SIGINT)) from error
    if not quiet:
        click.echo("\n".join(report_lines(report)), err=True)
    return report


def _saving_memory(listener: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a listener that also sets the allocator: it keeps freed memory while tiles are restored, only then."""
    from tilepipe.events import Event, StageEnd, StageStart
    from tilepipe.system.memory import keep_freed_memory, return_memory_at_once

    def listen(event: Event) -> None:
        if isinstance(event, StageStart) and event.stage == "restore":
            keep_freed_memory()
        elif isinstance(event, StageEnd) and event.stage == "blend":
            return_memory_at_once()
        listener(event)

    return listen


def _limit_reading(jobs: int) -> None:
    """Limit zarr to `jobs` threads and chunks at a time; it reads with up to 32 threads by default."""
    import zarr

    zarr.config.set({"threading.max_workers": jobs, "async.concurrency": jobs})


@contextmanager
def _stop_on_signals() -> Iterator[tuple[threading.Event, list[int]]]:
    """Stop after the tiles in flight at the first SIGINT or SIGTERM, immediately at the second.

    Yields
    ------
    stop : threading.Event
        Set by the first signal.
    caught : list of int
        The signals received so far.
    """
    stop = threading.Event()
    caught: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        stop.set()
        print("stopping after the tiles in flight (repeat to exit immediately)", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop, caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
