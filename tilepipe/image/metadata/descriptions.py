"""Descriptions that programs write for themselves: OME-XML, ImageJ's, tifffile's.  They must hold for the output.

A description of several planes, or of other files, makes readers look for pixels that the output does not have.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.exif import Directory, Entry

__all__ = ["DESCRIPTION", "for_dtype", "with_description_of_one_page", "with_description_of_stack"]

DESCRIPTION = 270
"""TIFF tag ImageDescription."""

OME_TYPES = {"uint8": b"uint8", "uint16": b"uint16", "float32": b"float"}
"""Value of the attribute Type of OME-XML's Pixels, by dtype."""

OTHER_PLANES = re.compile(rb'FileName="|Size[ZT]="(?!1")')
CHANNELS, SAMPLES = re.compile(rb'SizeC="(\d+)"'), re.compile(rb'SamplesPerPixel="(\d+)"')
PLANE_COUNTS = re.compile(rb"^(images|channels|slices|frames|hyperstack)=.*\n?", re.MULTILINE)
TYPE = re.compile(rb'(<(?:\w+:)?Pixels\b[^>]*\bType=")[^"]*(")')


def with_description_of_one_page(metadata: Metadata, *, is_only: bool, plane: bytes | None = None) -> Metadata:
    """Return `metadata` with a description that holds for one picture; what is removed is added to ``lost``.

    Parameters
    ----------
    metadata : Metadata
        Of one page.
    is_only : bool
        Whether the file has no other page.
    plane : bytes, optional
        OME-XML of this plane of a stack, see :func:`tilepipe.image.metadata.ome.ome_of_one_plane`.
    """
    entry = metadata.tags.get(DESCRIPTION)
    if entry is None:
        return metadata
    text, lost = entry.data, ""
    if b"<OME" in text and (not is_only or _has_several_planes(text)):
        text, lost = (plane + b"\0", "") if plane else (b"", "OME-XML of several planes")
    elif text.startswith(b"ImageJ="):
        text = PLANE_COUNTS.sub(b"", text)
    elif text.lstrip().startswith(b"{"):
        text = _without_shape(text)
    if text == entry.data:
        return metadata
    kept = tuple(
        _replaced(one, text) if one is entry else one for one in metadata.tags.entries if text or one is not entry
    )
    return replace(metadata, tags=Directory(kept), lost=(*metadata.lost, *([lost] if lost else [])))


def with_description_of_stack(metadata: Metadata, first: Entry | None) -> Metadata:
    """Return the metadata of a page with the description of its stack, `first`, that of the first page.

    It replaces that of the page only if it is OME-XML or ImageJ's, which describe the whole file.
    """
    if first is None or not (b"<OME" in first.data or first.data.startswith(b"ImageJ=")):
        return metadata
    others = [entry for entry in metadata.tags.entries if entry.code != DESCRIPTION]
    return replace(metadata, tags=Directory(tuple(sorted((*others, first), key=lambda entry: entry.code))))


def _has_several_planes(text: bytes) -> bool:
    """Return whether OME-XML describes other files, or more channels than the samples of one page."""
    channels, samples = CHANNELS.search(text), SAMPLES.search(text)
    return bool(OTHER_PLANES.search(text)) or int(channels[1] if channels else 1) > int(samples[1] if samples else 1)


def _without_shape(text: bytes) -> bytes:
    """Return tifffile's JSON without the shape of the whole file; empty if nothing else is in it."""
    try:
        facts = json.loads(text.rstrip(b"\0"))
    except ValueError:
        return text
    if not isinstance(facts, dict) or "shape" not in facts:
        return text
    del facts["shape"]
    return json.dumps(facts).encode() + b"\0" if facts else b""


def for_dtype(entry: Entry, dtype: str) -> Entry:
    """Return a description whose OME-XML states `dtype`; any other entry unchanged."""
    if entry.code != DESCRIPTION or b"<OME" not in entry.data or dtype not in OME_TYPES:
        return entry
    return _replaced(entry, TYPE.sub(rb"\g<1>" + OME_TYPES[dtype] + rb"\g<2>", entry.data))


def _replaced(entry: Entry, text: bytes) -> Entry:
    return replace(entry, count=len(text), data=text)
