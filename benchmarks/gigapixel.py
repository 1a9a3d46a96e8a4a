"""A whole run on a picture far larger than memory, killed once and resumed: memory, disk and time from outside.

    python -m benchmarks.gigapixel [--width 32768] [--height 32768] [--format deflate|none|jpeg] [--memory 512MB]
                                   [--no-kill] [--psf LENGTH] [--noise 0.005] [--folder FOLDER] [--band 4096]
                                   [--options "..."]

The picture repeats a photograph of the reference data (a made scene without it), blurred in linear light by a line at
30 degrees, with noise that does not repeat, 8-bit RGB.  The run is killed (SIGKILL) when half of the tiles are
recorded, its ``status`` is timed, and the same command resumes.  A band of the picture is then run by itself with the
recipe of the whole: the rows that the band's lower edge does not reach must have the same samples.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import msgspec
import numpy as np
import numpy.typing as npt
import psutil
import scipy.fft
import tifffile
import zarr

import tilepipe
from benchmarks.pictures import sharp_picture
from tilepipe.cache.layout import RESULT_CHUNK, recipe_files, run_folders
from tilepipe.image.light import SRGB
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import motion
from tilepipe.recipe import Recipe
from tilepipe.tiling.grid import Box

LAUNCHER = Path(__file__).parents[1] / "tests" / "measured.py"

STRIP = 512
"""Rows made, and rows of a tile of the TIFF, px."""


class Picture:
    """A repeated photograph, blurred, with noise.

    Parameters
    ----------
    height, width : int
        Size, px.
    psf : PSF
        The blur.
    noise : float
        Standard deviation, linear light 0..1.
    """

    def __init__(self, height: int, width: int, psf: PSF, noise: float) -> None:
        sharp, self.name = sharp_picture(min(6000, width), min(4000, height), 1000, 500)
        self.height, self.width, self._noise = height, width, noise
        shape = sharp.shape[:2]
        kernel = np.zeros(shape)
        kernel[: psf.size, : psf.size] = psf.planes[0]
        transfer = scipy.fft.rfft2(np.roll(kernel, (-(psf.size // 2),) * 2, (0, 1)))
        planes = (scipy.fft.irfft2(scipy.fft.rfft2(sharp[:, :, c]) * transfer, shape) for c in range(3))
        self._blurred = np.stack([plane.astype(np.float32) for plane in planes], -1)

    def rows(self, top: int, bottom: int) -> npt.NDArray[np.uint8]:
        """Return some rows of the picture, uint8 (rows, width, 3)."""
        random = np.random.default_rng(top)
        rows = self._blurred.take(range(top, bottom), axis=0, mode="wrap")
        out = np.empty((bottom - top, self.width, 3), np.uint8)
        for left in range(0, self.width, rows.shape[1]):
            part = rows[:, : self.width - left]
            noisy = part + random.standard_normal(part.shape, np.float32) * np.float32(self._noise)
            out[:, left : left + part.shape[1]] = np.rint(255 * SRGB.encode(np.clip(noisy, 0, 1)))
        return out

    def write(self, path: Path, kind: str, height: int) -> None:
        """Write the first `height` rows: a tiled TIFF, compressed or not, or a JPEG."""
        strips = (self.rows(top, min(top + STRIP, height)) for top in range(0, height, STRIP))
        if kind == "jpeg":
            path.write_bytes(imagecodecs.jpeg_encode(np.concatenate(list(strips)), level=92))
            return
        tifffile.imwrite(
            path,
            _tiles(strips),
            shape=(height, self.width, 3),
            dtype=np.uint8,
            tile=(STRIP, STRIP),
            photometric="rgb",
            bigtiff=True,
            compression=None if kind == "none" else "zlib",
            compressionargs=None if kind == "none" else {"level": 1},
        )


def _tiles(strips: Iterator[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Yield the strips cut into tiles."""
    for strip in strips:
        for left in range(0, strip.shape[1], STRIP):
            yield strip[:, left : left + STRIP]


