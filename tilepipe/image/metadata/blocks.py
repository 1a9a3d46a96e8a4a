"""Image metadata in one format-independent form."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass, field, replace
from typing import Any

from tilepipe.image.metadata.exif import (
    EXIF_POINTER,
    GPS_POINTER,
    INTEROP_POINTER,
    MAKER_NOTE,
    Directory,
    Entry,
    Reader,
    read_directory,
    serialised,
)
from tilepipe.image.orientation import Orientation

__all__ = ["ORIENTATION", "Metadata", "from_exif_block", "from_tiff_directory", "srgb_profile"]

ORIENTATION, GDAL_NODATA = 274, 42113

KEPT_TAGS = {
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    ORIENTATION: "Orientation",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    33432: "Copyright",
    269: "DocumentName",
    285: "PageName",
    286: "XPosition",
    287: "YPosition",
    33550: "ModelPixelScale",
    33922: "ModelTiepoint",
    34264: "ModelTransformation",
    34735: "GeoKeyDirectory",
    34736: "GeoDoubleParams",
    34737: "GeoAsciiParams",
    42112: "GDAL_METADATA",
    GDAL_NODATA: "GDAL_NODATA",
    50844: "RPCCoefficients",
}
"""Tags of the first directory that are copied unchanged."""

TIFF_ONLY = {33550, 33922, 34264, 34735, 34736, 34737, 42112, GDAL_NODATA, 50844}
"""Those of them that have no place in an Exif block."""

COLOUR_SPACE, INTEROP_INDEX = 40961, 1
"""Tags of the Exif directory, and of its interoperability directory."""

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675


XMP_ORIENTATION = re.compile(rb"(tiff:Orientation(?:=[\"\']|>))[2-8]")
"""The orientation in XMP, as an attribute or an element (ISO 16684-1, 8.5)."""


@dataclass(frozen=True)
class Metadata:
    """ICC profile, resolution, EXIF, XMP and related blocks.

    Parameters
    ----------
    icc, xmp, iptc, photoshop : bytes, optional
        Raw blocks as stored in the file.
    resolution : (x, y, unit), optional
        x and y as (numerator, denominator); unit as in TIFF (1 none, 2 inch, 3 cm).
    tags : Directory
        Entries of the first directory with a code in ``KEPT_TAGS``.
    directories : dict of int to Directory
        EXIF and GPS directories, by pointer tag.
    cicp : bytes, optional
        Code points of primaries, transfer, matrix and range (ITU-T H.273).
    fits : bytes, optional
        Cards of a FITS header that hold for an output, 80 bytes each; None for other formats.
    record : str, optional
        Processing record, JSON, of a format that has no XMP.
    lost : tuple of str
        Names of what the file contains and the reader does not keep.
    """

    icc: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    photoshop: bytes | None = None
    resolution: tuple[tuple[int, int], tuple[int, int], int] | None = None
    tags: Directory = field(default_factory=lambda: Directory(()))
    directories: dict[int, Directory] = field(default_factory=dict)
    cicp: bytes | None = None
    fits: bytes | None = None
    record: str | None = None
    lost: tuple[str, ...] = ()

    @property
    def dropped(self) -> list[str]:
        """Names of the tags and parts of the file that cannot be copied to the output."""
        codes = {code for directory in self.directories.values() for code in directory.dropped}
        return [*self.lost, *(["MakerNote"] if MAKER_NOTE in codes else [])]

    @property
    def orientation(self) -> Orientation:
        """How viewers turn the picture."""
        return Orientation.of(self.orientation_number)

    @property
    def orientation_number(self) -> int:
        """Value of the orientation's tag, whatever integer type it has; 1 without one."""
        entry = self.tags.get(ORIENTATION)
        return int.from_bytes(entry.data[: {1: 1, 3: 2, 4: 4}.get(entry.kind, 0)], "little") if entry else 1

    @property
    def states_adobe_rgb(self) -> bool:
        """Whether Exif states Adobe RGB: ColorSpace 2, or the index R03 of an option file (Exif 2.32, 4.6.5, 4.6.7)."""
        exif = self.directories.get(EXIF_POINTER)
        if exif is None:
            return False
        space, interop = exif.get(COLOUR_SPACE), exif.children.get(INTEROP_POINTER)
        value = struct.unpack("<H", space.data[:2])[0] if space and space.kind == 3 else None
        index = interop.get(INTEROP_INDEX) if interop else None
        return value == 2 or (value != 1 and index is not None and index.data.startswith(b"R03"))

    @property
    def nodata(self) -> float | None:
        """Sample value of pixels that are not part of the image, from GDAL's tag; None without a number there."""
        entry = self.tags.get(GDAL_NODATA)
        try:
            return None if entry is None else float(entry.data.split(b"\0")[0].decode("ascii"))
        except ValueError:
            return None

    def names(self, *held: str) -> list[str]:
        """Return the names of all blocks and tags that there are, but for those that a format has `held`.

        Blocks are "ICC profile", "code points", "EXIF", "GPS", "XMP", "IPTC", "Photoshop resources", "resolution" and
        "FITS header".
        """
        blocks = {
            "ICC profile": self.icc,
            "code points": self.cicp,
            "EXIF": self.directories.get(EXIF_POINTER),
            "GPS": self.directories.get(GPS_POINTER),
            "XMP": self.xmp,
            "IPTC": self.iptc,
            "Photoshop resources": self.photoshop,
            "resolution": self.resolution,
        }
        found = [name for name, block in blocks.items() if block and name not in held]
        header = [] if "FITS header" in held else self.fits_only
        return found + header + [KEPT_TAGS[entry.code] for entry in self.tags.entries]

    @property
    def fits_only(self) -> list[str]:
        """Name of the FITS header, which other formats do not hold; empty without one."""
        return [] if not self.fits else [f"the FITS header ({len(self.fits) // 80} cards)"]

    @property
    def tiff_only(self) -> list[str]:
        """Names of the tags that only a TIFF holds."""
        return [KEPT_TAGS[entry.code] for entry in self.tags.entries if entry.code in TIFF_ONLY]

    def exif_block(self, longest: int | None = None) -> bytes | None:
        """Return the tags, EXIF and GPS as an Exif block without its header; None if there are none.

        Longer ones than `longest` bytes are written without the tags of :meth:`too_long_for`.
        """
        left_out = {entry.code for entry in self._too_long_for(longest)}
        entries = [entry for entry in self.tags.entries if entry.code not in TIFF_ONLY and entry.code not in left_out]
        if self.resolution is not None and (entries or self.directories):
            x, y, unit = self.resolution
            entries += [
                Entry(X_RESOLUTION, 5, 1, struct.pack("<II", *x)),
                Entry(Y_RESOLUTION, 5, 1, struct.pack("<II", *y)),
                Entry(RESOLUTION_UNIT, 3, 1, struct.pack("<H", unit)),
            ]
        return serialised(Directory(tuple(entries), self.directories)) if entries or self.directories else None

    def upright(self) -> Metadata:
        """Return a copy for pixels that are stored as they are seen: no orientation in the tags, 1 in the XMP."""
        kept = tuple(entry for entry in self.tags.entries if entry.code != ORIENTATION)
        resolution = self.resolution
        if resolution is not None and self.orientation.is_transposed:
            resolution = (resolution[1], resolution[0], resolution[2])
        xmp = None if self.xmp is None else XMP_ORIENTATION.sub(rb"\g<1>1", self.xmp)
        return replace(self, tags=Directory(kept), resolution=resolution, xmp=xmp)

    def with_nodata(self, value: float | None) -> Metadata:
        """Return a copy whose tag has another value of pixels without data; None removes the tag, which is lost."""
        kept = [entry for entry in self.tags.entries if entry.code != GDAL_NODATA]
        if value is None:
            return replace(self, tags=Directory(tuple(kept)), lost=(*self.lost, "GDAL_NODATA"))
        text = f"{value:.17g}".encode() + b"\0"
        return replace(self, tags=Directory((*kept, Entry(GDAL_NODATA, 2, len(text), text))))

    def too_long_for(self, longest: int) -> list[str]:
        """Return the names of the tags without which an Exif block has at most `longest` bytes, if it can."""
        return [KEPT_TAGS[entry.code] for entry in self._too_long_for(longest)]

    def _too_long_for(self, longest: int | None) -> list[Entry]:
        """Return the longest tags, as many as must be left out."""
        left_out: list[Entry] = []
        excess = 0 if longest is None else len(self.exif_block() or b"") - longest
        for entry in sorted(self.tags.entries, key=lambda entry: -len(entry.data)):
            if excess <= 0:
                break
            if entry.code not in TIFF_ONLY:
                left_out.append(entry)
                excess -= len(entry.data)
        return left_out

    def facts(self) -> dict[str, Any]:
        """Return a summary for display: block sizes in bytes, EXIF and GPS tag counts, resolution."""
        return {
            "icc": len(self.icc or b""),
            "exif": len(self.directories[EXIF_POINTER].entries) if EXIF_POINTER in self.directories else 0,
            "gps": len(self.directories[GPS_POINTER].entries) if GPS_POINTER in self.directories else 0,
            "xmp": len(self.xmp or b""),
            "iptc": len(self.iptc or b"") + len(self.photoshop or b""),
            "resolution": None
            if self.resolution is None
            else [round(self.resolution[0][0] / self.resolution[0][1], 3), self.resolution[2]],
        }


