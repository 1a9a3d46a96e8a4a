"""``tilepipe psf estimate | make | show | check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilepipe.cli.options import FLAGS, picture_flags
from tilepipe.events import Event, Note

if TYPE_CHECKING:
    from tilepipe.psf.field import PSFField
    from tilepipe.psf.model import PSF
    from tilepipe.psf.shape_fit import ShapeFit

__all__ = ["psf_verb"]

SHADES = " .:-=+*#%@"
"""Characters from 0 to the peak."""

SHOWN = 41
"""Largest edge of the drawing, px; larger kernels are cropped to their middle."""


MAP_ROWS, MAP_COLUMNS = 5, 7
"""Places at which the width of a PSF field is printed."""


@click.group("psf")
def psf_verb() -> None:
    """Estimate the PSF of an image, make a PSF file, show one, or check one against an image.

    A PSF file is a 32-bit float TIFF with a JSON description; ImageJ, napari and deconwolf can open it.
    """


blur_option = click.option(
    "--blur", type=int, metavar="N", help="Width of the blur, px, odd, 3..101 (default: estimated)."
)
window_option = click.option(
    "--window", metavar="X,Y[,SIZE]", help="Window to analyse: centre and edge, px (default: automatic)."
)


@psf_verb.command("estimate")
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("-o", "--output", required=True, metavar="OUT", help="TIFF to write.")
@blur_option
@window_option
@picture_flags
@click.option("--field", **FLAGS["--field"] | {"default": "auto"})
@click.option("--psf-per-channel", is_flag=True, help="Refine the PSF for each colour; the file has one page for each.")
@click.option("--png", metavar="OUT", help="Also write an enlarged image of the PSF.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the output's path.")
def estimate(
    images: tuple[str, ...],
    output: str,
    blur: int | None,
    window: str | None,
    field: str,
    psf_per_channel: bool,
    page: int | None,
    plane: str | None,
    salvage: bool | None,
    png: str | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Estimate the PSF of IMAGE and write it to OUT.

    Of several images of the same camera and lens the PSF that they share is estimated.  The confidence of the estimate
    is printed and stored in the file.
    """
    import json

    from tilepipe.errors import OutputError, OutputExistsError
    from tilepipe.planning.find_psf import estimate_psf
    from tilepipe.planning.shared_psf import estimate_shared_psf
    from tilepipe.report.psf_picture import write_psf_picture
    from tilepipe.settings import resolve
    from tilepipe.system.files import is_same_file
    from tilepipe.system.memory import cores, keep_freed_memory

    for path in (Path(name) for name in (output, png) if name is not None):
        for image in images:
            if is_same_file(path, Path(image)):
                raise OutputError(f"output {path} would replace the input {image}; write to another file")
        if path.exists() and not overwrite:  # before seconds of work
            raise OutputExistsError(f"{path} exists; --overwrite replaces it")
    keep_freed_memory()
    if len(images) == 1:
        psf = estimate_psf(
            images[0],
            blur,
            window,
            per_channel=psf_per_channel,
            threads=cores(),
            page=page,
            plane=plane,
            salvage=bool(salvage),
            field=field,
        )
    else:
        chosen = {"blur": blur, "window": window, "psf_per_channel": psf_per_channel, "field": field}
        settings = resolve(chosen | {"page": page, "plane": plane, "salvage": salvage}).settings
        psf = estimate_shared_psf([Path(image) for image in images], settings, _print_note)
    psf.save(output, overwrite=overwrite)
    if png is not None:
        write_psf_picture(psf, png, overwrite=overwrite)
    if as_json:
        click.echo(json.dumps({"file": output, "confidence": psf.confidence, **psf.facts()}))
        return
    click.echo(output)
    click.echo(f"{psf.size} x {psf.size} px, {psf.made_by['nearest']}; confidence {psf.confidence:.2f}", err=True)


@psf_verb.command("check")
@click.argument("file", metavar="PSF")
@click.argument("image", metavar="IMAGE")
@window_option
@picture_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    file: str, image: str, window: str | None, page: int | None, plane: str | None, salvage: bool | None, as_json: bool
) -> None:
    """Check how well PSF explains the blur of IMAGE.

    A PSF that explains several images can be reused.
    """
    import json

    from tilepipe.planning.check_psf import check_psf
    from tilepipe.psf.field import load_psf
    from tilepipe.system.memory import cores

    facts = check_psf(load_psf(file), image, window, threads=cores(), page=page, plane=plane, salvage=bool(salvage))
    if as_json:
        click.echo(json.dumps({"psf": file, "image": image, **facts}))
        return
    click.echo(f"{file} {'explains' if facts['explains'] else 'does not explain'} {image}")
    click.echo(
        f"similarity to the estimated PSF {facts['likeness']:.2f} (confidence {facts['confidence']:.2f})   "
        f"sparser by {facts['gain']:.2f} (estimate: {facts['gain_found']:.2f})   misfit {facts['misfit']:.2f} "
        f"(estimate: {facts['misfit_found']:.2f}) of the noise"
    )


