"""Read TIFF directories (IFDs) from any file and append them to a finished one.

EXIF and GPS are stored in separate directories, which tifffile does not write.  This module reads them entry by entry
and appends them after tifffile has closed the output: tifffile writes placeholder tags, whose code, type and value are
then patched to point to the appended directories.  (TIFF 6.0, section 2; BigTIFF; Exif 2.32, 4.6.3.)

MakerNote is dropped: its internal offsets refer to the original file and would be invalid.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = [
    "EXIF_POINTER",
    "GPS_POINTER",
    "INTEROP_POINTER",
    "MAKER_NOTE",
    "PLACEHOLDERS",
    "Directory",
    "Entry",
    "graft",
    "has_loop",
    "read_directory",
    "serialised",
]

EXIF_POINTER, GPS_POINTER, INTEROP_POINTER = 34665, 34853, 40965
MAKER_NOTE = 37500

PLACEHOLDERS = {EXIF_POINTER: 34664, GPS_POINTER: 34852}
"""Placeholder tag written by tifffile, by pointer tag; both sort to the same position."""

UNIT_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 1, 7: 1, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size of the byte-swapped unit, bytes, by TIFF type (a rational is two longs)."""

RATIONALS = (5, 10)
LONG, LONG8 = 4, 16

STREAMS = (700, 33723, 34377, 34675)
"""XMP, IPTC, Photoshop resources and ICC profile: bytes whatever their type, which for IPTC is often LONG."""

LONGEST_VALUE = 1 << 24
"""Largest value, bytes; values above 16 MiB are treated as damaged."""

DEEPEST = 3
"""Levels of directories below the first: EXIF and GPS, interoperability, and one to spare."""

MOST_KEPT = 1 << 26
"""Largest sum of all values, bytes; what follows is dropped."""

Reader = Callable[[int, int], bytes]
"""(offset, size) -> bytes; returns fewer bytes at the end of the file."""


@dataclass(frozen=True)
class Entry:
    """One tag: code, TIFF type, number of values, and their bytes, little-endian."""

    code: int
    kind: int
    count: int
    data: bytes


@dataclass(frozen=True)
class Directory:
    """One IFD: its entries, its child directories by pointer tag, and the codes of dropped entries."""

    entries: tuple[Entry, ...]
    children: dict[int, Directory] = field(default_factory=dict)
    dropped: tuple[int, ...] = ()

    def get(self, code: int) -> Entry | None:
        """Return the entry with `code`, or None."""
        return next((entry for entry in self.entries if entry.code == code), None)


def has_loop(read: Reader) -> bool:
    """Return whether the chain of a TIFF's pages comes back to an earlier one; a truncated chain ends."""
    header = read(0, 16)
    order, big = "<" if header[:2] == b"II" else ">", b"\x2b" in header[2:4]
    pointer, count_format, entry_size = ("Q", "Q", 20) if big else ("I", "H", 12)
    size = struct.calcsize(order + pointer)
    at, seen = header[8:16] if big else header[4:8], set()
    while len(at) == size and (offset := struct.unpack(order + pointer, at)[0]):
        if offset in seen:
            return True
        seen.add(offset)
        number = read(offset, struct.calcsize(order + count_format))
        if len(number) < struct.calcsize(order + count_format):
            return False
        at = read(offset + len(number) + struct.unpack(order + count_format, number)[0] * entry_size, size)
    return False


def read_directory(read: Reader, offset: int, order: str, *, big: bool) -> Directory:
    """Read the directory at `offset` and its child directories.

    Damaged entries are skipped, so that bad metadata does not make an image unreadable.  Every directory is read once,
    so pointers in a circle end.

    Parameters
    ----------
    read : Reader
        Returns the bytes at an offset.
    offset : int
        Start of the directory, bytes.
    order : {"<", ">"}
        Byte order.
    big : bool
        Whether the layout is BigTIFF.
    """
    return _read(_Source(read, order, big=big), offset, 0)


@dataclass
class _Source:
    """The file being read, the directories seen in it, and the bytes of values that may still be kept."""

    read: Reader
    order: str
    big: bool
    seen: set[int] = field(default_factory=set)
    left: int = MOST_KEPT


