"""``tilepipe demo -o DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilepipe.cli.options import pipeline_flags

if TYPE_CHECKING:
    from tilepipe.psf.model import PSF

__all__ = ["demo_verb"]

NOISE = 0.005
LENGTH, SEED = 13, 7
"""The shake that blurs the scene: a free-form path of 13 px."""

SIGMA, SOFT_NOISE, QUALITY = 0.9, 0.004, 92
"""The lens that makes the second scene soft, px; its noise and the quality of its JPEG."""

REACH = 16
"""Rim that is not compared, px: the picture may be displaced by some of it."""

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
    """Make a scene, blur it by a camera shake, deblur it blind, say what it gained.

    The program is not told the blur; beside the result lie the PSF that it found and the true one.  The same then with
    a slightly soft JPEG of a quarter of the size, with lamps.

    Files in DIR from an earlier demo are replaced.
    """
    import json

    from tilepipe.cli.run import execute
    from tilepipe.report.psf_picture import write_psf_picture
    from tilepipe.testing.scenes import BlurredScene, Scene, write_scene
    from tilepipe.testing.shakes import shake

    width, height = _parse_size(size)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    psf = shake(LENGTH, SEED)
    psf.save(place / "true-psf.tif", overwrite=True)
    scene = Scene(width, height)
    sharp, blurred, restored = (place / name for name in ("scene.tif", "blurred.tif", "restored.tif"))
    if not values["quiet"]:
        click.echo(
            f"scene    {width} x {height}, RGB, 16 bit; camera shake over {LENGTH} px, noise {100 * NOISE:g} %",
            err=True,
        )
    write_scene(sharp, scene)
    write_scene(blurred, BlurredScene(scene, psf, NOISE))
    flags = values | {"overwrite": True, "keep_cache": None, "fresh": False}
    report = execute(str(blurred), str(restored), flags)
    report.plan.psf.save(place / "psf.tif", overwrite=True)
    for name, shown in (("psf.png", report.plan.psf), ("true-psf.png", psf)):
        write_psf_picture(shown, place / name, overwrite=True)
    before, after = _psnr(sharp, blurred), _psnr(sharp, restored, _displacement(psf, report.plan.psf))
    _before_after(place / "before-after.png", blurred, restored, sharp)
    found = {"psnr": {"before": round(before, 2), "after": round(after, 2)}}
    if not as_json:
        click.echo(str(restored))
    if not values["quiet"]:
        _say_gain(before, after)
        click.echo(
            f"look at  {place / 'before-after.png'} (blurred, restored, truth) and psf.png, true-psf.png beside it",
            err=True,
        )
    before, after = _soft_photograph(place, width // 2, height // 2, flags)
    found |= {"soft": {"before": round(before, 2), "after": round(after, 2)}}
    if as_json:
        click.echo(json.dumps(report.to_dict() | found))
    elif not values["quiet"]:
        _say_gain(before, after)
        click.echo(f"look at  {place / 'soft-before-after.png'} (soft, restored, truth)", err=True)
    return 0


def _say_gain(before: float, after: float) -> None:
    click.echo(f"gained   {after - before:.2f} dB: PSNR {before:.2f} -> {after:.2f} dB (as written, 0..1)", err=True)


def _soft_photograph(place: Path, width: int, height: int, flags: dict[str, Any]) -> tuple[float, float]:
    """Make a slightly soft JPEG with lamps, restore it blind; return its PSNR before and after, dB."""
    from tilepipe.cli.run import execute
    from tilepipe.testing.scenes import Photograph, write_jpeg, write_scene

    sharp, soft, restored = (place / name for name in ("soft-truth.tif", "soft.jpg", "soft-restored.tif"))
    if not flags["quiet"]:
        click.echo(
            f"scene    {width} x {height}, JPEG of quality {QUALITY}; Gaussian of {SIGMA:g} px, noise "
            f"{100 * SOFT_NOISE:g} %, lamps up to 8 times white",
            err=True,
        )
    write_scene(sharp, Photograph(width, height), "uint8")
    write_jpeg(soft, Photograph(width, height, SIGMA, SOFT_NOISE), QUALITY)
    execute(str(soft), str(restored), flags)
    _before_after(place / "soft-before-after.png", soft, restored, sharp)
    return _psnr(sharp, soft), _psnr(sharp, restored)


def _parse_size(size: str) -> tuple[int, int]:
    from tilepipe.errors import SettingsError

    width, sign, height = size.lower().partition("x")
    if not (sign and width.isdigit() and height.isdigit()) or min(int(width), int(height)) < 64:
        raise SettingsError(f"size is {size!r}; write WIDTHxHEIGHT, each at least 64, as in 1500x1000")
    return int(width), int(height)


def _displacement(true: PSF, found: PSF) -> tuple[float, float]:
    """Return by how much (y, x), px, the restored picture lies off the scene.

    A blind estimate knows the blur but for where its middle is: another middle, another place of the picture.
    """
    (x0, y0), (x1, y1) = true.facts()["centroid"], found.facts()["centroid"]
    return y0 - y1, x0 - x1


def _psnr(first: Path, second: Path, displacement: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return the PSNR of two pictures of one size and type, dB, encoded values, band by band.

    `displacement` of the second is undone first (cubic spline); a rim of REACH px does not count.
    """
    import numpy as np
    import scipy.ndimage

    from tilepipe.image.readers import open_image

    a, b = open_image(first), open_image(second)
    top = float(np.iinfo(a.info.dtype).max)
    total, samples = 0.0, 0
    try:
        for y in range(REACH, a.info.height - REACH, 256):
            stop = min(y + 256, a.info.height - REACH)
            rows = b.rows(y - REACH, stop + REACH).astype(np.float32)
            if any(displacement):
                rows = scipy.ndimage.shift(rows, (-displacement[0], -displacement[1], 0), order=3, mode="nearest")
            difference = (a.rows(y, stop).astype(np.float32) - rows[REACH:-REACH])[:, REACH:-REACH] / top
            total += float((difference**2).sum(dtype=np.float64))
            samples += difference.size
    finally:
        a.close()
        b.close()
    return float(10 * np.log10(samples / total)) if total else float("inf")


def _before_after(path: Path, *pictures: Path) -> None:
    """Write the middle of each picture at full size, side by side, as an 8-bit PNG."""
    import numpy as np
    from PIL import Image

    from tilepipe.image.readers import open_image

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
