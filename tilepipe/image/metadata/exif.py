"""TIFF directories (IFDs) as values: read from any file, grafted onto a finished one.

EXIF and GPS live in directories of their own, which tifffile does not write.  They are read here entry by
entry, and appended to the output after tifffile has closed it: the output was given placeholder tags whose
code, type and value are patched to point to them.  (TIFF 6.0, section 2; BigTIFF; Exif 2.32, 4.6.3.)

MakerNote is left out: its inner offsets count from the old file and would dangle.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["EXIF_POINTER", "GPS_POINTER", "PLACEHOLDERS", "Directory", "Entry", "graft", "read_directory"]

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965
MAKER_NOTE = 37500

PLACEHOLDERS = {EXIF_POINTER: 34664, GPS_POINTER: 34852}
"""Tag that stands in while tifffile writes; each sorts where its pointer will."""

UNIT_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Bytes of what is swapped at once, by TIFF type (a rational is two longs)."""

RATIONALS = (5, 10)
LONGEST_VALUE = 1 << 24
"""Values above 16 MiB are damage, not metadata."""

Reader = Callable[[int, int], bytes]
"""(offset, size) -> bytes; fewer when the file ends."""


@dataclass(frozen=True)
class Entry:
    """One tag: code, TIFF type, number of values, and the values' bytes, little-endian."""

    code: int
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """The entries of one IFD, and the directories that it points to, by pointer tag."""

    entries: tuple[Entry, ...]
    children: dict[int, Directory] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()

    def get(self, code: int) -> Entry | None:
        """Return the entry with `code`, or None."""
        return next((entry for entry in self.entries if entry.code == code), None)


def read_directory(read: Reader, offset: int, order: str, *, big: bool, depth: int = 0) -> Directory:
    """Read the directory at `offset` and those below it.

    Parameters
    ----------
    read : access to the bytes that the offsets count in.
    order : "<" or ">".
    big : BigTIFF layout.

    Entries that are damaged are passed over: metadata must not stop a picture.
    """
    count_format, entry_size, slot = ("Q", 20, 8) if big else ("H", 12, 4)
    header = read(offset, struct.calcsize(order + count_format))
    if len(header) < struct.calcsize(order + count_format):
        return Directory(())
    count = min(struct.unpack(order + count_format, header)[0], 4096)
    table = read(offset + len(header), count * entry_size)
    entries, children, dropped = [], {}, []
    for start in range(0, len(table) - entry_size + 1, entry_size):
        code, kind = struct.unpack_from(order + "HH", table, start)
        number = struct.unpack_from(order + ("Q" if big else "I"), table, start + 4)[0]
        size = UNIT_SIZES.get(kind, 0) * (2 if kind in RATIONALS else 1) * number
        if not 0 < size <= LONGEST_VALUE:
            continue
        value = table[start + entry_size - slot : start + entry_size]
        if size > slot:
            value = read(struct.unpack(order + ("Q" if big else "I"), value)[0], size)
        if code == MAKER_NOTE:
            dropped.append(code)
        elif code in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER) and depth < 3:
            target = int.from_bytes(value[:size], "little" if order == "<" else "big")
            children[code] = read_directory(read, target, order, big=big, depth=depth + 1)
        elif len(value) >= size:
            entries.append(Entry(code, kind, number, _little_endian(value[:size], UNIT_SIZES[kind], order)))
    return Directory(tuple(entries), children, tuple(dropped))


def _little_endian(value: bytes, unit: int, order: str) -> bytes:
    if order == "<" or unit == 1:
        return value
    return b"".join(value[i : i + unit][::-1] for i in range(0, len(value), unit))


def graft(path: Path, directories: dict[int, Directory]) -> None:
    """Append `directories` (by pointer tag) to the little-endian TIFF at `path` and point to them.

    The first directory of the file must hold the placeholder of each.
    """
    with path.open("r+b") as file:
        header = file.read(16)
        big = header[2:4] == b"\x2b\0"
        first = struct.unpack_from("<Q", header, 8)[0] if big else struct.unpack_from("<I", header, 4)[0]
        for pointer, directory in directories.items():
            file.seek(0, 2)
            target = file.tell() + file.tell() % 2
            file.seek(target)
            file.write(_serialised(directory, target, big=big))
            _point(file, first, pointer, target, big=big)


def _point(file: object, first: int, pointer: int, target: int, *, big: bool) -> None:
    from typing import BinaryIO, cast

    stream = cast(BinaryIO, file)
    stream.seek(first)
    count_format, entry_size = ("<Q", 20) if big else ("<H", 12)
    count = struct.unpack(count_format, stream.read(struct.calcsize(count_format)))[0]
    start = stream.tell()
    table = stream.read(count * entry_size)
    for index in range(count):
        if struct.unpack_from("<H", table, index * entry_size)[0] == PLACEHOLDERS[pointer]:
            stream.seek(start + index * entry_size)
            packed = (
                struct.pack("<HHQQ", pointer, 18, 1, target) if big else struct.pack("<HHII", pointer, 4, 1, target)
            )
            stream.write(packed)
            return
    raise ValueError(f"no placeholder for tag {pointer}")


def _serialised(directory: Directory, offset: int, *, big: bool) -> bytes:
    """Return the directory's bytes as they stand at `offset`: table, long values, children."""
    slot, entry_size, head = (8, 20, 8) if big else (4, 12, 2)
    total = len(directory.entries) + len(directory.children)
    position = offset + head + total * entry_size + slot
    tail = b""
    rows: list[tuple[int, bytes]] = []

    def place(data: bytes) -> int:
        nonlocal tail
        tail += b"\0" * (len(tail) % 2)
        at = position + len(tail)
        tail += data
        return at

    number, value = ("Q", "Q") if big else ("I", "I")
    for entry in directory.entries:
        inline = entry.data.ljust(slot, b"\0") if len(entry.data) <= slot else None
        data = inline if inline is not None else struct.pack("<" + value, place(entry.data))
        rows.append((entry.code, struct.pack("<HH" + number, entry.code, entry.kind, entry.count) + data))
    for code, child in directory.children.items():
        at = position + len(tail) + len(tail) % 2
        place(_serialised(child, at, big=big))
        rows.append((code, struct.pack("<HH" + number, code, 18 if big else 4, 1) + struct.pack("<" + value, at)))
    rows.sort()
    count = struct.pack("<Q" if big else "<H", total)
    return count + b"".join(row for _, row in rows) + b"\0" * slot + tail
