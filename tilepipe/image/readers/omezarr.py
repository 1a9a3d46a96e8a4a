"""Reader of OME-Zarr and plain zarr arrays: chunks are decoded as rows are asked for, in bounded memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, choose_light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.pixel_size import resolution_of
from tilepipe.image.readers.convert import Conversion
from tilepipe.image.readers.multiscales import ZarrPicture, find_picture, stated_record
from tilepipe.image.readers.reason import reason_of
from tilepipe.image.readers.zarr_codecs import check_blosc, check_codecs, checked_blosc, codec_names, longest_of
from tilepipe.image.zarr_folder import file_inside

__all__ = ["OmeZarrReader"]

WINDOW = 1024
"""Columns decoded at a time, px, or one chunk if that is wider."""

KEPT = 1 << 26
"""Largest row of chunks that is kept decoded, bytes; a larger one is decoded again for each band of rows."""

CHUNK_COPIES = 3
"""Memory for decoding a chunk, as a multiple of its bytes: compressed, decoded, and its part of the window."""

CONVERTED_ROWS, CONVERTED_COPIES = 256, 5
"""Rows read at a time, and copies of them, as stored, that a conversion holds."""


class OmeZarrReader:
    """The largest level of an OME-Zarr, or a zarr array: gray or RGB, with or without further channels."""

    def __init__(self, path: Path) -> None:
        """Read the metadata; raises InputError if they are damaged or what they describe is not one picture."""
        try:
            picture = find_picture(path)
            check_codecs(path, picture.array)
            store = _InsideStore(path)
            version: Literal[2, 3] = 2 if picture.zarr_format == 2 else 3
            with checked_blosc():
                self._array = zarr.open_array(store=store, path=picture.key, mode="r", zarr_format=version)
            self._axes = picture.axes
            self._window = _Window.of(self._array, picture.axes)
            store.limit(self._array, is_blosc=version == 2 and codec_names(picture.array)[-1:] == ["blosc"])
            self.info = self._describe(path, picture)
        except InputError:
            raise
        except Exception as error:  # on damaged metadata zarr raises arbitrary exceptions
            raise InputError(f"{path} is a damaged zarr folder: {reason_of(error, 'metadata or chunks')}") from error
        self._last: tuple[int, npt.NDArray[Any]] | None = None

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels); a chunk that is not there has the fill value."""
        info, high = self.info, self._window.rows
        out = np.empty((y1 - y0, info.width, info.channels), self._stored)
        try:
            for top in range(y0 - y0 % high, y1, high):
                first, last = max(y0, top), min(y1, top + high)
                if self._window.is_kept:
                    out[first - y0 : last - y0] = self._row_of_chunks(top)[first - top : last - top]
                else:
                    self._decode(out[first - y0 : last - y0], first)
            return self._convert(out)
        except InputError:
            raise
        except Exception as error:  # on a damaged chunk codecs raise arbitrary exceptions
            raise InputError(
                f"{info.path} is damaged in rows {y0}..{y1}: {reason_of(error, 'metadata or chunks')}"
            ) from error

    def close(self) -> None:
        """Release the rows that are kept."""
        self._last = None

    @property
    def _stored(self) -> np.dtype[Any]:
        return np.dtype(self._array.dtype).newbyteorder("=")

    def _describe(self, path: Path, picture: ZarrPicture) -> ImageInfo:
        if self._stored.kind not in "buif":
            raise InputError(f"{path} has {self._stored} samples; an image has integers or floats")
        size = dict(zip(picture.axes, self._array.shape, strict=True))
        bits = 1 if self._stored.kind == "b" else 8 * self._stored.itemsize
        self._convert = Conversion(self._stored.name, bits, "gray" if picture.colours == 1 else "RGB")
        resolution = picture.pixel and resolution_of(picture.pixel)
        metadata = Metadata(resolution=resolution, record=stated_record(path), lost=picture.lost)
        kinds = picture.extra_kinds
        light, note = choose_light(path, metadata, picture.colours, self._convert.dtype, kinds)
        copied = [f"channel {picture.colours + at} is copied unchanged" for at, kind in enumerate(kinds, 1) if not kind]
        row = size["x"] * size.get("c", 1) * self._stored.itemsize
        converted = 0 if self._convert.is_plain else CONVERTED_ROWS * CONVERTED_COPIES * row
        return ImageInfo(
            path=path,
            kind="OME-Zarr" if picture.is_ome else "zarr",
            height=size["y"],
            width=size["x"],
            colours=picture.colours,
            extras=len(kinds),
            dtype=self._convert.dtype,
            layout=f"chunks of {self._window.chunk_width} x {self._window.rows}",
            compression=", ".join(codec_names(picture.array)[-1:]) or "none",
            decoded_bytes=self._window.memory + converted,
            metadata=metadata,
            light=light,
            curve_note=note,
            extra_kinds=kinds,
            notes=(*self._convert.notes, *copied),
        )

    def _row_of_chunks(self, top: int) -> npt.NDArray[Any]:
        """Return the row of chunks whose first row is `top`; the last one is kept."""
        if self._last is None or self._last[0] != top:
            self._last = None
            rows = min(self._window.rows, self.info.height - top)
            pixels = np.empty((rows, self.info.width, self.info.channels), self._stored)
            self._decode(pixels, top)
            self._last = top, pixels
        return self._last[1]

    def _decode(self, out: npt.NDArray[Any], top: int) -> None:
        """Decode rows from `top` on into `out`, (rows, width, channels), within one row of chunks."""
        order = [axis for axis in self._axes if axis in ("y", "x", "c")]
        for left in range(0, self.info.width, self._window.columns):
            right = min(left + self._window.columns, self.info.width)
            parts = {"y": slice(top, top + len(out)), "x": slice(left, right), "c": slice(None)}
            piece = np.asarray(self._array[tuple(parts.get(axis, 0) for axis in self._axes)])
            piece = piece.transpose([order.index(axis) for axis in ("y", "x", "c") if axis in order])
            out[:, left:right] = piece.reshape(len(out), right - left, -1)


