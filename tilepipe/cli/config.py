"""``tilepipe config show | check``."""

from __future__ import annotations

import click

__all__ = ["config_verb"]

sets_option = click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one value; may be repeated.")


@click.group("config")
def config_verb() -> None:
    """Show settings and their origins, or check a settings file."""


@config_verb.command("show")
@click.option("--config", metavar="FILE", help="Settings file (TOML).")
@sets_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(config: str | None, sets: tuple[str, ...], as_json: bool) -> None:
    """Show the effective settings with the origin of each value."""
    import json

    import msgspec

    from tilepipe.settings import resolve

    effective = resolve(sets=sets, config=config)
    if effective.note:
        click.echo(effective.note, err=True)
    values = msgspec.structs.asdict(effective.settings)
    if as_json:
        click.echo(json.dumps({key: {"value": values[key], "origin": effective.origins[key]} for key in values}))
        return
    for key, value in values.items():
        click.echo(f"{key:11s} {'automatic' if value is None else value!s:24s} {effective.origins[key]}")


@config_verb.command("check")
@click.argument("file", metavar="FILE")
def check(file: str) -> None:
    """Check a settings file.

    Exits with 2 and suggests the nearest name if a key is unknown.
    """
    from tilepipe.settings import resolve

    resolve(config=file)
    click.echo(f"{file} is valid")