def _read(source: _Source, offset: int, depth: int) -> Directory:
    """Read the directory at `offset`, `depth` levels below the first, and its children."""
    read, order, big = source.read, source.order, source.big
    source.seen.add(offset)
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
        if not 0 < size <= min(LONGEST_VALUE, source.left):
            continue
        value = table[start + entry_size - slot : start + entry_size]
        if size > slot:
            value = read(struct.unpack(order + ("Q" if big else "I"), value)[0], size)
        if code == MAKER_NOTE:
            dropped.append(code)
        elif code in (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER):
            target = int.from_bytes(value[:size], "little" if order == "<" else "big")
            if depth < DEEPEST and target not in source.seen:
                children[code] = _read(source, target, depth + 1)
        elif len(value) >= size:
            source.left -= size
            unit = 1 if code in STREAMS else UNIT_SIZES[kind]
            entry = _in_classic(Entry(code, kind, number, _little_endian(value[:size], unit, order)))
            if entry is not None:
                entries.append(entry)
    return Directory(tuple(entries), children, tuple(dropped))


def _in_classic(entry: Entry) -> Entry | None:
    """Return an entry with 32-bit integers for 64-bit ones, which only a BigTIFF has; None if they do not fit."""
    if entry.kind != LONG8:
        return entry
    values = struct.unpack(f"<{entry.count}Q", entry.data)
    if max(values) >= 1 << 32:
        return None
    return Entry(entry.code, LONG, entry.count, struct.pack(f"<{entry.count}I", *values))


def _little_endian(value: bytes, unit: int, order: str) -> bytes:
    if order == "<" or unit == 1:
        return value
    return b"".join(value[i : i + unit][::-1] for i in range(0, len(value), unit))


def graft(path: Path, directories: dict[int, Directory]) -> None:
    """Append `directories` (by pointer tag) to the little-endian TIFF at `path` and patch the pointers.

    The file's first directory must contain the placeholder of each.
    """
    with path.open("r+b") as file:
        header = file.read(16)
        big = header[2:4] == b"\x2b\0"
        first = struct.unpack_from("<Q", header, 8)[0] if big else struct.unpack_from("<I", header, 4)[0]
        for pointer, directory in directories.items():
            file.seek(0, 2)
            target = file.tell() + file.tell() % 2
            file.seek(target)
            file.write(_serialise(directory, target, big=big))
            _patch_pointer(file, first, pointer, target, big=big)


def serialised(directory: Directory) -> bytes:
    """Return a small TIFF, little-endian, with `directory` as its first: what an Exif block contains."""
    return b"II*\0" + struct.pack("<I", 8) + _serialise(directory, 8, big=False)


def _patch_pointer(file: object, first: int, pointer: int, target: int, *, big: bool) -> None:
    """Replace the placeholder of `pointer` in the directory at `first` by a pointer to `target`."""
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


def _serialise(directory: Directory, offset: int, *, big: bool) -> bytes:
    """Return the bytes of the directory placed at `offset`: table, out-of-line values, children."""
    slot, entry_size, head = (8, 20, 8) if big else (4, 12, 2)
    total = len(directory.entries) + len(directory.children)
    position = offset + head + total * entry_size + slot
    tail = b""
    rows: list[tuple[int, bytes]] = []

    def append(data: bytes) -> int:
        nonlocal tail
        tail += b"\0" * (len(tail) % 2)
        at = position + len(tail)
        tail += data
        return at

    number, value = ("Q", "Q") if big else ("I", "I")
    for entry in directory.entries:
        inline = entry.data.ljust(slot, b"\0") if len(entry.data) <= slot else None
        data = inline if inline is not None else struct.pack("<" + value, append(entry.data))
        rows.append((entry.code, struct.pack("<HH" + number, entry.code, entry.kind, entry.count) + data))
    for code, child in directory.children.items():
        at = position + len(tail) + len(tail) % 2
        append(_serialise(child, at, big=big))
        rows.append((code, struct.pack("<HH" + number, code, 18 if big else 4, 1) + struct.pack("<" + value, at)))
    rows.sort()
    count = struct.pack("<Q" if big else "<H", total)
    return count + b"".join(row for _, row in rows) + b"\0" * slot + tail
