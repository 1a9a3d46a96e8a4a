"""``tilepipe demo -o DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tilepipe.cli.options import pipeline_flags

__all__ = ["demo_verb"]

NOISE = 0.005
LENGTH, ANGLE = 13.0, 30.0
CROP = 360
"""Edge of the crop in the before/after picture, px."""


@click.command("demo")
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Where scene, PSF and result go.")
@click.option("--size", default="6000x4000", show_default=True, metavar="WxH", help="Size of the scene, px.")
@pipeline_flags
@click.option("--json", "as_json", is_flag=True, help="Print run's JSON object with psnr{before,after}.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show where an error came from.")
def demo_verb(folder: str, size: str, as_json: bool, **values: Any) -> int:
    """Make a scene with a known motion blur and 0.5 % noise, deblur it, say what it gained.

    Files in DIR from an earlier demo are replaced.
    """
    import json

    from tilepipe.cli.run import execute
    from tilepipe.psf.shapes import motion
    from tilepipe.testing.scenes import BlurredScene, Scene, write_scene

    width, height = _parse_size(size)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    psf = motion(LENGTH, ANGLE)
    psf.save(place / "psf.tif", overwrite=True)
    scene = Scene(width, height)
    sharp, blurred, restored = (place / name for name in ("scene.tif", "blurred.tif", "restored.tif"))
    if not values["quiet"]:
        click.echo(f"scene    {width} x {height}, RGB, 16 bit; motion {LENGTH:g} px, noise {100 * NOISE:g} %", err=True)
    write_scene(sharp, scene)
    write_scene(blurred, BlurredScene(scene, psf, NOISE))
    flags = values | {"psf": str(place / "psf.tif"), "overwrite": True, "keep_cache": None, "fresh": False}
    report = execute(str(blurred), str(restored), flags)
    before, after = _psnr(sharp, blurred), _psnr(sharp, restored)
    _before_after(place / "before-after.png", blurred, restored, sharp)
    if as_json:
        click.echo(json.dumps(report.to_dict() | {"psnr": {"before": round(before, 2), "after": round(after, 2)}}))
        return 0
    click.echo(str(restored))
    if not values["quiet"]:
        click.echo(
            f"gained   {after - before:.2f} dB: PSNR {before:.2f} -> {after:.2f} dB (as written, 0..1)", err=True
        )
        click.echo(f"look at  {place / 'before-after.png'} (blurred, restored, truth)", err=True)
    return 0


def _parse_size(size: str) -> tuple[int, int]:
    from tilepipe.errors import SettingsError

    width, sign, height = size.lower().partition("x")
    if not (sign and width.isdigit() and height.isdigit()) or min(int(width), int(height)) < 64:
        raise SettingsError(f"size is {size!r}; write WIDTHxHEIGHT, each at least 64, as in 1500x1000")
    return int(width), int(height)


def _psnr(first: Path, second: Path) -> float:
    """Return the PSNR of two pictures of one size and type, dB, encoded values, band by band."""
    import numpy as np

    from tilepipe.image.read import open_image

    a, b = open_image(first), open_image(second)
    top = float(np.iinfo(a.info.dtype).max)
    total = 0.0
    try:
        for y in range(0, a.info.height, 256):
            stop = min(y + 256, a.info.height)
            difference = (a.rows(y, stop).astype(np.float32) - b.rows(y, stop)) / top
            total += float((difference**2).sum(dtype=np.float64))
    finally:
        a.close()
        b.close()
    samples = a.info.height * a.info.width * a.info.channels
    return float(10 * np.log10(samples / total)) if total else float("inf")


def _before_after(path: Path, *pictures: Path) -> None:
    """Write the middle of each picture at full size, side by side, as an 8-bit PNG."""
    import numpy as np
    from PIL import Image

    from tilepipe.image.read import open_image

    crops = []
    for picture in pictures:
        reader = open_image(picture)
        info = reader.info
        edge = min(CROP, info.height, info.width)
        top, left = (info.height - edge) // 2, (info.width - edge) // 2
        crop = reader.rows(top, top + edge)[:, left : left + edge]
        crops.append((crop / 257 if crop.dtype == np.uint16 else crop).round().astype(np.uint8))
        reader.close()
    Image.fromarray(np.concatenate(crops, 1)).save(path)
