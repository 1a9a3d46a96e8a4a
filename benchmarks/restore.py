"""Restoration with the known PSF: qualities and solvers beside scikit-image's, colour, lambda against the oracle.

    python -m benchmarks.restore [--cases N] [--made] [--edge 256] [--out FILE]

Four Kodak pictures, gray, through the eight kernels of Levin et al., noise 1 and 3 %, blurred before the middle is
cut out.  "full" is the PSNR over the whole crop, "interior" without a border of one kernel width, in dB, means over
the cases.  The colour table restores whole pictures in linear light (all of the crops when --made), their colours
together, one by one, and their luminance only; "chroma" is the PSNR of the differences from each pixel's gray.
"oracle" takes for every case the best of lambdas up to four times smaller and larger, knowing the truth.
scikit-image is measured when it is installed; its pictures are values 0..1 as ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import scipy.signal

from benchmarks.blind import data, header, made, photograph, read_levin
from tilepipe import deconvolve
from tilepipe.deconv.parameters import SOLVERS
from tilepipe.image.light import SRGB
from tilepipe.testing import Scene
from tilepipe.testing.shakes import shake

PICTURES = ("01", "08", "19", "23")
NOISES = (0.01, 0.03)
SLIDER = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 0.99)
"""Priorities tried by the oracle: lambda falls fourfold per unit (-1 itself would not deblur)."""

Case = tuple[np.ndarray, np.ndarray, np.ndarray]
"""sharp and blurred (h, w), kernel (k, k)."""

HEAD = ("| method | noise | cases | full, dB | interior, dB | CPU s |", "|---|---|---|---|---|---|")

BALANCES = (0.01, 0.1, 1.0)
"""Of scikit-image's wiener, which does not find it."""

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def cases(noise: float, edge: int, made_only: bool) -> Iterator[Case]:
    pictures = [] if made_only else [path for path in data("kodak", "*.png") if path.stem[-2:] in PICTURES]
    kernels = [read_levin(path)[2] for path in data("levin", "im01*.mat")] if pictures else []
    for number, path in enumerate(pictures):
        for at, kernel in enumerate(kernels):
            yield (*photograph(path, edge, kernel, noise, [number, at]), kernel)
    if not pictures:
        for seed in (1, 2):
            psf = shake(9, seed)
            yield (*made(seed, edge, psf, noise), np.asarray(psf.kernel))


def psnr(restored: np.ndarray, sharp: np.ndarray, rim: int = 0) -> float:
    inside = np.s_[rim : sharp.shape[0] - rim, rim : sharp.shape[1] - rim]
    return float(-10 * np.log10(np.mean((restored - sharp)[inside] ** 2)))


