"""A PSF as a picture for people: enlarged, with a scale and its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tilepipe.errors import OutputError, OutputExistsError, SettingsError
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import ShapeFit, fit_shape

__all__ = ["write_psf_picture"]

EDGE = 440
"""About the edge of the enlarged kernel, px; taps are whole pixels, so it is met within half a tap each."""

MARGIN = 20
"""Paper around the kernel, px."""

FONT_SIZE = 14
"""Size of the letters, px."""

SMALLEST_FONT = 9
"""Down to what size a long caption is set smaller to fit, px."""

SCALES = (50, 20, 10, 5, 2, 1)
"""Lengths of the scale bar, PSF pixels; the longest that is within a third of the kernel is drawn."""

PAPER, INK, FRAME = 224, 30, 120
"""Gray levels around the kernel (neither the peak's nor that of no light), of letters and bar, of the frame."""


def write_psf_picture(psf: PSF, path: str | Path, *, nearest: ShapeFit | None = None, overwrite: bool = False) -> None:
    """Write an enlarged 8-bit gray PNG of `psf`: a square of whole pixels a tap, frame, scale bar and caption.

    Tone is the square root of a tap over the peak.  That is close to the curve of sRGB, so a screen's light follows
    the taps; and a faint tail can be seen: 1/400 of the peak gets gray level 13 of 255, in a linear tone 1.

    Parameters
    ----------
    nearest : what `fit_shape` says of the kernel, if the caller has it already.

    Raises
    ------
    SettingsError : the name does not end in .png.
    OutputExistsError : the file exists and `overwrite` is false.
    OutputError : it cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise SettingsError(f"picture {path} must end in .png: PNG is what it is written as")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; --overwrite replaces it")
    picture = _drawn(psf, _caption(psf, nearest or fit_shape(psf.kernel)))
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise OutputError(f"cannot write picture {path}: {error.strerror or error}") from error


def _caption(psf: PSF, nearest: ShapeFit) -> str:
    x, y = psf.facts()["spread"]
    return f"{psf.size} x {psf.size}   {nearest}   spread {x:.2f} x {y:.2f} px"


def _drawn(psf: PSF, caption: str) -> Image.Image:
    zoom = max(1, round(EDGE / psf.size))
    edge = psf.size * zoom
    side = max(edge, EDGE) + 2 * MARGIN
    left = (side - edge) // 2
    picture = Image.new("L", (side, MARGIN + edge + 4 * MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left - 1, MARGIN - 1, left + edge, MARGIN + edge), outline=FRAME)
    tones = np.rint(255 * np.sqrt(psf.kernel / psf.kernel.max())).astype(np.uint8)
    picture.paste(Image.fromarray(tones).resize((edge, edge), Image.Resampling.NEAREST), (left, MARGIN))
    _draw_scale(draw, psf.size, zoom, left, MARGIN + edge + MARGIN // 2 - 2)
    font = _font_for(caption, side - MARGIN)
    draw.text((side / 2, MARGIN + edge + 3 * MARGIN), caption, INK, font, anchor="mm")
    return picture


def _draw_scale(draw: ImageDraw.ImageDraw, size: int, zoom: int, left: int, top: int) -> None:
    """Draw a bar of a nice number of PSF pixels, with ticks at its ends, and the number below."""
    length = next((scale for scale in SCALES if scale <= size / 3), 1)
    right, bottom, middle = left + length * zoom - 1, top + 10, top + 5
    draw.line((left, middle, right, middle), INK, 2)
    for end in (left, right):
        draw.line((end, top, end, bottom), INK, 1)
    draw.text(((left + right) / 2, bottom + 2), f"{length} px", INK, ImageFont.load_default(FONT_SIZE), anchor="ma")


def _font_for(caption: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    for size in range(FONT_SIZE, SMALLEST_FONT, -1):
        font = ImageFont.load_default(size)
        if font.getlength(caption) <= width:
            return font
    return ImageFont.load_default(SMALLEST_FONT)
