"""Seams: tiles of several sizes against ONE solve of the whole picture, measured and predicted.

    python -m benchmarks.seams [--width 2000 --height 1500 --tiles 384 700]

Differences are of the encoded output clipped to 0..1.  "edge / elsewhere" compares the mean difference
within 8 px of a core's edge with the rest.  The whole picture has the same unknown rim as the tiles.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from benchmarks.pictures import blurred_picture, sharp_picture
from tilepipe.arrays.in_memory import restore_planes
from tilepipe.image.light import SRGB, Light
from tilepipe.image.linearise import fill, known, whites
from tilepipe.planning.sample import Sample, read_sample
from tilepipe.planning.schedules import RestorationOptions
from tilepipe.planning.seam_error import WINDOW
from tilepipe.planning.tuning import tune
from tilepipe.psf.field import AnyPSF, Lattice, PSFField
from tilepipe.psf.lens import LensBlur
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import psnr, restore_whole
from tilepipe.tiling.grid import Grid

NEAR = 8
LIGHT = Light((SRGB,) * 3, "uint16")

PSFS: dict[str, AnyPSF] = {
    "motion 13 px 30 deg": motion(13, 30),
    "motion 13 px 0 deg": motion(13, 0),
    "motion 7 px 45 deg": motion(7, 45),
    "gaussian 2": gaussian(2),
    "disk 4": disk(4),
    "disk 7": disk(7),
    "lens 0.6 to 1.8 px": LensBlur(((0.36, 2.88),)).field(0.35, {}),
    "grid of lines": PSFField(
        (motion(9, 0), motion(11, 10), motion(9, 10), motion(13, 20)), Lattice((0.2, 0.8), (0.2, 0.8))
    ),
}
NOISES = (0.002, 0.005, 0.02)


@dataclass(frozen=True)
class Seam:
    """One line of the table."""

    psf: str
    noise: float
    tile: int
    halo: int
    predicted: float
    largest: float
    rms: float
    edge: float
    elsewhere: float
    before: float
    after: float
    psnr_cost_db: float


class ArrayReader:
    """Planes behind the face of a reader, so that the sample is the one that a file gives."""

    def __init__(self, planes: np.ndarray) -> None:
        self._rows = np.moveaxis(planes, 0, -1)
        codes = [LIGHT.encoded(c, planes[c], "uint16") for c in range(3)]
        self._codes = np.stack(codes, -1)
        self.info = self

    height = property(lambda self: self._codes.shape[0])
    width = property(lambda self: self._codes.shape[1])
    colours, dtype, light, quantisation = 3, "uint16", LIGHT, None

    def rows(self, y0: int, y1: int) -> np.ndarray:
        return self._codes[y0:y1]


def sample_of(planes: np.ndarray) -> Sample:
    return read_sample(ArrayReader(planes), WINDOW)


def measure(sharp: np.ndarray, name: str, psf: AnyPSF, noise: float, tiles: list[int]) -> list[Seam]:
    planes = blurred_picture(sharp, psf, noise)
    reach = psf.size // 2
    truth = encoded(np.moveaxis(sharp[reach : sharp.shape[0] - reach, reach : sharp.shape[1] - reach], -1, 0))
    tuning = tune(sample_of(planes), psf, RestorationOptions(), None)
    certain = known(planes, LIGHT)
    whole = encoded(restore_whole(planes, certain, psf, tuning.parameters, tuning.halo, whites(LIGHT)))
    before, after = psnr(encoded(planes), truth), psnr(whole, truth)
    seams = []
    for tile in tiles:
        grid = Grid(*planes.shape[1:], tile, tuning.halo)
        tiled = encoded(restore_planes(fill(planes), certain, whites(LIGHT), psf, tuning.parameters, grid, 2))
        difference = np.abs(tiled - whole)
        near = near_edges(grid)
        edge = float(difference[:, near].mean()) if near.any() else 0.0
        seams.append(
            Seam(
                name,
                noise,
                tile,
                tuning.halo,
                tuning.seam(grid),
                float(difference.max()),
                float(np.sqrt((difference.astype(np.float64) ** 2).mean())),
                edge,
                float(difference[:, ~near].mean()),
                before,
                after,
                tuning.psnr_cost_db,
            )
        )
    return seams


def near_edges(grid: Grid) -> np.ndarray:
    rows, columns = np.zeros(grid.height, bool), np.zeros(grid.width, bool)
    for edges, mask in ((grid.row_edges, rows), (grid.column_edges, columns)):
        for edge in edges[1:-1]:
            mask[max(0, edge - NEAR) : edge + NEAR] = True
    return rows[:, None] | columns[None, :]


def encoded(linear: np.ndarray) -> np.ndarray:
    clipped = np.clip(linear, 0, 1).astype(np.float64)
    return SRGB.encode(clipped).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--width", type=int, default=2000)
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--top", type=int, default=3000)
    parser.add_argument("--left", type=int, default=2000)
    parser.add_argument("--tiles", type=int, nargs="+", default=[384, 700])
    parser.add_argument("--psfs", nargs="+", default=list(PSFS), help="names among " + ", ".join(PSFS))
    arguments = parser.parse_args()
    sharp, picture = sharp_picture(arguments.width, arguments.height, arguments.top, arguments.left)
    print(f"{picture}, {arguments.width} x {arguments.height}")
    print("| psf | noise | tile | halo | largest | predicted | ratio | rms | edge / rest | dB | price |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in arguments.psfs:
        for noise in NOISES:
            for s in measure(sharp, name, PSFS[name], noise, arguments.tiles):
                print(
                    f"| {s.psf} | {s.noise} | {s.tile} | {s.halo} | {s.largest:.1e} | {s.predicted:.1e} "
                    f"| {s.predicted / max(s.largest, 1e-9):.1f} | {s.rms:.1e} | {s.edge:.1e} / {s.elsewhere:.1e} "
                    f"| {s.before:.2f}, {s.after:.2f} | {s.psnr_cost_db} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
