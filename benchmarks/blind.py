"""Blind estimation of the PSF: what is lost against the true kernel, how often, and for how much time.

    python -m benchmarks.blind [levin kodak synthetic] [--jobs 2] [--each] [--out FILE]

Every case is restored with the true kernel and with the one found, by the same total variation, and compared with
the truth after the best shift (`benchmarks.shift`).  "ER" is the error ratio of Levin et al. (CVPR 2009): squared
error with the kernel found over that with the true one; "loss" is the same in dB.  CPU seconds are those of the
estimate alone, one thread.  Without data, or with --made, the project's own scenes stand in for the pictures.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.signal

from benchmarks.shift import CROP, best_shift
from tilepipe.deconv.noise import estimate_noise
from tilepipe.planning.find_psf import MIN_CONFIDENCE
from tilepipe.psf.blind.narrow import Estimate, estimate_kernel
from tilepipe.psf.blind.splitting import Window
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import Scene, degrade
from tilepipe.testing.shakes import shake

LEVIN_LAM = 7e-4
"""Weight of the final total variation on the captures of Levin et al."""

LAM_PER_VARIANCE, SMALLEST_LAM = 8.0, 2e-4
"""Elsewhere it is 8 sigma^2, but not less."""

PUBLISHED = (
    ("true kernels (published)", "33.76", "0.946"),
    ("PMP, Wen et al. 2020", "32.51", "0.935"),
    ("Pan et al. 2016, dark channel", "31.73", "-"),
    ("Xu & Jia 2010", "31.36", "-"),
    ("Levin et al. 2011", "31.14", "-"),
    ("Cho & Lee 2009", "30.79", "-"),
    ("Fergus et al. 2006", "29.46", "-"),
)
"""Mean dB and SSIM over all 32 captures, final step by total variation: from the tables of PMP (Wen et al., IEEE
TCSVT 2020), or measured again from the published kernels."""

KODAK_NOISES = (0.003, 0.01)
MADE_SHAKES = (
    ("straight", motion(13, 25)),
    ("straight", motion(27, 115)),
    ("shake", shake(17, 3)),
    ("shake", shake(31, 5)),
)

SYNTHETIC_NOISES = (0.0, 0.01, 0.03)
SYNTHETIC_BLURS = {
    "gaussian": (gaussian(0.8, 9), gaussian(2), gaussian(4)),
    "disk": (disk(2), disk(5), disk(10)),
    "motion": (motion(7, 20), motion(15, 60), motion(35, 110)),
    "shake": (shake(9, 9), shake(21, 21), shake(41, 41)),
}
SCENES = 12

MARGIN = 40
"""Made on every side of a scene beyond what is kept, px: the blur looks into it."""

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)


@dataclass(frozen=True)
class Case:
    """One picture through one blur.

    Parameters
    ----------
    group : what its line of a table is for.
    noise : that was added; None for captures.
    size : width the estimate is told; None when it has to find it.
    make : returns the sharp and the blurred window, (h, w) each, linear light.
    """

    picture: str
    blur: str
    group: str
    noise: float | None
    kernel: np.ndarray
    size: int | None
    lam: float
    make: Callable[[], tuple[np.ndarray, np.ndarray]]


class Score(NamedTuple):
    """How near a picture is to the truth at the best shift."""

    ssd: float
    psnr: float
    ssim: float


@dataclass(frozen=True)
class Result:
    """A case, what was found, and how near the blurred picture and the two restorations are."""

    case: Case
    estimate: Estimate
    seconds: float
    blurred: Score
    true: Score
    found: Score

    @property
    def ratio(self) -> float:
        return self.found.ssd / max(self.true.ssd, 1e-12)

    @property
    def loss(self) -> float:
        return self.true.psnr - self.found.psnr

    @property
    def gain(self) -> float:
        return self.found.psnr - self.blurred.psnr


def measure(case: Case) -> Result:
    sharp, blurred = case.make()
    start = time.process_time()
    estimate = estimate_kernel([blurred], estimate_noise([blurred[None]]), case.size)
    seconds = time.process_time() - start
    crop = max(CROP, case.kernel.shape[0] // 2)

    def score(picture: np.ndarray) -> Score:
        match = best_shift(picture, sharp, crop)
        return Score(match.ssd, match.psnr, match.ssim)

    def restored(kernel: np.ndarray) -> np.ndarray:
        return Window(blurred, kernel.shape[0]).total_variation(kernel, case.lam)

    found = blurred if estimate.sharp else restored(estimate.kernel)  # a run writes sharp pictures unchanged
    return Result(case, estimate, seconds, score(blurred), score(restored(case.kernel)), score(found))


def measure_all(cases: Sequence[Case], jobs: int) -> Iterator[Result]:
    """Yield the results in order; every process compiles its kernels before it is timed."""
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_warm_up) as pool:
        yield from pool.imap(measure, cases)


def _warm_up() -> None:
    _, blurred = made(1, 63, gaussian(1), 0.01)
    estimate_kernel([blurred], 0.01, 7)
    Window(blurred, 7).total_variation(gaussian(1).kernel, 1e-3)


# --- where the cases come from


def data(folder: str, pattern: str) -> list[Path]:
    root = os.environ.get("TILEPIPE_DATA")
    return sorted((Path(root) / folder).glob(pattern)) if root else []


def made(seed: int, edge: int, psf: PSF, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a scene and what a blur and noise make of it, luminance, (edge, edge) each."""
    wide = edge + 2 * MARGIN
    luminance = Scene(wide, wide, seed).rows(0, wide) @ LUMINANCE
    reach = psf.size // 2
    near = luminance[MARGIN - reach : MARGIN + edge + reach, MARGIN - reach : MARGIN + edge + reach]
    blurred = degrade(near[:, :, None], psf, noise, seed)[:, :, 0]
    return np.ascontiguousarray(luminance[MARGIN:-MARGIN, MARGIN:-MARGIN]), np.ascontiguousarray(blurred)