def from_tiff_directory(read: Reader, offset: int, order: str, *, big: bool) -> Metadata:
    """Read the metadata of the TIFF page whose directory is at `offset`."""
    directory = read_directory(read, offset, order, big=big)
    return Metadata(
        icc=_block(directory, ICC),
        xmp=_block(directory, XMP),
        iptc=_block(directory, IPTC),
        photoshop=_block(directory, PHOTOSHOP),
        resolution=_resolution(directory),
        tags=Directory(tuple(entry for entry in directory.entries if entry.code in KEPT_TAGS)),
        directories={code: child for code, child in directory.children.items() if child.entries},
    )


def from_exif_block(exif: bytes) -> Metadata:
    """Read tags, EXIF and GPS from an Exif block (a small TIFF, with or without the ``Exif`` header)."""
    if exif[:6] == b"Exif\0\0":
        exif = exif[6:]
    if len(exif) < 8 or exif[:2] not in (b"II", b"MM"):
        return Metadata()
    order = "<" if exif[:2] == b"II" else ">"
    first = struct.unpack(order + "I", exif[4:8])[0]
    return from_tiff_directory(lambda at, size: exif[at : at + size], first, order, big=False)


def _block(directory: Directory, code: int) -> bytes | None:
    entry = directory.get(code)
    return entry.data if entry else None


def _resolution(directory: Directory) -> tuple[tuple[int, int], tuple[int, int], int] | None:
    x, y, unit = (directory.get(code) for code in (X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT))
    if x is None or y is None or x.kind != 5 or y.kind != 5:
        return None
    horizontal, vertical = struct.unpack("<II", x.data[:8]), struct.unpack("<II", y.data[:8])
    if not (horizontal[1] and vertical[1]):
        return None
    number = struct.unpack("<H", unit.data[:2])[0] if unit and unit.kind == 3 else 2
    return (horizontal[0], horizontal[1]), (vertical[0], vertical[1]), number if number in (1, 2, 3) else 2


def srgb_profile() -> bytes:
    """Return a small sRGB profile; its bytes are reproducible because the creation date is zeroed."""
    from PIL import ImageCms

    buffer = io.BytesIO(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    profile = bytearray(buffer.getvalue())
    profile[24:36] = bytes(12)
    return bytes(profile)
