"""PNG reader: this module parses the chunks, libpng decodes the pixels (PNG 3rd edition)."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, ImageReader, choose_light
from tilepipe.image.light import UNASSOCIATED_ALPHA
from tilepipe.image.metadata.blocks import Metadata, from_exif_block
from tilepipe.image.metadata.profiles import coded_profile, gamma_profile, with_stated_profile
from tilepipe.image.readers.png_rows import SIGNATURE, completed, row_bytes, rows_in
from tilepipe.image.readers.salvage import WAY_OUT, SalvagedReader, first_rows
from tilepipe.image.readers.stream import StreamReader, can_stream, stream_bytes
from tilepipe.image.readers.whole import WholeReader

__all__ = ["open_png"]

CHANNELS = {0: (1, 0), 2: (3, 0), 3: (3, 0), 4: (1, 1), 6: (3, 1)}
"""Colour type -> (colours, alpha) as decoded (11.2.1); a palette is expanded."""

DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
"""Bits allowed for each colour type (11.2.1)."""

PALETTE = 3

LONGEST_CHUNK = 1 << 26
"""Largest metadata chunk that is read, and largest text that one is expanded to, bytes."""

SRGB_GAMMA, SRGB_PRIMARIES = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
"""The values that stand for sRGB (11.3.2.5)."""


@dataclass
class _Chunks:
    """Header (width, height, depth, colour type, interlace method) and metadata; the decoder reads the pixels."""

    header: tuple[int, int, int, int, int]
    single: dict[bytes, bytes] = field(default_factory=dict)
    texts: dict[str, bytes] = field(default_factory=dict)
    is_complete: bool = False


def open_png(path: Path, *, salvage: bool = False) -> ImageReader:
    """Read the chunks of a PNG, and with `salvage` how far the data of a truncated one goes.

    Raises
    ------
    InputError
        If the file is damaged or truncated.
    """
    try:
        chunks = _read_chunks(path)
    except struct.error as error:
        raise InputError(f"{path} is a damaged PNG: {error}") from error
    is_cut = not chunks.is_complete
    if is_cut and not (salvage and chunks.header[0]):
        raise InputError(f"{path} is truncated: it has no end chunk; {WAY_OUT}")
    width, height, depth, colour, interlaced = chunks.header
    if not (width and height) or depth not in DEPTHS.get(colour, ()):
        raise InputError(f"{path} is a damaged PNG: {width} x {height} px, {depth} bits of colour type {colour}")
    colours, alpha = CHANNELS[colour]
    alpha |= b"tRNS" in chunks.single  # transparent colours, which the decoder converts to alpha
    dtype = "uint16" if depth == 16 else "uint8"
    metadata = _metadata(chunks) if b"sRGB" in chunks.single else with_stated_profile(_metadata(chunks), colours)
    kinds = (UNASSOCIATED_ALPHA,) * alpha
    light, note = choose_light(path, metadata, colours, dtype, kinds)
    pixel_bytes = (colours + alpha) * np.dtype(dtype).itemsize
    pixels = height * width * pixel_bytes
    streams = None if is_cut or interlaced else can_stream(height, width, pixel_bytes)
    info = ImageInfo(
        path=path,
        kind="PNG",
        height=height,
        width=width,
        colours=colours,
        extras=alpha,
        dtype=dtype,
        layout="decoded by rows" if streams else "decoded whole",
        compression="png",
        decoded_bytes=stream_bytes(width, pixel_bytes)
        if streams
        else pixels + path.stat().st_size + (height * row_bytes(chunks.header) if is_cut else 0),
        metadata=metadata,
        light=light,
        curve_note=note,
        extra_kinds=kinds,
        notes=_notes(depth, colour),
        streams=streams,
    )
    if streams:
        return StreamReader(info, "png")
    if not is_cut:
        return WholeReader(info, _decode)
    if interlaced:
        raise InputError(f"{path} is truncated and interlaced: its rows are spread over the file, and few are complete")
    with path.open("rb") as file:
        rows = rows_in(file, chunks.header)
    reader = WholeReader(info, lambda content: _decode(completed(content, chunks.header, chunks.single, rows)))
    return SalvagedReader(reader, first_rows(rows, width))


def _notes(depth: int, colour: int) -> tuple[str, ...]:
    if colour == PALETTE:
        return ("the palette is expanded to RGB",)
    return (f"{depth}-bit samples are scaled to 8 bits",) if depth < 8 else ()


def _decode(content: bytes | bytearray) -> npt.NDArray[Any]:
    import imagecodecs

    return np.asarray(imagecodecs.png_decode(content))


def _read_chunks(path: Path) -> _Chunks:
    """Read all chunks but the pixels; those with a wrong checksum are left out, except the header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(len(SIGNATURE))
        chunks: _Chunks | None = None
        while len(start := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", start)
            if kind == b"IEND" and chunks is not None:
                chunks.is_complete = True
                return chunks
            if file.tell() + length + 4 > size:
                break
            if kind == b"IDAT" or length > LONGEST_CHUNK:
                file.seek(length + 4, 1)
                continue
            content = file.read(length)
            is_whole = zlib.crc32(content, zlib.crc32(kind)) == struct.unpack(">I", file.read(4))[0]
            if kind == b"IHDR":
                if not is_whole:
                    raise InputError(f"{path} is a damaged PNG: the checksum of its header is wrong")
                chunks = _Chunks(struct.unpack(">IIBBxxB", content[:13]))
            elif chunks is None:
                raise InputError(f"{path} is a damaged PNG: it does not begin with a header")
            elif is_whole:
                _add(chunks, kind, content)
    return chunks or _Chunks((0, 0, 0, 0, 0))


def _add(chunks: _Chunks, kind: bytes, content: bytes) -> None:
    if kind not in (b"tEXt", b"zTXt", b"iTXt"):
        chunks.single.setdefault(kind, content)
        return
    keyword, _, rest = content.partition(b"\0")
    name = keyword.decode("latin-1")
    if kind == b"zTXt":
        text = _inflated(rest[1:])
    elif kind == b"iTXt":
        packed, (_, _, text_) = rest[:1] == b"\1", _split(rest[2:])
        text = _inflated(text_) if packed else text_
    else:
        text = rest
    if text is not None:
        chunks.texts.setdefault(name, text)


def _split(rest: bytes) -> tuple[bytes, bytes, bytes]:
    """Return language, translated keyword and text of an iTXt chunk (11.3.3.4)."""
    language, _, rest = rest.partition(b"\0")
    translated, _, text = rest.partition(b"\0")
    return language, translated, text


def _inflated(packed: bytes) -> bytes | None:
    """Return uncompressed data; None if it is damaged or larger than ``LONGEST_CHUNK``."""
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(packed, LONGEST_CHUNK)
    except zlib.error:
        return None
    return data if inflater.eof else None


def _metadata(chunks: _Chunks) -> Metadata:
    single, texts = chunks.single, chunks.texts
    exif = from_exif_block(single.get(b"eXIf") or _raw_profile(texts, "exif", "APP1") or b"")
    lost = ("animation frames",) * (b"acTL" in single)
    words = [name for name in texts if not name.startswith(("Raw profile type ", "XML:com.adobe.xmp"))]
    if words:
        lost += (f"text ({', '.join(words)})",)
    colours = CHANNELS.get(chunks.header[3], (3, 0))[0]
    coded = single.get(b"cICP", b"")
    return replace(
        exif,
        cicp=coded if len(coded) == 4 else None,
        icc=_profile(single, colours) or _raw_profile(texts, "icc", "icm"),
        xmp=texts.get("XML:com.adobe.xmp") or _raw_profile(texts, "xmp") or None,
        photoshop=_photoshop(texts),
        resolution=exif.resolution or _resolution(single.get(b"pHYs")),
        lost=lost,
    )


def _profile(single: dict[bytes, bytes], colours: int) -> bytes | None:
    """Return the ICC profile: the file's, or the one that other chunks describe; None means sRGB (13.14)."""
    if (
        len(coded := single.get(b"cICP", b"")) == 4
        and (profile := coded_profile(coded[0], coded[1], colours)) is not None
    ):
        return profile
    if packed := single.get(b"iCCP"):
        return _inflated(packed.partition(b"\0")[2][1:])
    gamma = single.get(b"gAMA", b"")
    if b"sRGB" in single or len(gamma) != 4 or not 0 < struct.unpack(">I", gamma)[0] < 1 << 31:
        return None
    exponent = struct.unpack(">I", gamma)[0]
    primaries = struct.unpack(">8I", single[b"cHRM"]) if len(single.get(b"cHRM", b"")) == 32 else SRGB_PRIMARIES
    if exponent == SRGB_GAMMA and max(abs(a - b) for a, b in zip(primaries, SRGB_PRIMARIES, strict=True)) <= 100:
        return None
    for points in (primaries, SRGB_PRIMARIES):
        with suppress(ValueError):  # points that are no colours
            return gamma_profile(1e5 / exponent, tuple(value / 1e5 for value in points), colours)
    return None


def _raw_profile(texts: dict[str, bytes], *names: str) -> bytes | None:
    """Return a block that ImageMagick or ExifTool stored as hexadecimal text: a name, a length, digits."""
    for name in names:
        parts = texts.get(f"Raw profile type {name}", b"").split(None, 2)
        if len(parts) == 3:
            with suppress(ValueError):  # damaged digits: as if the block were not there
                return bytes.fromhex(parts[2].decode("latin-1"))
    return None


def _photoshop(texts: dict[str, bytes]) -> bytes | None:
    """Return the Photoshop resources; ImageMagick calls them iptc, and others store bare records under that name."""
    from tilepipe.image.metadata.photoshop import photoshop_block

    block = _raw_profile(texts, "8bim", "iptc")
    return photoshop_block(None, block) if block and not block.startswith(b"8BIM") else block


def _resolution(chunk: bytes | None) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    """Return the resolution of a pHYs chunk, in pixels per centimetre."""
    if chunk is None or len(chunk) != 9:
        return None
    x, y, unit = struct.unpack(">IIB", chunk)
    return ((x, 100), (y, 100), 3) if unit == 1 and x and y else None
