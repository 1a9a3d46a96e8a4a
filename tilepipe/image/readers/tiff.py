"""Banded TIFF reader: tifffile parses the directory and decodes segments, this module reads the bytes.

Uses positioned reads instead of a memory map, because mapped pages count as memory of the process.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from tilepipe.dtypes import BoolArray
from tilepipe.errors import InputError, TilepipeError
from tilepipe.image.info import ImageInfo, ImageReader, choose_light
from tilepipe.image.light import MASK
from tilepipe.image.metadata.blocks import Metadata, from_tiff_directory
from tilepipe.image.metadata.descriptions import (
    DESCRIPTION,
    with_description_of_one_page,
    with_description_of_stack,
)
from tilepipe.image.metadata.exif import Entry, has_loop
from tilepipe.image.metadata.ome import ome_of_one_plane
from tilepipe.image.metadata.profiles import adobe_rgb_profile, with_stated_profile
from tilepipe.image.readers.reason import reason_of
from tilepipe.image.readers.salvage import WAY_OUT, SalvagedReader
from tilepipe.image.readers.tiff_pages import conversion_of, mask_page, name_of
from tilepipe.image.readers.tiff_stacks import choose, parsed
from tilepipe.image.selection import WHOLE, Selection
from tilepipe.system.files import read_at

__all__ = ["TiffReader", "open_tiff"]

UNCOMPRESSED = 1

CONVERTED_ROWS, CONVERTED_COPIES = 256, 10
"""Rows read at a time, and copies of them, as stored, that a conversion holds: ten for a palette of 16-bit colours."""


def open_tiff(path: Path, selection: Selection = WHOLE) -> ImageReader:
    """Open one picture of a TIFF; errors as of :class:`TiffReader`."""
    reader = TiffReader(path, selection)
    if not reader.is_cut:
        return reader
    try:
        return SalvagedReader(reader, reader.present, CONVERTED_ROWS)
    except Exception:
        reader.close()
        raise


class TiffReader:
    """One picture of a TIFF, with its mask page if there is one; by default the first of the largest pages.

    Parameters
    ----------
    path : Path
        The file.
    selection : Selection
        Which picture.

    Raises
    ------
    InputError
        If the file is damaged, truncated or not supported.
    SettingsError
        If it has no such page or plane.
    """

    def __init__(self, path: Path, selection: Selection = WHOLE) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._tiff: tifffile.TiffFile | None = None
        try:
            if has_loop(self._read):
                raise InputError(f"{path} is a damaged TIFF: its chain of pages is a loop")
            self._tiff = parsed(path)
            pages = [page.aspage() for page in self._tiff.pages]
            self._plane = choose(path, self._tiff, pages, selection)
            self._page = self._plane.page
            self._mask = mask_page(pages, self._page)
            self._convert = conversion_of(path, self._page)
            self._size = os.fstat(self._descriptor).st_size
            self._is_salvaged = selection.salvage
            self.is_cut = False
            self.info = self._describe(path)
        except TilepipeError:
            self.close()
            raise
        except Exception as error:  # on damaged files tifffile raises arbitrary exceptions
            self.close()
            raise InputError(f"{path} is a damaged TIFF: {reason_of(error, 'directory or data')}") from error
        self._last: tuple[int, npt.NDArray[Any], tuple[int, ...]] | None = None

    def close(self) -> None:
        """Close the file."""
        if self._tiff is not None:
            self._tiff.close()
        os.close(self._descriptor)

    def _read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, fewer at the end of the file."""
        return read_at(self._descriptor, size, offset)

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels)."""
        with self._naming_rows(y0, y1):
            out = self._convert(self._stored_rows(y0, y1))
            if self._mask is not None:
                out = np.concatenate([out, self._mask_rows(y0, y1)[:, :, None]], -1)
        return out

    def stored_colours(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1 of the colours of ``info.space``, (rows, width, its channels), as the file has them."""
        space = self.info.space
        assert space is not None
        with self._naming_rows(y0, y1):
            return self._stored_rows(y0, y1)[..., : space.channels].view(space.dtype)

    @contextmanager
    def _naming_rows(self, y0: int, y1: int) -> Iterator[None]:
        """Raise any error as InputError that names the rows."""
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # on a damaged segment decoders raise arbitrary exceptions
            raise InputError(
                f"{self.info.path} is damaged in rows {y0}..{y1}: {reason_of(error, 'directory or data')}"
            ) from error

    def _stored_rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1 as decoded, (rows, width, samples)."""
        out = np.zeros((y1 - y0, self.info.width, int(self._page.samplesperpixel)), self._convert.stored)
        if self._is_plain():
            self._copy_plain_rows(out, y0)
        else:
            for index in self._segments_touching(y0, y1):
                self._copy_segment(out, y0, index)
        return out

    def present(self, y0: int, y1: int) -> BoolArray:
        """Return which pixels of rows y0..y1 are in the file, (rows, width)."""
        out = np.ones((y1 - y0, self.info.width), bool)
        if self._is_plain():
            planes = self._page.samplesperpixel if int(self._page.planarconfig) == 2 else 1
            for y in range(y0, y1):
                out[y - y0] = all(sum(self._plain_row(plane, y)) <= self._size for plane in range(planes))
            return out
        for index in self._segments_touching(y0, y1):
            if not self._is_there(self._page, index):
                top, bottom, left, right = _segment_box(self._page, index)
                out[max(top, y0) - y0 : max(bottom, y0) - y0, left:right] = False
        return out

    def _plain_row(self, plane: int, y: int) -> tuple[int, int]:
        """Return offset and size of a row of an uncompressed page, bytes; `plane` is 0 unless the page is planar."""
        page, strip = self._page, self._strip_rows()
        assert page.dtype is not None
        samples = 1 if int(page.planarconfig) == 2 else int(page.samplesperpixel)
        row_bytes = int(page.imagewidth) * page.dtype.itemsize * samples
        index = plane * -(-int(page.imagelength) // strip) + y // strip
        return int(page.dataoffsets[index]) + self._plane.skipped + (y % strip) * row_bytes, row_bytes

    def _is_there(self, page: tifffile.TiffPage, index: int) -> bool:
        """Return whether the bytes of a segment are in the file."""
        return int(page.dataoffsets[index]) + int(page.databytecounts[index]) <= self._size

    def _describe(self, path: Path) -> ImageInfo:
        page, convert = self._page, self._convert
        self._check_extent(path, page)
        metadata = self._metadata()
        samples, colours, dtype = int(page.samplesperpixel), convert.colours, convert.dtype
        number = samples - convert.stored_colours
        kinds = tuple(int(kind) for kind in page.extrasamples)[:number]
        kinds += (0,) * (number - len(kinds)) + (MASK,) * (self._mask is not None)
        if convert.space is not None:
            metadata = replace(metadata, icc=convert.space.rgb_profile)
        elif convert.colour == "CMYK":
            metadata = replace(metadata, icc=adobe_rgb_profile())
        metadata = with_stated_profile(metadata, colours if dtype.startswith("uint") else 0)
        # the curves of a profile are for values 0..1, which integers in float32 are not
        read_as = metadata if convert.is_in_range else replace(metadata, icc=None)
        nodata = metadata.nodata
        if nodata is not None and not convert.is_plain:
            nodata = convert.nodata(nodata)
            metadata = metadata.with_nodata(nodata)
        light, note = choose_light(path, read_as, colours, dtype, kinds, nodata)
        return ImageInfo(
            path=path,
            kind="BigTIFF" if page.parent.is_bigtiff else "TIFF",
            height=int(page.imagelength),
            width=int(page.imagewidth),
            colours=colours,
            extras=len(kinds),
            dtype=dtype,
            layout=_layout(page),
            compression=name_of(tifffile.COMPRESSION(int(page.compression))).lower(),
            decoded_bytes=self._segment_memory(),
            metadata=metadata,
            light=light,
            curve_note=note,
            extra_kinds=kinds,
            notes=convert.notes,
            selection=self._plane.selection,
            space=convert.space,
        )

    def _check_extent(self, path: Path, page: tifffile.TiffPage) -> None:
        """Find out whether pixel data is missing; raise InputError if it is and not salvaged, or if segments are."""
        needed = max(_end_of_data(page) + self._plane.skipped, 0 if self._mask is None else _end_of_data(self._mask))
        self.is_cut = needed > self._size
        if self.is_cut and not self._is_salvaged:
            raise InputError(
                f"{path} is truncated: its pixel data ends at byte {needed}, the file at byte {self._size}; {WAY_OUT}"
            )
        assert page.dtype is not None
        plain = page.imagelength * page.imagewidth * page.samplesperpixel * page.dtype.itemsize
        if self._is_plain() and sum(page.databytecounts) < plain:
            raise InputError(f"{path} is truncated: it has {sum(page.databytecounts)} of {plain} bytes of pixel data")
        segments = min(len(page.dataoffsets), len(page.databytecounts))
        if segments < self._segments_expected() or not _end_of_data(page):
            raise InputError(f"{path} is damaged: {segments} of {self._segments_expected()} segments")

    def _segments_expected(self) -> int:
        """Return the number of strips or tiles that the header implies."""
        page = self._page
        planes = page.samplesperpixel if int(page.planarconfig) == 2 else 1
        if page.is_tiled:
            return int(-(-page.imagelength // page.tilelength) * -(-page.imagewidth // page.tilewidth) * planes)
        return int(-(-page.imagelength // self._strip_rows()) * planes)

    def _metadata(self) -> Metadata:
        page, tiff = self._page, self._page.parent
        left_out = self._plane.left_out
        metadata = from_tiff_directory(self._read, int(page.offset), tiff.byteorder, big=bool(tiff.is_bigtiff))
        metadata, ome = with_description_of_stack(replace(metadata, lost=left_out), self._description()), None
        text = metadata.tags.get(DESCRIPTION)
        if text is not None and self._plane.is_ome:
            shape = int(self._page.imagelength), int(self._page.imagewidth)
            ome = ome_of_one_plane(text.data, self._plane.series, self._plane.position, shape)
        return with_description_of_one_page(metadata, is_only=not left_out, plane=ome)

    def _description(self) -> Entry | None:
        """Return the description of the first page, which is that of the file if a program wrote it for itself."""
        tiff = self._page.parent
        first = int(tiff.pages.first.offset)
        return from_tiff_directory(self._read, first, tiff.byteorder, big=bool(tiff.is_bigtiff)).tags.get(DESCRIPTION)

    def _strip_rows(self) -> int:
        return _strip_rows(self._page)

    def _is_plain(self) -> bool:
        """Return whether the page is uncompressed in strips with standard bit order."""
        page = self._page
        whole_bytes = page.dtype is not None and int(page.bitspersample) == 8 * page.dtype.itemsize
        return whole_bytes and int(page.compression) == UNCOMPRESSED and not page.is_tiled and int(page.fillorder) == 1

    def _segment_memory(self) -> int:
        """Return the memory for decoding one segment, bytes: file bytes, pixels, the cached segment, rows converted."""
        page = self._page
        assert page.dtype is not None
        row = int(page.imagewidth * page.samplesperpixel) * page.dtype.itemsize
        converted = 0 if self._convert.is_plain else CONVERTED_COPIES * CONVERTED_ROWS * row
        if self._mask is not None:
            converted += 2 * _segment_pixels(self._mask) + int(max(self._mask.databytecounts))
        if self._is_plain():
            return converted
        samples = 1 if int(page.planarconfig) == 2 else page.samplesperpixel
        segment = _segment_pixels(page) * int(samples) * int(page.dtype.itemsize)
        return converted + 2 * segment + int(max(page.databytecounts))

    def _copy_plain_rows(self, out: npt.NDArray[Any], y0: int) -> None:
        """Read only the rows needed from uncompressed strips, whatever their size."""
        page, strip = self._page, self._strip_rows()
        planar = int(page.planarconfig) == 2
        assert page.dtype is not None
        dtype = page.dtype.newbyteorder(page.parent.byteorder)
        channels = out.shape[2]
        for plane in range(channels if planar else 1):
            y = y0
            while y < y0 + len(out):
                stop = min((y // strip + 1) * strip, y0 + len(out))
                offset, row_bytes = self._plain_row(plane, y)
                raw = read_at(self._descriptor, (stop - y) * row_bytes, offset)
                if len(raw) < (stop - y) * row_bytes:
                    if not self.is_cut:
                        raise InputError(f"{self.info.path} is truncated: rows {y}..{stop} are incomplete")
                    raw = raw.ljust((stop - y) * row_bytes, b"\0")
                pixels = np.frombuffer(raw, dtype).reshape(stop - y, self.info.width, -1)
                if planar:
                    out[y - y0 : stop - y0, :, plane] = pixels[:, :, 0]
                else:
                    out[y - y0 : stop - y0] = pixels
                y = stop

    def _mask_rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1 of the mask: 0 where a pixel is not part of the image, else the largest sample."""
        page = self._mask
        assert page is not None
        kept = np.zeros((y1 - y0, self.info.width), bool)
        for index in _touching(page, y0, y1):
            if not self._is_there(page, index):
                continue  # of a salvaged file: masked
            size = int(page.databytecounts[index])
            raw = read_at(self._descriptor, size, int(page.dataoffsets[index])) if size else None
            pixels, (_, _, top, left, _), _ = page.decode(raw, index, jpegtables=page.jpegtables)
            if pixels is None:
                continue
            piece = pixels[0, :, : self.info.width - left, 0] != 0
            low, high = max(y0, top), min(y1, top + piece.shape[0])
            kept[low - y0 : high - y0, left : left + piece.shape[1]] = piece[low - top : high - top]
        full = 1 if self.info.is_float else np.iinfo(self.info.dtype).max
        return np.where(kept, full, 0).astype(self.info.dtype)

    def _segments_touching(self, y0: int, y1: int) -> list[int]:
        return _touching(self._page, y0, y1)

    def _copy_segment(self, out: npt.NDArray[Any], y0: int, index: int) -> None:
        """Copy the rows of a segment that lie in `out`, whose first row is `y0`."""
        decoded = self._decode(index)
        if decoded is None:
            return  # segment missing in a sparse file: zeros
        pixels, (plane, _, top, left, _) = decoded
        height, width = pixels.shape[0], min(pixels.shape[1], self.info.width - left)
        low, high = max(y0, top), min(y0 + len(out), top + height)
        target = out[low - y0 : high - y0, left : left + width]
        source = pixels[low - top : high - top, :width]
        if int(self._page.planarconfig) == 2:
            target[:, :, plane] = source[:, :, 0]
        else:
            target[...] = source

    def _decode(self, index: int) -> tuple[npt.NDArray[Any], tuple[int, ...]] | None:
        """Decode one segment to (rows, columns, samples) and its position; the last one is cached."""
        if self._last is not None and self._last[0] == index:
            return self._last[1:]
        page = self._page
        if not self._is_there(page, index):
            return None  # of a salvaged file: masked
        size = int(page.databytecounts[index])
        raw = read_at(self._descriptor, size, int(page.dataoffsets[index])) if size else None
        pixels, position, _ = page.decode(raw, index, jpegtables=page.jpegtables)
        if pixels is None:
            return None
        if pixels.ndim != 4:
            raise InputError(f"{self.info.path} is damaged: segment {index} decodes to shape {pixels.shape}")
        self._last = (index, pixels[0], position)
        return pixels[0], position


