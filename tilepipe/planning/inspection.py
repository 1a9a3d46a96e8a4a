"""Looking at a picture for its blur: windows chosen in one pass in bands, and what the whole of it shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.noise import estimate_noise
from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.errors import SettingsError, UncertainPsfError
from tilepipe.image.info import ImageReader
from tilepipe.image.levels import find_unit, find_white
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.linearise import fill, start_and_data
from tilepipe.psf.blind.edge_width import EdgeWidth, measure_edges
from tilepipe.psf.blind.spectrum import Power, PowerAccumulator
from tilepipe.psf.blind.wide import LEAST_EDGE, WIDEST
from tilepipe.psf.blind.windows import BLOCK, WindowRanking

__all__ = ["Inspection", "inspect_array", "inspect_reader", "parse_window"]

Box = tuple[int, int, int, int]
Cut = Callable[[Box], "Observed"]
"""(y0, y1, x0, x1) -> this piece of the picture."""

WINDOW = 383
"""Edge of the windows that are looked at, px: 3 of them, or one of up to LARGE in a small picture."""

COUNT = 3
LARGE = 511

LARGEST = 1022
"""Edge of the window that a wide kernel is sought in, px: ten kernels."""

SPARE = 6
"""Further windows: their edges count, and what is found is checked on them."""

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


@dataclass(frozen=True)
class Observed:
    """A piece of the picture, linear light.

    Parameters
    ----------
    colours : float32 (c, h, w), clipped samples as they stand: filled with anything else they would be edges that
        no blur has softened.
    known : float32 (h, w), the mean of the colours; NaN where one of them is clipped or unknown.
    """

    colours: FloatArray
    known: FloatArray

    @property
    def usable(self) -> BoolArray:
        """Where every colour is known."""
        usable: BoolArray = np.isfinite(self.known)
        return usable


@dataclass(frozen=True)
class Inspection:
    """What was looked at.

    Parameters
    ----------
    boxes : (y0, y1, x0, x1) each.
    colours : float32 (c, h, w) each, linear light, finite.
    windows : float32 (h, w) each, the mean of the colours.
    large : float32 (h, w), the same of a larger piece, up to 1022 px an edge; None where the picture, or the window
        that was asked for, is too small for wide kernels.
    noise : standard deviation of that mean.
    power : of the mean of the colours, all over the picture; None when it is too small.
    colour_power : of each colour; empty when they are not to be told apart.
    edges : of these and further windows; None when there are too few.
    """

    boxes: tuple[Box, ...]
    colours: tuple[FloatArray, ...]
    windows: tuple[FloatArray, ...]
    large: FloatArray | None
    noise: float
    power: Power | None
    colour_power: tuple[Power, ...]
    edges: EdgeWidth | None


def inspect_reader(reader: ImageReader, size: int | None = None, window: Any = None) -> Inspection:
    """Choose windows of an open picture (unless one is given) and read them; the picture goes by once, in bands.

    Raises
    ------
    SettingsError, UncertainPsfError : see :func:`estimate_psf`.
    InputError : the picture is damaged.
    """
    info = reader.info

    def cut(box: Box) -> Observed:
        y0, y1, x0, x1 = box
        rows = np.moveaxis(reader.rows(y0, y1)[:, x0:x1], -1, 0)[: info.light.channels_read]
        return _observed(rows, info.light)

    return _inspect(cut, (info.height, info.width), size, window, colours=info.quantisation is None)


def inspect_array(pixels: FloatArray, size: int | None, window: Any) -> Inspection:
    """Look at an array (h, w) or (h, w, c) of linear light, as :func:`look_at` does at a file."""
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    light = Light((LINEAR,) * len(planes), "float32")
    light = replace(light, white=find_white(iter([planes]), light))
    light = replace(light, unit=find_unit([planes], light))

    def cut(box: Box) -> Observed:
        y0, y1, x0, x1 = box
        return _observed(planes[:, y0:y1, x0:x1], light)

    return _inspect(cut, pixels.shape[:2], size, window, colours=True)


def _inspect(cut: Cut, shape: tuple[int, int], size: int | None, window: Any, *, colours: bool) -> Inspection:
    _check_size(size, shape)
    spectra = PictureSpectra(shape, colours=colours)
    if window is not None:
        boxes = [_box_of(parse_window(window), size, shape)]
        spare: list[Box] = []
        large = boxes[0]
    else:
        boxes, spare, large = _choose(cut, shape, spectra)
    windows = [cut(box) for box in boxes]
    if spectra.is_empty:
        for box, seen in zip(boxes, windows, strict=True):
            spectra.add(seen, box)
    inspection = _inspection(boxes, windows, [cut(box) for box in spare], spectra)
    return replace(inspection, large=_large(cut, large))


def _observed(samples: npt.NDArray[Any], light: Light) -> Observed:
    starts, seen = (np.stack(planes) for planes in zip(*start_and_data(samples, light), strict=True))
    return Observed(starts, np.where(np.isfinite(seen), seen, np.float32(np.nan)).mean(0))


class PictureSpectra:
    """The power of the picture, of the mean of its colours and of each."""

    def __init__(self, shape: tuple[int, int], *, colours: bool) -> None:
        self._mean = PowerAccumulator.of_size(*shape)
        self._each: list[PowerAccumulator] = []
        self._shape, self._colours = shape, colours
        self.is_empty = True

    def add(self, seen: Observed, box: Box) -> None:
        """Take in the piece of the picture at `box`."""
        self.is_empty = False
        at = box[0], box[2]
        self._mean.add(seen.colours.mean(0), seen.usable, at)
        if self._colours and len(seen.colours) == 3:
            self._each = self._each or [
                PowerAccumulator.of_size(2 * self._shape[0], 2 * self._shape[1]) for _ in range(3)
            ]
            for spectra, plane in zip(self._each, seen.colours, strict=True):
                spectra.add(plane, seen.usable, at)

    def power(self) -> tuple[Power | None, tuple[Power, ...]]:
        """Return the power of the mean, and of each colour."""
        each = [spectra.power() for spectra in self._each]
        return self._mean.power(), tuple(power for power in each if power is not None)


def _choose(cut: Cut, shape: tuple[int, int], spectra: PictureSpectra) -> tuple[list[Box], list[Box], Box]:
    """Return the windows to estimate from, further ones, and a large one.

    The picture goes by in bands, and `survey` sees it.
    """
    height, width = shape
    if max(height, width) <= LARGE:
        whole = (0, height, 0, width)
        return [whole], [], whole
    count, edge = (1, LARGE) if min(height, width) < 2 * WINDOW else (COUNT, WINDOW)
    ranking = WindowRanking(height, width)
    for top in range(0, height, BAND):
        box = (top, min(top + BAND, height), 0, width)
        seen = cut(box)
        ranking.add(top, seen.known)
        spectra.add(seen, box)
    best = ranking.best(count + SPARE, edge)
    return best[:count], best[count:], ranking.best(1, LARGEST)[0]


def _large(cut: Cut, box: Box) -> FloatArray | None:
    """Return the mean of the colours at `box`, unknown samples filled; None where that is too small."""
    if min(box[1] - box[0], box[3] - box[2]) < LEAST_EDGE:
        return None
    mean: FloatArray = fill(cut(box).colours).mean(0)
    return mean


def _inspection(
    boxes: list[Box], windows: list[Observed], spare: list[Observed], spectra: PictureSpectra
) -> Inspection:
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
    noise = estimate_noise(window.known[None] for _, window in kept)
    power, each = spectra.power()
    seen = [window for _, window in kept] + spare
    return Inspection(
        boxes=tuple(box for box, _ in kept),
        colours=colours,
        windows=tuple(planes.mean(0) for planes in colours),
        large=None,
        noise=noise,
        power=power,
        colour_power=each,
        edges=measure_edges([(window.colours.mean(0), window.usable) for window in seen], noise),
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