def ours(quality: str, blurred: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return deconvolve(blurred, kernel, quality=quality)


def others() -> dict[str, Method]:
    """Return scikit-image's methods, none when it is not there."""
    try:
        from skimage import restoration
    except ImportError:
        return {}

    def wiener(balance: float, blurred: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return restoration.wiener(blurred, kernel, balance, clip=False)

    return {
        "scikit-image, Richardson-Lucy 10": lambda y, k: restoration.richardson_lucy(y, k, 10),
        "scikit-image, Richardson-Lucy 30": lambda y, k: restoration.richardson_lucy(y, k, 30),
        **{f"scikit-image, wiener {balance:g}": partial(wiener, balance) for balance in BALANCES},
        "scikit-image, unsupervised_wiener": lambda y, k: restoration.unsupervised_wiener(y, k, clip=False)[0],
    }


def colour_cases(noise: float, edge: int, made_only: bool, count: int | None) -> Iterator[Case]:
    """Yield sharp and blurred (h, w, 3), linear light, and the kernel."""
    names = [] if made_only else [path for path in data("kodak", "*.png") if path.stem[-2:] in PICTURES]
    kernels = [read_levin(path)[2] for path in data("levin", "im01*.mat")][: count or None] if names else []
    for number, path in enumerate(names[: count or None]):
        sharp = SRGB.decode(imagecodecs.imread(path) / 255.0)
        for at, kernel in enumerate(kernels):
            yield sharp, through(sharp, kernel, noise, [number, at]), kernel
    if not names:
        sharp = Scene(edge, edge, 1).rows(0, edge)
        yield sharp, through(sharp, shake(9, 1).kernel, noise, [1]), np.asarray(shake(9, 1).kernel)


def through(sharp: np.ndarray, kernel: np.ndarray, noise: float, seed: list[int]) -> np.ndarray:
    """Blur with mirrored borders, and add noise."""
    reach = kernel.shape[0] // 2
    wide = np.pad(sharp, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    blurred = np.stack([scipy.signal.fftconvolve(wide[..., c], kernel, "valid") for c in range(3)], -1)
    return (blurred + noise * np.random.default_rng(seed).standard_normal(sharp.shape)).astype(np.float32)


def one_by_one(blurred: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return np.stack([deconvolve(blurred[..., c], kernel) for c in range(3)], -1)


def colour_lines(noise: float, analysis: Sequence[Case]) -> Iterator[str]:
    methods: dict[str, Method] = {
        "blurred": lambda y, k: y,
        "colours together": deconvolve,
        "one by one": one_by_one,
        "luminance only": partial(deconvolve, luminance_only=True),
    }
    for name, method in methods.items():
        found, chroma, seconds = [], [], []
        for sharp, blurred, kernel in analysis:
            start = time.process_time()
            restored = method(blurred, kernel)
            seconds.append(time.process_time() - start)
            rim = kernel.shape[0]
            found.append(psnr(restored, sharp, rim))
            chroma.append(psnr(restored - restored.mean(-1, keepdims=True), sharp - sharp.mean(-1, keepdims=True), rim))
        means = f"{np.mean(found):.2f} | {np.mean(chroma):.2f} | {np.mean(seconds):.2f}"
        yield f"| {name} | {noise:g} | {len(analysis)} | {means} |"


def line(name: str, noise: float, analysis: Sequence[Case], method: Method) -> str:
    full, interior, seconds = [], [], []
    for sharp, blurred, kernel in analysis:
        start = time.process_time()
        restored = method(blurred, kernel)
        seconds.append(time.process_time() - start)
        full.append(psnr(restored, sharp))
        interior.append(psnr(restored, sharp, kernel.shape[0]))
    means = f"{np.mean(full):.2f} | {np.mean(interior):.2f} | {np.mean(seconds):.2f}"
    return f"| {name} | {noise:g} | {len(analysis)} | {means} |"


def oracle(noise: float, analysis: Sequence[Case]) -> str:
    losses = []
    for sharp, blurred, kernel in analysis:
        found = [psnr(deconvolve(blurred, kernel, max(p, -0.99)), sharp, kernel.shape[0]) for p in SLIDER]
        losses.append(max(found) - found[SLIDER.index(0.0)])
    return f"| {noise:g} | {len(analysis)} | {np.mean(losses):.2f} | {np.max(losses):.2f} |"


def report(arguments: argparse.Namespace) -> Iterator[str]:
    yield header()
    sets = {}
    for noise in NOISES:
        every = list(cases(noise, arguments.edge, arguments.made))
        count = min(arguments.cases or len(every), len(every))
        sets[noise] = [every[int(at)] for at in np.linspace(0, len(every) - 1, count)]
    methods: dict[str, Method] = {"blurred": lambda blurred, kernel: blurred}
    methods |= {f"tilepipe, {quality}": partial(ours, quality) for quality in ("fast", "normal", "best")} | others()
    deconvolve(*sets[NOISES[0]][0][1:])  # compiled before it is timed
    yield from ("", *HEAD)
    for noise, analysis in sets.items():
        yield from (line(name, noise, analysis, method) for name, method in methods.items())
    solvers = {f"tilepipe, {solver}": partial(deconvolve, solver=solver) for solver in SOLVERS}
    yield from ("", "Solvers, quality normal:", "", *HEAD)
    for noise, analysis in sets.items():
        yield from (line(name, noise, analysis, method) for name, method in solvers.items())
    yield from (
        "",
        "Colour, interior:",
        "",
        "| method | noise | cases | dB | chroma, dB | CPU s |",
        "|---|---|---|---|---|---|",
    )
    for noise in NOISES:
        analysis = list(colour_cases(noise, arguments.edge, arguments.made, arguments.colours))
        yield from colour_lines(noise, analysis)
    yield from ("", "Automatic lambda against the oracle, interior:", "")
    yield from ("| noise | cases | mean loss, dB | worst loss, dB |", "|---|---|---|---|")
    yield from (oracle(noise, analysis) for noise, analysis in sets.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="so many of the cases, evenly spread")
    parser.add_argument("--made", action="store_true", help="the project's own scenes instead of the data")
    parser.add_argument("--colours", type=int, help="so many pictures and kernels in the colour table")
    parser.add_argument("--edge", type=int, default=256, help="edge of the crops, px")
    parser.add_argument("--out", type=Path, help="write it to this file too")
    arguments = parser.parse_args()
    lines = []
    for text in report(arguments):
        print(text, flush=True)
        lines.append(text)
    if arguments.out:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
