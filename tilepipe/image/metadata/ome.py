"""OME-XML of one plane, made from that of a stack (schema 2016-06, and those before it)."""

from __future__ import annotations

from collections.abc import Mapping
from xml.dom.minidom import Document, Element, parseString
from xml.parsers.expat import ExpatError

__all__ = ["ome_of_one_plane"]

LONGEST = 1 << 20
"""Longest text that is parsed, bytes: the tree takes about 30 times as much memory."""

AXES = {"z": "Z", "c": "C", "t": "T"}
"""Letters of the attributes SizeZ, TheZ ... by the name of an axis."""


def ome_of_one_plane(text: bytes, image: int, position: Mapping[str, int], shape: tuple[int, int]) -> bytes | None:
    """Return OME-XML that describes one plane of a stack, as the only one of its file.

    Parameters
    ----------
    text : bytes
        OME-XML of the stack, UTF-8; it may end in zeros.
    image : int
        Index of the plane's series, among the elements Image that have pixels.
    position : mapping of str to int
        Position of the plane along the axes "z", "c" and "t".
    shape : tuple of int
        Height and width of the plane, px.

    Returns
    -------
    bytes or None
        None if the text is damaged, is longer than ``LONGEST``, declares entities, or does not contain the plane.
    """
    text = text.rstrip(b"\0")
    has_declarations = b"<!" in text.replace(b"<!--", b"")
    if len(text) > LONGEST or has_declarations or any(at for axis, at in position.items() if axis not in AXES):
        return None
    try:
        document = parseString(text)  # noqa: S318 - without declarations there are no entities to expand
    except (ExpatError, ValueError):
        return None
    images = [one for one in _all(document, "Image") if _all(one, "Pixels")]
    if image >= len(images):
        return None
    for index, one in enumerate(images):
        if index != image:
            _remove(one)
    if document.documentElement is not None and document.documentElement.hasAttribute("UUID"):
        document.documentElement.removeAttribute("UUID")
    pixels = _all(images[image], "Pixels")[0]
    if [pixels.getAttribute(name) for name in ("SizeY", "SizeX")] != [str(size) for size in shape]:
        return None
    if not _keep_channel(pixels, position.get("c", 0)):
        return None
    _keep_plane(document, pixels, position)
    return bytes(document.toxml(encoding="UTF-8"))


def _keep_channel(pixels: Element, channel: int) -> bool:
    """Reduce the size of `pixels` to one plane of the channel; return whether there is one."""
    channels = _all(pixels, "Channel")
    if channels and channel >= len(channels):
        return False
    for index, one in enumerate(channels):
        if index != channel:
            _remove(one)
    samples = (channels[channel].getAttribute("SamplesPerPixel") if channels else "") or "1"
    for letter, size in (("Z", "1"), ("T", "1"), ("C", samples)):
        pixels.setAttribute(f"Size{letter}", size)
    return True


def _keep_plane(document: Document, pixels: Element, position: Mapping[str, int]) -> None:
    """Remove the descriptions of other planes; state that the pixels are those of the first page."""
    for plane in _all(pixels, "Plane"):
        if any(plane.getAttribute(f"The{letter}") != str(position.get(axis, 0)) for axis, letter in AXES.items()):
            _remove(plane)
            continue
        for letter in AXES.values():
            plane.setAttribute(f"The{letter}", "0")
    data = _all(pixels, "TiffData")
    if data:
        only = document.createElement(data[0].tagName)
        only.setAttribute("IFD", "0")
        only.setAttribute("PlaneCount", "1")
        pixels.insertBefore(only, data[0])
    for one in data:
        _remove(one)


def _all(parent: Document | Element, name: str) -> list[Element]:
    """Return the elements `name` below `parent`, of any namespace."""
    return list(parent.getElementsByTagNameNS("*", name))


def _remove(element: Element) -> None:
    if element.parentNode is not None:
        element.parentNode.removeChild(element)
