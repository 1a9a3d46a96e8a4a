"""JPEG reader: this module parses the segments, libjpeg-turbo decodes the pixels (ITU-T T.81)."""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, ImageReader, choose_light
from tilepipe.image.inks import ink_to_rgb, is_usable
from tilepipe.image.metadata.blocks import Metadata, from_exif_block
from tilepipe.image.metadata.profiles import adobe_rgb_profile, with_stated_profile
from tilepipe.image.readers.convert import COLUMN_BYTES, scaled
from tilepipe.image.readers.jpeg_scan import Scan, complete_rows, has_end
from tilepipe.image.readers.salvage import WAY_OUT, SalvagedReader, first_rows
from tilepipe.image.readers.stream import StreamReader, can_stream, stream_bytes
from tilepipe.image.readers.whole import WholeReader

__all__ = ["open_jpeg"]

START, END_OF_IMAGE, START_OF_SCAN, TABLES, TEMPORARY, COMMENT = 0xD8, 0xD9, 0xDA, 0xDB, 0x01, 0xFE
HUFFMAN, RESTART_INTERVAL = 0xC4, 0xDD
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""Markers of a frame header; the others of this range are tables (T.81, table B.1)."""

SEQUENTIAL = {0xC0, 0xC1}
"""Those of a sequential picture with Huffman codes."""

PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
APP0, APP1, APP2, APP13, APP14 = 0xE0, 0xE1, 0xE2, 0xED, 0xEE

MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A marker in scan data, where FF is followed by 00, or by D0..D7 at a restart (T.81, B.1.1)."""

EXIF, XMP, ICC, PHOTOSHOP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"ICC_PROFILE\0", b"Photoshop 3.0\0"
EXTENDED_XMP, SEVERAL_PICTURES, GAIN_MAP = (
    b"http://ns.adobe.com/xmp/extension/\0",
    b"MPF\0",
    b"urn:iso:std:iso:ts:21496",
)

