"""Shakes of 15 to 90 px, blind, width unknown: what is found, how much is lost to the true kernel, how sure that is.

    python -m benchmarks.wide lai [--jobs 2] [--only TEXT] [--kernels FOLDER] [--out FILE]
    python -m benchmarks.wide report            # photographs that no constant was chosen on, made shakes
    python -m benchmarks.wide fitted            # the same of photographs that constants were chosen on
    python -m benchmarks.wide made              # one of the project's own scenes: needs no data

Every kernel restores the mean of the colours by the same total variation; it is compared with the truth after the best
shift, as a kernel is known but for its place, half a kernel (48 px at least) left out at the border.  `lai`: the
pictures of Lai et al. (CVPR 2016), encoded values taken as linear light, with the kernels that four published methods
found, which are stored turned by half a turn.  Seconds are those of looking at the picture and finding the PSF, one
thread.  Pictures are found below $TILEPIPE_DATA.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import scipy.ndimage
import scipy.signal
from PIL import Image

from benchmarks import photographs
from tilepipe.planning.find_psf import MIN_CONFIDENCE, find_psf
from tilepipe.planning.inspection import inspect_array
from tilepipe.psf.blind.splitting import Window
from tilepipe.testing.shakes import shake

LAI, MADE = "lai", "made"
LENGTHS, NOISES, FORMATS = (25, 45, 70, 90), (0.003, 0.01), ("tiff", "jpeg92")
LAI_NOISE = 0.01
LAM_PER_VARIANCE, SMALLEST_LAM = 8.0, 2e-4
LEAST_RIM = 48

REACH = 40
"""Largest shift, px."""


@dataclass(frozen=True)
class Case:
    """One picture through one kernel; `length` and `kind` are those of a made shake."""

    picture: str
    kernel: str
    length: int = 0
    seed: int = 0
    noise: float = LAI_NOISE
    kind: str = ""


@dataclass(frozen=True)
class Row:
    """What came out: PSNR, dB, of the blurred picture and of its restorations with each kernel."""

    case: Case
    blurred: float
    true: float
    found: float
    published: dict[str, float]
    confidence: float
    size: int
    seconds: float
    near: str

    @property
    def written(self) -> float:
        """PSNR of what a run would write: the picture as it is when the kernel is refused."""
        return self.found if self.confidence >= MIN_CONFIDENCE else self.blurred


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"), np.float32) / 255


def made(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return sharp and blurred picture, (h, w, 3), and the true kernel."""
    if not case.length:
        folder = Path(os.environ["TILEPIPE_DATA"]) / LAI
        kernel = read(folder / f"kernels/{case.kernel}.png").mean(2)
        sharp, blurred = folder / f"sharp/{case.picture}.png", folder / f"blurred/{case.picture}_{case.kernel}.png"
        return read(sharp), read(blurred), kernel / kernel.sum()
    sharp = photographs.read_fine(case.picture)
    sharp = sharp.astype(np.float32) if case.picture == MADE else photographs.halved(sharp)
    kernel = shake(case.length, case.seed).kernel
    half = kernel.shape[0] // 2
    wide = np.pad(sharp, ((half, half), (half, half), (0, 0)), "reflect")
    blurred = np.stack([scipy.signal.fftconvolve(wide[:, :, c], kernel, "valid") for c in range(3)], -1)
    blurred += np.random.default_rng(case.seed).normal(0, case.noise, blurred.shape)
    with tempfile.TemporaryDirectory() as folder:
        file = photographs.store(Path(folder) / "case", np.clip(blurred, 0, 1).astype(np.float32), case.kind)
        codes = np.asarray(Image.open(file)) if file.suffix == ".jpg" else photographs.tifffile.imread(file)
    return sharp, photographs.linear(codes), kernel


def published(case: Case) -> dict[str, np.ndarray]:
    """Return the kernels that published methods found for a case, by method."""
    if case.length:
        return {}
    start = f"psf_{case.picture}_{case.kernel}_"
    files = sorted((Path(os.environ["TILEPIPE_DATA"]) / LAI / "estimates").glob(f"{start}*.png"))
    return {file.stem.removeprefix(start): read(file).mean(2)[::-1, ::-1] for file in files}


def restored(picture: np.ndarray, kernel: np.ndarray, noise: float) -> np.ndarray:
    edge = max(kernel.shape) | 1
    frame = np.zeros((edge, edge), np.float32)
    frame[: kernel.shape[0], : kernel.shape[1]] = kernel / kernel.sum()
    lam = max(LAM_PER_VARIANCE * noise**2, SMALLEST_LAM)
    return np.clip(Window(picture, edge).total_variation(frame, lam), 0, 1)


