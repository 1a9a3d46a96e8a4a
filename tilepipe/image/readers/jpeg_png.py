"""JPEG and PNG reader: Pillow parses the header, imagecodecs decodes the whole image (it keeps 16 bits)."""

from __future__ import annotations

import re
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tilepipe.errors import InputError
from tilepipe.image.info import ImageInfo, choose_light
from tilepipe.image.light import UNASSOCIATED_ALPHA
from tilepipe.image.metadata.blocks import Metadata, from_exif_block

if TYPE_CHECKING:
    from PIL import ImageFile

__all__ = ["WholeReader"]

PNG_CHANNELS = {0: (1, 0), 2: (3, 0), 4: (1, 1), 6: (3, 1)}
"""PNG colour type -> (colours, extras) (PNG 3rd edition, 11.2.1)."""

JPEG_MODES = {"L": 1, "RGB": 3, "YCbCr": 3}
END_OF_IMAGE, TEMPORARY = 0xD9, 0x01
"""JPEG markers without a length (T.81, table B.1)."""

MARKER = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])")
"""A marker in scan data, where FF is followed by 00, or by D0..D7 at a restart (T.81, B.1.1)."""

PHOTOSHOP_HEADER = b"Photoshop 3.0\0"


class WholeReader:
    """A JPEG or PNG, decoded at the first call of :meth:`rows` and released by :meth:`close`."""

    def __init__(self, path: Path) -> None:
        """Read the header only; raises InputError if damaged or not supported."""
        self.info = _describe(path)
        self._pixels: npt.NDArray[Any] | None = None

    def rows(self, y0: int, y1: int) -> npt.NDArray[Any]:
        """Return rows y0..y1, (rows, width, channels)."""
        if self._pixels is None:
            self._pixels = self._decode()
        return self._pixels[y0:y1]

    def close(self) -> None:
        """Release the decoded image."""
        self._pixels = None

    def _decode(self) -> npt.NDArray[Any]:
        import imagecodecs

        info = self.info
        decode = imagecodecs.jpeg_decode if info.kind == "JPEG" else imagecodecs.png_decode
        content = info.path.read_bytes()
        if info.kind == "JPEG" and not _reaches_end(content):
            raise InputError(f"{info.path} is truncated: its last scan has no end marker")  # decoders fill in gray
        try:
            pixels = np.asarray(decode(content))
        except Exception as error:  # imagecodecs has an error class per codec
            raise InputError(f"{info.path} is a damaged {info.kind}: {error}") from error
        pixels = pixels.reshape(pixels.shape[0], pixels.shape[1], -1)
        expected = (info.height, info.width, info.channels)
        if pixels.shape != expected or pixels.dtype.name != info.dtype:
            raise InputError(
                f"{info.path} decodes to {pixels.shape} {pixels.dtype}, its header states {expected} {info.dtype}"
            )
        return pixels


def _describe(path: Path) -> ImageInfo:
    try:
        with _open(path) as image:
            kind, mode, (width, height), properties = (
                image.format or "",
                image.mode,
                image.size,
                {str(key): value for key, value in image.info.items()},
            )
            blocks = dict(getattr(image, "applist", ()) and _app_blocks(image))
            quantisation, subsampled = _compression(image)
            coefficients = _coefficient_bytes(image)
    except (OSError, SyntaxError, ValueError, struct.error, EOFError) as error:
        raise InputError(f"{path} is a damaged image: {error}") from error
    colours, extras, dtype = _png_layout(path) if kind == "PNG" else _jpeg_layout(path, mode)
    if kind == "PNG" and "transparency" in properties:
        extras = 1  # a transparent colour, which the decoder converts to alpha
    metadata = _metadata(properties, blocks)
    kinds = (UNASSOCIATED_ALPHA,) * extras
    light, note = choose_light(path, metadata, colours, dtype, kinds)
    pixel = (colours + extras) * np.dtype(dtype).itemsize
    return ImageInfo(
        path=path,
        kind="PNG" if kind == "PNG" else "JPEG",
        height=height,
        width=width,
        colours=colours,
        extras=extras,
        dtype=dtype,
        layout="decoded whole",
        compression=kind.lower(),
        decoded_bytes=height * width * pixel + coefficients + path.stat().st_size,
        metadata=metadata,
        light=light,
        curve_note=note,
        extra_kinds=kinds,
        quantisation=quantisation,
        subsampled=subsampled,
    )


