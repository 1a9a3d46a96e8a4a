"""``tilepipe run IMAGE -o OUT``."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from tilepipe.cli.options import pipeline_flags, settings_from

__all__ = ["execute", "run_verb"]


@click.command("run", context_settings={"show_default": False})
@click.argument("image", metavar="IMAGE")
@click.option("-o", "--output", required=True, metavar="OUT", help="TIFF to write.")
@pipeline_flags
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option(
    "--keep-cache/--drop-cache", default=None, help="Keep (default) or remove the cache after a complete run."
)
@click.option("--fresh", is_flag=True, help="Recompute every tile.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the output's path.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def run_verb(image: str, output: str, **values: Any) -> int:
    """Deblur IMAGE and write the result to OUT (TIFF).

    After an interruption, the same command resumes.
    """
    import json

    result = execute(image, output, values)
    click.echo(json.dumps(result.to_dict()) if values["as_json"] else str(result.output))
    return 0


def execute(image: str, output: str, values: dict[str, Any]) -> Any:
    """Plan and run with the flags of a verb; write progress to stderr and return the report."""
    from tilepipe.errors import InterruptedRunError
    from tilepipe.events import Event, StageEnd, StageStart
    from tilepipe.execution.runnable import plan as make_plan
    from tilepipe.planning.plan import check_output
    from tilepipe.report.progress import make_progress
    from tilepipe.report.summary import plan_lines, report_lines
    from tilepipe.system.memory import keep_memory_for_tiles, return_memory_at_once

    quiet = bool(values["quiet"])
    check_output(Path(output), overwrite=values["overwrite"])
    if values.get("save_mask"):
        check_output(Path(values["save_mask"]), overwrite=values["overwrite"])
    flags = settings_from(values) | {"keep_cache": values["keep_cache"]}
    return_memory_at_once()
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
    if not quiet:
        click.echo("\n".join(plan_lines(plan)), err=True)
    _limit_reading(plan.memory.jobs)
    with _stop_on_signals() as (stop, caught), make_progress(quiet=quiet) as progress:

        def listen(event: Event) -> None:
            if isinstance(event, StageStart) and event.stage == "restore":
                keep_memory_for_tiles()
            elif isinstance(event, StageEnd) and event.stage == "blend":
                return_memory_at_once()
            progress(event)

        try:
            report = plan.run(listen, overwrite=values["overwrite"], fresh=values["fresh"], stop=stop)
        except InterruptedRunError as error:
            raise InterruptedRunError(str(error), 128 + (caught[0] if caught else signal.SIGINT)) from error
    if not quiet:
        click.echo("\n".join(report_lines(report)), err=True)
    return report


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
