"""The entry point: run the verb; convert errors to one line and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from importlib import import_module
from typing import Any

import click

from tilepipe import __version__
from tilepipe.errors import TilepipeError

__all__ = ["main"]

VERBS = {
    "run": ("tilepipe.cli.run", "Deblur IMAGE and write the result."),
    "plan": ("tilepipe.cli.plan", "Show what run would do, without writing anything."),
    "psf": ("tilepipe.cli.psf", "Estimate, make, show or check a PSF."),
    "inspect": ("tilepipe.cli.inspect", "Show size, type, layout, colours, metadata and noise of a file."),
    "status": ("tilepipe.cli.status", "Show the finished and damaged pieces in a cache."),
    "worker": ("tilepipe.cli.worker", "Start a dask worker for run --scheduler."),
    "cache": ("tilepipe.cli.cache", "List, verify and remove cached runs."),
    "config": ("tilepipe.cli.config", "Show settings and their origins, or check a settings file."),
    "demo": ("tilepipe.cli.demo", "Blur a scene, deblur it and print the gain in PSNR."),
}
"""Module of each verb (its function is named after the verb) and one-line help, so that `--help` imports none."""


class Verbs(click.Group):
    """A group that imports its verbs on demand."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `VERBS`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb."""
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(VERBS[cmd_name][0]), f"{cmd_name}_verb")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="tilepipe %(version)s")
def tilepipe() -> None:
    """Remove blur from images that are larger than memory.

    \b
      tilepipe psf make motion --length 13 --angle 30 -o psf.tif
      tilepipe run photo.tif -o sharp.tif --psf psf.tif

    Exit codes: 0 success, 1 unexpected error, 2 usage or settings, 3 input, 4 output, 5 memory or disk, 6 tiles
    or some images failed, 7 cache, 8 uncertain blur, 130 or 143 interrupted (rerun to resume).
    """  # noqa: D301, click needs the backspace character


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit."""
    _open_standard_streams()
    verbose = "-v" in (arguments or sys.argv) or "--verbose" in (arguments or sys.argv)
    if not verbose:
        logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # errors of the file are reported in one line instead
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
    except MemoryError:
        _end("the system has no memory left; close other programs, or give a smaller --memory", 5)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:  # last resort: one line, with -v the traceback
        if verbose:
            raise
        _end(f"unexpected {type(error).__name__}: {error} (-v shows the traceback; please report it)", 1)
    sys.exit(result if isinstance(result, int) else 0)


def _open_standard_streams() -> None:
    """Open the standard streams that the caller closed, and print any file name.

    Otherwise a file that is opened next takes the number of a closed stream, and receives what libraries print there.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))
    for stream, errors in ((sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def _end(message: str, code: int) -> None:
    one_line = " ".join(message.split())
    print(f"tilepipe: {one_line}", file=sys.stderr)
    sys.exit(code)
