"""Reason of a decoding error, as one line of a message."""

from __future__ import annotations

__all__ = ["reason_of"]

LONGEST = 300
"""Characters of a library's message that are shown."""


def reason_of(error: Exception, parts: str) -> str:
    """Return a library's message in one line.

    Parameters
    ----------
    error : Exception
        What a decoder raised.
    parts : str
        The parts of a file that are invalid if the error is one of Python's own, whose message helps no user: damaged
        data cause them in code that does not expect it.
    """
    text = " ".join(str(error).split())
    if not text or isinstance(error, (TypeError, AttributeError, IndexError, AssertionError, KeyError)):
        return f"its {parts} are invalid"
    return text[:LONGEST]
