"""How far the data of a truncated PNG goes, and a complete PNG with what is there (PNG 3rd edition, 10.1, 11.2.3)."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import IO

__all__ = ["SIGNATURE", "completed", "row_bytes", "rows_in"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples of a pixel by colour type (11.2.1)."""

PIECE = 1 << 16
"""Bytes that are read, and inflated, at a time."""

Header = tuple[int, int, int, int, int]
"""Width, height, bits of a sample, colour type, interlace method."""


def row_bytes(header: Header) -> int:
    """Return the size of a row with its filter's byte, before compression."""
    width, _, depth, colour, _ = header
    return 1 + -(-width * depth * SAMPLES[colour] // 8)


def rows_in(file: IO[bytes], header: Header) -> int:
    """Return the number of whole rows in an open PNG that is not interlaced, in bounded memory."""
    return sum(map(len, _inflated(file, header))) // row_bytes(header)


def completed(content: bytes, header: Header, chunks: dict[bytes, bytes], rows: int) -> bytearray:
    """Return a PNG with the first `rows` rows of a truncated one, and zeros below.

    Parameters
    ----------
    content : bytes
        The truncated file.
    header : tuple of int
        Its header.
    chunks : dict of bytes to bytes
        Its chunks by type; the palette and transparent colours are kept.
    rows : int
        See :func:`rows_in`.
    """
    out = bytearray(SIGNATURE)
    _write(out, b"IHDR", struct.pack(">IIBBBBB", *header[:4], 0, 0, 0))
    for kind in (b"PLTE", b"tRNS"):
        if kind in chunks:
            _write(out, kind, chunks[kind])
    packer = zlib.compressobj(1)
    kept, total = rows * row_bytes(header), header[1] * row_bytes(header)
    for piece in _inflated(io.BytesIO(content), header):
        _write(out, b"IDAT", packer.compress(piece[:kept]))
        kept -= min(kept, len(piece))
    for at in range(rows * row_bytes(header), total, PIECE):
        _write(out, b"IDAT", packer.compress(bytes(min(PIECE, total - at))))
    _write(out, b"IDAT", packer.flush())
    _write(out, b"IEND", b"")
    return out


def _write(out: bytearray, kind: bytes, content: bytes) -> None:
    if content or kind == b"IEND":
        out += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _inflated(file: IO[bytes], header: Header) -> Iterator[bytes]:
    """Yield the rows of an open PNG in pieces, until its data ends or is damaged, or the rows are complete."""
    inflater, left = zlib.decompressobj(), header[1] * row_bytes(header)
    for packed in _data(file):
        while packed and left and not inflater.eof:
            try:
                piece = inflater.decompress(packed, min(PIECE, left))
            except zlib.error:
                return
            packed = inflater.unconsumed_tail
            left -= len(piece)
            yield piece


def _data(file: IO[bytes]) -> Iterator[bytes]:
    """Yield the content of the data chunks in pieces, up to the first one with a wrong checksum."""
    size = file.seek(0, io.SEEK_END)
    file.seek(len(SIGNATURE))
    while len(start := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", start)
        begin = file.tell()
        end = begin + length
        if kind == b"IDAT":
            if end + 4 <= size and not _is_sound(file, end, kind):
                return
            file.seek(begin)
            yield from _pieces(file, min(end, size))
        file.seek(end + 4)


def _is_sound(file: IO[bytes], end: int, kind: bytes) -> bool:
    """Return whether the checksum of a chunk is right whose content begins here and ends at `end`."""
    checksum = zlib.crc32(kind)
    for piece in _pieces(file, end):
        checksum = zlib.crc32(piece, checksum)
    return file.read(4) == struct.pack(">I", checksum)


def _pieces(file: IO[bytes], end: int) -> Iterator[bytes]:
    while (number := min(PIECE, end - file.tell())) > 0:
        yield file.read(number)