def psnr_at_best_shift(picture: np.ndarray, truth: np.ndarray, rim: int) -> float:
    """Return the PSNR, dB, after the best shift: whole px by correlation, then steps down to a quarter."""
    inside = np.s_[rim:-rim, rim:-rim]
    spectra = [np.fft.rfft2(plane - plane.mean()) for plane in (truth, picture)]
    alike = np.fft.irfft2(spectra[0] * spectra[1].conj(), truth.shape)
    near = np.r_[0 : REACH + 1, -REACH:0]
    best = tuple(float(near[at]) for at in np.unravel_index(alike[np.ix_(near, near)].argmax(), (len(near),) * 2))

    def psnr(shift: tuple[float, float]) -> float:
        moved = scipy.ndimage.shift(picture, shift, order=3, mode="nearest")
        return float(-10 * np.log10(np.mean((moved - truth)[inside] ** 2)))

    value = psnr(best)
    for step in (1.0, 0.5, 0.25):
        while True:
            steps = [(best[0] + y, best[1] + x) for y, x in ((step, 0), (-step, 0), (0, step), (0, -step))]
            values = [psnr(one) for one in steps]
            if max(values) <= value + 1e-4:
                break
            value, best = max(values), steps[int(np.argmax(values))]
    return value


def measure(case: Case) -> tuple[Row, np.ndarray]:
    """Return the row of a case, and the kernel found."""
    sharp, blurred, kernel = made(case)
    truth, seen = sharp.mean(2), blurred.mean(2)
    rim = max(LEAST_RIM, kernel.shape[0] // 2)
    start = time.perf_counter()
    psf = find_psf(inspect_array(blurred, None, None)).psf
    seconds = time.perf_counter() - start
    found = psf.kernel if psf.kernel.ndim == 2 else psf.kernel.mean(0)

    def score(one: np.ndarray) -> float:
        return psnr_at_best_shift(restored(seen, one, case.noise), truth, rim)

    plain = psnr_at_best_shift(seen, truth, rim)
    row = Row(
        case,
        plain,
        score(kernel),
        plain if psf.is_delta else score(found),
        {name: score(one) for name, one in published(case).items()},
        float(psf.confidence or 0.0),
        psf.size,
        seconds,
        str(psf.made_by.get("nearest")),
    )
    return row, found


def lai_cases() -> list[Case]:
    files = sorted((Path(os.environ["TILEPIPE_DATA"]) / LAI / "blurred").glob("*.png"))
    return [Case(*file.stem.replace("_kernel", " kernel").split(" ")) for file in files]


def made_cases(names: tuple[str, ...]) -> list[Case]:
    """Every large photograph behind every length, noise and format in turn; seeds never come twice."""
    large = [name for name in names if "clic_" in name]
    return [
        Case(name, f"shake {length}", length, 1000 + 10 * at + number, NOISES[(at + number) % 2], FORMATS[at // 2 % 2])
        for at, name in enumerate(large)
        for number, length in enumerate(LENGTHS)
    ]


def scene_cases() -> list[Case]:
    return [Case(MADE, "shake 45", 45, 1, 0.003, "tiff")]


def line(row: Row) -> str:
    case, best = row.case, max(row.published.items(), key=lambda item: item[1], default=("-", float("nan")))
    name = f"{Path(case.picture).stem} {case.kernel} {case.kind} {case.noise:g}"
    return (
        f"| {name} | {row.blurred:.2f} | {row.true:.2f} | {row.found:.2f} | {row.true - row.found:.2f} "
        f"| {best[1]:.2f} {best[0]} | {row.confidence:.2f} | {row.size} | {row.seconds:.0f} |"
    )


def summary(rows: list[Row]) -> Iterator[str]:
    """Say how many came near the truth, and what the confidence was worth."""
    good = [row.found > row.blurred + 0.3 for row in rows]
    sure = [row.confidence for row in rows]
    yield f"within 1 dB of the true kernel: {sum(row.true - row.found < 1 for row in rows)} of {len(rows)}"
    yield f"written, below the blurred picture: {sum(row.written < row.blurred - 0.1 for row in rows)}"
    behind = sum(bool(row.published) and max(row.published.values()) - row.found > 1 for row in rows)
    yield f"more than 1 dB behind the best published kernel: {behind}"
    for low, high in ((0, 0.4), (0.4, 0.8), (0.8, 1.01)):
        inside = [ok for ok, one in zip(good, sure, strict=True) if low <= one < high]
        yield f"confidence {low}..{min(high, 1)}: {len(inside)} cases, {sum(inside)} good"
    brier = np.mean([(ok - one) ** 2 for ok, one in zip(good, sure, strict=True)])
    yield f"Brier score {brier:.3f}; seconds, mean {np.mean([row.seconds for row in rows]):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["lai", "report", "fitted", "made"])
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--kernels", type=Path, help="folder for the kernels found, as .npy")
    parser.add_argument("--out", type=Path, help="the numbers, as JSON")
    args = parser.parse_args()
    sets = {"report": photographs.REPORT, "fitted": photographs.FITTED}
    cases = {LAI: lai_cases, MADE: scene_cases}.get(args.set, lambda: made_cases(sets[args.set]))()
    cases = [case for case in cases if args.only in f"{case.picture} {case.kernel}"]
    print(f"## {args.set}\n")
    print("| picture, kernel | blurred | true | found | loss | best published | confidence | px | s |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for row, kernel in pool.imap(measure, cases):
            print(line(row), flush=True)
            rows.append(row)
            if args.kernels:
                args.kernels.mkdir(parents=True, exist_ok=True)
                name = f"{Path(row.case.picture).stem}_{row.case.kernel}".replace(" ", "_")
                np.save(args.kernels / f"{name}.npy", kernel)
    print(*summary(rows), sep="\n")
    if args.out:
        args.out.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
