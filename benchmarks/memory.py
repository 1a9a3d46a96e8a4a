"""Peak memory of whole runs, measured from outside, beside the plan's projection.

    python -m benchmarks.memory [--sizes 24 65 | --made WxH] [--formats tif jpg png] [--budgets 512MB 1GB] [--jobs 1 2]
                                [--cold] [--extra FOLDER] [--options "..."]

The picture is the 64.8 Mpx JPEG of the reference data, decoded and written again in each format; 24 Mpx are its middle.
Each run is started by a small launcher (tests/measured.py), which reads the peak that the kernel reports for the
process (VmHWM), and the largest sums over the process and its children (RSS, PSS) that it sees 20 times a second.
`--cold` gives every run an empty folder for compiled kernels; `--extra` is put on PYTHONPATH (a folder with ducc0).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile

from tilepipe.image.light import SRGB
from tilepipe.psf.shapes import gaussian
from tilepipe.testing import BlurredScene, Scene

LAUNCHER = Path(__file__).parents[1] / "tests" / "measured.py"
PICTURE = Path("large") / "highsmith_7026x9221.jpg"


def read_pictures(made: str | None) -> dict[str, np.ndarray]:
    """Return the pictures by name, uint8 (h, w, 3)."""
    if made:
        width, height = map(int, made.split("x"))
        scene = BlurredScene(Scene(width, height), gaussian(0.9), 0.01)
        return {"made": np.rint(255 * SRGB.encode(np.clip(scene.rows(0, height), 0, 1))).astype(np.uint8)}
    whole = imagecodecs.jpeg_decode((Path(os.environ["TILEPIPE_DATA"]) / PICTURE).read_bytes())
    return {"24": np.ascontiguousarray(whole[1000:5000, 500:6500]), "65": whole}


def write_pictures(folder: Path, pixels: dict[str, np.ndarray], formats: list[str]) -> None:
    """Write the pictures in all formats; TIFF in 16 bits."""
    gaussian(0.9).save(folder / "psf.tif")
    for size, kind in itertools.product(pixels, formats):
        path = folder / f"{size}.{kind}"
        if kind == "tif":
            tifffile.imwrite(path, pixels[size].astype(np.uint16) * 257, photometric="rgb")
        elif kind == "jpg":
            path.write_bytes(imagecodecs.jpeg_encode(pixels[size], level=92))
        else:
            path.write_bytes(imagecodecs.png_encode(pixels[size], level=1))


def measure(folder: Path, picture: str, budget: str, jobs: int, options: list[str], *, cold: bool, extra: str) -> str:
    """Run once; return a row of the table."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        environment = dict(os.environ)
        if cold:
            environment["NUMBA_CACHE_DIR"] = str(Path(name) / "numba")
        if extra:
            environment["PYTHONPATH"] = os.pathsep.join([extra, os.environ.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "tilepipe", "run", str(folder / picture), "-o", str(Path(name) / "out.tif")]
        command += ["--cache", str(Path(name) / "cache"), "--memory", budget, "-j", str(jobs), "--json", *options]
        launcher = [sys.executable, "-I", "-S", str(LAUNCHER), *command]
        done = subprocess.run(launcher, capture_output=True, text=True, env=environment)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line]
    seen = lines[-1]
    outside = " | ".join(f"{seen[key] / 1e6:.0f}" for key in ("rss", "tree_rss", "tree_pss"))
    start = f"| {picture} | {budget} | {jobs} | {'cold' if cold else 'warm'} | {outside} |"
    if seen["code"]:
        return f"{start} exit {seen['code']}: {done.stderr.strip().splitlines()[-1]} |"
    memory = lines[0]["memory"]
    holds = max(seen["rss"], seen["tree_rss"]) <= memory["projected"] <= memory["allowed"]
    inside = " | ".join(f"{memory[key] / 1e6:.0f}" for key in ("peak", "projected", "allowed"))
    return f"{start} {inside} | {'yes' if holds else 'NO'} |"


def main() -> None:
    """Measure all combinations and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="*", choices=["24", "65"], default=["24", "65"])
    parser.add_argument("--made", metavar="WxH", help="Use a made scene of this size instead of the photograph.")
    parser.add_argument("--formats", nargs="*", choices=["tif", "jpg", "png"], default=["tif", "jpg", "png"])
    parser.add_argument("--budgets", nargs="*", default=["512MB", "1GB"])
    parser.add_argument("--jobs", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--extra", default="")
    parser.add_argument("--options", default="--psf psf.tif --quality fast", help="Further options of run.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pixels = read_pictures(arguments.made)
        pixels = {size: pixels[size] for size in pixels if arguments.made or size in arguments.sizes}
        write_pictures(folder, pixels, arguments.formats)
        options = [str(folder / "psf.tif") if word == "psf.tif" else word for word in arguments.options.split()]
        print(
            "| picture | budget | jobs | kernels | RSS | tree RSS | tree PSS | inside | projected | allowed | holds |"
        )
        print("|---|---|---|---|---|---|---|---|---|---|---|")
        for size, kind, budget, jobs in itertools.product(pixels, arguments.formats, arguments.budgets, arguments.jobs):
            row = measure(folder, f"{size}.{kind}", budget, jobs, options, cold=arguments.cold, extra=arguments.extra)
            print(row, flush=True)


if __name__ == "__main__":
    main()
