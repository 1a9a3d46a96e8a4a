"""``tilepipe run IMAGE -o OUT``."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
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
    from tilepipe.execution.runnable import plan as make_plan
    from tilepipe.planning.plan import check_output
    from tilepipe.report.progress import make_progress
    from tilepipe.report.summary import plan_lines, report_lines

    quiet = bool(values["quiet"])
    check_output(Path(output), overwrite=values["overwrite"])
    if values.get("save_mask"):
        check_output(Path(values["save_mask"]), overwrite=values["overwrite"])
    flags = settings_from(values) | {"keep_cache": values["keep_cache"]}
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
    caught = _stop_on_signals()
    try:
        with make_progress(quiet=quiet) as progress:
            report = plan.run(progress, overwrite=values["overwrite"], fresh=values["fresh"])
    except InterruptedRunError as error:
        raise InterruptedRunError(str(error), 128 + caught()) from error
    if not quiet:
        click.echo("\n".join(report_lines(report)), err=True)
    return report


def _stop_on_signals() -> Callable[[], int]:
    """Stop after the tiles in flight at the first SIGINT or SIGTERM, immediately at the second.

    Returns
    -------
    callable
        Returns the number of the signal received, SIGINT if none.
    """
    from tilepipe.execution import tasks

    caught: list[int] = []
    tasks.stop.clear()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if caught:
            os._exit(128 + number)
        caught.append(number)
        tasks.stop.set()
        print("stopping after the tiles in flight (repeat to exit immediately)", file=sys.stderr, flush=True)

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return lambda: caught[0] if caught else int(signal.SIGINT)
