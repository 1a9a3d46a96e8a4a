"""Camera and lens of an image, from its Exif directory."""

from __future__ import annotations

import struct
from typing import Any

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.exif import EXIF_POINTER, Entry

__all__ = ["camera_facts"]

MAKE, MODEL = 271, 272
APERTURE, FOCAL_LENGTH, LENS_MODEL = 33437, 37386, 42036
"""Tags of the Exif directory (CIPA DC-008, 4.6.5)."""


def camera_facts(metadata: Metadata) -> dict[str, Any]:
    """Return what is known of "camera", "lens", "focal_length" (mm) and "aperture" (f-number), JSON values."""
    exif = metadata.directories.get(EXIF_POINTER)
    names = [_text(metadata.tags.get(code)) for code in (MAKE, MODEL)]
    facts: dict[str, Any] = {"camera": " ".join(name for name in names if name)}
    if exif is not None:
        facts["lens"] = _text(exif.get(LENS_MODEL))
        facts["focal_length"] = _rational(exif.get(FOCAL_LENGTH))
        facts["aperture"] = _rational(exif.get(APERTURE))
    return {key: value for key, value in facts.items() if value}


def _text(entry: Entry | None) -> str:
    return "" if entry is None else entry.data.split(b"\0")[0].decode("utf-8", "replace").strip()


def _rational(entry: Entry | None) -> float:
    """Return the first rational of an entry; 0 if it is none or has no value."""
    if entry is None or len(entry.data) < 8:
        return 0.0
    above, below = struct.unpack("<II", entry.data[:8])
    return round(above / below, 3) if below else 0.0
