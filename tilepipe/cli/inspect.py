"""``tilepipe inspect FILE``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tilepipe.cli.options import picture_flags

if TYPE_CHECKING:
    from tilepipe.image.selection import Selection

__all__ = ["inspect_verb"]


@click.command("inspect")
@click.argument("file", metavar="FILE")
@picture_flags
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def inspect_verb(
    file: str, page: int | None, plane: str | None, salvage: bool | None, as_json: bool, verbose: bool
) -> None:
    """Show size, type, layout, colours, metadata and noise of FILE; its pages and planes; for a PSF file, the PSF."""
    import json

    from tilepipe.image.selection import Selection

    if page is not None and plane is not None:
        raise click.UsageError("--page and --plane choose in two ways: give one of them.")
    facts = _facts(file, Selection(page=page, plane=plane, salvage=bool(salvage)))
    if as_json:
        click.echo(json.dumps(facts))
        return
    width = max(len(name) for name in facts)
    for name, value in facts.items():
        shown = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name:{width}s}  {shown}")


def _facts(file: str, selection: Selection) -> dict[str, object]:
    from tilepipe.image.metadata.record import read_record
    from tilepipe.image.readers import open_image
    from tilepipe.image.readers.tiff_stacks import contents_of
    from tilepipe.planning.sample import read_sample
    from tilepipe.planning.seam_error import WINDOW

    reader = open_image(file, selection)
    try:
        info = reader.info
        noise = read_sample(reader, WINDOW).noise
    finally:
        reader.close()
    facts: dict[str, object] = {
        "file": file,
        "kind": info.kind,
        "width": info.width,
        "height": info.height,
        "megapixels": round(info.width * info.height / 1e6, 2),
        "channels": info.channels,
        "alpha": info.extras,
        "dtype": info.dtype,
        "layout": info.layout,
        "compression": info.compression,
        "curve": info.curve_note,
        "noise": float(f"{noise.sigma:.3g}"),
        "noise_grows": noise.slope > 0,
        "decoding_bytes": info.decoded_bytes,
        "metadata": info.metadata.facts(),
        "converted": list(info.notes),
        "not_carried_over": info.metadata.dropped,
    }
    if info.kind in ("TIFF", "BigTIFF"):
        facts |= contents_of(info.path)
    record = read_record(info.metadata)
    facts |= {"restored_by_tilepipe": record} if record else {}
    psf = _psf_facts(file) if info.width == info.height <= 255 and info.is_float else None
    return facts | ({"psf": psf} if psf else {})


def _psf_facts(file: str) -> dict[str, object] | None:
    from tilepipe.errors import TilepipeError
    from tilepipe.psf.field import load_psf

    try:
        return load_psf(file).facts()
    except TilepipeError:
        return None  # a small float image that is not a PSF
