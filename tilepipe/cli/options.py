"""Flags that several verbs share, in one table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["FLAGS", "pipeline_flags", "settings_from"]

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: dict[str, dict[str, Any]] = {
    "--blur": {"type": int, "metavar": "N", "help": "Width of the blur, px, odd, 3..101 (default: found)."},
    "--window": {"metavar": "X,Y[,SIZE]", "help": "Where to look for the blur: centre and edge, px (default: chosen)."},
    "--priority": {
        "metavar": "P",
        "help": "denoise (no deblurring) | balanced | deblur, or -1 (cleaner) .. 1 (sharper).",
    },
    "--quality": {
        "type": click.Choice(["fast", "normal", "best"]),
        "help": "Steps of the solver: half the time, or twice it for a little more (default: normal).",
    },
    "--psf": {"metavar": "FILE", "help": "The blur, as a PSF file (default: found in the picture)."},
    "--psf-per-channel": {"is_flag": True, "help": "Refine the PSF found for each colour (chromatic aberration)."},
    "--force": {"is_flag": True, "help": "Take an uncertain PSF, begin though the disk may not suffice."},
    "--memory": {
        "metavar": "SIZE",
        "help": "Budget of the whole process, 512MB or 2GiB (auto: half of what is free, the default).",
    },
    "--jobs": {
        "short": "-j",
        "type": int,
        "metavar": "N",
        "help": "Tiles in flight (default: what cores and memory allow).",
    },
    "--cache": {"metavar": "DIR", "help": "Cache folder (default: the user's cache folder)."},
    "--scheduler": {"metavar": "WHERE", "help": "threads, tcp://HOST:PORT or file:PATH of a dask scheduler."},
    "--dtype": {
        "type": click.Choice(["uint8", "uint16", "float16", "float32"]),
        "help": "Samples of the output (default: the input's).",
    },
    "--tolerance": {"type": float, "metavar": "PCT", "help": "How long steps go on: more is sharper (default: 1)."},
    "--refocus": {"is_flag": True, "help": "Restore only where the picture is blurred; what is sharp stays as it is."},
    "--mask": {"metavar": "FILE", "help": "Picture of the same size: white is restored, black stays as it is."},
    "--save-mask": {"metavar": "FILE", "help": "Write the mask that was used (TIFF)."},
    "--luminance-only": {"is_flag": True, "help": "Restore the luminance only: a third of the time, colour as it is."},
    "--target": {"type": float, "metavar": "PX", "help": "What is left of a slight blur, px (default: 0.35)."},
    "--input-curve": {
        "metavar": "CURVE",
        "help": "linear | srgb | gamma:2.2 | FILE.icc: how samples follow from light (default: as the file says).",
    },
    "--white": {
        "metavar": "LEVEL",
        "help": "Sample value from which samples are clipped, or one for each colour, R,G,B (default: found).",
    },
    "--nodata": {
        "type": float,
        "metavar": "VALUE",
        "help": "Sample value of pixels that are not part of the picture (default: as the file says).",
    },
    "--tile": {"type": int, "metavar": "N", "help": "Largest core edge of a tile, px, at least 64."},
    "--halo": {
        "type": int,
        "metavar": "N",
        "help": "Context round a tile, px (default: what PSF, noise and picture need).",
    },
    "--solver": {
        "type": click.Choice(["tv", "sparse", "log", "richardson-lucy"]),
        "help": "Restoration method (default: tv; richardson-lucy for counted light).",
    },
    "--verify": {
        "type": click.Choice(["full", "quick"]),
        "help": "How reused pieces are checked: contents or size only.",
    },
    "--max-failures": {
        "type": int,
        "metavar": "N",
        "help": "Stop when more than N tiles have failed (default: go on, report them in the end).",
    },
}
"""Flag -> click's arguments; the flag's name is the setting's name."""


def pipeline_flags(function: F) -> F:
    """Add all flags that decide how a picture is worked on."""
    for flag, arguments in reversed(FLAGS.items()):
        details = dict(arguments)
        names = [flag, details.pop("short")] if "short" in details else [flag]
        function = click.option(*names, default=None, **details)(function)
    function = click.option("--config", metavar="FILE", help="Settings file (TOML).")(function)
    return click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="One setting; may be repeated.")(
        function
    )


def settings_from(values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings among a verb's `values`, by setting name."""
    names = {flag.lstrip("-").replace("-", "_") for flag in FLAGS}
    return {name: value for name, value in values.items() if name in names}
