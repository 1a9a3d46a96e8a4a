"""Finding the PSF of a picture blind: choose windows in one pass, read them, estimate, say how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.noise import estimate_noise
from tilepipe.errors import SettingsError, UncertainPsfError
from tilepipe.image.info import ImageReader
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.linearise import fill, known, linearise
from tilepipe.image.read import open_image
from tilepipe.psf.channels import kernels_by_channel
from tilepipe.psf.estimate import WIDEST, Estimate, compare, estimate_kernel
from tilepipe.psf.model import PSF
from tilepipe.psf.nearest import nearest_shape
from tilepipe.psf.window import BLOCK, WindowScout

__all__ = ["CONFIDENT", "Finding", "Look", "check_psf", "estimate_psf", "find_psf", "look_at", "parse_window"]

FloatArray = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]
Band = Callable[[int, int], "Seen"]
"""(top, bottom) -> these rows."""

WINDOW = 383
"""Edge of the windows that are looked at, px: 3 of them, or one of up to LARGE in a small picture."""

COUNT = 3
LARGE = 511

BAND = 8 * BLOCK
"""Rows read at a time, px."""

KERNELS_PER_WINDOW = 3
"""A window must be this many kernels wide."""

SMALLEST = 3 * 7
"""Smallest window, px: three of the narrowest kernels that are tried."""

USABLE = 0.5
"""Share of a window that must be neither clipped nor NaN."""

FLAT = 1e-4
"""Standard deviation below which a window is constant, linear light."""

CONFIDENT = 0.4
"""Confidence below which a run refuses the PSF."""


@dataclass(frozen=True)
class Seen:
    """A piece of the picture, linear light.

    Parameters
    ----------
    colours : float32 (c, h, w), clipped samples as they stand: filled with anything else they would be edges that
        no blur has softened.
    known : float32 (h, w), the mean of the colours; NaN where one of them is clipped or not finite.
    """

    colours: FloatArray
    known: FloatArray


@dataclass(frozen=True)
class Look:
    """What was looked at.

    Parameters
    ----------
    boxes : (y0, y1, x0, x1) each.
    colours : float32 (c, h, w) each, linear light, finite.
    windows : float32 (h, w) each, the mean of the colours.
    noise : standard deviation of that mean.
    """

    boxes: tuple[Box, ...]
    colours: tuple[FloatArray, ...]
    windows: tuple[FloatArray, ...]
    noise: float


@dataclass(frozen=True, eq=False)
class Finding:
    """A PSF found blind.

    Parameters
    ----------
    psf : with what is known of it in ``made_by``; a delta for a picture that is not blurred.
    estimate, look : what it follows from.
    """

    psf: PSF
    estimate: Estimate
    look: Look


def estimate_psf(
    image: npt.ArrayLike | str | Path,
    size: int | None = None,
    window: tuple[int, int] | tuple[int, int, int] | str | None = None,
    *,
    per_channel: bool = False,
    threads: int = 1,
) -> PSF:
    """Estimate the blur of a picture from the picture alone.

    Parameters
    ----------
    image : (H, W) or (H, W, C), linear light, 1.0 = white; or a file.  NaN counts as unknown.
    size : edge of the kernel, px, odd, 3..65; None finds it.
    window : (x, y) or (x, y, size): centre and edge of the part to look at, px; None finds good ones.
    per_channel : refine the PSF for each colour, where lenses blur them differently.
    threads : used at a time; the result does not depend on it.

    Returns
    -------
    The PSF; ``psf.confidence`` in 0..1 says how sure it is (below 0.4 a run would refuse it).  A delta for a picture
    that is not blurred.

    Raises
    ------
    SettingsError : size or window out of range.
    UncertainPsfError : there is nothing to see: a constant picture, all clipped, all NaN.
    InputError : `image` is a file that cannot be read.
    """
    if isinstance(image, (str, Path)):
        reader = open_image(image)
        try:
            return find_psf(look_at(reader, size, window), size, per_channel=per_channel, threads=threads).psf
        finally:
            reader.close()
    pixels = np.asarray(image, np.float32)
    if pixels.ndim not in (2, 3) or not pixels.size:
        raise SettingsError(f"image has shape {pixels.shape}; it must be (height, width) or (height, width, channels)")
    return find_psf(_look_at_array(pixels, size, window), size, per_channel=per_channel, threads=threads).psf


def check_psf(psf: PSF, image: str | Path, window: Any = None, *, threads: int = 1) -> dict[str, Any]:
    """Return how well `psf` explains the blur of another picture, beside the PSF found there.

    Returns
    -------
    "likeness" of the two kernels, 0..1; "gain": how much sparser each makes the picture (1: not at all), "misfit" of
    each over the noise; "confidence" of the one found; "explains": `psf` does nearly as well as the one found.
    """
    reader = open_image(image)
    try:
        look = look_at(reader, None, window)
    finally:
        reader.close()
    finding = find_psf(look, threads=threads)
    found = finding.psf.kernel
    likeness, mine, other = compare(look.windows, look.noise, psf.kernel, found)
    return {
        "likeness": round(likeness, 3),
        "gain": round(mine.gain, 3),
        "gain_found": round(other.gain, 3),
        "misfit": round(mine.misfit, 3),
        "misfit_found": round(other.misfit, 3),
        "confidence": finding.psf.confidence,
        "explains": bool(mine.gain >= 1 + 0.7 * (other.gain - 1) and mine.misfit <= 1.3 * max(other.misfit, 1.0)),
    }


def find_psf(look: Look, size: int | None = None, *, per_channel: bool = False, threads: int = 1) -> Finding:
    """Estimate the PSF from what was looked at, name its nearest shape, say how sure it is."""
    estimate = estimate_kernel(look.windows, look.noise, size, threads=threads)
    kernels = estimate.kernel
    if per_channel and len(look.colours[0]) > 1 and not estimate.sharp:
        kernels = kernels_by_channel(look.colours, kernels, threads=threads)
    made_by: dict[str, Any] = {
        "estimated": True,
        "confidence": round(estimate.confidence, 3),
        "windows": [[(x0 + x1) // 2, (y0 + y1) // 2, max(y1 - y0, x1 - x0)] for y0, y1, x0, x1 in look.boxes],
        "noise": float(f"{look.noise:.3g}"),
        "nearest": str(nearest_shape(estimate.kernel)),
    }
    return Finding(PSF(kernels, made_by), estimate, look)


def look_at(reader: ImageReader, size: int | None = None, window: Any = None) -> Look:
    """Choose windows of an open picture (unless one is given) and read them; the picture goes by once, in bands.

    Raises
    ------
    SettingsError, UncertainPsfError : see :func:`estimate_psf`.
    InputError : the picture is damaged.
    """
    info = reader.info

    def band(top: int, bottom: int) -> Seen:
        rows = np.moveaxis(reader.rows(top, bottom), -1, 0)[: info.colours]
        return _seen(rows, info.light)

    return _look_through(band, (info.height, info.width), size, window)


def _look_at_array(pixels: FloatArray, size: int | None, window: Any) -> Look:
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    light = Light((LINEAR,) * len(planes), "float32")
    return _look_through(lambda top, bottom: _seen(planes[:, top:bottom], light), pixels.shape[:2], size, window)


def _look_through(band: Band, shape: tuple[int, int], size: int | None, window: Any) -> Look:
    _check_size(size, shape)
    boxes = [_box_of(parse_window(window), size, shape)] if window is not None else _choose(band, shape)
    windows = []
    for y0, y1, x0, x1 in boxes:
        pieces = [band(top, min(top + BAND, y1)) for top in range(y0, y1, BAND)]
        colours = np.concatenate([piece.colours[:, :, x0:x1] for piece in pieces], 1)
        windows.append(Seen(colours, np.concatenate([piece.known[:, x0:x1] for piece in pieces])))
    return _look(boxes, windows)


def _seen(samples: npt.NDArray[Any], light: Light) -> Seen:
    colours = linearise(samples, light)
    return Seen(colours, known(colours, light).mean(0))


def _choose(band: Band, shape: tuple[int, int]) -> list[Box]:
    height, width = shape
    if min(height, width) < 2 * WINDOW:
        if max(height, width) <= LARGE:
            return [(0, height, 0, width)]
        count, edge = 1, LARGE
    else:
        count, edge = COUNT, WINDOW
    scout = WindowScout(height, width)
    for top in range(0, height, BAND):
        scout.see(top, band(top, min(top + BAND, height)).known)
    return scout.best(count, edge)


def _look(boxes: list[Box], windows: list[Seen]) -> Look:
    """Keep the windows that show something; UncertainPsfError when none does."""
    kept, complaint = [], "there is no window to look at"
    for box, window in zip(boxes, windows, strict=True):
        trouble = _trouble(window.known)
        if trouble is None:
            kept.append((box, window))
        else:
            y0, y1, x0, x1 = box
            complaint = f"the window at {(x0 + x1) // 2},{(y0 + y1) // 2} ({x1 - x0} x {y1 - y0} px) {trouble}"
    if not kept:
        raise UncertainPsfError(
            f"{complaint}: no blur can be read from it; give a PSF with --psf or look elsewhere with --window X,Y"
        )
    colours = tuple(fill(window.colours) for _, window in kept)
    return Look(
        boxes=tuple(box for box, _ in kept),
        colours=colours,
        windows=tuple(planes.mean(0) for planes in colours),
        noise=estimate_noise(window.known[None] for _, window in kept),
    )


def _trouble(window: FloatArray) -> str | None:
    usable = np.isfinite(window)
    if usable.mean() < USABLE:
        return f"is {100 * (1 - usable.mean()):.0f} % clipped or not finite"
    if float(window[usable].std()) < FLAT:
        return "is constant"
    return None


def parse_window(window: Any) -> tuple[int, ...]:
    """Return (x, y) or (x, y, size) from a tuple or from "X,Y[,SIZE]"; SettingsError for anything else."""
    parts = window.split(",") if isinstance(window, str) else window
    try:
        numbers = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) not in (2, 3):
        raise SettingsError(f"window is {window!r}; write X,Y or X,Y,SIZE in px, as in 1200,800,255")
    return numbers


def _box_of(window: tuple[int, ...], size: int | None, shape: tuple[int, int]) -> Box:
    height, width = shape
    x, y = window[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise SettingsError(f"window centre {x},{y} lies outside the picture of {width} x {height} px")
    edge = window[2] if len(window) == 3 else min(WINDOW, height, width)
    least = max(SMALLEST, KERNELS_PER_WINDOW * (size or 0))
    if edge < least:
        raise SettingsError(f"window is {edge} px wide; at least {least} px are needed (three kernels): make it larger")
    if edge > min(height, width):
        raise SettingsError(f"window is {edge} px wide, the picture {width} x {height}: make it smaller")
    y0, x0 = (min(max(0, at - edge // 2), length - edge) for at, length in ((y, height), (x, width)))
    return y0, y0 + edge, x0, x0 + edge


def _check_size(size: int | None, shape: tuple[int, int]) -> None:
    if size is not None and not (3 <= size <= WIDEST and size % 2 == 1):
        raise SettingsError(f"blur width is {size} px; it must be odd, in 3..{WIDEST} (leave it out to have it found)")
    least = max(SMALLEST, KERNELS_PER_WINDOW * (size or 0))
    if min(shape) < least:
        raise SettingsError(
            f"the picture is {shape[1]} x {shape[0]} px; a blur of {size or 7} px needs at least {least} px an edge "
            "to be found: give a PSF with --psf"
        )
