"""Transfer curves out of ICC profiles (ICC.1:2022; tags 9.2, types 10.6 and 10.18)."""

from __future__ import annotations

import struct

import numpy as np

from tilepipe.errors import InputError
from tilepipe.image.light import Curve, check_monotone, strictly_increasing

__all__ = ["curves_from_icc", "describe_icc"]

PARAMETRIC_COUNTS = (1, 3, 4, 5, 7)
"""How many numbers the parametric function types 0..4 have (ICC.1:2022, table 68)."""


def curves_from_icc(profile: bytes, channels: int) -> tuple[Curve, ...] | None:
    """Return a curve per colour channel.

    Parameters
    ----------
    profile : the profile's bytes.
    channels : 1 (gray) or 3 (red, green, blue).

    Returns
    -------
    The curves; None when the profile has none (a table-based profile).

    Raises
    ------
    InputError : the profile is damaged, or a curve cannot be undone.
    """
    name = describe_icc(profile)
    tags = _tags(profile)
    wanted = [b"kTRC"] if channels == 1 else [b"rTRC", b"gTRC", b"bTRC"]
    if channels == 1 and b"kTRC" not in tags:
        wanted = [b"gTRC"]
    if any(tag not in tags for tag in wanted):
        return None
    try:
        return tuple(check_monotone(_curve(tags[tag], name)) for tag in wanted)
    except (struct.error, IndexError) as error:
        raise InputError(f"the colour profile {name!r} is damaged: {error}") from error


def describe_icc(profile: bytes) -> str:
    """Return the profile's own name, or ``ICC`` when it states none."""
    try:
        tag = _tags(profile).get(b"desc", b"")
    except InputError:
        return "damaged ICC"
    if tag[:4] == b"desc":
        length = struct.unpack(">I", tag[8:12])[0]
        return tag[12 : 12 + length].split(b"\0")[0].decode("latin-1").strip() or "ICC"
    if tag[:4] == b"mluc" and len(tag) >= 28:
        length, offset = struct.unpack(">II", tag[20:28])
        return tag[offset : offset + length].decode("utf-16-be", "replace").strip("\0 ") or "ICC"
    return "ICC"


def _tags(profile: bytes) -> dict[bytes, bytes]:
    if len(profile) < 132 or profile[36:40] != b"acsp":
        raise InputError(f"the colour profile ({len(profile)} bytes) is damaged: it has no ICC signature")
    count = struct.unpack(">I", profile[128:132])[0]
    tags = {}
    for index in range(min(count, 200)):
        entry = profile[132 + 12 * index : 144 + 12 * index]
        if len(entry) < 12:
            raise InputError(f"the colour profile is damaged: its tag table ends after {index} of {count} tags")
        signature, offset, size = struct.unpack(">4sII", entry)
        tags[signature] = profile[offset : offset + size]
    return tags


def _curve(tag: bytes, name: str) -> Curve:
    kind = tag[:4]
    if kind == b"curv":
        count = struct.unpack(">I", tag[8:12])[0]
        values = np.frombuffer(tag[12 : 12 + 2 * count], ">u2")
        if count == 0:
            return Curve(name, (1.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0))
        if count == 1:
            return Curve(name, (float(values[0]) / 256, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))
        return Curve(name, samples=strictly_increasing([float(value) / 65535 for value in values]))
    if kind == b"para":
        function = struct.unpack(">H", tag[8:10])[0]
        count = PARAMETRIC_COUNTS[function]
        values_ = [value / 65536 for value in struct.unpack(f">{count}i", tag[12 : 12 + 4 * count])]
        return Curve(name, _parametric(function, values_))
    raise InputError(f"the colour profile {name!r} holds a curve of unknown type {kind!r}")


def _parametric(function: int, values: list[float]) -> tuple[float, ...]:
    """Bring function types 0..4 into the form of type 4: g, a, b, c, d, e, f."""
    g = values[0]
    if function == 0:
        return (g, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    a, b = values[1:3]
    if function in (1, 2):
        offset = values[3] if function == 2 else 0.0
        return (g, a, b, 0.0, -b / a, offset, offset)
    c, d = values[3:5]
    e, f = values[5:7] if function == 4 else (0.0, 0.0)
    return (g, a, b, c, d, e, f)
