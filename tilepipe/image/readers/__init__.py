"""Readers of pictures: any supported format as rows of pixels, a band at a time; one module per format.

TIFF is read strip by strip or tile by tile with positioned reads; JPEG and PNG can only be decoded whole,
which ``ImageInfo.decoded_bytes`` states, so that the plan counts it.
"""

from __future__ import annotations

from pathlib import Path

from tilepipe.errors import InputError, InputNotFoundError
from tilepipe.image.info import ImageReader

__all__ = ["open_image"]


def open_image(path: str | Path) -> ImageReader:
    """Open a TIFF, JPEG or PNG, recognised by content.

    Raises
    ------
    InputNotFoundError : no such file, a folder, or not readable.
    InputError : not an image, damaged, or of a kind that is not supported; the message says which.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except FileNotFoundError as error:
        raise InputNotFoundError(f"{path} does not exist") from error
    except OSError as error:
        raise InputNotFoundError(f"{path} cannot be read: {error.strerror}") from error
    if start[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        from tilepipe.image.readers.tiff import TiffReader

        return TiffReader(path)
    if start[:3] == b"\xff\xd8\xff" or start[:8] == b"\x89PNG\r\n\x1a\n":
        from tilepipe.image.readers.jpeg_png import WholeReader

        return WholeReader(path)
    raise InputError(f"{path} is not an image that tilepipe reads (TIFF, JPEG or PNG, by content)")
