"""The file format of PSFs: a TIFF of 32-bit floats, one page per kernel, with their provenance as JSON."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from tilepipe.dtypes import FloatArray
from tilepipe.errors import DoesNotFitError, InputError, InputNotFoundError, OutputError, OutputExistsError
from tilepipe.system.files import is_disk_full, write_durably

__all__ = ["FIELD", "decode", "encode", "write"]

FIELD = "field"
"""Key of the places of the kernels in the facts of a PSF that differs over the image."""

DESCRIPTION = "tilepipe PSF "
"""Start of ImageDescription.  JSON without it would be read as tifffile's own if it has the key "shape"."""

MOST_PLANES, MOST_PAGES = 4, 1024
"""Largest number of kernels in a PSF (images have up to four channels), and in a field: 16 x 16 places of them."""


def encode(planes: FloatArray, facts: dict[str, Any]) -> bytes:
    """Return the content of a file with the kernels (n, k, k), one page each, and `facts`, JSON values."""
    import tifffile

    content = io.BytesIO()
    tifffile.imwrite(
        content,
        np.asarray(planes),
        photometric="minisblack",
        description=DESCRIPTION + json.dumps(facts, sort_keys=True),
        metadata=None,
        software=False,
    )
    return content.getvalue()


def decode(file: Path | IO[bytes], name: str) -> tuple[list[npt.NDArray[Any]], dict[str, Any]]:
    """Return the pages of a file as stored, and its facts, empty if it has none; messages call it `name`.

    Raises
    ------
    InputNotFoundError
        If the file does not exist.
    InputError
        If the file is not a TIFF, or has more than ``MOST_PLANES`` pages, or ``MOST_PAGES`` of a field.
    """
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            facts = _facts(tiff.pages.first.description)
            if len(tiff.pages) > (MOST_PAGES if FIELD in facts else MOST_PLANES):
                raise InputError(
                    f"{name} has {len(tiff.pages)} pages; a PSF file has one, or one per channel, at most "
                    f"{MOST_PLANES}: save the plane in focus as a separate file"
                )
            return [page.asarray() for page in tiff.pages], facts
    except FileNotFoundError as error:
        raise InputNotFoundError(f"PSF file {name} does not exist") from error
    except InputError:
        raise
    except Exception as error:  # tifffile raises arbitrary exceptions on damaged files
        raise InputError(f"{name} is not a readable PSF (a gray TIFF is expected): {error}") from error


def _facts(description: str) -> dict[str, Any]:
    """Return the facts in a description; empty if it is not ours."""
    try:
        facts = dict(json.loads(description.removeprefix(DESCRIPTION)))
    except (ValueError, TypeError):
        return {}
    facts.pop("tilepipe", None)
    return facts


def write(path: str | Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a PSF file; errors as :meth:`tilepipe.psf.model.PSF.save`."""
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(f"{path} exists; --overwrite replaces it")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write PSF {path}: the folder {path.parent} does not exist; create it first")
    try:
        write_durably(path, content)
    except OSError as error:
        if is_disk_full(error):
            raise DoesNotFitError(f"the disk of {path} is full; free some space and try again") from error
        raise OutputError(f"cannot write PSF {path}: {error.strerror or error}") from error
