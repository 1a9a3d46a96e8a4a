"""The processing record that tilepipe leaves in its outputs."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["RECORD_COMMENT", "RECORD_KEYWORD", "RECORD_TAG", "read_record"]

RECORD_TAG = 65001
"""Private TIFF tag (in the range for use without registration)."""

RECORD_COMMENT = b"tilepipe "
"""Start of the comment segment of a JPEG."""

RECORD_KEYWORD = b"tilepipe"
"""Keyword of the text chunk of a PNG."""


def read_record(path: str | Path) -> dict[str, Any] | None:
    """Return the processing record of the TIFF, JPEG or PNG at `path`; None if it has none."""
    record = None
    with suppress(OSError, ValueError, SyntaxError, struct.error):  # another format, damaged, or a foreign tag
        record = json.loads(_record_text(Path(path)) or "null")
    return record if isinstance(record, dict) else None


def _record_text(path: Path) -> str | None:
    with path.open("rb") as file:
        start = file.read(8)
    if start[:3] == b"\xff\xd8\xff":
        from PIL.JpegImagePlugin import JpegImageFile

        with JpegImageFile(path) as image:
            comment = image.info.get("comment", b"")
        return comment[len(RECORD_COMMENT) :].decode() if comment.startswith(RECORD_COMMENT) else None
    if start == b"\x89PNG\r\n\x1a\n":
        from PIL.PngImagePlugin import PngImageFile

        with PngImageFile(path) as image:
            return image.info.get(RECORD_KEYWORD.decode())
    import tifffile

    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages.first.tags.get(RECORD_TAG)
        return None if tag is None else tag.value
