"""Image metadata in one format-independent form."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any

from tilepipe.image.metadata.exif import EXIF_POINTER, GPS_POINTER, MAKER_NOTE, Directory, Reader, read_directory

__all__ = ["Metadata", "from_exif_block", "from_tiff_directory", "srgb_profile"]

GDAL_NODATA = 42113

KEPT_TAGS = {
    270: "ImageDescription",
    271: "Make",
    272: "Model",
    274: "Orientation",
    305: "Software",
    306: "DateTime",
    315: "Artist",
    316: "HostComputer",
    33432: "Copyright",
    GDAL_NODATA: "GDAL_NODATA",
}
"""Tags of the first directory that are copied unchanged."""

X_RESOLUTION, Y_RESOLUTION, RESOLUTION_UNIT = 282, 283, 296
XMP, IPTC, PHOTOSHOP, ICC = 700, 33723, 34377, 34675


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
    """

    icc: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    photoshop: bytes | None = None
    resolution: tuple[tuple[int, int], tuple[int, int], int] | None = None
    tags: Directory = field(default_factory=lambda: Directory(()))
    directories: dict[int, Directory] = field(default_factory=dict)

    @property
    def dropped(self) -> list[str]:
        """Names of the tags that cannot be copied to the output."""
        codes = {code for directory in self.directories.values() for code in directory.dropped}
        return ["MakerNote"] if MAKER_NOTE in codes else []

    @property
    def nodata(self) -> float | None:
        """Sample value of pixels that are not part of the image, from GDAL's tag; None without a number there."""
        entry = self.tags.get(GDAL_NODATA)
        try:
            return None if entry is None else float(entry.data.split(b"\0")[0].decode("ascii"))
        except ValueError:
            return None

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