ZIGZAG = sorted(range(64), key=lambda k: (k // 8 + k % 8, (k // 8 if (k // 8 + k % 8) % 2 else k % 8)))
"""Index, in rows of frequencies, of each coefficient in the order of the file (T.81, figure A.6)."""

BITS = (8, 12)
"""Bits of a sample that the decoder supports."""


@dataclass
class _Segments:
    """What the segments before the first scan state."""

    width: int = 0
    height: int = 0
    bits: int = 0
    frame: int = 0  # its marker
    components: list[tuple[int, int, int]] = field(default_factory=list)  # horizontal, vertical sampling; table
    tables: dict[int, tuple[int, ...]] = field(default_factory=dict)
    blocks: list[tuple[int, bytes]] = field(default_factory=list)
    huffman: dict[int, bytes] = field(default_factory=dict)  # by class (0 DC, 16 AC) plus number
    restart: int = 0
    scan: bytes = b""  # header of the first scan
    data_at: int = 0  # offset of its data
    has_gaps: bool = False  # bytes between segments

    @property
    def is_progressive(self) -> bool:
        """Whether several scans refine the picture."""
        return self.frame in PROGRESSIVE

    def contents(self, marker: int, name: bytes) -> list[bytes]:
        """Return what follows `name` in the segments of `marker` that begin with it."""
        return [content[len(name) :] for kind, content in self.blocks if kind == marker and content.startswith(name)]


def open_jpeg(path: Path, *, salvage: bool = False) -> ImageReader:
    """Read the segments of a JPEG, and with `salvage` how far the data of a truncated one goes.

    Raises
    ------
    InputError
        If the file is damaged, or not supported.
    """
    try:
        with path.open("rb") as file:
            segments = _read_segments(file)
    except (struct.error, IndexError) as error:
        raise InputError(f"{path} is a damaged JPEG: a segment of its header ends too early") from error
    channels = len(segments.components)
    if not (segments.width and segments.height and segments.bits):
        raise InputError(f"{path} is a damaged JPEG: it has no frame header")
    if channels not in (1, 3, 4) or segments.bits not in BITS:
        raise InputError(
            f"{path} is a JPEG of {channels} components of {segments.bits} bits; supported: 1, 3 or 4 of 8 or 12 bits"
        )
    metadata = _metadata(segments)
    is_ink = channels == 4
    profile = metadata.icc if is_ink and metadata.icc and is_usable(metadata.icc) else None
    if is_ink:
        metadata = replace(metadata, icc=adobe_rgb_profile())
    colours = 1 if channels == 1 else 3
    metadata = with_stated_profile(metadata, colours)
    dtype = "uint8" if segments.bits == 8 else "uint16"
    light, note = choose_light(path, metadata, colours, dtype)
    streams = can_stream(segments.height, segments.width, channels) if _is_plain(segments) else None
    if salvage and streams is not None and not has_end(path, segments.data_at):
        streams = None
    info = ImageInfo(
        path=path,
        kind="JPEG",
        height=segments.height,
        width=segments.width,
        colours=colours,
        extras=0,
        dtype=dtype,
        layout="decoded by rows" if streams else "decoded whole",
        compression="jpeg",
        decoded_bytes=stream_bytes(segments.width, channels) if streams else _decoding_bytes(path, segments),
        metadata=metadata,
        light=light,
        curve_note=note,
        quantisation=_quantisation(segments),
        subsampled=len({component[:2] for component in segments.components}) > 1,
        notes=_notes(segments.bits, is_ink=is_ink, has_profile=profile is not None),
        streams=streams,
    )
    if streams:
        return StreamReader(info, "jpeg", partial(_check_end, path, segments))
    is_inverted = bool(segments.contents(APP14, b"Adobe"))
    decode = partial(_decode, info, segments.bits, profile, is_ink=is_ink, is_inverted=is_inverted)
    if salvage and not _reaches_end(content := path.read_bytes()):
        rows = _complete_rows(path, segments, content)
        info = replace(info, decoded_bytes=info.decoded_bytes + 2 * len(content))  # the scan, with and without stuffing
        return SalvagedReader(WholeReader(info, partial(decode, is_cut=True)), first_rows(rows, info.width))
    return WholeReader(info, decode)


def _complete_rows(path: Path, segments: _Segments, content: bytes) -> int:
    """Return the number of rows that a truncated file determines; raise InputError if that is not defined."""
    channels = len(segments.components)
    if segments.frame not in SEQUENTIAL or segments.scan[:1] != bytes([channels]):
        raise InputError(
            f"{path} is truncated, and each of its scans contributes to all rows (progressive, arithmetic or planar "
            "JPEG): no row is complete"
        )
    try:
        chosen = [segments.scan[2 + 2 * index] for index in range(channels)]
        tables = [(segments.huffman[pair >> 4], segments.huffman[16 + (pair & 15)]) for pair in chosen]
    except (IndexError, KeyError) as error:
        raise InputError(f"{path} is a damaged JPEG: its scan has no Huffman tables") from error
    sampling = [component[:2] for component in segments.components]
    if not all(1 <= factor <= 4 for pair in sampling for factor in pair):  # T.81, B.2.2
        raise InputError(f"{path} is a damaged JPEG: its sampling factors are {sampling}, 1 to 4 are possible")
    scan = Scan(segments.height, segments.width, sampling, tables, segments.restart)
    found = MARKER.search(content, segments.data_at)
    return complete_rows(content[segments.data_at : found.start() if found else len(content)], scan)


def _notes(bits: int, *, is_ink: bool, has_profile: bool) -> tuple[str, ...]:
    notes = [] if bits == 8 else [f"{bits}-bit samples are scaled to 16 bits"]
    if is_ink:
        notes.append(
            f"CMYK is converted {'by its profile' if has_profile else 'without a usable profile'} to Adobe RGB"
        )
    return tuple(notes)


def _decode(
    info: ImageInfo,
    bits: int,
    profile: bytes | None,
    content: bytes,
    *,
    is_ink: bool,
    is_inverted: bool,
    is_cut: bool = False,
) -> npt.NDArray[Any]:
    import imagecodecs

    if not is_cut and not _reaches_end(content):  # decoders fill in gray
        raise InputError(f"{info.path} is truncated: its last scan has no end marker; {WAY_OUT}")
    pixels = np.asarray(imagecodecs.jpeg8_decode(content))
    if bits != 8:
        pixels = scaled(pixels, bits)
    return ink_to_rgb(pixels, profile, is_inverted=is_inverted) if is_ink else pixels


def _read_segments(file: IO[bytes]) -> _Segments:
    """Read the segments up to the first scan; anything between them but markers is skipped, as decoders do."""
    segments = _Segments()
    file.seek(2)
    while True:
        byte = file.read(1)
        while byte and byte != b"\xff":
            segments.has_gaps = True
            byte = file.read(1)
        while byte == b"\xff":
            byte = file.read(1)
        if not byte or byte[0] == END_OF_IMAGE:
            return segments
        marker = byte[0]
        if marker in (0, TEMPORARY, START) or 0xD0 <= marker <= 0xD7:
            continue
        length = int.from_bytes(file.read(2), "big")
        content = file.read(max(0, length - 2))  # a damaged length may be 0 or 1
        if marker == START_OF_SCAN:
            segments.scan, segments.data_at = content, file.tell()
            return segments
        if marker in FRAMES:
            _read_frame(segments, content)
            segments.frame = marker
        elif marker == HUFFMAN:
            _read_codes(segments, content)
        elif marker == RESTART_INTERVAL:
            segments.restart = int.from_bytes(content[:2], "big")
        elif marker == TABLES:
            _read_tables(segments, content)
        elif marker >= APP0:
            segments.blocks.append((marker, content))


def _read_frame(segments: _Segments, content: bytes) -> None:
    """Read size and components (T.81, B.2.2)."""
    segments.bits, segments.height, segments.width, number = struct.unpack_from(">BHHB", content)
    parts = [content[6 + 3 * index : 9 + 3 * index] for index in range(number)]
    segments.components = [(part[1] >> 4, part[1] & 15, part[2]) for part in parts]


def _read_tables(segments: _Segments, content: bytes) -> None:
    """Read quantisation tables (T.81, B.2.4.1)."""
    at = 0
    while at < len(content):
        wide, number = content[at] >> 4, content[at] & 15
        steps = struct.unpack_from(">64H" if wide else ">64B", content, at + 1)
        table = [0] * 64
        for position, step in zip(ZIGZAG, steps, strict=True):
            table[position] = int(step)
        segments.tables[number] = tuple(table)
        at += 1 + (128 if wide else 64)


def _read_codes(segments: _Segments, content: bytes) -> None:
    """Read Huffman tables (T.81, B.2.4.2); one that ends too early is left out, as only a truncated file needs them."""
    at = 0
    while at + 17 <= len(content):
        size = 16 + sum(content[at + 1 : at + 17])
        if at + 1 + size <= len(content):
            segments.huffman[content[at]] = content[at + 1 : at + 1 + size]
        at += 1 + size


def _reaches_end(content: bytes) -> bool:
    """Return whether a JPEG has an end marker, without its thumbnails and what follows it (T.81, B.1.1.4 and B.2.1)."""
    at = 2
    while (found := MARKER.search(content, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker == END_OF_IMAGE:
            return True
        if marker != TEMPORARY:
            at += int.from_bytes(content[at : at + 2], "big")
    return False


def _is_plain(segments: _Segments) -> bool:
    """Return whether rows can be decoded one after the other, and nothing in the header makes decoders warn.

    Progressive pictures, and those with a scan for each component, need the coefficients of all scans.
    """
    channels = len(segments.components)
    return (
        segments.frame in SEQUENTIAL
        and segments.bits == 8
        and channels in (1, 3)
        and segments.scan[:1] == bytes([channels])
        and segments.scan[-3:] == b"\0\x3f\0"  # all coefficients, in all their bits
        and not segments.has_gaps
        and all(version[:1] == b"\1" for version in segments.contents(APP0, b"JFIF\0"))
        and (channels == 1 or all(content[6:] == b"\1" for content in segments.contents(APP14, b"Adobe")))  # YCbCr
    )


def _check_end(path: Path, segments: _Segments) -> None:
    if not has_end(path, segments.data_at):
        raise InputError(f"{path} is truncated: its last scan has no end marker; {WAY_OUT}")


def _decoding_bytes(path: Path, segments: _Segments) -> int:
    """Return what decoding holds, bytes: file, pixels, coefficients if it is progressive, samples to convert."""
    pixels, channels = segments.width * segments.height, len(segments.components)
    size = 1 if segments.bits == 8 else 2
    held = pixels * channels * size + path.stat().st_size
    if channels == 4 or segments.bits != 8:
        held += pixels * channels * size + COLUMN_BYTES * segments.width
    if segments.is_progressive:
        widest = max(component[0] for component in segments.components) or 1
        tallest = max(component[1] for component in segments.components) or 1
        held += int(2 * pixels * sum(across * down / (widest * tallest) for across, down, _ in segments.components))
    return held


def _quantisation(segments: _Segments) -> tuple[tuple[int, ...], ...] | None:
    """Return the tables in the order in which the components use them, luminance first."""
    used = dict.fromkeys(table for _, _, table in segments.components if table in segments.tables)
    return tuple(segments.tables[number] for number in used) or None


def _metadata(segments: _Segments) -> Metadata:
    exif = from_exif_block(b"".join(segments.contents(APP1, EXIF)[:1]))
    xmp = segments.contents(APP1, XMP)
    icc = sorted(part for part in segments.contents(APP2, ICC) if len(part) > 2)
    lost = [
        name
        for marker, start, name in (
            (APP1, EXTENDED_XMP, "extended XMP"),
            (APP2, SEVERAL_PICTURES, "further pictures of the file (MPF)"),
            (APP2, GAIN_MAP, "gain map"),
        )
        if segments.contents(marker, start)
    ]
    if any(kind == COMMENT for kind, _ in segments.blocks):
        lost.append("comment")
    return replace(
        exif,
        icc=b"".join(part[2:] for part in icc) or None,
        xmp=xmp[0] if xmp else None,
        photoshop=b"".join(segments.contents(APP13, PHOTOSHOP)) or None,
        resolution=exif.resolution or _density(segments),
        lost=tuple(lost),
    )


def _density(segments: _Segments) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Return the resolution of the JFIF header."""
    for content in segments.contents(APP0, b"JFIF\0"):
        if len(content) >= 7:
            unit, x, y = struct.unpack_from(">BHH", content, 2)
            return ((x, 1), (y, 1), unit + 1) if unit in (1, 2) and x and y else None
    return None
