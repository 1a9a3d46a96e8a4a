"""Pages and planes of a TIFF: which one is the picture, and where it lies in a stack.

The axes of a stack are those that tifffile finds in OME-XML, in ImageJ's description, or in its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from math import prod
from pathlib import Path

import tifffile

from tilepipe.errors import SettingsError
from tilepipe.image.readers.tiff_pages import is_mask, is_reduced, largest_page, left_out_beside
from tilepipe.image.selection import Selection, plane_position

__all__ = ["Plane", "choose", "contents_of", "parsed"]

IN_A_PLANE = "YXS"
"""Axes of one picture: rows, columns and samples."""


@dataclass(frozen=True)
class Plane:
    """The picture to read.

    Parameters
    ----------
    page : tifffile.TiffPage
        Its directory.
    skipped : int
        Bytes from the data of the directory to those of the plane, in a stack with one directory for all planes.
    left_out : tuple of str
        What the file contains besides, in words.
    selection : Selection
        Which page or plane was asked for; without what is the default, so that it is equal for equal pixels.
    stack : Stack, optional
        The stack that contains it.
    number : int
        Its number in the stack.
    """

    page: tifffile.TiffPage
    skipped: int
    left_out: tuple[str, ...]
    selection: Selection
    stack: Stack | None = None
    number: int = 0

    @property
    def is_ome(self) -> bool:
        """Whether OME-XML describes the stack."""
        return self.stack is not None and self.stack.kind == "ome"

    @property
    def series(self) -> int:
        """Number of the series that contains the plane; 0 without a stack."""
        return 0 if self.stack is None else self.stack.index

    @property
    def position(self) -> dict[str, int]:
        """Position along each axis of the stack."""
        return {} if self.stack is None else self.stack.position(self.number)


@dataclass(frozen=True)
class Stack:
    """Planes along axes.

    Parameters
    ----------
    kind : str
        Origin of the axes: "ome", "imagej", "shaped" and others of tifffile.
    index : int
        Number of the series, among those of the file.
    axes : dict of str to int
        Number of planes along each axis, slowest first; the name of an axis is one lower-case letter.
    pages : tuple of int or None
        Index of each plane's page; None where it lies in another file.  One page if it is the directory of all planes.
    """

    kind: str
    index: int
    axes: dict[str, int]
    pages: tuple[int | None, ...]

    @property
    def is_contiguous(self) -> bool:
        """Whether one directory stands for all planes, whose data follow each other."""
        return len(self.pages) == 1 < prod(self.axes.values())

    def position(self, number: int) -> dict[str, int]:
        """Return the position along each axis of the plane `number`."""
        position = {}
        for axis, length in reversed(self.axes.items()):
            number, position[axis] = divmod(number, length)
        return dict(reversed(position.items()))

    def number(self, path: Path, text: str) -> int:
        """Return the number of the plane at the position `text`; raise SettingsError if there is none."""
        asked = plane_position(text)
        number = 0
        for axis, length in self.axes.items():
            at = asked.pop(axis, 0)
            if at >= length:
                raise SettingsError(f"plane is {text!r}; {path} has {axis}=0..{length - 1}: its planes are {self}")
            number = number * length + at
        for axis in (axis for axis, at in asked.items() if at):
            raise SettingsError(f"plane is {text!r}; {path} has no axis {axis}: its planes are {self}")
        return number

    def __str__(self) -> str:
        """Return the range of positions along each axis: "t=0..2,z=0..9"; axes of one plane are left out."""
        return ",".join(f"{axis}=0..{length - 1}" for axis, length in self.axes.items() if length > 1) or "a single one"


def parsed(path: Path) -> tifffile.TiffFile:
    """Open a TIFF with tifffile, without the other files that its OME-XML names: pixels are read from `path` only."""
    return tifffile.TiffFile(path, _multifile=False)


def choose(path: Path, tiff: tifffile.TiffFile, pages: list[tifffile.TiffPage], selection: Selection) -> Plane:
    """Return the page or plane that `selection` names, among all `pages` of `tiff`.

    Raises
    ------
    SettingsError
        If the file has no such page or plane.
    InputError
        If the file has no full-size page.
    """
    default = largest_page(path, pages)
    page = default if selection.page is None else _page(path, pages, selection.page)
    stack = _stack_with(tiff, int(page.index))
    number, skipped = stack.pages.index(int(page.index)) if stack else 0, 0
    if selection.plane is not None:
        if stack is None:
            raise SettingsError(f"plane is {selection.plane!r}; {path} is no stack; choose a page with --page")
        number = stack.number(path, selection.plane)
        page, skipped = _at(path, pages, stack, number)
    chosen = Selection(
        page=None if page.index == default.index else int(page.index),
        plane=selection.plane if skipped else None,
    )
    left_out = left_out_beside(pages, page)
    if stack is not None and stack.is_contiguous:
        left_out += (f"all planes but number {number} of 0..{prod(stack.axes.values()) - 1}",)
    return Plane(page, skipped, left_out, chosen, stack, number)


def _page(path: Path, pages: list[tifffile.TiffPage], index: int) -> tifffile.TiffPage:
    if index >= len(pages):
        number = "1 page, number 0" if len(pages) == 1 else f"{len(pages)} pages, numbers 0..{len(pages) - 1}"
        raise SettingsError(f"page is {index}; {path} has {number}")
    return pages[index]


def _at(path: Path, pages: list[tifffile.TiffPage], stack: Stack, number: int) -> tuple[tifffile.TiffPage, int]:
    """Return the page of a plane, and the bytes from the page's data to those of the plane."""
    if not stack.is_contiguous:
        index = stack.pages[number]
        if index is None:
            raise SettingsError(f"plane {number} of {path} lies in another file of its set; give that file")
        return pages[index], 0
    page = pages[stack.pages[0] or 0]
    assert page.dtype is not None
    size = int(page.imagelength) * int(page.imagewidth) * int(page.samplesperpixel) * page.dtype.itemsize
    return page, number * size