def _end_of_data(page: tifffile.TiffPage) -> int:
    """Return the offset behind the last byte of the segments."""
    return max((o + c for o, c in zip(page.dataoffsets, page.databytecounts, strict=False) if c), default=0)


def _segment_box(page: tifffile.TiffPage, index: int) -> tuple[int, int, int, int]:
    """Return the first row of a segment, the row behind its last, its first column and the column behind its last."""
    rows = int(page.tilelength) if page.is_tiled else _strip_rows(page)
    width = int(page.tilewidth) if page.is_tiled else int(page.imagewidth)
    across = -(-int(page.imagewidth) // width)
    down, column = divmod(index, across)
    top, left = down % -(-int(page.imagelength) // rows) * rows, column * width
    return top, top + rows, left, left + width


def _segment_pixels(page: tifffile.TiffPage) -> int:
    """Return the number of pixels of a strip or tile."""
    if page.is_tiled:
        return int(page.tilelength) * int(page.tilewidth)
    return _strip_rows(page) * int(page.imagewidth)


def _strip_rows(page: tifffile.TiffPage) -> int:
    return max(1, min(int(page.rowsperstrip or page.imagelength), int(page.imagelength)))


def _touching(page: tifffile.TiffPage, y0: int, y1: int) -> list[int]:
    """Return the indices of the segments of `page` that contain rows y0..y1."""
    rows = int(page.tilelength) if page.is_tiled else _strip_rows(page)
    across = -(-int(page.imagewidth) // int(page.tilewidth)) if page.is_tiled else 1
    down = -(-int(page.imagelength) // rows)
    planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
    return [
        (plane * down + row) * across + column
        for row in range(y0 // rows, -(-y1 // rows))
        for plane in range(planes)
        for column in range(across)
    ]


def _layout(page: tifffile.TiffPage) -> str:
    planar = ", planar" if int(page.planarconfig) == 2 and page.samplesperpixel > 1 else ""
    if page.is_tiled:
        return f"tiles of {page.tilewidth} x {page.tilelength}{planar}"
    return f"{len(page.dataoffsets)} strips{planar}"