def _open(path: Path) -> ImageFile.ImageFile:
    """Parse the header.

    Image.open would refuse large images, to protect programs that decode whatever they are given; here the memory is
    checked before anything is decoded, and the limit belongs to the whole process.
    """
    from PIL import JpegImagePlugin, PngImagePlugin

    with path.open("rb") as file:
        is_png = file.read(1) == b"\x89"
    return PngImagePlugin.PngImageFile(path) if is_png else JpegImagePlugin.JpegImageFile(path)


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


def _coefficient_bytes(image: Any) -> int:
    """Return what a decoder holds of a progressive JPEG besides the pixels: its coefficients, 16 bits each, bytes."""
    if not getattr(image, "info", {}).get("progressive"):
        return 0
    layers: list[Any] = list(getattr(image, "layer", ()))
    widest, tallest = (max((layer[axis] for layer in layers), default=1) for axis in (1, 2))
    share = sum(layer[1] * layer[2] / (widest * tallest) for layer in layers)
    return int(2 * image.size[0] * image.size[1] * share)


def _png_layout(path: Path) -> tuple[int, int, str]:
    with path.open("rb") as file:
        depth, colour = struct.unpack(">BB", file.read(26)[24:26])
    if colour not in PNG_CHANNELS or depth not in (8, 16):
        raise InputError(f"{path} is a {depth}-bit PNG of colour type {colour}; supported: 8- or 16-bit gray and RGB")
    colours, extras = PNG_CHANNELS[colour]
    return colours, extras, f"uint{depth}"


def _jpeg_layout(path: Path, mode: str) -> tuple[int, int, str]:
    if mode not in JPEG_MODES:
        raise InputError(f"{path} is a {mode} JPEG; supported: gray and RGB; convert it first")
    return JPEG_MODES[mode], 0, "uint8"


def _app_blocks(image: Any) -> list[tuple[str, bytes]]:
    return [(name, data) for name, data in image.applist if name == "APP13" and data.startswith(PHOTOSHOP_HEADER)]


def _compression(image: Any) -> tuple[tuple[tuple[int, ...], ...] | None, bool]:
    """Return a JPEG's quantisation tables, in rows of frequencies, and whether its chrominance is subsampled."""
    tables = getattr(image, "quantization", None)
    if not tables:
        return None, False
    layers: list[Any] = list(getattr(image, "layer", ()))  # (name, horizontal, vertical sampling, table) each
    subsampled = len(layers) > 1 and any(layer[1:3] != layers[0][1:3] for layer in layers[1:])
    used = [layer[3] for layer in layers if layer[3] in tables] or sorted(tables)
    selected = tuple(tuple(int(step) for step in tables[index]) for index in dict.fromkeys(used))
    return selected, bool(subsampled)


def _metadata(properties: dict[str, Any], blocks: dict[str, bytes]) -> Metadata:
    exif = from_exif_block(properties.get("exif") or b"")
    xmp = properties.get("xmp") or properties.get("XML:com.adobe.xmp")
    photoshop = blocks.get("APP13")
    return replace(
        exif,
        icc=properties.get("icc_profile") or None,
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        photoshop=photoshop[len(PHOTOSHOP_HEADER) :] if photoshop else None,
        resolution=exif.resolution or _density(properties),
    )


def _density(properties: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    if properties.get("jfif_unit") in (1, 2) and all(properties.get("jfif_density", (0, 0))):
        x, y = properties["jfif_density"]
        return (int(x), 1), (int(y), 1), int(properties["jfif_unit"]) + 1
    if "dpi" in properties and all(properties["dpi"]):
        x, y = properties["dpi"]
        return (round(x * 1000), 1000), (round(y * 1000), 1000), 2
    return None
