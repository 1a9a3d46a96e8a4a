"""Picture of a PSF that differs over the image: its kernels at places all over the image."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tilepipe.dtypes import DoubleArray
from tilepipe.psf.field import PSFField

__all__ = ["draw_field", "widths_over"]

ROWS, COLUMNS = 5, 7
"""Places that are drawn."""

CELL = 96
"""Approximate edge of an enlarged kernel, px: each tap is a whole number of pixels wide."""

GAP, LINE = 8, 18
"""Space around the kernels and height of a line of text, px."""

PAPER, INK = 224, 30
"""Gray levels of the background and of the text."""

FONT_SIZE = 12
"""Font size, px."""


def widths_over(field: PSFField, shape: tuple[int, int], rows: int, columns: int) -> DoubleArray:
    """Return the mean spread of the PSF, px, at the middles of `rows` x `columns` parts of an image of `shape`."""
    spreads = [
        [np.mean(field.at(y, x, shape).facts()["spread"]) for x in places]
        for y, places in _places(shape, rows, columns)
    ]
    return np.array(spreads)


def draw_field(field: PSFField) -> Image.Image:
    """Draw the kernels at 5 x 7 places as squares, each in tones of the square root of a tap over its peak.

    The mean spread of each is printed below it, px, and what the field is at the bottom.
    """
    shape = field.image_shape or (ROWS, COLUMNS)
    zoom = max(1, round(CELL / field.size))
    edge = zoom * field.size
    step_x, step_y = edge + GAP, edge + LINE + GAP
    image = Image.new("L", (COLUMNS * step_x + GAP, ROWS * step_y + LINE + 2 * GAP), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(FONT_SIZE)
    for row, (y, places) in enumerate(_places(shape, ROWS, COLUMNS)):
        for column, x in enumerate(places):
            psf = field.at(y, x, shape)
            tones = np.rint(255 * np.sqrt(psf.kernel / psf.kernel.max())).astype(np.uint8)
            left, top = GAP + column * step_x, GAP + row * step_y
            image.paste(Image.fromarray(tones).resize((edge, edge), Image.Resampling.NEAREST), (left, top))
            spread = float(np.mean(psf.facts()["spread"]))
            draw.text((left + edge / 2, top + edge + LINE / 2), f"{spread:.2f} px", INK, font, anchor="mm")
    caption = str(field.made_by.get("nearest", field.places.kind))
    draw.text((image.width / 2, image.height - LINE / 2 - GAP / 2), caption, INK, font, anchor="mm")
    return image


def _places(shape: tuple[int, int], rows: int, columns: int) -> list[tuple[int, list[int]]]:
    """Return the middles of the parts, px: (y, all x) of each row."""
    height, width = shape
    across = [int((column + 0.5) * width / columns) for column in range(columns)]
    return [(int((row + 0.5) * height / rows), across) for row in range(rows)]