@dataclass(frozen=True)
class _Window:
    """What is decoded at a time: `columns` of one row of chunks, `rows` high, all channels; `memory` in bytes."""

    rows: int
    columns: int
    chunk_width: int
    is_kept: bool
    memory: int

    @classmethod
    def of(cls, array: zarr.Array[Any], axes: tuple[str, ...]) -> _Window:
        """Return the window for an array with these axes."""
        size, chunk = (dict(zip(axes, lengths, strict=True)) for lengths in (array.shape, array.chunks))
        columns = max(1, WINDOW // chunk["x"]) * chunk["x"]
        channels = size.get("c", 1)
        chunks = -(-min(columns, size["x"]) // chunk["x"]) * -(-channels // chunk.get("c", 1))
        decoding = CHUNK_COPIES * chunks * _chunk_bytes(array) + 2 * chunks * _index_bytes(array)
        row = min(chunk["y"], size["y"]) * size["x"] * channels * array.dtype.itemsize
        is_kept = row <= max(KEPT, decoding)
        return cls(chunk["y"], columns, chunk["x"], is_kept, decoding + is_kept * row)


class _InsideStore(LocalStore):
    """A folder from which no file outside of it is read, and none that is larger than its chunk can be."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, read_only=True)
        self._longest: tuple[int, int] | None = None
        self._blosc: int | None = None

    def limit(self, array: zarr.Array[Any], *, is_blosc: bool) -> None:
        """Bound what is read at a time by the chunks of `array`; its documents have been read.

        With `is_blosc` whole chunks are checked here: version 2 of zarr has no codec that could be replaced.
        """
        shard = math.prod(array.shards or array.chunks) * array.dtype.itemsize
        index = _index_bytes(array)
        self._longest = longest_of(shard) + index, max(longest_of(_chunk_bytes(array)), index)
        self._blosc = _chunk_bytes(array) if is_blosc else None

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        """Return the content of `key`, or a part of it; None if it does not exist."""
        file = file_inside(self.root, key)
        if file is None:
            return None
        size = file.stat().st_size
        if self._longest is not None:
            wanted, limit = size, self._longest[byte_range is not None]
            if isinstance(byte_range, RangeByteRequest):
                wanted = byte_range.end - byte_range.start
            elif isinstance(byte_range, SuffixByteRequest):
                wanted = byte_range.suffix
            if wanted > limit:
                raise InputError(f"{self.root} is damaged: {key} has {wanted} bytes for a chunk of at most {limit}")
        content = await super().get(key, prototype, byte_range)
        if content is not None and self._blosc is not None:
            check_blosc(content.to_bytes(), self._blosc)
        return content


def _chunk_bytes(array: zarr.Array[Any]) -> int:
    return math.prod(array.chunks) * array.dtype.itemsize


def _index_bytes(array: zarr.Array[Any]) -> int:
    """Return the size of a shard's index, two 64-bit integers for each chunk and a checksum; 0 without shards."""
    if array.shards is None:
        return 0
    return 16 * math.prod(-(-shard // chunk) for shard, chunk in zip(array.shards, array.chunks, strict=True)) + 4
