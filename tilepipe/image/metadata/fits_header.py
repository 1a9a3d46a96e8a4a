"""Headers of FITS files: cards that are kept, those of an output, and the processing record (FITS Standard 4.0)."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["BLOCK", "SIGNATURE", "header_of", "kept_cards", "record_text"]

SIGNATURE = b"SIMPLE  ="
"""Start of every FITS file (4.4.1.1)."""

BLOCK, CARD = 2880, 80
"""Sizes of a block and of a card, bytes (3.1, 4.1.1)."""

STRUCTURAL = re.compile(
    r"SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|INHERIT|END"
    r"|Z?CHECKSUM|ZHECKSUM|Z?DATASUM"
)
"""Keywords of the layout and of checksums, which an output has of its own or not at all."""

OF_SAMPLES = ("DATAMIN", "DATAMAX")
"""Keywords that hold for the samples of the input only (4.4.2.5)."""

COMMENTARY = ("COMMENT", "HISTORY", "")

DEFAULT_NAME = "COMPRESSED_IMAGE"
"""EXTNAME that compression adds (10.1)."""

RECORD = "tilepipe {"
"""Start of the processing record in the HISTORY cards."""


def kept_cards(header: Any, primary: Any = None) -> tuple[bytes, tuple[str, ...]]:
    """Return the cards of an image's header that hold for an output, and the keywords that are left out.

    Parameters
    ----------
    header : astropy.io.fits.Header
        Header of the image.
    primary : astropy.io.fits.Header, optional
        Header of the file, if the image is in an extension: its keywords that `header` lacks are kept, too.

    Returns
    -------
    cards : bytes
        ASCII, 80 bytes per card, without keywords of the layout and checksums.
    left_out : tuple of str
        Keywords of the input's samples, and of cards that are damaged.
    """
    from astropy.io.fits import VerifyError

    cards = [] if primary is None else [card for card in primary.cards if _is_added(card.keyword, header)]
    text, left_out = "", []
    for card in [*cards, *header.cards]:
        keyword = card.keyword
        if STRUCTURAL.fullmatch(keyword):
            continue
        try:
            image = str(card)
            is_default = keyword == "EXTNAME" and card.value == DEFAULT_NAME
        except (VerifyError, ValueError):
            left_out.append(keyword)
            continue
        if keyword in OF_SAMPLES:
            left_out.append(keyword)
        elif not is_default and image.strip():
            text += image
    return text.encode("ascii", "replace"), tuple(dict.fromkeys(left_out))


def _is_added(keyword: str, header: Any) -> bool:
    return keyword in COMMENTARY or keyword not in header


def header_of(shape: tuple[int, ...], dtype: str, cards: bytes, record: bytes) -> bytes:
    """Return the header of a file with one image, padded to whole blocks.

    Parameters
    ----------
    shape : tuple of int
        (h, w) or (planes, h, w).
    dtype : {"uint8", "uint16", "float32"}
        Samples; uint16 is stored with an offset of 32768 (4.4.2.5, table 11).
    cards : bytes
        Further cards, see :func:`kept_cards`.
    record : bytes
        Processing record, ASCII JSON; may be empty.  It is written as HISTORY.
    """
    layout: list[tuple[str, str, str]] = [
        ("SIMPLE", "T", "conforms to the FITS standard"),
        ("BITPIX", str({"uint8": 8, "uint16": 16, "float32": -32}[dtype]), "bits per sample"),
        ("NAXIS", str(len(shape)), "number of axes"),
    ]
    layout += [(f"NAXIS{axis}", str(length), "") for axis, length in enumerate(reversed(shape), 1)]
    if dtype == "uint16":
        layout += [("BSCALE", "1", ""), ("BZERO", "32768", "offset of unsigned samples")]
    text = b"".join(_card(*card) for card in layout) + (without_record(cards) if record else cards)
    if record:
        line = RECORD[:-1].encode() + record
        text += b"".join(b"HISTORY " + line[at : at + CARD - 8].ljust(CARD - 8) for at in range(0, len(line), CARD - 8))
    text += b"END".ljust(CARD)
    return text + b" " * (-len(text) % BLOCK)


def _card(keyword: str, value: str, comment: str) -> bytes:
    """Return a card in fixed format (4.2)."""
    return f"{keyword:8}= {value:>20}{f' / {comment}' if comment else ''}".ljust(CARD).encode()


def record_text(cards: bytes) -> str | None:
    """Return the processing record in the HISTORY cards of a header, JSON; None if there is none."""
    found = _record(cards)
    return None if found is None else found[0]


def without_record(cards: bytes) -> bytes:
    """Return the cards of a header without the processing record of an earlier run."""
    while (found := _record(cards)) is not None:
        cards = cards[: found[1]] + cards[found[2] :]
    return cards


def _record(cards: bytes) -> tuple[str, int, int] | None:
    """Return the first processing record, and where its cards begin and end."""
    for start in range(0, len(cards), CARD):
        if not cards.startswith(b"HISTORY " + RECORD.encode(), start):
            continue
        text, end = "", start
        while cards[end : end + 8] == b"HISTORY ":
            text += cards[end + 8 : end + CARD].decode("latin-1")
            end += CARD
        try:
            value, length = json.JSONDecoder().raw_decode(text, len(RECORD) - 1)
        except ValueError:  # a line of that beginning which is no record
            continue
        number = -(-length // (CARD - 8))
        return json.dumps(value), start, start + number * CARD
    return None
