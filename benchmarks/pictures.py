"""Pictures to measure on: a real one below $TILEPIPE_DATA when there is one, else the project's own scene."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from tilepipe.image.light import SRGB, Light
from tilepipe.psf.field import AnyPSF
from tilepipe.testing import Scene, degrade

PHOTOGRAPH = "large/highsmith_7026x9221.jpg"


def sharp_picture(width: int, height: int, top: int = 3000, left: int = 2000) -> tuple[np.ndarray, str]:
    """Return a sharp picture, (height, width, 3) linear light, and its name."""
    data = os.environ.get("TILEPIPE_DATA")
    if data and (Path(data) / PHOTOGRAPH).is_file():
        import imagecodecs

        pixels = imagecodecs.imread(Path(data) / PHOTOGRAPH)[top : top + height, left : left + width]
        light = Light((SRGB,) * 3, "uint8")
        return np.stack([light.linear(c, pixels[:, :, c]) for c in range(3)], -1), Path(PHOTOGRAPH).stem
    return Scene(width, height).rows(0, height), "scene"


def blurred_picture(sharp: np.ndarray, psf: AnyPSF, noise: float) -> np.ndarray:
    """Blur in linear light, add noise, quantise as a 16-bit sRGB file does; planes (3, h, w), linear light.

    The picture shrinks by ``psf.size - 1``.
    """
    light = Light((SRGB,) * 3, "uint16")
    blurred = degrade(sharp, psf, noise)
    return np.stack([light.linear(c, light.encoded(c, blurred[:, :, c], "uint16")) for c in range(3)])
