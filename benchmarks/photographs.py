"""Slightly soft photographs, blind: what a run gains on pictures whose truth is known.

    python -m benchmarks.photographs report            # pictures never used to choose a constant
    python -m benchmarks.photographs fitted            # pictures that constants were chosen on
    python -m benchmarks.photographs report --methods blind,true,unsharp,lucy,polyblur --out table.json

A sharp photograph is blurred at double resolution in linear light by a Gaussian, averaged down by two, given noise, and
stored as a 16-bit TIFF or as a JPEG.  The gain is the PSNR of the output minus that of the input, both against the
averaged sharp photograph, encoded values, 8 px at the border left out.  Pictures are found below $TILEPIPE_DATA.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import scipy.ndimage
import tifffile
from PIL import Image

from tilepipe.image.light import SRGB, Light
from tilepipe.testing.scenes import Photograph

FITTED = tuple(
    f"photos/{name}.png"
    for name in (
        *("clic_0c49a5cc", "clic_7e499613", "clic_aed95e00", "clic_b939ac34", "clic_c80999cd", "clic_ddcd24d9"),
        *("gb82_city", "gb82_flowers", "gb82_grass", "gb82_house", "gb82_nyc", "gb82_sand"),
    )
) + tuple(f"lai/sharp/{name}.png" for name in ("people_01", "people_04", "saturated_02", "text_03"))
"""Photographs that constants were chosen on."""

REPORT = tuple(
    f"photos/{name}.png"
    for name in (
        *("clic_100a02c2", "clic_100f1789", "clic_4cd6910a", "clic_60430844", "clic_b51d5fb5", "clic_d1a9be98"),
        *("gb82_baby", "gb82_dog", "gb82_mies", "gb82_path", "gb82_pixel", "gb82_rain", "gb82_waves"),
    )
)
"""Photographs that no constant was chosen on."""

SIGMAS = (0.0, 0.3, 0.5, 0.8, 1.1, 1.5, 2.0)
FORMATS = ("tiff", "jpeg92", "jpeg75")
NOISES = (0.002, 0.003, 0.005, 0.01)
"""Noise before encoding, linear light; pictures take them in turn."""

RIM = 8
"""Border that is not compared, px."""

UNSHARP = [(radius, amount) for radius in (0.6, 1.0, 1.6) for amount in (0.5, 1.0, 2.0)]
"""Radius, px, and amount of the unsharp masks, on encoded values; the best of them is picked by the truth."""

FULL_8, FULL_16 = Light((SRGB,) * 3, "uint8"), Light((SRGB,) * 3, "uint16")


def linear(codes: np.ndarray) -> np.ndarray:
    """Return linear light of sRGB codes, 8 or 16 bit, (h, w, 3)."""
    light = FULL_8 if codes.dtype == np.uint8 else FULL_16
    return np.stack([light.linear(c, codes[:, :, c]) for c in range(3)], -1)


def encoded(light: np.ndarray, dtype: str) -> np.ndarray:
    """Return sRGB codes of linear light (h, w, 3)."""
    return np.stack([FULL_16.encoded(c, np.ascontiguousarray(light[:, :, c]), dtype) for c in range(3)], -1)


def read_fine(name: str) -> np.ndarray:
    """Return a sharp photograph, linear light (h, w, 3), even edges; "made" is the project's own scene."""
    if name == "made":
        return Photograph(800, 640).rows(0, 640)
    pixels = np.asarray(Image.open(Path(os.environ["TILEPIPE_DATA"]) / name).convert("RGB"))
    height, width = (length // 2 * 2 for length in pixels.shape[:2])
    return linear(np.ascontiguousarray(pixels[:height, :width]))


def halved(fine: np.ndarray) -> np.ndarray:
    """Average squares of 2 x 2 px."""
    height, width = fine.shape[0] // 2, fine.shape[1] // 2
    return fine.reshape(height, 2, width, 2, -1).mean((1, 3)).astype(np.float32)


def made(fine: np.ndarray, sigma: float, noise: float, seed: int) -> np.ndarray:
    """Return the photograph blurred by `sigma` px of its halved size, noisy, linear light."""
    soft = scipy.ndimage.gaussian_filter(fine, (2 * sigma, 2 * sigma, 0)) if sigma else fine
    low = halved(soft)
    return low + np.random.default_rng(seed).normal(0, noise, low.shape).astype(np.float32)


def store(path: Path, picture: np.ndarray, kind: str) -> Path:
    """Write linear light as "tiff" (16 bit) or "jpegQ"; return the file."""
    if kind == "tiff":
        file = path.with_suffix(".tif")
        tifffile.imwrite(file, encoded(picture, "uint16"), photometric="rgb")
        return file
    quality = int(kind.removeprefix("jpeg"))
    file = path.with_suffix(".jpg")
    Image.fromarray(encoded(picture, "uint8")).save(file, "JPEG", quality=quality, subsampling=0 if quality > 90 else 2)
    return file


def read(file: Path) -> np.ndarray:
    """Return encoded values 0..1 of a file of 8 or 16 bit."""
    pixels = tifffile.imread(file) if file.suffix == ".tif" else np.asarray(Image.open(file))
    return pixels / np.float32(np.iinfo(pixels.dtype).max)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Return the PSNR of encoded values, dB."""
    inner = np.s_[RIM:-RIM, RIM:-RIM]
    return float(-10 * np.log10(max(np.mean((one[inner] - other[inner]) ** 2), 1e-12)))


def run(file: Path, output: Path, cache: Path, psf: Any = None, **flags: Any) -> tuple[str, dict[str, Any]]:
    """Run the product as a user would; return what became of the picture and what it said."""
    import tilepipe
    from tilepipe.errors import UncertainPsfError

    flags |= {"tile": 2048}  # the pictures are one tile: no halo has to be measured
    try:
        plan = tilepipe.plan(str(file), str(output), psf=psf, cache=str(cache), jobs=1, durable=False, **flags)
        report = plan.run(overwrite=True)
    except UncertainPsfError as error:
        return "refused", {"why": str(error)}
    facts = report.to_dict()
    made_by = plan.psf.made_by
    facts["psf"] |= {key: made_by[key] for key in ("sigma", "radius", "nearest", "shape") if key in made_by}
    return "sharp" if plan.psf.is_delta else "restored", facts


def best_unsharp(given: np.ndarray, truth: np.ndarray) -> float:
    """Return the PSNR of the best of the unsharp masks."""
    best = 0.0
    for radius, amount in UNSHARP:
        soft = scipy.ndimage.gaussian_filter(given, (radius, radius, 0))
        best = max(best, psnr(np.clip(given + amount * (given - soft), 0, 1), truth))
    return best


def polyblur(given: np.ndarray) -> np.ndarray:
    """Restore encoded values by Polyblur (Delbracio et al. 2021): their rule for the width, their polynomial filter."""
    low, high = np.quantile(given, (1e-4, 1 - 1e-4))
    gray = np.clip((given.mean(2) - low) / max(high - low, 1e-6), 0, 1)
    steepest = np.hypot(*np.gradient(gray)).max()
    sigma = float(np.sqrt(np.clip((0.362 / steepest) ** 2 - 0.468**2, 0.09, 16)))

    def blur(picture: np.ndarray) -> np.ndarray:
        return scipy.ndimage.gaussian_filter(picture, (sigma, sigma, 0))

    alpha, beta = 2.0, 3.0  # their equation 25: a3 k^3 + a2 k^2 + a1 k + a0
    factors = (alpha / 2 - beta + 2, 3 * beta - alpha - 6, 5 - 3 * beta + alpha / 2, beta)
    out = factors[0] * given
    for factor in factors[1:]:
        out = blur(out) + factor * given
    return np.clip(out, 0, 1)


def case(name: str, sigma: float, kind: str, noise: float, methods: Iterable[str]) -> dict[str, Any]:
    """Make one picture, restore it by every method, return gains in dB."""
    from tilepipe.psf.shapes import gaussian

    fine = read_fine(name)
    truth = encoded(halved(fine), "uint16") / np.float32(65535)
    row: dict[str, Any] = {"picture": name, "sigma": sigma, "format": kind, "noise": noise}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        file = store(place / "in", made(fine, sigma, noise, 1), kind)
        given = read(file)
        before = psnr(given, truth)
        row["before"] = round(before, 3)
        for method in methods:
            started = time.perf_counter()
            if method == "unsharp":
                gain = best_unsharp(given, truth) - before
            elif method == "polyblur":
                gain = psnr(polyblur(given), truth) - before
            else:
                psf = None if method == "blind" or not sigma else gaussian(sigma)
                if method != "blind" and psf is None:
                    continue
                flags = {"solver": "richardson-lucy"} if method == "lucy" else {}
                status, facts = run(file, place / "out.tif", place / "cache", psf, **flags)
                gain = psnr(read(place / "out.tif"), truth) - before if status != "refused" else 0.0
                if method == "blind":
                    row |= {"status": status, "psf": facts.get("psf"), "why": facts.get("why")}
                    row |= {key: facts[key] for key in ("check",) if key in facts}
            row[method] = round(gain, 3)
            row[f"{method}_s"] = round(time.perf_counter() - started, 2)
    return row


def cases(names: Iterable[str], sigmas: Iterable[float], kinds: Iterable[str]) -> list[tuple[str, float, str, float]]:
    """Return all combinations, each picture with its own noise."""
    return [
        (name, sigma, kind, NOISES[index % len(NOISES)])
        for index, name in enumerate(names)
        for kind in kinds
        for sigma in sigmas
    ]


def table(rows: list[dict[str, Any]], methods: Iterable[str]) -> str:
    """Return the table of gains: mean, worst, share worse than -0.1 dB, refused, left alone."""
    lines = ["| format | sigma | " + " | ".join(f"{m}: mean, worst, worse" for m in methods) + " | refused, sharp |"]
    lines.append("|---" * (3 + len(list(methods))) + "|")
    for kind in dict.fromkeys(row["format"] for row in rows):
        for sigma in sorted({row["sigma"] for row in rows}):
            some = [row for row in rows if row["format"] == kind and row["sigma"] == sigma]
            cells = []
            for method in methods:
                gains = [row[method] for row in some if method in row]
                worse = sum(gain < -0.1 for gain in gains)
                cells.append(f"{np.mean(gains):+.2f}, {min(gains):+.2f}, {worse}/{len(gains)}" if gains else "-")
            refused, sharp = (sum(row.get("status") == status for row in some) for status in ("refused", "sharp"))
            lines.append(f"| {kind} | {sigma} | " + " | ".join(cells) + f" | {refused}, {sharp} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, a line a case before it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", choices=["report", "fitted", "made"])
    parser.add_argument("--methods", default="blind")
    parser.add_argument("--sigmas", default=",".join(map(str, SIGMAS)))
    parser.add_argument("--formats", default=",".join(FORMATS))
    parser.add_argument("--only", default="", help="part of a picture's name")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", help="JSON file for the cases")
    given = parser.parse_args()
    sets = {"report": REPORT, "fitted": FITTED, "made": ("made",)}
    names = [name for name in sets[given.pictures] if given.only in name]
    methods = given.methods.split(",")
    todo = cases(names, [float(s) for s in given.sigmas.split(",")], given.formats.split(","))
    with ProcessPoolExecutor(given.processes) as pool:
        futures = [pool.submit(case, *one, methods) for one in todo]
        rows = []
        for future in futures:
            rows.append(future.result())
            print(json.dumps(rows[-1]), flush=True)
    print(table(rows, methods))
    if given.out:
        Path(given.out).write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
