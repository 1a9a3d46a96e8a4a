"""The entry point: finds the verb, turns errors into one line and an exit code."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import Any

import click

from tilepipe import __version__
from tilepipe.errors import TilepipeError

__all__ = ["main"]

VERBS = {
    "run": ("tilepipe.cli.run", "Deblur IMAGE and write the result."),
    "plan": ("tilepipe.cli.plan", "Show what run would do; write nothing."),
    "psf": ("tilepipe.cli.psf", "Find the blur of a picture, make, show or check a PSF."),
    "inspect": ("tilepipe.cli.inspect", "Show size, type, layout, colours, metadata, noise."),
    "status": ("tilepipe.cli.status", "Show what a cache holds: done, left, and why."),
    "cache": ("tilepipe.cli.cache", "List, verify and remove caches."),
    "config": ("tilepipe.cli.config", "Show settings and where each comes from."),
    "demo": ("tilepipe.cli.demo", "Make a blurred scene, deblur it, say what it gained."),
}
"""Verb -> its module (its function has the verb's name) and its one-line help; so `--help` imports none."""


class Verbs(click.Group):
    """A group whose verbs are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs, in the order of work."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(VERBS[cmd_name][0]), f"{cmd_name}_verb")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tilepipe %(version)s")
def tilepipe() -> None:
    r"""Take blur out of pictures too large for memory.

    \b
      tilepipe psf make motion --length 13 --angle 30 -o psf.tif
      tilepipe run photo.tif -o sharp.tif --psf psf.tif

    Exit codes: 0 done, 1 unexpected, 2 usage or settings, 3 input, 4 output, 5 does not fit, 6 tiles failed,
    7 cache in use, 130 interrupted (run again to go on).
    """


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    verbose = "-v" in (arguments or sys.argv) or "--verbose" in (arguments or sys.argv)
    if not verbose:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it finds comes as one sentence from here
    try:
        result: Any = tilepipe.main(args=arguments, prog_name="tilepipe", standalone_mode=False)
    except click.exceptions.Abort:
        _end("interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        usage = f" (tilepipe {context.info_name} --help)" if context is not None and context.parent else ""
        _end(f"{error.format_message()}{usage}", 2)
    except TilepipeError as error:
        if verbose:
            raise
        _end(str(error), error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # the last resort: one line for people, the trace with -v
        if verbose:
            raise
        _end(f"unexpected {type(error).__name__}: {error} (-v shows where; please report it)", 1)
    sys.exit(result if isinstance(result, int) else 0)


def _end(message: str, code: int) -> None:
    one_line = " ".join(message.split())
    print(f"tilepipe: {one_line}", file=sys.stderr)
    sys.exit(code)
