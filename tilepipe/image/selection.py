"""Which picture of a file is read: which page or plane of a TIFF, and whether a truncated file is read at all."""

from __future__ import annotations

import hashlib

import msgspec

from tilepipe.errors import SettingsError

__all__ = ["WHOLE", "Selection", "plane_position"]


class Selection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A picture of a file.

    Parameters
    ----------
    page : int, optional
        Index of a page in the chain of a TIFF, from 0, thumbnails and masks included; None: the largest.
    plane : str, optional
        Position along the axes of a stack, from 0, as ``z=3,c=1``; axes that are not named have position 0.
    salvage : bool
        Whether a truncated file is read as far as it goes.
    """

    page: int | None = None
    plane: str | None = None
    salvage: bool = False

    def __post_init__(self) -> None:
        """Check the page; raise SettingsError with the way out."""
        if self.page is not None and self.page < 0:
            raise SettingsError(f"page is {self.page}; pages are counted from 0")
        if self.page is not None and self.plane is not None:
            raise SettingsError(f"page is {self.page} and plane is {self.plane!r}; give one of them")

    def digest(self, content: str) -> str:
        """Return the key, in the cache, of this picture of the file whose SHA-256 is `content`.

        It is `content` itself for the picture that is read by default, else the SHA-256 of both.
        """
        if self == WHOLE:
            return content
        return hashlib.sha256(content.encode() + msgspec.json.encode(self, order="sorted")).hexdigest()

    def facts(self) -> dict[str, object]:
        """Return what differs from the default, as JSON values."""
        facts: dict[str, object] = msgspec.to_builtins(self)
        return facts


WHOLE = Selection()
"""The picture that is read by default: the largest page, of a file that is complete."""


def plane_position(text: str) -> dict[str, int]:
    """Return the position that `text`, as ``z=3,c=1``, states for each axis (a lower-case letter).

    Raises
    ------
    SettingsError
        If the text states anything else.
    """
    position: dict[str, int] = {}
    for part in text.split(","):
        axis, separator, number = (piece.strip().lower() for piece in part.partition("="))
        if not (separator and len(axis) == 1 and axis.isalpha() and number.isdecimal()) or axis in position:
            raise SettingsError(
                f"plane is {text!r}; give the position along each axis, counted from 0, as z=3,c=1 (axes that are not "
                "named: 0)"
            )
        position[axis] = int(number)
    return position
