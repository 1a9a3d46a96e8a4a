"""Enlarged image of a PSF with scale bar and caption."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tilepipe.errors import OutputError, OutputExistsError, SettingsError
from tilepipe.psf.field import AnyPSF, PSFField
from tilepipe.psf.model import PSF
from tilepipe.psf.shape_fit import ShapeFit, fit_shape
from tilepipe.report.field_picture import draw_field

__all__ = ["write_psf_picture"]

EDGE = 440
"""Approximate edge of the enlarged kernel, px: each tap is a whole number of pixels wide, rounded."""

MARGIN = 20
"""Margin around the kernel, px."""

FONT_SIZE = 14
"""Font size of the caption, px."""

SMALLEST_FONT = 9
"""Smallest font size to which a long caption is reduced to fit, px."""

SCALES = (50, 20, 10, 5, 2, 1)
"""Lengths of the scale bar, PSF pixels; the longest one within a third of the kernel is drawn."""

PAPER, INK, FRAME = 224, 30, 120
"""Gray levels of the background (distinct from zero and from the peak), of text and scale bar, and of the frame."""


def write_psf_picture(
    psf: AnyPSF, path: str | Path, *, nearest: ShapeFit | None = None, overwrite: bool = False
) -> None:
    """Write an enlarged 8-bit gray PNG of `psf` with one square per tap, frame, scale bar and caption.

    Gray is the square root of a tap over the peak.  This is close to the curve of sRGB, so the light of a screen is
    about proportional to the taps, and a faint tail is visible: 1/400 of the peak has gray level 13 of 255, instead of
    1 with a linear curve.  Of a PSF that differs over the image, the kernels all over the image are drawn.

    Parameters
    ----------
    psf : PSF or PSFField
        The PSF to draw.
    path : str or Path
        PNG file to write.
    nearest : ShapeFit, optional
        Result of `fit_shape` for the kernel, if the caller has it already.
    overwrite : bool, default False
        Replace an existing file.

    Raises
    ------
    SettingsError
        If the name does not end in .png.
    OutputExistsError
        If the file exists and `overwrite` is false.
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".png":
        raise SettingsError(f"image {path} must end in .png: it is written as PNG")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; --overwrite replaces it")
    image = (
        draw_field(psf) if isinstance(psf, PSFField) else _draw(psf, _caption(psf, nearest or fit_shape(psf.kernel)))
    )
    try:
        image.save(path, format="PNG")
    except OSError as error:
        raise OutputError(f"cannot write image {path}: {error.strerror or error}") from error


def _caption(psf: PSF, nearest: ShapeFit) -> str:
    x, y = psf.facts()["spread"]
    return f"{psf.size} x {psf.size}   {nearest}   spread {x:.2f} x {y:.2f} px"


def _draw(psf: PSF, caption: str) -> Image.Image:
    zoom = max(1, round(EDGE / psf.size))
    edge = psf.size * zoom
    side = max(edge, EDGE) + 2 * MARGIN
    left = (side - edge) // 2
    image = Image.new("L", (side, MARGIN + edge + 4 * MARGIN), PAPER)
    draw = ImageDraw.Draw(image)
    draw.rectangle((left - 1, MARGIN - 1, left + edge, MARGIN + edge), outline=FRAME)
    tones = np.rint(255 * np.sqrt(psf.kernel / psf.kernel.max())).astype(np.uint8)
    image.paste(Image.fromarray(tones).resize((edge, edge), Image.Resampling.NEAREST), (left, MARGIN))
    _draw_scale(draw, psf.size, zoom, left, MARGIN + edge + MARGIN // 2 - 2)
    font = _font_for(caption, side - MARGIN)
    draw.text((side / 2, MARGIN + edge + 3 * MARGIN), caption, INK, font, anchor="mm")
    return image


def _draw_scale(draw: ImageDraw.ImageDraw, size: int, zoom: int, left: int, top: int) -> None:
    """Draw the scale bar, a round number of PSF pixels long, with ticks at its ends and its length below."""
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