def read_levin(path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sharp, captured and true kernel: the file's y is x * rot180(f)."""
    import scipy.io

    held = scipy.io.loadmat(path)
    kernel = np.rot90(held["f"], 2) / held["f"].sum()
    return held["x"].astype(np.float32), held["y"].astype(np.float32), np.ascontiguousarray(kernel, np.float32)


def captured(path: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_levin(path)[:2]


def photograph(path: Path, edge: int, kernel: np.ndarray, noise: float, seed: list[int]) -> tuple:
    """Return the middle of a photograph, the mean of its colours taken as linear light, sharp and blurred."""
    import imagecodecs

    gray = imagecodecs.imread(path).mean(2) / 255
    wide = np.pad(gray, kernel.shape[0] // 2, "reflect")
    blurred = scipy.signal.fftconvolve(wide, kernel, "valid")
    blurred += noise * np.random.default_rng(seed).standard_normal(gray.shape)
    middle = tuple(slice((length - edge) // 2, (length - edge) // 2 + edge) for length in gray.shape)
    return tuple(np.ascontiguousarray(plane[middle], np.float32) for plane in (gray, blurred))


def lam_for(noise: float) -> float:
    return max(LAM_PER_VARIANCE * noise**2, SMALLEST_LAM)


def levin_cases(files: Sequence[Path], edge: int) -> list[Case]:
    cases = []
    for path in files:
        kernel = read_levin(path)[2]
        make = partial(captured, path)
        cases.append(Case(*path.stem.split("_"), "levin", None, kernel, kernel.shape[0], LEVIN_LAM, make))
    if not files:
        for seed, psf in enumerate((shake(13, 1), shake(19, 2), shake(27, 3)), 1):
            make = partial(made, seed, edge, psf, 0.005)
            cases.append(Case(f"scene {seed}", name_of(psf), "made", 0.005, psf.kernel, psf.size, LEVIN_LAM, make))
    return cases


def kodak_cases(files: Sequence[Path], levin: Sequence[Path], edge: int) -> list[Case]:
    """Every photograph (or, without any, a scene) through every kernel at every level of noise."""
    kernels = [("levin", path.stem.split("_")[1], read_levin(path)[2]) for path in levin]
    kernels += [(group, name_of(psf), psf.kernel) for group, psf in MADE_SHAKES]
    cases = []
    for at, (group, name, kernel) in enumerate(kernels):
        for level, noise in enumerate(KODAK_NOISES):
            lam = lam_for(noise)
            for number, path in enumerate(files):
                make = partial(photograph, path, edge, kernel, noise, [number, at, level])
                cases.append(Case(path.stem, name, group, noise, kernel, kernel.shape[0], lam, make))
            if not files:
                make = partial(made, 1, edge, PSF(kernel), noise)
                cases.append(Case("scene 1", name, group, noise, kernel, kernel.shape[0], lam, make))
    return cases


def synthetic_cases(edge: int) -> list[Case]:
    return [
        Case(
            f"scene {seed}",
            name_of(psf),
            group,
            noise,
            psf.kernel,
            None,
            lam_for(noise),
            partial(made, seed, edge, psf, noise),
        )
        for group, psfs in SYNTHETIC_BLURS.items()
        for noise in SYNTHETIC_NOISES
        for psf in psfs
        for seed in range(1, SCENES + 1)
    ]


def name_of(psf: PSF) -> str:
    """Return its shape and numbers: sigma; radius; length and angle; length and seed."""
    shape, *numbers = psf.made_by.values()
    return " ".join([shape, *(f"{number:g}" for number in numbers)])


# --- what is said of them


EACH = (
    "| picture | blur | noise | dB blurred | dB true | dB found | ER | SSIM true | SSIM found | CPU s | confidence |",
    "|---|---|---|---|---|---|---|---|---|---|---|",
)


def each_line(r: Result) -> str:
    noise = "-" if r.case.noise is None else r.case.noise
    return (
        f"| {r.case.picture} | {r.case.blur} | {noise} | {r.blurred.psnr:.2f} | {r.true.psnr:.2f} "
        f"| {r.found.psnr:.2f} | {r.ratio:.2f} | {r.true.ssim:.3f} | {r.found.ssim:.3f} | {r.seconds:.1f} "
        f"| {r.estimate.confidence:.2f}{' sharp' * r.estimate.sharp} |"
    )


def within(results: Sequence[Result], *limits: float) -> str:
    """Return the shares of results up to each error ratio, as cells."""
    return " | ".join(f"{100 * np.mean([r.ratio <= limit for r in results]):.0f} %" for limit in limits)


def levin_table(results: Sequence[Result]) -> Iterator[str]:
    mean_true, mean_found = (np.mean([pick(r) for r in results], 0) for pick in (lambda r: r.true, lambda r: r.found))
    yield "| kernels | pictures | mean dB | mean SSIM | loss, dB | median ER | ER <= 1.5 | <= 2 | <= 3 | CPU s |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    yield f"| true kernels | {len(results)} | {mean_true[1]:.2f} | {mean_true[2]:.3f} | 0 | 1 | | | | |"
    yield (
        f"| tilepipe | {len(results)} | {mean_found[1]:.2f} | {mean_found[2]:.3f} "
        f"| {np.mean([r.loss for r in results]):.2f} | {np.median([r.ratio for r in results]):.2f} "
        f"| {within(results, 1.5, 2, 3)} | {np.mean([r.seconds for r in results]):.1f} |"
    )
    if results[0].case.group == "levin":
        truth = float(PUBLISHED[0][1])
        for name, psnr, ssim in PUBLISHED:
            yield f"| {name} | 32 | {psnr} | {ssim} | {truth - float(psnr):.2f} | | | | | |"
        yield ""
        yield "tilepipe: 16 of the 32 captures (images 1 and 4); the true kernels' mean differs there: compare losses."


def kodak_table(results: Sequence[Result]) -> Iterator[str]:
    yield (
        "| blur | noise | cases | dB blurred | dB true | dB found | mean loss, dB | median loss | median ER "
        "| ER <= 2 | <= 3 | CPU s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    keys = list(dict.fromkeys((r.case.group, r.case.blur) for r in results))
    rows = [(blur, noise, lambda c, b=blur: c.blur == b) for _, blur in keys for noise in KODAK_NOISES]
    for group in dict.fromkeys(group for group, _ in keys):
        rows += [(f"all {group}", noise, lambda c, g=group: c.group == g) for noise in KODAK_NOISES]
    rows += [("all", noise, lambda c: True) for noise in KODAK_NOISES]
    for name, noise, belongs in rows:
        if row := [r for r in results if r.case.noise == noise and belongs(r.case)]:
            means = (np.mean([getattr(r, which).psnr for r in row]) for which in ("blurred", "true", "found"))
            losses = [r.loss for r in row]
            yield (
                f"| {name} | {noise} | {len(row)} | {' | '.join(f'{mean:.2f}' for mean in means)} "
                f"| {np.mean(losses):.2f} | {np.median(losses):.2f} | {np.median([r.ratio for r in row]):.2f} "
                f"| {within(row, 2, 3)} | {np.mean([r.seconds for r in row]):.1f} |"
            )


def refused(estimate: Estimate) -> bool:
    return estimate.confidence < MIN_CONFIDENCE


def synthetic_table(results: Sequence[Result], refuses: Callable[[Estimate], bool] = refused) -> Iterator[str]:
    """Gains in dB over the blurred picture; what a run would refuse is counted apart and not in the gains."""
    yield (
        "| blur | noise | cases | refused | median gain | worst gain | median gain, true kernel | below the blurred "
        "| below, refused | called sharp | CPU s |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    for group in (*SYNTHETIC_BLURS, "all"):
        for noise in SYNTHETIC_NOISES:
            row = [r for r in results if r.case.noise == noise and group in (r.case.group, "all")]
            if row:
                yield f"| {group} | {noise} | {len(row)} | {_gains(row, refuses)} |"


def _gains(row: Sequence[Result], refuses: Callable[[Estimate], bool]) -> str:
    kept = [r for r in row if not refuses(r.estimate)]
    gains = [r.gain for r in kept]
    cells = [
        f"{len(row) - len(kept)}",
        f"{np.median(gains):.2f}" if gains else "-",
        f"{min(gains):.2f}" if gains else "-",
        f"{np.median([r.true.psnr - r.blurred.psnr for r in row]):.2f}",
        f"{sum(r.gain < 0 for r in kept)}",
        f"{sum(r.gain < 0 for r in row if refuses(r.estimate))}",
        f"{sum(r.estimate.sharp for r in row)}",
        f"{np.mean([r.seconds for r in row]):.1f}",
    ]
    return " | ".join(cells)


TABLES = {"levin": levin_table, "kodak": kodak_table, "synthetic": synthetic_table}


def cases_of(table: str, made_only: bool, edge: int | None) -> list[Case]:
    levin = [] if made_only else data("levin", "*.mat")
    if table == "levin":
        return levin_cases(levin, edge or 255)
    if table == "kodak":
        photographs = [] if made_only else data("kodak", "*.png")
        return kodak_cases(photographs, [path for path in levin if path.stem.startswith("im01")], edge or 511)
    return synthetic_cases(edge or 383)


def header() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    cpu = next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.processor())
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", "scipy", "numba"))
    return f"{datetime.date.today()}, {cpu}, Python {platform.python_version()}, {versions}"


def report(arguments: argparse.Namespace) -> Iterator[str]:
    yield header()
    for table in arguments.tables or TABLES:
        cases = cases_of(table, arguments.made, arguments.edge)
        if arguments.cases:
            cases = [cases[int(at)] for at in np.linspace(0, len(cases) - 1, min(arguments.cases, len(cases)))]
        pictures = sorted({case.picture for case in cases})
        yield from ("", f"## {table}: {len(cases)} cases; {', '.join(pictures)}", "")
        results: list[Result] = []
        each = arguments.each or table == "levin"
        yield from EACH if each else ()
        for result in measure_all(cases, arguments.jobs):
            results.append(result)
            if each:
                yield each_line(result)
        yield from [""] if each else ()
        yield from TABLES[table](results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tables", nargs="*", metavar="TABLE", help="among " + ", ".join(TABLES) + "; all without any")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--each", action="store_true", help="a line for every case as well")
    parser.add_argument("--out", type=Path, help="write it to this file too")
    parser.add_argument("--made", action="store_true", help="the project's own scenes instead of the data")
    parser.add_argument("--cases", type=int, help="so many of a table's cases, evenly spread")
    parser.add_argument("--edge", type=int, help="edge of the windows, px (not of the captures)")
    arguments = parser.parse_args()
    if unknown := set(arguments.tables) - set(TABLES):
        parser.error(f"no table is called {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    out = arguments.out.open("w") if arguments.out else None
    for line in report(arguments):
        print(line, flush=True)
        if out:
            print(line, file=out, flush=True)
    if out:
        out.close()


if __name__ == "__main__":
    main()
