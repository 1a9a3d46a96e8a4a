"""Photoshop image resources, in which JPEG and PNG carry IPTC records (Adobe Photoshop File Formats, "8BIM")."""

from __future__ import annotations

import struct

__all__ = ["photoshop_block"]

SIGNATURE = b"8BIM"

IPTC = 0x0404
"""Resource with the IPTC records."""


def photoshop_block(resources: bytes | None, iptc: bytes | None) -> bytes | None:
    """Return `resources` with the records `iptc` added unless they hold some; None if both are empty."""
    if not iptc or (resources and SIGNATURE + struct.pack(">H", IPTC) in resources):
        return resources
    resource = SIGNATURE + struct.pack(">HHI", IPTC, 0, len(iptc)) + iptc + b"\0" * (len(iptc) % 2)
    return (resources or b"") + resource
