"""Table of the flags that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

__all__ = ["FLAGS", "picture_flags", "pipeline_flags", "settings_from"]

F = TypeVar("F", bound=Callable[..., Any])

FLAGS: dict[str, dict[str, Any]] = {
    "--blur": {"type": int, "metavar": "N", "help": "Width of the blur, px, odd, 3..101 (default: estimated)."},
    "--window": {
        "metavar": "X,Y[,SIZE]",
        "help": "Window to estimate the blur in: centre and edge, px (default: automatic).",
    },
    "--priority": {
        "metavar": "P",
        "help": "denoise (no deblurring) | balanced | deblur, or -1 (cleaner) .. 1 (sharper).",
    },
    "--quality": {
        "type": click.Choice(["fast", "normal", "best"]),
        "help": "Iterations: fast halves the time, best doubles it for a little more quality (default: normal).",
    },
    "--psf": {"metavar": "FILE", "help": "PSF file of the blur (default: estimated from the image)."},
    "--field": {
        "type": click.Choice(["auto", "none", "lens"]),
        "help": "Whether the estimated blur may grow towards the corners: auto (default) | none | lens.",
    },
    "--psf-per-channel": {"is_flag": True, "help": "Refine the estimated PSF for each colour (chromatic aberration)."},
    "--force": {"is_flag": True, "help": "Accept an uncertain PSF, and start even if the disk may be too small."},
    "--max-pixels": {
        "type": int,
        "metavar": "N",
        "help": "Largest image that is decoded, px (default: 4000000000).",
    },
    "--memory": {
        "metavar": "SIZE",
        "help": "Memory limit of the whole process, as 512MB or 2GiB (default: auto, half of the free memory).",
    },
    "--jobs": {
        "short": "-j",
        "type": int,
        "metavar": "N",
        "help": "Tiles in flight (default: as many as cores and memory allow).",
    },
    "--cache": {"metavar": "DIR", "help": "Cache folder, or s3://BUCKET/NAME (default: in the user's cache folder)."},
    "--keep-tiles/--drop-tiles": {
        "help": "Keep blended tiles in the cache, for reuse after an edit (default: up to 200 megapixels)."
    },
    "--scheduler": {
        "metavar": "WHERE",
        "help": "threads (default), or tcp://HOST:PORT or file:PATH of a dask scheduler.",
    },
    "--format": {
        "type": click.Choice(["tiff", "jpeg", "png", "jxl", "webp", "npy", "fits", "ome-zarr"]),
        "help": "Format of the output (default: by its extension; without -o, that of the image).",
    },
    "--dtype": {
        "type": click.Choice(["uint8", "uint16", "float16", "float32"]),
        "help": "Data type of the output (default: that of the input).",
    },
    "--compression": {
        "type": click.Choice(["none", "deflate", "lzw", "zstd"]),
        "help": "Compression of a TIFF (default: that of the input, if lossless).",
    },
    "--sidecar": {"is_flag": True, "help": "Copy the image's XMP sidecars, for the output."},
    "--dither/--no-dither": {"help": "Dither when 16 bits become 8 (default: yes)."},
    "--tolerance": {
        "type": float,
        "metavar": "FACTOR",
        "help": "More tolerance = more sharpness: scales how long the iterations run, 0.25..4 (default: 1).",
    },
    "--refocus": {"is_flag": True, "help": "Restore only blurred regions; sharp regions are unchanged."},
    "--mask": {"metavar": "FILE", "help": "Image of the same size: white is restored, black is unchanged."},
    "--save-mask": {"metavar": "FILE", "help": "Write the mask that was applied (TIFF)."},
    "--luminance-only": {
        "is_flag": True,
        "help": "Restore the luminance only, leave colour unchanged; takes a third of the time.",
    },
    "--target": {
        "type": float,
        "metavar": "PX",
        "help": "Sigma of the Gaussian left of a slight blur, px (default: 0.35).",
    },
    "--input-curve": {
        "metavar": "CURVE",
        "help": "Tone curve of the samples: linear | srgb | gamma:2.2 | FILE.icc (default: from the file).",
    },
    "--white": {
        "metavar": "LEVEL",
        "help": "Value from which samples are clipped, or one for each colour, R,G,B (default: detected).",
    },
    "--nodata": {
        "type": float,
        "metavar": "VALUE",
        "help": "Value of pixels that are not part of the image (default: from the file).",
    },
    "--page": {
        "type": int,
        "metavar": "N",
        "help": "Page of a TIFF, counted from 0 (default: the largest); inspect lists them.",
    },
    "--plane": {
        "metavar": "AXIS=N,...",
        "help": "Plane of an OME-TIFF or ImageJ stack, counted from 0, as z=3,c=1,t=0 (default: the first).",
    },
    "--salvage": {"is_flag": True, "help": "Restore a truncated TIFF, PNG or JPEG as far as it goes."},
    "--tile": {"type": int, "metavar": "N", "help": "Largest core edge of a tile, px, at least 64."},
    "--halo": {
        "type": int,
        "metavar": "N",
        "help": "Context around a tile, px (default: derived from PSF, noise and image).",
    },
    "--solver": {
        "type": click.Choice(["tv", "sparse", "log", "richardson-lucy"]),
        "help": "Restoration method (default: tv; richardson-lucy is for photon counts).",
    },
    "--verify": {
        "type": click.Choice(["full", "quick"]),
        "help": "How reused pieces are checked: contents (full, default) or only sizes.",
    },
    "--max-failures": {
        "type": int,
        "metavar": "N",
        "help": "Stop when more than N tiles have failed (default: no limit, failures are reported at the end).",
    },
}
"""Arguments of click for each flag; a flag has the name of its setting."""


PICTURE_FLAGS = ("--page", "--plane", "--salvage")
"""Those that choose a picture of a file."""


def pipeline_flags(function: F) -> F:
    """Add all flags that control the restoration."""
    for flag, arguments in reversed(FLAGS.items()):
        details = dict(arguments)
        names = [flag, details.pop("short")] if "short" in details else [flag]
        function = click.option(*names, default=None, **details)(function)
    function = click.option("--config", metavar="FILE", help="Settings file (TOML).")(function)
    return click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Set one value; may be repeated.")(
        function
    )


def picture_flags(function: F) -> F:
    """Add the flags that choose a picture of a file."""
    for flag in reversed(PICTURE_FLAGS):
        function = click.option(flag, default=None, **FLAGS[flag])(function)
    return function


def settings_from(values: dict[str, Any]) -> dict[str, Any]:
    """Return those of a verb's `values` that are settings, by setting name."""
    names = {flag.split("/")[0].lstrip("-").replace("-", "_") for flag in FLAGS}
    return {name: value for name, value in values.items() if name in names}
