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
"""Length, px, and seed of the camera shake that blurs the scene, a free-form path."""

SIGMA, SOFT_NOISE, QUALITY = 0.9, 0.004, 92
"""The second scene: standard deviation of its Gaussian blur, px, noise, and JPEG quality."""

REACH = 16
"""Margin excluded from the PSNR, px; the displacement between the images must fit into it."""

CROP = 360
"""Edge of the crops in the before/after image, px."""


@click.command("demo")
@click.option("-o", "--output", "folder", required=True, metavar="DIR", help="Folder for scenes, PSFs and results.")
@click.option("--size", default="6000x4000", show_default=True, metavar="WxH", help="Size of the scene, px.")
@pipeline_flags
@click.option("--json", "as_json", is_flag=True, help="Print the JSON object of run, with PSNR before and after.")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def demo_verb(folder: str, size: str, as_json: bool, **values: Any) -> int:
    """Blur a scene by a camera shake, deblur it blindly and print the gain in PSNR.

    The PSF is estimated from the blurred image; it is saved next to the result, with the true one.  The demo
    then repeats this with a slightly soft JPEG of a quarter of the size, with lamps.

    Files in DIR from an earlier demo are replaced.
    """
    import json

    from tilepipe.cli.run import execute
    from tilepipe.report.psf_picture import write_psf_picture
    from tilepipe.testing.scenes import BlurredScene, Scene, write_scene
    from tilepipe.testing.shakes import shake

    width, height = _parse_size(size)
    directory = Path(folder)
    directory.mkdir(parents=True, exist_ok=True)
    psf = shake(LENGTH, SEED)
    psf.save(directory / "true-psf.tif", overwrite=True)
    scene = Scene(width, height)
    sharp, blurred, restored = (directory / name for name in ("scene.tif", "blurred.tif", "restored.tif"))
    if not values["quiet"]:
        click.echo(
            f"scene    {width} x {height}, RGB, 16 bit; camera shake over {LENGTH} px, noise {100 * NOISE:g} %",
            err=True,
        )
    write_scene(sharp, scene)
    write_scene(blurred, BlurredScene(scene, psf, NOISE))
    flags = values | {"overwrite": True, "keep_cache": None, "fresh": False}
    report = execute(str(blurred), str(restored), flags)
    report.plan.psf.save(directory / "psf.tif", overwrite=True)
    for name, shown in (("psf.png", report.plan.psf), ("true-psf.png", psf)):
        write_psf_picture(shown, directory / name, overwrite=True)
    before, after = _psnr(sharp, blurred), _psnr(sharp, restored, _displacement(psf, report.plan.psf.widest))
    _before_after(directory / "before-after.png", blurred, restored, sharp)
    found = {"psnr": {"before": round(before, 2), "after": round(after, 2)}}
    if not as_json:
        click.echo(str(restored))
    if not values["quiet"]:
        _print_gain(before, after)
        click.echo(
            f"see      {directory / 'before-after.png'} (blurred, restored, truth), psf.png and true-psf.png",
            err=True,
        )
    before, after = _soft_photograph(directory, width // 2, height // 2, flags)
    found |= {"soft": {"before": round(before, 2), "after": round(after, 2)}}
    if as_json:
        click.echo(json.dumps(report.to_dict() | found))
    elif not values["quiet"]:
        _print_gain(before, after)
        click.echo(f"see      {directory / 'soft-before-after.png'} (soft, restored, truth)", err=True)
    return 0


def _print_gain(before: float, after: float) -> None:
    click.echo(f"gained   {after - before:.2f} dB: PSNR {before:.2f} -> {after:.2f} dB (as written, 0..1)", err=True)


def _soft_photograph(directory: Path, width: int, height: int, flags: dict[str, Any]) -> tuple[float, float]:
    """Make a slightly soft JPEG with lamps, restore it blindly, return its PSNR before and after, dB."""
    from tilepipe.cli.run import execute
    from tilepipe.testing.scenes import Photograph, write_jpeg, write_scene

    sharp, soft, restored = (directory / name for name in ("soft-truth.tif", "soft.jpg", "soft-restored.tif"))
    if not flags["quiet"]:
        click.echo(
            f"scene    {width} x {height}, JPEG of quality {QUALITY}; Gaussian of {SIGMA:g} px, noise "
            f"{100 * SOFT_NOISE:g} %, lamps up to 8 times white",
            err=True,
        )
    write_scene(sharp, Photograph(width, height), "uint8")
    write_jpeg(soft, Photograph(width, height, SIGMA, SOFT_NOISE), QUALITY)
    execute(str(soft), str(restored), flags)
    _before_after(directory / "soft-before-after.png", soft, restored, sharp)
    return _psnr(sharp, soft), _psnr(sharp, restored)


def _parse_size(size: str) -> tuple[int, int]:
    from tilepipe.errors import SettingsError

    width, sign, height = size.lower().partition("x")
    if not (sign and width.isdigit() and height.isdigit()) or min(int(width), int(height)) < 64:
        raise SettingsError(f"size is {size!r}; it must be WIDTHxHEIGHT, each at least 64, as in 1500x1000")
    return int(width), int(height)


def _displacement(true: PSF, found: PSF) -> tuple[float, float]:
    """Return the displacement (y, x) of the restored image from the scene, px.

    A blind estimate determines the blur only up to a shift, and a shifted PSF shifts the restored image.
    """
    (x0, y0), (x1, y1) = true.facts()["centroid"], found.facts()["centroid"]
    return y0 - y1, x0 - x1


def _psnr(first: Path, second: Path, displacement: tuple[float, float] = (0.0, 0.0)) -> float:
    """Return the PSNR of two images of equal size and type, dB, from encoded values, computed band by band.

    The second image is first shifted back by `displacement` (cubic spline); a margin of REACH px is excluded.
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
    """Write crops of the middles of all images, at full resolution and side by side, as an 8-bit PNG."""
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