@psf_verb.command("make")
@click.argument("shape", type=click.Choice(["gaussian", "disk", "motion"]))
@click.option("--sigma", type=float, help="gaussian: standard deviation, px.")
@click.option("--radius", type=float, help="disk: radius, px.")
@click.option("--length", type=float, help="motion: length of the path, px.")
@click.option("--angle", type=float, help="motion: degrees, counter-clockwise from the right.")
@click.option("--size", type=int, help="Edge of the kernel, px, odd (default: just large enough).")
@click.option("-o", "--output", required=True, metavar="OUT", help="TIFF to write.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
def make(
    shape: str,
    sigma: float | None,
    radius: float | None,
    length: float | None,
    angle: float | None,
    size: int | None,
    output: str,
    overwrite: bool,
) -> None:
    """Make a PSF file of a simple shape.

    Shapes: gaussian --sigma S, disk --radius R, motion --length L --angle DEG.
    """
    from tilepipe.errors import SettingsError
    from tilepipe.psf import shapes

    needed = {"gaussian": {"sigma": sigma}, "disk": {"radius": radius}, "motion": {"length": length, "angle": angle}}
    given = {"sigma": sigma, "radius": radius, "length": length, "angle": angle}
    for name, value in needed[shape].items():
        if value is None:
            raise SettingsError(f"psf make {shape} needs --{name}")
    for name, value in given.items():
        if value is not None and name not in needed[shape]:
            raise SettingsError(f"psf make {shape} takes no --{name}; it takes --{' --'.join(needed[shape])}")
    psf = getattr(shapes, shape)(**needed[shape], size=size)
    psf.save(output, overwrite=overwrite)
    click.echo(output)


@psf_verb.command("show")
@click.argument("file", metavar="FILE")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--png", metavar="OUT", help="Also write an enlarged image of the PSF.")
@click.option("--overwrite", is_flag=True, help="Replace an existing file of --png.")
def show(file: str, as_json: bool, png: str | None, overwrite: bool) -> None:
    """Check and draw the PSF in FILE.

    Prints the nearest simple shape and its fit: 1 for a kernel of exactly this shape, 0 for one that has nothing in
    common with it.  Of a PSF that differs over the image the widths are printed.  Exits with 2 if the PSF is not valid.
    """
    import json

    from tilepipe.psf.field import load_psf
    from tilepipe.psf.model import PSF
    from tilepipe.psf.shape_fit import fit_shape

    psf = load_psf(file)
    facts = psf.facts()
    nearest = fit_shape(psf.kernel) if isinstance(psf, PSF) else None
    if png is not None:  # before anything is printed, so that stdout stays empty on an error
        from tilepipe.report.psf_picture import write_psf_picture

        write_psf_picture(psf, png, nearest=nearest, overwrite=overwrite)
    if as_json:
        more = ({} if nearest is None else {"nearest": nearest.facts()}) | ({} if png is None else {"png": png})
        click.echo(json.dumps({"file": file, **facts, **more}))
        return
    click.echo(_psf_text(file, psf, facts, nearest) if isinstance(psf, PSF) else _field_text(file, psf))
    if png is not None:
        click.echo(png)


def _psf_text(file: str, psf: PSF, facts: dict[str, Any], nearest: ShapeFit | None) -> str:
    """Describe a PSF: origin, position, size, nearest shape, and a drawing."""
    made = ", ".join(f"{key} {value}" for key, value in facts["made_by"].items()) or "unknown origin"
    each = f" for each of {len(psf.planes)} colours, their mean is shown" if len(psf.planes) > 1 else ""
    return "\n".join(
        [
            f"{file}  {psf.size} x {psf.size}{each}  {made}",
            f"centroid {facts['centroid'][0]:+.2f}, {facts['centroid'][1]:+.2f} px   spread {facts['spread'][0]:.2f} x "
            f"{facts['spread'][1]:.2f} px   peak {facts['peak']:.4f}   {facts['taps']} taps",
            f"nearest {nearest}",
            _drawing(psf),
        ]
    )


def _print_note(event: Event) -> None:
    if isinstance(event, Note):
        click.echo(event.text, err=True)


def _field_text(file: str, field: PSFField) -> str:
    """Describe a PSF that differs over the image: kind, origin, and a map of the mean width of the blur, px."""
    from tilepipe.report.field_picture import widths_over

    facts = field.facts()
    shape = field.image_shape or (2, 3)
    lines = [
        f"{file}  {facts['field']['kind']}, {len(field.components)} places, kernels of {field.size} x {field.size}",
        field.made_by.get("nearest", "unknown origin"),
        "mean spread over the image, px:",
    ]
    lines += ["  ".join(f"{width:5.2f}" for width in row) for row in widths_over(field, shape, MAP_ROWS, MAP_COLUMNS)]
    return "\n".join(lines)


def _drawing(psf: PSF) -> str:
    """Draw each tap as two characters; crop wide kernels to their middle."""
    import numpy as np

    margin = max(0, (psf.size - SHOWN) // 2)
    shown = np.asarray(psf.kernel)[margin : psf.size - margin, margin : psf.size - margin]
    levels = np.ceil(shown / shown.max() * (len(SHADES) - 1)).astype(int)
    return "\n".join("".join(SHADES[level] * 2 for level in row).rstrip() for row in levels)
