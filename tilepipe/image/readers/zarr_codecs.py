"""Codecs of zarr arrays that are run on what may be a damaged or hostile file."""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zarr
from zarr.codecs import BloscCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer
from zarr.registry import register_codec

from tilepipe.errors import InputError

__all__ = ["check_blosc", "check_codecs", "checked_blosc", "codec_names", "longest_of"]

CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c", "blosc", "gzip", "zlib", "zstd", "lz4", "lzma", "bz2"),
    *("delta", "shuffle", "fixedscaleoffset", "quantize", "bitround", "packbits", "astype"),
    *("crc32", "adler32", "fletcher32"),
}
"""Codecs that are run, by their names in version 3 and 2; not pickle, for example, which would run code of the file."""

LONGEST, HEADERS = 2, 1 << 16
"""Largest encoded chunk, as a multiple of its decoded bytes, and bytes beyond that for headers and checksums."""

BLOSC_HEADER = struct.Struct("<4B3I")
"""Versions, flags, size of an item; decoded, block's and encoded bytes (c-blosc, README_CHUNK_FORMAT.rst)."""


def longest_of(decoded: int) -> int:
    """Return the largest size of an encoded chunk of `decoded` bytes."""
    return LONGEST * decoded + HEADERS


def codec_names(array: dict[str, Any]) -> list[str]:
    """Return the names of the codecs in an array's document, in the order of encoding."""
    if array["zarr_format"] == 2:
        found = [*(array.get("filters") or []), *([array["compressor"]] if array.get("compressor") else [])]
        return [str(codec.get("id")) for codec in found]
    return list(_named(array.get("codecs") or []))


def _named(codecs: list[Any]) -> Iterator[str]:
    """Yield the names of codecs of version 3, with those that work inside of shards."""
    for codec in codecs:
        name = codec if isinstance(codec, str) else str(codec.get("name"))
        yield name
        inner = {} if isinstance(codec, str) else codec.get("configuration") or {}
        if name == "sharding_indexed":
            yield from _named(inner.get("index_codecs") or [])
            yield from _named(inner.get("codecs") or [])


def check_codecs(path: Path, array: dict[str, Any]) -> None:
    """Raise InputError if a codec in an array's document is not one of ``CODECS``, or not where it can be checked."""
    names = codec_names(array)
    unknown = [name for name in names if name.removeprefix("numcodecs.") not in CODECS or name == "numcodecs.blosc"]
    if array["zarr_format"] == 2 and "blosc" in names[:-1]:
        unknown.append("blosc as a filter")
    if unknown:
        raise InputError(f"{path} is encoded by {unknown[0][:60]!r}; supported: {', '.join(sorted(CODECS))}")


def check_blosc(encoded: bytes, decoded: int) -> None:
    """Raise ValueError if a header of blosc is not that of `encoded`, or of more than `decoded` bytes.

    The library takes both lengths from the header and would read, or write, beyond the end of what there is.
    """
    if len(encoded) < BLOSC_HEADER.size:
        raise ValueError(f"a chunk of blosc has {len(encoded)} bytes")
    *_, states, _, length = BLOSC_HEADER.unpack_from(encoded)
    if length != len(encoded) or states > longest_of(decoded):
        raise ValueError(
            f"a chunk of blosc states {length} bytes for {states} decoded ones; it has {len(encoded)} for {decoded}"
        )


class CheckedBlosc(BloscCodec):
    """Blosc whose headers are checked before they are believed."""

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        item = getattr(chunk_spec.dtype, "item_size", 1)
        check_blosc(chunk_bytes.to_bytes(), math.prod(chunk_spec.shape) * item)
        return await super()._decode_single(chunk_bytes, chunk_spec)


register_codec("blosc", CheckedBlosc)  # beside zarr's own, which stays the one that is configured


_ONE_AT_A_TIME = threading.Lock()


@contextmanager
def checked_blosc() -> Iterator[None]:
    """Open arrays with `CheckedBlosc`, also inside of shards; by one thread at a time, as zarr's setting is global."""
    name = f"{CheckedBlosc.__module__}.{CheckedBlosc.__qualname__}"
    with _ONE_AT_A_TIME, zarr.config.set({"codecs.blosc": name}):
        yield
