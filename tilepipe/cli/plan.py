"""``tilepipe plan IMAGE``."""

from __future__ import annotations

from typing import Any

import click

from tilepipe.cli.options import pipeline_flags, settings_from

__all__ = ["plan_verb"]


@click.command("plan")
@click.argument("image", metavar="IMAGE")
@click.option("-o", "--output", metavar="OUT", help="TIFF that run would write.")
@pipeline_flags
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Show what N workers of a cluster need.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def plan_verb(image: str, output: str | None, workers: int | None, as_json: bool, **values: Any) -> int:
    """Show what run would do with IMAGE, without writing anything.

    A plan that does not fit in memory or on disk is also shown; the exit code is then 5, and the error says what to
    change.
    """
    import json
    from dataclasses import asdict

    from tilepipe.execution.runnable import plan as make_plan
    from tilepipe.report.summary import plan_lines, workers_line
    from tilepipe.settings import resolve
    from tilepipe.system.memory import keep_freed_memory

    if note := resolve(sets=values["sets"], config=values["config"]).note:
        click.echo(note, err=True)
    keep_freed_memory()
    plan = make_plan(image, output, config=values["config"], sets=values["sets"], **settings_from(values))
    facts, lines = plan.to_dict(), plan_lines(plan)
    if workers:
        needs = plan.on_workers(workers)
        facts["workers"] = asdict(needs) | {"seconds": round(needs.seconds, 1)}
        lines.append(workers_line(needs))
    click.echo(json.dumps(facts) if as_json else "\n".join(lines))
    plan.check()
    return 0
