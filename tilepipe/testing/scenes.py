"""Synthetic scenes with ground truth, of any size, rendered band by band in constant memory.

A scene follows the dead leaves model (Lee, Mumford & Huang 2001): thousands of occluding disks and bars of all sizes,
each with its own colour and texture, below a layer of fine lines.  A scene is determined by (width, height, seed).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.signal
import tifffile

from tilepipe.dtypes import FloatArray
from tilepipe.image.light import SRGB, Light
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.psf.field import AnyPSF
from tilepipe.psf.model import PSF

__all__ = ["BlurredScene", "Photograph", "Scene", "blur", "degrade", "psnr", "write_jpeg", "write_scene"]

LEAVES_PER_MEGAPIXEL = 700
LINES_PER_MEGAPIXEL = 40
LAMPS_PER_MEGAPIXEL = 6
LAMP_COLOUR = np.array([1.0, 0.9, 0.7], np.float32)
BAND = 64
"""Rows rendered at a time, px, so that rendering takes less memory than restoring.  The noise is seeded per band."""


class Scene:
    """A sharp scene, RGB, linear light 0..1.

    Parameters
    ----------
    width, height : int
        Size, px.
    seed : int
        Seed of the random scene.
    """

    def __init__(self, width: int, height: int, seed: int = 1) -> None:
        self.width, self.height = width, height
        generator = np.random.default_rng(seed)
        count = max(60, round(LEAVES_PER_MEGAPIXEL * width * height / 1e6))
        radius = 3.0 / generator.uniform(0.02, 1.0, count)
        self._leaves = np.column_stack(
            [
                generator.uniform(-20, height + 20, count),
                generator.uniform(-20, width + 20, count),
                radius,
                np.where(generator.random(count) < 0.5, 1.0, generator.uniform(0.05, 0.5, count)),
                generator.uniform(0, np.pi, count),
                generator.uniform(0.15, 1.2, count),
                generator.uniform(0, 0.35, count),
            ]
        )
        self._colours = (generator.uniform(0.2, 1, (count, 1)) ** 2.2 * generator.uniform(0.55, 1, (count, 3))).astype(
            np.float32
        )
        lines = max(8, round(LINES_PER_MEGAPIXEL * width * height / 1e6))
        self._lines = np.column_stack(
            [
                generator.uniform(0, height, lines),
                generator.uniform(0, width, lines),
                generator.uniform(0, np.pi, lines),
                generator.uniform(20, 260, lines),
                generator.uniform(0.5, 1.3, lines),
                generator.uniform(0, 1, lines) ** 3,
            ]
        )

    def rows(self, y0: int, y1: int) -> FloatArray:
        """Return rows y0..y1, (y1 - y0, width, 3); rows outside the scene are valid, too."""
        out = np.full((y1 - y0, self.width, 3), 0.18, np.float32)
        near = np.abs(self._leaves[:, 0] - (y0 + y1) / 2) <= (y1 - y0) / 2 + self._leaves[:, 2] + 2
        for leaf, colour in zip(self._leaves[near], self._colours[near], strict=True):
            self._draw(out, y0, leaf, colour)
        near = np.abs(self._lines[:, 0] - (y0 + y1) / 2) <= (y1 - y0) / 2 + self._lines[:, 3] + 2
        for line in self._lines[near]:
            self._draw_line(out, y0, line)
        return out

    def _box(self, y: float, x: float, reach: float, y0: int, rows: int) -> tuple[slice, slice] | None:
        """Return the pixels within `reach` of (y, x) in `rows` rows from `y0`, None if there are none."""
        top, bottom = max(int(y - reach) - 1, y0), min(int(y + reach) + 2, y0 + rows)
        left, right = max(int(x - reach) - 1, 0), min(int(x + reach) + 2, self.width)
        if top >= bottom or left >= right:
            return None
        return slice(top, bottom), slice(left, right)

    def _draw(self, out: FloatArray, y0: int, leaf: npt.NDArray[Any], colour: FloatArray) -> None:
        y, x, radius, aspect, angle, frequency, depth = leaf
        box = self._box(y, x, radius, y0, len(out))
        if box is None:
            return
        rows = np.arange(box[0].start, box[0].stop, dtype=np.float32)[:, None] - np.float32(y)
        columns = np.arange(box[1].start, box[1].stop, dtype=np.float32)[None] - np.float32(x)
        along = columns * np.float32(np.cos(angle)) + rows * np.float32(np.sin(angle))
        if aspect == 1.0:
            inside = rows * rows + columns * columns < radius * radius
        else:
            across = rows * np.float32(np.cos(angle)) - columns * np.float32(np.sin(angle))
            inside = (np.abs(along) < radius * 0.9) & (np.abs(across) < radius * aspect)
        shade = 1 - np.float32(depth) * (np.float32(0.5) + np.float32(0.5) * np.sin(along * np.float32(frequency)))
        region = out[box[0].start - y0 : box[0].stop - y0, box[1]]
        region[inside] = shade[inside][:, None] * colour

    def _draw_line(self, out: FloatArray, y0: int, line: npt.NDArray[Any]) -> None:
        y, x, angle, length, width, gray = line
        box = self._box(y, x, length, y0, len(out))
        if box is None:
            return
        rows = np.arange(box[0].start, box[0].stop)[:, None] - y
        columns = np.arange(box[1].start, box[1].stop)[None] - x
        along = columns * np.cos(angle) + rows * np.sin(angle)
        across = rows * np.cos(angle) - columns * np.sin(angle)
        inside = (np.abs(along) < length) & (np.abs(across) < width)
        out[box[0].start - y0 : box[0].stop - y0, box[1]][inside] = np.float32(gray)


def blur(linear: FloatArray, psf: AnyPSF) -> FloatArray:
    """Convolve (H, W, C) with the PSF (true convolution), valid part only: ``psf.size - 1`` rows and columns fewer.

    With a field, the PSF of an output pixel is the weighted mean of the components.
    """
    height, width = (length - psf.size + 1 for length in linear.shape[:2])
    blurred = np.zeros((height, width, linear.shape[2]), np.float32)
    for index, weight in psf.weights(range(height), range(width), (height, width)):
        kernels = np.moveaxis(psf.components[index].planes, 0, -1)
        part = scipy.signal.oaconvolve(linear, kernels, mode="valid", axes=(0, 1))
        blurred += (part if weight is None else part * weight[:, :, None]).astype(np.float32)
    return blurred


def degrade(linear: FloatArray, psf: AnyPSF, noise: float, seed: int = 0) -> FloatArray:
    """Apply :func:`blur`, add white noise of standard deviation `noise` and clip to 0..1."""
    blurred = blur(linear, psf)
    blurred += np.float32(noise) * np.random.default_rng(seed).standard_normal(blurred.shape, np.float32)
    return np.clip(blurred, 0, 1, out=blurred)


class BlurredScene:
    """A scene with blur and noise, with the same interface as :class:`Scene`.

    Parameters
    ----------
    scene : Scene
        The sharp scene.
    psf : PSF
        The blur.
    noise : float
        Standard deviation, linear light.
    """

    def __init__(self, scene: Scene, psf: PSF, noise: float) -> None:
        self.scene, self.psf, self.noise = scene, psf, noise
        self.width, self.height = scene.width, scene.height

    def rows(self, y0: int, y1: int) -> FloatArray:
        """Return rows y0..y1, (y1 - y0, width, 3), clipped to 0..1."""
        reach = self.psf.size // 2
        sharp = self.scene.rows(y0 - reach, y1 + reach)
        return degrade(np.pad(sharp, ((0, 0), (reach, reach), (0, 0)), "reflect"), self.psf, self.noise, seed=y0)


class Photograph:
    """Simulated photograph of a scene: lens blur, averaging over pixels, noise, and lamps brighter than white.

    Parameters
    ----------
    width, height : int
        Size, px.
    sigma : float
        Standard deviation of the lens's Gaussian blur, px; 0 for none.
    noise : float
        Standard deviation, linear light.
    seed : int
        Seed of the scene and the lamps.
    """

    def __init__(self, width: int, height: int, sigma: float = 0.0, noise: float = 0.0, seed: int = 3) -> None:
        self.width, self.height = width, height
        self.sigma, self.noise = sigma, noise
        self._fine = Scene(2 * width, 2 * height, seed)
        generator = np.random.default_rng(seed)
        count = max(4, round(LAMPS_PER_MEGAPIXEL * width * height / 1e6))
        self._lamps = np.column_stack(
            [
                generator.uniform(0, 2 * height, count),
                generator.uniform(0, 2 * width, count),
                generator.uniform(2, 12, count),
                generator.uniform(1.2, 8, count),
            ]
        )

    def rows(self, y0: int, y1: int) -> FloatArray:
        """Return rows y0..y1, clipped to 0..1."""
        reach = 2 * int(np.ceil(4 * self.sigma) + 1)
        top = 2 * y0 - reach
        light = self._fine.rows(top, 2 * y1 + reach)
        for y, x, radius, brightness in self._lamps:
            rows = np.arange(top, top + len(light))[:, None] - y
            if abs(rows).min() <= radius:
                light[rows**2 + (np.arange(light.shape[1])[None] - x) ** 2 <= radius**2] = brightness * LAMP_COLOUR
        if self.sigma:
            light = scipy.ndimage.gaussian_filter(light, (2 * self.sigma, 2 * self.sigma, 0), mode="nearest")
        inner = light[reach : len(light) - reach]
        averaged = inner.reshape(y1 - y0, 2, self.width, 2, 3).mean((1, 3))
        averaged += np.float32(self.noise) * np.random.default_rng(y0).standard_normal(averaged.shape, np.float32)
        clipped: FloatArray = np.clip(averaged, 0, 1).astype(np.float32)
        return clipped


def write_jpeg(path: Path, scene: Scene | BlurredScene | Photograph, quality: int) -> None:
    """Write a scene as an 8-bit sRGB JPEG without chroma subsampling; holds all pixels in memory."""
    from PIL import Image

    light = Light((SRGB,) * 3, "uint8")
    pixels = np.empty((scene.height, scene.width, 3), np.uint8)
    for y0 in range(0, scene.height, BAND):
        linear = scene.rows(y0, min(y0 + BAND, scene.height))
        for channel in range(3):
            pixels[y0 : y0 + BAND, :, channel] = light.encoded(channel, linear[:, :, channel], "uint8")
    Image.fromarray(pixels).save(path, "JPEG", quality=quality, subsampling=0, icc_profile=srgb_profile())


def write_scene(path: Path, scene: Scene | BlurredScene | Photograph, dtype: str = "uint16") -> None:
    """Write a scene as a striped sRGB TIFF, band by band."""
    light = Light((SRGB,) * 3, dtype)

    def strips() -> Any:
        for y0 in range(0, scene.height, BAND):
            linear = scene.rows(y0, min(y0 + BAND, scene.height))
            encoded = np.stack([light.encoded(c, linear[:, :, c], dtype) for c in range(3)], -1)
            yield np.ascontiguousarray(encoded)

    tifffile.imwrite(
        path,
        strips(),
        shape=(scene.height, scene.width, 3),
        dtype=dtype,
        rowsperstrip=BAND,
        photometric="rgb",
        iccprofile=srgb_profile(),
        metadata=None,
        software=False,
        resolution=((300, 1), (300, 1)),
        resolutionunit=2,
    )


def psnr(a: npt.NDArray[Any], b: npt.NDArray[Any], peak: float = 1.0) -> float:
    """Return the peak signal-to-noise ratio of `a` relative to `b`, dB."""
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(peak**2 / error))
