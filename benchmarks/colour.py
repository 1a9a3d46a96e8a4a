"""Round trip of CMYK by profiles, and of Lab: ``python -m benchmarks.colour PHOTO PROFILE.icc ...``, Delta E 2000.

A grid of nine amounts of each ink, and a photograph that the profile separates, are converted to RGB and back.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
from imagecodecs import cms_profile, cms_transform
from PIL import Image

from tests.colour_difference import delta_e_2000
from tilepipe.image.inks import inks_of
from tilepipe.image.lab import Lab
from tilepipe.image.metadata.icc import describe_icc

LAB = cms_profile("lab4")
COLORIMETRIC, NO_OPTIMISATION = 1, 256


def converted(samples, source, target, spaces, dtype="float32", intent=COLORIMETRIC):
    how = {"colorspace": spaces[0], "outcolorspace": spaces[1], "outdtype": dtype, "intent": intent}
    return np.asarray(cms_transform(np.ascontiguousarray(samples), source, target, flags=NO_OPTIMISATION, **how))


def row(name, first, second):
    difference = delta_e_2000(first, second)
    mean, high, largest = difference.mean(), np.percentile(difference, 99), difference.max()
    print(f"| {name} | {mean:.3f} | {high:.2f} | {largest:.2f} |", flush=True)


def print_inks(profile, photo):
    name = describe_icc(profile)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.array(list(product(steps, repeat=4)), np.uint8).reshape(81, 81, 4)
    separated = converted(photo, cms_profile("srgb"), profile, ("rgb", "cmyk"), "uint8", intent=0)
    for kind, codes in (("grid", grid), ("photograph", separated)):
        for dtype, factor in (("uint8", 1), ("uint16", 257)):
            inks, samples = inks_of(profile, dtype), codes.astype(dtype) * np.array(factor, dtype)
            rgb = inks.to_rgb(samples)
            stored = converted(samples, profile, LAB, ("cmyk", "lab"))
            shown = converted(rgb, inks.rgb_profile, LAB, ("rgb", "lab"))
            row(f"{name}, {kind}, {dtype}: RGB", stored, shown)
            row(f"{name}, {kind}, {dtype}: back", stored, converted(inks.from_rgb(rgb), profile, LAB, ("cmyk", "lab")))


def print_lab(photo):
    colours = converted(photo, cms_profile("srgb"), LAB, ("rgb", "lab"))
    grid = np.array(list(product(np.linspace(0, 100, 21), *[np.linspace(-128, 127, 52)] * 2)), np.float32)
    for name, dtype in product(("CIELAB", "ICCLAB"), ("uint8", "uint16")):
        space = Lab(name, dtype, None)
        samples = space._encoded(colours)
        back = space.from_rgb(space.to_rgb(samples))
        row(f"{name}, photograph, {dtype}: back", space._decoded(samples), space._decoded(back))
        rgb = space.to_rgb(space._encoded(grid[None]))
        clipped = ((rgb == 0) | (rgb == 65535)).any(-1)
        print(f"{name} {dtype}: {100 * clipped.mean():.0f} % of all codes are clipped")


def main(picture, *profiles):
    with Image.open(picture) as image:
        photo = np.asarray(image.convert("RGB"))
    print("| | mean | 99 % | largest |\n|---|---|---|---|")
    for path in profiles:
        print_inks(Path(path).read_bytes(), photo)
    print_lab(photo)


if __name__ == "__main__":
    main(*sys.argv[1:])