class DiskWatch(threading.Thread):
    """Largest size of a folder, bytes, looked at every ten seconds."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.peak, self._folder, self._ended = 0, folder, threading.Event()

    def run(self) -> None:
        """Look until :meth:`end`."""
        while not self._ended.wait(10):
            done = subprocess.run(["du", "-sB1", str(self._folder)], capture_output=True, text=True)
            self.peak = max(self.peak, int(done.stdout.split()[0]) if done.stdout else 0)

    def end(self) -> int:
        """Stop looking and return the largest size."""
        self._ended.set()
        self.join()
        return self.peak


def measured_run(command: list[str], kill: Path | None = None) -> dict[str, Any]:
    """Run a command of tilepipe; return its figures.  `kill`: end it when half of the rows in this cache are done."""
    began = time.perf_counter()
    launcher = [sys.executable, "-I", "-S", str(LAUNCHER), sys.executable, "-m", "tilepipe", *command]
    process = subprocess.Popen(launcher, stdout=subprocess.PIPE, text=True)
    if kill is not None:
        while process.poll() is None and not _is_half_done(kill):
            time.sleep(1)
        if process.poll() is None:
            for child in psutil.Process(process.pid).children():
                child.kill()
    lines = [json.loads(line) for line in process.communicate()[0].splitlines() if line.startswith("{")]
    return lines[-1] | {"report": lines[0] if len(lines) > 1 else None, "seconds": time.perf_counter() - began}


def _is_half_done(cache: Path) -> bool:
    """Return whether a chunk of the middle row of the result is recorded."""
    recipes = [Recipe.from_json(file.read_bytes()) for file in recipe_files(cache)]
    return any(
        (run_folders(cache, recipe)[1] / "result.ledger" / f"{recipe.height // RESULT_CHUNK[0] // 2}-0.json").exists()
        for recipe in recipes
    )


def different_samples(picture: Picture, folder: Path, whole: Path, kind: str, most: int) -> str:
    """Run a band at the top with the recipe of the whole; compare the rows that the band's lower edge cannot reach."""
    recipe = Recipe.from_json(recipe_files(folder / "cache")[0].read_bytes())
    edges = recipe.grid.row_edges
    heights = [edges[k] for k in range(2, len(edges)) if edges[k] <= most]
    grids = [dataclasses.replace(recipe.grid, height=height) for height in heights]
    same = [grid for grid in grids if grid.row_edges == edges[: grid.rows + 1]]
    if not same:
        return "not compared: no band has the tiles of the whole"
    height = same[-1].height
    band, out = folder / f"band{whole.suffix}", folder / "band_out.tif"
    picture.write(band, kind, height)
    plan = tilepipe.plan(band, out, psf=str(folder / "psf.tif"), cache=str(folder / "band"))
    dataclasses.replace(plan, recipe=msgspec.structs.replace(recipe, height=height, source="")).run()
    rows = min(tile.stored.y0 for tile in recipe.grid.touching(Box(0, height, 0, 1)) if tile.frame.y1 > height)
    with tifffile.TiffFile(out) as one, tifffile.TiffFile(folder / "out.tif") as other:
        pair = [zarr.open_array(file.aszarr(), mode="r") for file in (one, other)]
        number = sum(
            int((np.asarray(pair[0][top : top + STRIP]) != np.asarray(pair[1][top : top + STRIP])).sum())
            for top in range(0, rows - STRIP, STRIP)
        )
    return f"{number} samples differ in {(rows - 1) // STRIP * STRIP} rows"


def main() -> None:
    """Make the picture, run, kill, resume, compare; print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=32768)
    parser.add_argument("--height", type=int, default=32768)
    parser.add_argument("--format", choices=["deflate", "none", "jpeg"], default="deflate")
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--kill", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--psf", type=float, default=13.0, metavar="LENGTH")
    parser.add_argument("--noise", type=float, default=0.005)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--band", type=int, default=4096)
    parser.add_argument("--options", default="", help="Further options of run.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        psf = motion(arguments.psf, 30)
        psf.save(folder / "psf.tif")
        picture = Picture(arguments.height, arguments.width, psf, arguments.noise)
        image = folder / ("in.jpg" if arguments.format == "jpeg" else "in.tif")
        picture.write(image, arguments.format, picture.height)
        cache = folder / "cache"
        command = ["run", str(image), "-o", str(folder / "out.tif"), "--psf", str(folder / "psf.tif")]
        command += ["--cache", str(cache), "--memory", arguments.memory, "--json", *arguments.options.split()]
        size = f"{picture.width} x {picture.height} px, {arguments.format}, {image.stat().st_size / 1e6:.0f} MB"
        print(f"{picture.name}, {size}\n")
        print("| run | exit | s | peak RSS MB | tree RSS MB | projected MB | allowed MB | cache peak MB | tiles done |")
        print("|---|---|---|---|---|---|---|---|---|")
        for run in ("killed", "resumed") if arguments.kill else ("whole",):
            disk = DiskWatch(cache)
            disk.start()
            seen = measured_run(command, cache if run == "killed" else None)
            print(_row(run, seen, disk.end()), flush=True)
            if run == "killed":
                seen = measured_run(["status", str(cache), "--verify", "quick", "--json"])
                print(_row("status, quick", seen, 0), flush=True)
        print(f"| output {(folder / 'out.tif').stat().st_size / 1e6:.0f} MB |", flush=True)
        print(f"\n{different_samples(picture, folder, image, arguments.format, arguments.band)}")


def _row(run: str, seen: dict[str, Any], disk: int) -> str:
    """Return a row of the table."""
    report = seen["report"] or {}
    memory, tiles = report.get("memory", {}), report.get("tiles", {})
    planned = " | ".join(f"{memory[key] / 1e6:.0f}" if memory else "" for key in ("projected", "allowed"))
    outside = " | ".join(f"{seen[key] / 1e6:.0f}" for key in ("rss", "tree_rss"))
    return (
        f"| {run} | {seen['code']} | {seen['seconds']:.0f} | {outside} | {planned} | {disk / 1e6:.0f} | "
        f"{'{computed} of {total}'.format(**tiles) if tiles else ''} |"
    )


if __name__ == "__main__":
    main()