def _stack_with(tiff: tifffile.TiffFile, page: int) -> Stack | None:
    """Return the stack that contains a page; None if the file is no stack, or its description is damaged."""
    try:
        for index, series in enumerate(tiff.series):
            pages = tuple(None if one is None or one.parent is not tiff else one.index for one in series.pages)
            if page in pages:
                # with axes of length 1; tifffile 2026.11 has no method for that and states the others
                has_methods = hasattr(series, "get_axes")
                named = series.get_axes(False) if has_methods else series.axes
                lengths = zip(named, series.get_shape(False) if has_methods else series.shape, strict=True)
                axes = [(axis.lower(), int(length)) for axis, length in lengths if axis not in IN_A_PLANE]
                stack = Stack(series.kind, index, dict(axes), pages)
                number = prod(length for _, length in axes)
                follow = len(pages) == 1 and series.dataoffset is not None
                is_sound = number == prod(stack.axes.values()) and (len(pages) == number or follow)
                return stack if is_sound else None
    except Exception:  # on descriptions that do not suit the pages tifffile raises arbitrary exceptions
        return None
    return None


def contents_of(path: Path) -> dict[str, list[str]]:
    """Return the pages and stacks of a TIFF as text, for display; equal pages in a row are one line."""
    with parsed(path) as tiff:
        pages = [page.aspage() for page in tiff.pages]
        lines, at = [], 0
        for line, equal in groupby(pages, _line_of):
            number = len(list(equal))
            lines.append(f"{at}: {line}" if number == 1 else f"{at}..{at + number - 1}: {line}")
            at += number
        stack = _stack_with(tiff, int(pages[0].index))
    contents = {"pages": lines} if len(pages) > 1 else {}
    if stack is not None and prod(stack.axes.values()) > 1:
        contents["planes"] = [str(stack)]
    return contents


def _line_of(page: tifffile.TiffPage) -> str:
    kind = "mask" if is_mask(page) else "reduced size" if is_reduced(page) else ""
    samples = f"{page.samplesperpixel} x {page.dtype}" if page.dtype is not None else "unknown samples"
    return f"{page.imagewidth} x {page.imagelength} px, {samples}{', ' * bool(kind)}{kind}"
