"""PNG writer: 8 or 16 bits, compressed band by band, with the metadata of the input (PNG 3rd edition)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tilepipe.image.info import ImageInfo
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.photoshop import photoshop_block
from tilepipe.image.writers.output import Blocks, Output
from tilepipe.image.writers.png_filters import filter_rows

__all__ = ["SIGNATURE", "band_bytes", "metadata_lost", "write_png"]

ByteArray = npt.NDArray[np.uint8]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

COLOUR_TYPES = {(1, 0): 0, (3, 0): 2, (1, 1): 4, (3, 1): 6}
"""(colours, alpha) -> colour type (11.2.1)."""

LEVEL = 6
"""Effort of the compression, 0..9."""

STRATEGIES = {1: zlib.Z_FILTERED, 2: zlib.Z_RLE}
"""zlib's strategy by the bytes of a sample: in 16 bits it finds hardly any repetition but runs, and takes four times as
long for a file that is larger by 2 % (measured on a photograph)."""

BAND_COPIES = 5
"""Memory for a band, as a multiple of its bytes: side by side, in its byte order, filtered, and compressed."""


def band_bytes(info: ImageInfo, dtype: str, rows: int) -> int:
    """Return the memory held while a band of `rows` rows is filtered, bytes."""
    return BAND_COPIES * rows * info.width * info.written_channels * np.dtype(dtype).itemsize


def metadata_lost(metadata: Metadata) -> list[str]:
    """Return the names of the blocks that a PNG has no place for."""
    return metadata.tiff_only + metadata.fits_only


def write_png(path: Path, output: Output) -> None:
    """Create the PNG `path`."""
    info = output.info
    samples, alpha = np.dtype(output.dtype).itemsize, info.written_channels - info.colours
    header = struct.pack(">IIBBBBB", info.width, info.height, 8 * samples, COLOUR_TYPES[info.colours, alpha], 0, 0, 0)
    with path.open("wb") as file:
        file.write(SIGNATURE)
        _write_chunk(file, b"IHDR", header)
        for kind, content in _metadata_chunks(output.metadata, output.profile):
            _write_chunk(file, kind, content)
        compressor = zlib.compressobj(LEVEL, strategy=STRATEGIES[samples])
        pixel = samples * info.written_channels
        blocks = (block[:, :, : info.written_channels] for block in output.blocks)
        for rows in _filtered_bands(_bands(blocks, info.width), pixel):
            if packed := compressor.compress(rows):
                _write_chunk(file, b"IDAT", packed)
        _write_chunk(file, b"IDAT", compressor.flush())
        _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind)
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def _metadata_chunks(metadata: Metadata, profile: bytes | None) -> list[tuple[bytes, bytes]]:
    """Return the chunks before the pixels."""
    chunks = [(b"cICP", metadata.cicp)] if metadata.cicp else []
    if profile:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if metadata.resolution is not None:
        per_metre = {1: 1.0, 2: 100 / 2.54, 3: 100.0}  # by TIFF's unit: none, inch, centimetre
        horizontal, vertical, unit = metadata.resolution
        x, y = (round(per_metre[unit] * number / parts) for number, parts in (horizontal, vertical))
        chunks.append((b"pHYs", struct.pack(">IIB", min(x, 2**31 - 1), min(y, 2**31 - 1), int(unit > 1))))
    if exif := metadata.exif_block():
        chunks.append((b"eXIf", exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if resources := photoshop_block(metadata.photoshop, metadata.iptc):
        chunks.append((b"zTXt", b"Raw profile type 8bim\0\0" + zlib.compress(_hexadecimal(b"8bim", resources))))
    return chunks


def _hexadecimal(name: bytes, data: bytes) -> bytes:
    """Return `data` as ImageMagick and ExifTool store it in text: name, length, lines of 72 hexadecimal digits."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[at : at + 72] for at in range(0, len(digits), 72))
    return b"\n%s\n%8d\n%s\n" % (name, len(data), lines)


def _bands(blocks: Blocks, width: int) -> Iterator[npt.NDArray[Any]]:
    """Yield whole rows: the blocks of each band side by side."""
    band: list[npt.NDArray[Any]] = []
    for block in blocks:
        band.append(block)
        if sum(piece.shape[1] for piece in band) == width:
            yield band[0] if len(band) == 1 else np.concatenate(band, 1)
            band = []


def _filtered_bands(bands: Iterator[npt.NDArray[Any]], pixel: int) -> Iterator[bytes]:
    """Yield the bytes of each band with its filters; `pixel` is the size of a pixel, bytes."""
    above: ByteArray | None = None
    for band in bands:
        big_endian = np.ascontiguousarray(band, band.dtype.newbyteorder(">"))
        rows = big_endian.reshape(len(band), -1).view(np.uint8)
        out = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filter_rows(rows, np.zeros_like(rows[0]) if above is None else above, pixel, out)
        yield out.tobytes()
        above = rows[-1].copy()
