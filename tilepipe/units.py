"""Parsing and formatting of sizes in bytes."""

from __future__ import annotations

import re

from tilepipe.errors import SettingsError

__all__ = ["human_bytes", "parse_bytes"]

UNITS = {
    "": 1,
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
    "TIB": 2**40,
}


def parse_bytes(text: str | int, name: str = "memory") -> int:
    """Return a size in bytes: "512MB" is 512e6, "512MiB" is 512 * 2^20.

    Parameters
    ----------
    text : str or int
        The size, at least 1 MB.
    name : str
        Name of the setting, for error messages.

    Returns
    -------
    int
        The size, bytes.

    Raises
    ------
    SettingsError
        If `text` is not a size or is below 1 MB.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", str(text))
    if not match or match[2].upper() not in UNITS:
        raise SettingsError(f"{name} is {text!r}; write a size such as 512MB, 2GB or 512MiB")
    size = int(float(match[1]) * UNITS[match[2].upper()])
    if size < 10**6:
        raise SettingsError(f"{name} is {text!r} ({size} bytes); did you mean {match[1]}MB?")
    return size


def human_bytes(count: float) -> str:
    """Return `count` bytes as text in decimal units: ``512 MB``, ``1.9 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            value = count / size
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{count:.0f} B"
