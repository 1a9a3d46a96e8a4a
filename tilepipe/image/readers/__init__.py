"""Image readers: bands of rows from any supported format; one module per format.

TIFF is read strip by strip or tile by tile, zarr chunk by chunk, FITS and .npy row by row, and with libvips large JPEG
and PNG files from the top down.  All others are decoded whole; the plan accounts for this memory through
``ImageInfo.decoded_bytes``.
"""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import InputError, InputNotFoundError, SettingsError
from tilepipe.image.info import ImageReader, StoredReader
from tilepipe.image.metadata.fits_header import SIGNATURE
from tilepipe.image.readers.heic import is_heic, open_heic
from tilepipe.image.readers.jpegxl import is_jpegxl, open_jpegxl
from tilepipe.image.readers.raw import is_raw, open_raw
from tilepipe.image.readers.web import is_web_format, open_web
from tilepipe.image.selection import WHOLE, Selection
from tilepipe.image.zarr_folder import is_zarr

__all__ = ["open_image", "open_stored"]

READABLE = "TIFF, JPEG, PNG, WebP, AVIF, JPEG 2000, JPEG XL, HEIC, FITS, .npy, camera raw or a folder of OME-Zarr"


def open_image(path: str | Path, selection: Selection = WHOLE) -> ImageReader:
    """Open an image; the format is detected from the content.

    Parameters
    ----------
    path : str or Path
        The file, or the folder of an OME-Zarr or a zarr array.
    selection : Selection
        Which picture of the file to read.

    Returns
    -------
    ImageReader
        The open image.

    Raises
    ------
    InputNotFoundError
        If the file does not exist, is a folder without zarr metadata, or cannot be read.
    InputError
        If the file is not an image, is damaged, or has an unsupported format.
    SettingsError
        If the format needs a package that is not installed, or the file has no such page or plane.
    """
    path = Path(path)
    if path.is_dir():
        _check_single(path, selection)
        return _open_folder(path)
    if path.exists() and not path.is_file():
        raise InputNotFoundError(f"{path} is a pipe or a device; save the image to a file first")
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{path} does not exist") from error
    except OSError as error:
        raise InputNotFoundError(f"{path} cannot be read: {error.strerror}") from error
    is_camera_raw = is_raw(path, start)
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and not is_camera_raw:
        from tilepipe.image.readers.tiff import open_tiff

        return open_tiff(path, selection)
    _check_single(path, selection)
    if is_camera_raw:
        return open_raw(path)
    if start[:3] == b"\xff\xd8\xff":
        from tilepipe.image.readers.jpeg import open_jpeg

        return open_jpeg(path, salvage=selection.salvage)
    if start[:8] == b"\x89PNG\r\n\x1a\n":
        from tilepipe.image.readers.png import open_png

        return open_png(path, salvage=selection.salvage)
    if start[:6] == b"\x93NUMPY":
        from tilepipe.image.readers.npy import NpyReader

        return NpyReader(path)
    if is_jpegxl(start):
        return open_jpegxl(path)
    if start.startswith(SIGNATURE):
        from tilepipe.image.readers.fits import FitsReader

        return FitsReader(path)
    if is_heic(start):
        return open_heic(path)
    if is_web_format(start):
        return open_web(path)
    raise InputError(f"{path} is not an image that tilepipe reads ({READABLE}, detected by content)")


def open_stored(path: str | Path, selection: Selection = WHOLE) -> StoredReader:
    """Open an image whose description has a `space`, to read its colours as stored; see :func:`open_image`."""
    reader = open_image(path, selection)
    if not isinstance(reader, StoredReader) or reader.info.space is None:
        reader.close()
        raise InputError(f"{path} was changed since it was planned; run the same command again")
    return reader


def _check_single(path: Path, selection: Selection) -> None:
    """Raise SettingsError if a page or plane is chosen of a file that is not a TIFF."""
    if selection.page or selection.plane is not None:
        asked = f"page is {selection.page}" if selection.page else f"plane is {selection.plane!r}"
        raise SettingsError(f"{asked}; {path} is no TIFF: it has one page, number 0, and no planes")


def _open_folder(path: Path) -> ImageReader:
    try:
        is_picture = is_zarr(path)
    except OSError as error:
        raise InputNotFoundError(f"{path} cannot be read: {error.strerror}") from error
    if not is_picture:
        raise InputNotFoundError(f"{path} cannot be read: it is a folder without zarr metadata; give an image file")
    from tilepipe.image.readers.omezarr import OmeZarrReader

    return OmeZarrReader(path)
