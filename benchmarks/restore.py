"""Restoration with the known PSF: quality and time of our qualities beside scikit-image's, lambda against the oracle.

    python -m benchmarks.restore [--cases N] [--made] [--edge 256] [--out FILE]

Four Kodak pictures, gray, through the eight kernels of Levin et al., noise 1 and 3 %, blurred before the middle is
cut out.  "full" is the PSNR over the whole crop, "interior" without a border of one kernel width, in dB, means over
the cases.  "oracle" takes for every case the best of lambdas up to four times smaller and larger, knowing the truth.
scikit-image is measured when it is installed; its pictures are values 0..1 as ours.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.blind import data, header, made, photograph, read_levin
from tilepipe import deconvolve
from tilepipe.testing.shakes import shake

PICTURES = ("01", "08", "19", "23")
NOISES = (0.01, 0.03)
LAMBDAS = (-0.6, -0.3, -0.15, 0.0, 0.15, 0.3, 0.6)
"""Priorities tried by the oracle: lambda falls tenfold per unit."""

Case = tuple[np.ndarray, np.ndarray, np.ndarray]
"""sharp and blurred (h, w), kernel (k, k)."""

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
    return {
        "scikit-image, Richardson-Lucy 10": lambda y, k: restoration.richardson_lucy(y, k, 10),
        "scikit-image, Richardson-Lucy 30": lambda y, k: restoration.richardson_lucy(y, k, 30),
        "scikit-image, unsupervised_wiener": lambda y, k: restoration.unsupervised_wiener(y, k, clip=False)[0],
    }


def line(name: str, noise: float, chosen: Sequence[Case], method: Method) -> str:
    full, interior, seconds = [], [], []
    for sharp, blurred, kernel in chosen:
        start = time.process_time()
        restored = method(blurred, kernel)
        seconds.append(time.process_time() - start)
        full.append(psnr(restored, sharp))
        interior.append(psnr(restored, sharp, kernel.shape[0]))
    means = f"{np.mean(full):.2f} | {np.mean(interior):.2f} | {np.mean(seconds):.2f}"
    return f"| {name} | {noise:g} | {len(chosen)} | {means} |"


def oracle(noise: float, chosen: Sequence[Case]) -> str:
    losses = []
    for sharp, blurred, kernel in chosen:
        found = [psnr(deconvolve(blurred, kernel, priority), sharp, kernel.shape[0]) for priority in LAMBDAS]
        losses.append(max(found) - found[LAMBDAS.index(0.0)])
    return f"| {noise:g} | {len(chosen)} | {np.mean(losses):.2f} | {np.max(losses):.2f} |"


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
    yield from ("", "| method | noise | cases | full, dB | interior, dB | CPU s |", "|---|---|---|---|---|---|")
    for noise, chosen in sets.items():
        yield from (line(name, noise, chosen, method) for name, method in methods.items())
    yield from ("", "Automatic lambda against the oracle, interior:", "")
    yield from ("| noise | cases | mean loss, dB | worst loss, dB |", "|---|---|---|---|")
    yield from (oracle(noise, chosen) for noise, chosen in sets.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="so many of the cases, evenly spread")
    parser.add_argument("--made", action="store_true", help="the project's own scenes instead of the data")
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
