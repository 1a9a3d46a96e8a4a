"""Inspection of an image for its blur: windows selected in one pass over bands, and spectrum and edges of the image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.deconv.noise import estimate_noise
from tilepipe.dtypes import BoolArray, FloatArray
from tilepipe.errors import SettingsError, UncertainPsfError
from tilepipe.image.info import ImageInfo, ImageReader
from tilepipe.image.levels import find_unit, find_white
from tilepipe.image.light import LINEAR, Light
from tilepipe.image.linearise import fill, start_and_data
from tilepipe.image.metadata.camera import camera_facts
from tilepipe.image.orientation import Orientation
from tilepipe.psf.blind.edge_width import EdgeWidth, measure_edges
from tilepipe.psf.blind.spectrum import Power, PowerAccumulator
from tilepipe.psf.blind.wide import LEAST_EDGE, WIDEST
from tilepipe.psf.blind.windows import BLOCK, WindowRanking

__all__ = ["Inspection", "inspect_array", "inspect_reader", "inspection_bytes", "parse_window"]

Box = tuple[int, int, int, int]
Cut = Callable[[list[Box]], Iterator["Observed"]]
"""Boxes (y0, y1, x0, x1) -> these parts of the image, read from the top down before the first is returned."""

WINDOW = 383
"""Edge of the windows, px: 3 of them, or one of up to SINGLE_WINDOW in a small image."""

WINDOW_COUNT = 3
"""Number of windows in which a narrow kernel is estimated."""

SINGLE_WINDOW = 511
"""Largest edge of the window of a small image, px."""

WIDE_WINDOW = 1022
"""Edge of the window in which a wide kernel is searched for, px: ten kernels."""

SPARE = 6
"""Number of further windows, used only to measure edges."""

BAND = 8 * BLOCK
"""Rows read at a time, px."""

PIECE = 8192
"""Columns of a band that are processed at a time, px."""

KERNELS_PER_WINDOW = 3
"""Smallest width of a window in kernels."""

SMALLEST = 3 * 7
"""Smallest window, px: three of the narrowest kernels that are tried."""

USABLE = 0.5
"""Smallest share of a window that is neither clipped nor NaN."""

BYTES_PER_PIXEL = 70
"""Memory for inspecting one pixel of a piece of a band, bytes."""

FLAT = 1e-4
"""Standard deviation below which a window counts as constant, linear light."""


@dataclass(frozen=True)
class Observed:
    """Part of the image, linear light.

    Parameters
    ----------
    colours : ndarray of float32, shape (c, h, w)
        Clipped samples keep their values: any other value would create edges that no blur has softened.
    known : ndarray of float32, shape (h, w)
        Mean of the colours; NaN where one of them is clipped or has no data.
    """

    colours: FloatArray
    known: FloatArray

    @property
    def usable(self) -> BoolArray:
        """Where every colour has data and is not clipped."""
        usable: BoolArray = np.isfinite(self.known)
        return usable


@dataclass(frozen=True)
class Inspection:
    """Windows and statistics of the image from which the blur is estimated.

    Parameters
    ----------
    boxes : tuple of (y0, y1, x0, x1)
        Positions of the windows.
    colours : tuple of ndarray of float32, shape (c, h, w)
        Linear light, finite.
    windows : tuple of ndarray of float32, shape (h, w)
        Mean of the colours.
    large : ndarray of float32, shape (h, w), or None
        Mean of the colours of a larger window, up to 1022 px an edge; None where the image, or the given window, is too
        small for wide kernels.
    noise : float
        Standard deviation of the mean of the colours.
    power : Power or None
        Of the mean of the colours, over the whole image or the given window; None when the image is too small.
    colour_power : tuple of Power
        Of each colour; empty when colours are not treated separately.
    edges : EdgeWidth or None
        Of these and further windows; None when there are too few.
    spectra : PictureSpectra or None
        Of the parts of the image, if the window was not given.
    camera : dict
        What is known of camera and lens, see :func:`tilepipe.image.metadata.camera.camera_facts`.
    """

    boxes: tuple[Box, ...]
    colours: tuple[FloatArray, ...]
    windows: tuple[FloatArray, ...]
    large: FloatArray | None
    noise: float
    power: Power | None
    colour_power: tuple[Power, ...]
    edges: EdgeWidth | None
    spectra: PictureSpectra | None
    camera: dict[str, Any] = field(default_factory=dict)


def inspect_reader(reader: ImageReader, size: int | None = None, window: Any = None, *, threads: int = 1) -> Inspection:
    """Select windows of an open image (unless one is given) and read them; selection reads the image once, in bands.

    Parameters
    ----------
    reader : ImageReader
        The open image, read in this thread.
    size, window
        As for :func:`tilepipe.planning.find_psf.estimate_psf`.
    threads : int
        Number of spectra computed at a time; the result does not depend on it.

    Raises
    ------
    SettingsError, UncertainPsfError
        See :func:`tilepipe.planning.find_psf.estimate_psf`.
    InputError
        If the image is damaged.
    """
    info = reader.info

    def cut(boxes: list[Box]) -> Iterator[Observed]:
        channels = info.light.channels_read
        parts = [np.empty((channels, y1 - y0, x1 - x0), info.dtype) for y0, y1, x0, x1 in boxes]
        for top in range(min(box[0] for box in boxes), max(box[1] for box in boxes), BAND):
            touched = [pair for pair in zip(boxes, parts, strict=True) if pair[0][0] < top + BAND and top < pair[0][1]]
            if not touched:
                continue
            low = max(top, min(box[0] for box, _ in touched))
            rows = np.moveaxis(read_band(low, min(top + BAND, max(box[1] for box, _ in touched))), -1, 0)
            for (y0, y1, x0, x1), part in touched:
                first, last = max(y0, low), min(y1, low + rows.shape[1])
                part[:, first - y0 : last - y0] = rows[:channels, first - low : last - low, x0:x1]
        for part in parts:
            yield _observed(part, info.light)

    read_band = lru_cache(maxsize=1)(reader.rows)  # pieces of one band are cut one after the other
    shape = (info.height, info.width)
    given = None if window is None else _box_of(parse_window(window), size, shape, info.metadata.orientation)
    inspection = _inspect(cut, shape, size, given, colours=info.quantisation is None, threads=threads)
    return replace(inspection, camera=camera_facts(info.metadata))


def inspection_bytes(info: ImageInfo) -> int:
    """Return the memory for inspecting an image, bytes, besides what its reader holds (measured from above)."""
    return BAND * (min(info.width, PIECE) * BYTES_PER_PIXEL + 2 * info.width * info.pixel_bytes)


def inspect_array(pixels: FloatArray, size: int | None, window: Any, *, threads: int = 1) -> Inspection:
    """Inspect an array (h, w) or (h, w, c) of linear light, as :func:`inspect_reader` does a file."""
    planes = np.moveaxis(np.atleast_3d(pixels), -1, 0)
    light = Light((LINEAR,) * len(planes), "float32")
    light = replace(light, white=find_white(iter([planes]), light))
    light = replace(light, unit=find_unit([planes], light))

    def cut(boxes: list[Box]) -> Iterator[Observed]:
        for y0, y1, x0, x1 in boxes:
            yield _observed(planes[:, y0:y1, x0:x1], light)

    given = None if window is None else _box_of(parse_window(window), size, pixels.shape[:2], Orientation())
    return _inspect(cut, pixels.shape[:2], size, given, colours=True, threads=threads)


def _inspect(
    cut: Cut, shape: tuple[int, int], size: int | None, window: Box | None, *, colours: bool, threads: int
) -> Inspection:
    """Select windows unless one is given, collect the power spectra and build the inspection."""
    _check_size(size, shape)
    with ThreadPoolExecutor(threads) as pool:
        spectra = PictureSpectra(shape, pool, colours=colours)
        if window is not None:
            boxes = [window]
            spare: list[Box] = []
            large = boxes[0]
        else:
            boxes, spare, large = _select_windows(cut, shape, spectra)
        parts = cut([*boxes, *spare, large])
        windows = [next(parts) for _ in boxes]
        if spectra.is_empty:
            for box, piece in zip(boxes, windows, strict=True):
                spectra.add(piece, box)
    inspection = _build_inspection(boxes, windows, [next(parts) for _ in spare], spectra)
    if window is None:
        inspection = replace(inspection, spectra=spectra)
    is_wide = min(large[1] - large[0], large[3] - large[2]) >= LEAST_EDGE
    return replace(inspection, large=fill(next(parts).colours).mean(0) if is_wide else None)


def _observed(samples: npt.NDArray[Any], light: Light) -> Observed:
    """Return samples (``light.channels_read``, h, w) in linear light."""
    starts, valid = (np.stack(planes) for planes in zip(*start_and_data(samples, light), strict=True))
    return Observed(starts, np.where(np.isfinite(valid), valid, np.float32(np.nan)).mean(0))


class PictureSpectra:
    """Power spectra of the image, of the mean of its colours and of each colour, computed by an executor.

    Attributes
    ----------
    shape : tuple of int
        Height and width of the image, px.
    mean : PowerAccumulator
        Of the mean of the colours.
    each : list of PowerAccumulator
        Of each colour; empty when colours are not treated separately.
    """

    def __init__(self, shape: tuple[int, int], executor: Executor, *, colours: bool) -> None:
        self.mean = PowerAccumulator.of_size(*shape)
        self.each: list[PowerAccumulator] = []
        self.shape = shape
        self._executor, self._colours = executor, colours
        self.is_empty = True

    def add(self, piece: Observed, box: Box) -> None:
        """Add the part of the image at `box`."""
        self.is_empty = False
        at, usable = (box[0], box[2]), piece.usable
        added = [self._executor.submit(self.mean.add, piece.colours.mean(0), usable, at)]
        if self._colours and len(piece.colours) == 3:
            # of twice the size: blocks twice as far apart, which bounds the time; the quarters of a colour are not used
            self.each = self.each or [PowerAccumulator.of_size(2 * self.shape[0], 2 * self.shape[1]) for _ in range(3)]
            added += [
                self._executor.submit(spectra.add, plane, usable, at)
                for spectra, plane in zip(self.each, piece.colours, strict=True)
            ]
        for one in added:
            one.result()

    def power(self) -> tuple[Power | None, tuple[Power, ...]]:
        """Return the power of the mean, and of each colour."""
        each = [spectra.power() for spectra in self.each]
        return self.mean.power(), tuple(power for power in each if power is not None)


def _select_windows(cut: Cut, shape: tuple[int, int], spectra: PictureSpectra) -> tuple[list[Box], list[Box], Box]:
    """Return the windows to estimate from, further ones, and a large one.

    Reads the image in bands and adds them to `spectra`.
    """
    height, width = shape
    if max(height, width) <= SINGLE_WINDOW:
        whole = (0, height, 0, width)
        return [whole], [], whole
    count, edge = (1, SINGLE_WINDOW) if min(height, width) < 2 * WINDOW else (WINDOW_COUNT, WINDOW)
    ranking = WindowRanking(height, width)
    for top in range(0, height, BAND):
        bottom = min(top + BAND, height)
        known = []
        for left in range(0, width, PIECE):
            box = (top, bottom, left, min(left + PIECE, width))
            piece = next(cut([box]))
            known.append(piece.known)
            spectra.add(piece, box)
        ranking.add(top, np.concatenate(known, axis=1))
    best = ranking.best(count + SPARE, edge)
    return best[:count], best[count:], ranking.best(1, WIDE_WINDOW)[0]


def _build_inspection(
    boxes: list[Box], windows: list[Observed], spare: list[Observed], spectra: PictureSpectra
) -> Inspection:
    """Build the inspection from the windows with structure; UncertainPsfError when there is none."""
    kept, reason = [], "there is no window"
    for box, window in zip(boxes, windows, strict=True):
        defect = _defect(window.known)
        if defect is None:
            kept.append((box, window))
        else:
            y0, y1, x0, x1 = box
            reason = f"the window at {(x0 + x1) // 2},{(y0 + y1) // 2} ({x1 - x0} x {y1 - y0} px) {defect}"
    if not kept:
        raise UncertainPsfError(
            f"{reason}: the blur cannot be estimated; give a PSF with --psf or use another window with --window X,Y"
        )
    colours = tuple(fill(window.colours) for _, window in kept)
    noise = estimate_noise(window.known[None] for _, window in kept)
    power, each = spectra.power()
    measured = [window for _, window in kept] + spare
    return Inspection(
        boxes=tuple(box for box, _ in kept),
        colours=colours,
        windows=tuple(planes.mean(0) for planes in colours),
        large=None,
        noise=noise,
        power=power,
        colour_power=each,
        edges=measure_edges([(window.colours.mean(0), window.usable) for window in measured], noise),
        spectra=None,
    )


def _defect(window: FloatArray) -> str | None:
    """Return why a window cannot be used; None if it can."""
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
        values = tuple(int(part) for part in parts)
    except (TypeError, ValueError):
        values = ()
    if len(values) not in (2, 3):
        raise SettingsError(f"window is {window!r}; write X,Y or X,Y,SIZE in px, as in 1200,800,255")
    return values


def _box_of(window: tuple[int, ...], size: int | None, shape: tuple[int, int], orientation: Orientation) -> Box:
    """Return where a window of the picture as seen is stored; SettingsError if it is too small or outside the image."""
    height, width = orientation.seen_shape(shape)
    x, y = window[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise SettingsError(f"window centre {x},{y} lies outside the image of {width} x {height} px")
    edge = window[2] if len(window) == 3 else min(WINDOW, height, width)
    least = max(SMALLEST, KERNELS_PER_WINDOW * (size or 0))
    if edge < least:
        raise SettingsError(f"window is {edge} px wide; at least {least} px are needed (three kernels): make it larger")
    if edge > min(height, width):
        raise SettingsError(f"window is {edge} px wide, the image {width} x {height}: make it smaller")
    y0, x0 = (min(max(0, at - edge // 2), length - edge) for at, length in ((y, height), (x, width)))
    return orientation.stored_box((y0, y0 + edge, x0, x0 + edge), shape)


def _check_size(size: int | None, shape: tuple[int, int]) -> None:
    """Raise SettingsError if the blur width is invalid or the image too small for it."""
    if size is not None and not (3 <= size <= WIDEST and size % 2 == 1):
        raise SettingsError(f"blur width is {size} px; it must be odd, in 3..{WIDEST} (omit it to have it estimated)")
    least = max(SMALLEST, KERNELS_PER_WINDOW * (size or 0))
    if min(shape) < least:
        raise SettingsError(
            f"the image is {shape[1]} x {shape[0]} px; to estimate a blur of {size or 7} px, each edge needs at least "
            f"{least} px: give a PSF with --psf"
        )
