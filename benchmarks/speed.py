"""How fast, beside others and beside what the machine allows: ``make bench``.

    python -m benchmarks.speed [--compare 4 24] [--sizes 4 24 65 260] [--steps 30] [--memory 512MB] [--out FOLDER]

One run on one machine, so that ratios hold: the steps of every solver and every way to apply a PSF on one core, with
the floor that memory sets; Richardson-Lucy beside scikit-image, RedLionfish, deconwolf (its program ``dw``) and plain
scipy (those that are installed), each in a process of its own, a channel of float32 each, ours and deconwolf from TIFF
to TIFF; whole runs at growing sizes; the cost of the graph with tasks that do nothing.  Sizes are megapixels.  Written
as Markdown and JSON, named after the day and the commit; ``benchmarks.compare`` compares two of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tilepipe.deconv.convolution import FOURIER, Convolution, select_convolution
from tilepipe.deconv.convolution import convolutions as possible_convolutions
from tilepipe.deconv.frames import Spectrum, Workspace
from tilepipe.deconv.parameters import Parameters
from tilepipe.deconv.richardson_lucy import back_project
from tilepipe.deconv.solvers import restore
from tilepipe.deconv.transforms import LIBRARY
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.system.memory import peak_memory
from tilepipe.testing import BlurredScene, Scene, write_scene

PSFS: dict[str, PSF] = {"gaussian 15 px": gaussian(1.75), "motion 15 px": motion(15, 30), "disk 15 px": disk(7)}

ENDS = {"momentum": tuple([0.0] * 8)}
SOLVERS = {
    "tv": Parameters(3.7e-4, 0.07, 2e-3, 1.1, 8, base=0.9, slope=0.3),
    "log": Parameters(3.7e-4, 0.07, 2e-3, 1.0, 8, solver="log", scale=0.02),
    "sparse": Parameters(3.7e-4, 0.07, 2e-3, 1.0, 8, solver="sparse"),
    "richardson-lucy with tv": Parameters(1e-3, 0, 0, 1.0, 8, solver="richardson-lucy", **ENDS),
    "richardson-lucy plain": Parameters(0.0, 0, 0, 1.0, 8, solver="richardson-lucy", **ENDS),
}

PASSED = {"tv": 76, "log": 76, "sparse": 76, "richardson-lucy with tv": 44, "richardson-lucy plain": 44}
"""Bytes that a step cannot but move, per pixel and channel: the state read and written once, transforms not counted."""

Row = dict[str, Any]

KEPT = Path(__file__).parent / "results"
"""Results of earlier commits."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compare", type=float, nargs="*", default=[4, 24])
    parser.add_argument("--sizes", type=float, nargs="*", default=[4, 24, 65, 260])
    parser.add_argument("--edge", type=int, default=1080, help="of the frame whose steps are timed, px")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--tiles", type=int, nargs="*", default=[900, 10_000], help="of the empty graph")
    parser.add_argument("--memory", default="512MB")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--alone", nargs=4, metavar=("LIBRARY", "PICTURE", "PSF", "STEPS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        library, picture, psf, steps = arguments.alone
        print(json.dumps(alone(library, Path(picture), Path(psf), int(steps))))
        return
    facts = machine()
    tables: dict[str, list[Row]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tables["Applying a PSF: K^T (M y / K x), one core"] = convolutions(arguments.edge)
        tables["A step of each solver, one core"] = solver_steps(arguments.edge, facts["copy GB/s"])
        compared = [row for size in arguments.compare for row in beside(folder, size, arguments)]
        tables[f"Richardson-Lucy, {arguments.steps} steps, beside others"] = compared
        tables["Whole runs, default settings"] = [r for size in arguments.sizes for r in whole(folder, size, arguments)]
        tables["Tasks that do nothing"] = [empty(tiles) for tiles in arguments.tiles]
    facts["load at the end"] = os.getloadavg()[0]
    text = markdown(facts, tables)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        stem = f"{date.today()}-speed-{facts['commit']}"
        (arguments.out / f"{stem}.md").write_text(text)
        (arguments.out / f"{stem}.json").write_text(json.dumps({"machine": facts, "tables": tables}, indent=1))


def machine() -> Row:
    """Return what the figures hold for."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    packages = (
        "numpy",
        "scipy",
        "numba",
        "zarr",
        "dask",
        "tifffile",
        "ducc0",
        "scikit-image",
        "RedLionfish",
        "deconwolf",
    )
    return {
        "day": str(date.today()),
        "commit": commit(),
        "CPU": f"{model}, {len(os.sched_getaffinity(0))} cores",
        "Python": platform.python_version(),
        "packages": ", ".join(f"{name} {installed(name)}" for name in packages),
        "transforms": LIBRARY,
        "copy GB/s": round(bandwidth(), 1),
        "load at the start": os.getloadavg()[0],
    }


def commit() -> str:
    """Return the commit that is measured, with "+" if files differ from it; "unknown" outside a clone."""
    git = ["git", "-C", str(KEPT.parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=8", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.stdout.strip() + "+" * bool(changed)


def installed(name: str) -> str:
    if name == "deconwolf":
        return shutil.which("dw") or "absent"
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def bandwidth(size: int = 64 << 20) -> float:
    """Return GB/s that one core reads and writes, both counted."""
    source, target = np.ones(size, np.uint8), np.empty(size, np.uint8)
    return 2 * size / best(lambda: np.copyto(target, source)) / 1e9


def best(work: Callable[[], Any], times: int = 5) -> float:
    """Return the shortest CPU time of this thread, s; the first, which compiles, does not count."""
    work()
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return min(found)


def convolutions(edge: int) -> list[Row]:
    generator = np.random.default_rng(0)
    rows = []
    for name, psf in PSFS.items():
        kernel = np.asarray(psf.kernel)
        selected = select_convolution(kernel)
        work, spectrum = Workspace(1, (edge, edge)), Spectrum.of(psf.planes, (edge, edge))
        work.x[...], work.y[...] = generator.uniform(0.1, 1, (2, 1, edge, edge))
        for convolution in (*possible_convolutions(kernel), FOURIER):
            seconds = best(partial(back_project, work, spectrum, convolution, 0, work.x[0], work.y[0], work.e[0, 0]))
            taken = "yes" if same_way(convolution, selected) else ""
            nanoseconds = round(seconds / edge**2 * 1e9, 2)
            rows.append(
                {
                    "PSF": name,
                    "way": str(convolution),
                    "ns/px": nanoseconds,
                    "table": round(convolution.nanoseconds, 2),
                    "taken": taken,
                }
            )
    return rows


def same_way(one: Convolution, other: Convolution) -> bool:
    return (one.kind, one.rank, one.taps) == (other.kind, other.rank, other.taps)


def solver_steps(edge: int, gigabytes: float) -> list[Row]:
    """Time steps by the difference between few and many, so that what is done once does not count."""
    generator = np.random.default_rng(0)
    start = generator.uniform(0.1, 1, (3, edge, edge)).astype(np.float32)
    rows = []
    for psf_name, psf in PSFS.items():
        work, spectrum = Workspace(3, (edge, edge)), Spectrum.of(psf.planes, (edge, edge))
        for name, numbers in SOLVERS.items():
            few, many = (best(partial(solve, work, spectrum, start, numbers, steps), 3) for steps in (2, 6))
            seconds = (many - few) / 4
            nanoseconds = seconds / (3 * edge**2) * 1e9
            floor = PASSED[name] / gigabytes
            rows.append(
                {
                    "solver": name,
                    "PSF": psf_name,
                    "ns/px/step/channel": round(nanoseconds, 2),
                    "memory floor": round(floor, 2),
                    "floor / measured": round(floor / nanoseconds, 2),
                }
            )
    return rows


def solve(work: Workspace, spectrum: Spectrum, start: np.ndarray, numbers: Parameters, steps: int) -> None:
    work.x[...], work.y[...] = start, start
    restore(work, spectrum, replace(numbers, steps=steps, momentum=numbers.momentum[:steps]))


def alone(library: str, picture: Path, psf: Path, steps: int) -> Row:
    """Run one of the others on the first channel of a picture; wall, CPU and peak memory of this process."""
    pixels = tifffile.memmap(picture, mode="r")
    image = np.ascontiguousarray(pixels[..., 0], np.float32) / np.float32(65535)
    kernel = np.asarray(PSF.load(psf).kernel)
    run = LIBRARIES[library](image, kernel, steps)
    before, began, cpu = peak_memory(), time.perf_counter(), time.process_time()
    run()
    seconds, children = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "seconds": seconds,
        "cpu": time.process_time() - cpu + children.ru_utime + children.ru_stime,
        "peak": max(peak_memory(), 1024 * children.ru_maxrss),
        "before": before,
    }


def by_scikit_image(image: np.ndarray, kernel: np.ndarray, steps: int) -> Callable[[], Any]:
    from skimage.restoration import richardson_lucy

    return lambda: richardson_lucy(image, kernel, num_iter=steps)


def by_redlionfish(image: np.ndarray, kernel: np.ndarray, steps: int) -> Callable[[], Any]:
    import RedLionfishDeconv

    return lambda: RedLionfishDeconv.doRLDeconvolutionFromNpArrays(image[None], kernel[None], niter=steps, method="cpu")


def by_scipy(image: np.ndarray, kernel: np.ndarray, steps: int) -> Callable[[], Any]:
    """Return what one would write: four lines, scipy's Fourier convolution, float32."""
    from scipy.signal import fftconvolve

    def run() -> np.ndarray:
        x = image.copy()
        for _ in range(steps):
            ratio = image / np.maximum(fftconvolve(x, kernel, "same"), 1e-5)
            x *= fftconvolve(ratio, kernel[::-1, ::-1], "same")
        return x

    return run


def by_deconwolf(image: np.ndarray, kernel: np.ndarray, steps: int) -> Callable[[], Any]:
    """Return a run of deconwolf's program, from TIFF to TIFF, on one thread as the others; it reads stacks only."""
    folder = Path(tempfile.mkdtemp())
    for name, plane in (("image", image), ("psf", kernel)):
        tifffile.imwrite(folder / f"{name}.tif", np.asarray(plane, np.float32)[None])
    command = ["dw", "--iter", steps, "--threads", "1", "--overwrite", "--out", folder / "out.tif"]

    def run() -> None:
        try:
            subprocess.run(
                [*map(str, command), str(folder / "image.tif"), str(folder / "psf.tif")],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        finally:
            shutil.rmtree(folder)

    return run


LIBRARIES = {
    "scikit-image": by_scikit_image,
    "RedLionfish": by_redlionfish,
    "scipy": by_scipy,
    "deconwolf": by_deconwolf,
}


def beside(folder: Path, size: float, arguments: argparse.Namespace) -> Iterable[Row]:
    for name, psf in PSFS.items():
        picture, kernel = blurred(folder, size, psf), folder / "psf.tif"
        psf.save(kernel, overwrite=True)
        pixels = np.prod(tifffile.memmap(picture, mode="r").shape[:2])
        lucy = ["--solver", "richardson-lucy", "--tolerance", str(arguments.steps / 40)]
        ours = run(picture, kernel, folder / "cache", arguments.memory, *lucy)
        rows = [
            ("tilepipe, TIFF to TIFF, 3 channels", ours["seconds"] / 3, ours["cpu"] / 3, ours["peak"], ours["steps"])
        ]
        for library in LIBRARIES:
            if installed(library) == "absent":
                continue
            command = [sys.executable, "-m", "benchmarks.speed", "--alone", library, picture, kernel, arguments.steps]
            done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{library} failed: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            rows.append((f"{library}, 1 channel", found["seconds"], found["cpu"], found["peak"], arguments.steps))
        for who, seconds, cpu, memory, steps in rows:
            yield {
                "Mpx": size,
                "PSF": name,
                "by": who,
                "s per channel": round(seconds, 2),
                "CPU ns/px/step/channel": round(cpu / steps / pixels * 1e9, 1),
                "peak MB": round(memory / 1e6),
                "times ours": round(seconds / rows[0][1], 1),
            }


def whole(folder: Path, size: float, arguments: argparse.Namespace) -> Iterable[Row]:
    psf = PSFS["motion 15 px"]
    picture, kernel = blurred(folder, size, psf), folder / "psf.tif"
    psf.save(kernel, overwrite=True)
    jobs: list[list[str]] = [[]] if size > 30 else [[], ["-j", "1"]]
    for more in jobs:
        found = run(picture, kernel, folder / "cache", arguments.memory, *more)
        if more:
            again: Row = {}
        else:
            plan = timed(
                [sys.executable, "-m", "tilepipe", "plan", picture, "--psf", kernel, "--cache", folder / "none"]
            )
            again = {
                "finished run s": round(run(picture, kernel, folder / "cache", arguments.memory)["seconds"], 1),
                "plan s": round(plan["seconds"], 1),
            }
        yield {
            "Mpx": size,
            "jobs": more[-1] if more else "all",
            "seconds": round(found["seconds"], 1),
            "Mpx/s": round(size / found["seconds"], 2),
            "restoring s": round(found["restore"], 1),
            "whole / restoring": round(found["seconds"] / found["restore"], 2),
            "CPU s": round(found["cpu"], 1),
            "peak MB": round(found["peak"] / 1e6),
            "projected MB": round(found["projected"] / 1e6),
            "peak / projected": round(found["peak"] / found["projected"], 2),
            **again,
        }
        shutil.rmtree(folder / "cache")


def run(picture: Path, kernel: Path, cache: Path, memory: str, *more: str) -> Row:
    """Run tilepipe in a process of its own; times and memory of that process, from its start to its end."""
    output = cache.parent / "out.tif"
    command = ["run", picture, "-o", output, "--psf", kernel, "--cache", cache, "--memory", memory, "--json"]
    found = timed([sys.executable, "-m", "tilepipe", *command, "--overwrite", *more])
    report = json.loads(found["stdout"])
    stages = {
        line.split()[0]: seconds_of(line.split(" in ")[1])
        for line in found["stderr"].splitlines()
        if " in " in line and line.split()[0] == "restore"
    }
    memory_of = report["memory"]
    return {
        "seconds": found["seconds"],
        "cpu": found["cpu"],
        "restore": max(stages.get("restore", 0.0), 1e-9),
        "peak": max(memory_of["peak"], 0),
        "projected": memory_of["projected"],
        "steps": report["recipe"]["steps"],
    }


def seconds_of(text: str) -> float:
    """Read "4.2 s" or "3 min 20 s"."""
    numbers = [float(number) for number in re.findall(r"[\d.]+", text)]
    return numbers[0] if len(numbers) == 1 else 60 * numbers[0] + numbers[1]


def timed(command: list[Any]) -> Row:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "cpu": cpu, "stdout": done.stdout, "stderr": done.stderr}


def blurred(folder: Path, size: float, psf: PSF) -> Path:
    """Return a blurred RGB picture of `size` Mpx, 16 bits, 3:2; beyond 6 Mpx one of 6 Mpx is laid out like a floor."""
    made = min(size, 6.0)
    path = folder / f"{psf.digest[:8]}-{size:g}.tif"
    if path.exists():
        return path
    small = folder / f"{psf.digest[:8]}-{made:g}.tif"
    if not small.exists():
        width = max(96, round((made * 1.5e6) ** 0.5))
        write_scene(small, BlurredScene(Scene(width, round(width / 1.5)), psf, 0.005))
    if size > made:
        stone = tifffile.imread(small)
        width = round((size * 1.5e6) ** 0.5)
        floor = tifffile.memmap(path, shape=(round(width / 1.5), width, 3), dtype="uint16", photometric="rgb")
        for top in range(0, len(floor), len(stone)):
            for left in range(0, width, stone.shape[1]):
                place = floor[top : top + len(stone), left : left + stone.shape[1]]
                turned = stone[:: -1 if top // len(stone) % 2 else 1, :: -1 if left // stone.shape[1] % 2 else 1]
                place[...] = turned[: place.shape[0], : place.shape[1]]
        floor.flush()
    return path


def empty(tiles: int) -> Row:
    """Time the graph of `tiles` tiles, and the chunks they give, with tasks that do nothing."""
    from benchmarks.cluster import stand_in
    from tilepipe.execution.executors import threads
    from tilepipe.execution.restore import Tally, run_tasks

    job, todo = stand_in(tiles)
    done: list[Any] = []
    kept, threads.run_group = threads.run_group, nothing
    try:
        began, executor = time.perf_counter(), threads.Threads(job, 2)
        run_tasks(job, todo, executor, Tally(done.append, job.hopeless, None), lambda: None)
        executor.close()
    finally:
        threads.run_group = kept
    assert len(done) == len(todo.tiles) + len(todo.chunks)
    seconds = time.perf_counter() - began
    return {
        "tiles": len(todo.tiles),
        "chunks": len(todo.chunks),
        "seconds": round(seconds, 2),
        "ms per tile": round(seconds / len(todo.tiles) * 1e3, 2),
    }


def nothing(folder: str, group: Any) -> Any:
    return [task.receipt("done") for task in group]


def markdown(facts: Row, tables: dict[str, list[Row]]) -> str:
    lines = [f"# {facts['day']}: speed", "", *(f"- {name}: {value}" for name, value in facts.items()), ""]
    for title, rows in tables.items():
        if not rows:
            continue
        names = list(dict.fromkeys(name for row in rows for name in row))
        lines += [f"## {title}", "", f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
        lines += [f"| {' | '.join(str(row.get(name, '')) for name in names)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
