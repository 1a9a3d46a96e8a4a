"""Transfer curves from ICC profiles (ICC.1:2022; tags 9.2, types 10.6 and 10.18)."""

from __future__ import annotations

import struct

import numpy as np

from tilepipe.errors import InputError
from tilepipe.image.light import SRGB, Curve, check_monotone, with_positive_slope

WHITE_D50 = struct.pack(">3i", 63190, 65536, 54061)
"""White point of the profile connection space, s15Fixed16."""

__all__ = ["curves_from_icc", "describe_icc", "gray_srgb_profile"]

NEUTRAL_SAMPLES = 1025
"""Number of neutral colours from which the curve of a profile without curves is built."""

PARAMETRIC_COUNTS = (1, 3, 4, 5, 7)
"""Number of parameters of the parametric function types 0..4 (ICC.1:2022, table 68)."""


def curves_from_icc(profile: bytes, channels: int) -> tuple[Curve, ...] | None:
    """Return one transfer curve per colour channel.

    Parameters
    ----------
    profile : bytes
        The ICC profile.
    channels : int
        1 (gray) or 3 (red, green, blue).

    Returns
    -------
    tuple of Curve or None
        For a profile of tables without curves, the light of its neutral colours, the same for each channel: samples
        are encoded with the inverse, so that unchanged pixels stay as they are.  None if that does not increase.

    Raises
    ------
    InputError
        If the profile is damaged or a curve cannot be inverted.
    """
    name = describe_icc(profile)
    tags = _tags(profile)
    required = [b"kTRC"] if channels == 1 else [b"rTRC", b"gTRC", b"bTRC"]
    if channels == 1 and b"kTRC" not in tags:
        required = [b"gTRC"]
    if any(tag not in tags for tag in required):
        curve = _neutral_curve(profile, channels, name)
        return None if curve is None else (curve,) * channels
    try:
        return tuple(with_positive_slope(check_monotone(_curve(tags[tag], name))) for tag in required)
    except (struct.error, ArithmeticError, IndexError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the colour profile {name!r} is damaged: {error}") from error


def _neutral_curve(profile: bytes, channels: int, name: str) -> Curve | None:
    """Return the light of equal samples of all channels, as Little CMS computes it from the profile's tables."""
    import imagecodecs

    codes = np.linspace(0, 1, NEUTRAL_SAMPLES, dtype=np.float32)[None, :, None].repeat(channels, 2)
    linear = imagecodecs.cms_profile("gray", gamma=1.0)
    space = "rgb" if channels == 3 else "gray"
    try:
        light = imagecodecs.cms_transform(
            codes if channels > 1 else codes[..., 0],
            profile,
            linear,
            colorspace=space,
            outcolorspace="gray",
            outdtype="float32",
        )
        values = np.asarray(light, np.float64).reshape(-1)
        curve = check_monotone(Curve(name, samples=tuple(float(value) for value in values / values[-1])))
    except Exception:  # imagecodecs has its own error class; a curve that falls is none either
        return None
    return with_positive_slope(curve)


def describe_icc(profile: bytes) -> str:
    """Return the profile's description, ``ICC`` if it has none, or ``damaged ICC``."""
    try:
        tag = _tags(profile).get(b"desc", b"")
    except InputError:
        return "damaged ICC"
    if tag[:4] == b"desc" and len(tag) >= 12:
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
        return Curve(name, samples=tuple(float(value) / 65535 for value in values))
    if kind == b"para":
        function = struct.unpack(">H", tag[8:10])[0]
        count = PARAMETRIC_COUNTS[function]
        values_ = [value / 65536 for value in struct.unpack(f">{count}i", tag[12 : 12 + 4 * count])]
        return Curve(name, _parametric(function, values_))
    raise InputError(f"the colour profile {name!r} contains a curve of unknown type {kind!r}")


def _parametric(function: int, values: list[float]) -> tuple[float, ...]:
    """Convert function types 0..4 to the parameters of type 4: g, a, b, c, d, e, f."""
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


def gray_srgb_profile() -> bytes:
    """Return a minimal gray profile with the sRGB curve (ICC.1:2022, 8.4.3); its bytes are reproducible."""
    assert SRGB.parameters is not None
    g, a, b, c, d, _, _ = SRGB.parameters
    name = "Gray, sRGB curve".encode("utf-16-be")
    tags = {
        b"desc": b"mluc" + bytes(4) + struct.pack(">II4sII", 1, 12, b"enUS", len(name), 28) + name,
        b"cprt": b"mluc"
        + bytes(4)
        + struct.pack(">II4sII", 1, 12, b"enUS", 6, 28)
        + "CC0".encode("utf-16-be")
        + bytes(2),
        b"wtpt": b"XYZ " + bytes(4) + WHITE_D50,
        b"kTRC": b"para" + bytes(4) + struct.pack(">HH5i", 3, 0, *(round(value * 65536) for value in (g, a, b, c, d))),
    }
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for signature, tag in tags.items():
        table += struct.pack(">4sII", signature, offset + len(body), len(tag))
        body += tag
    header = struct.pack(">I4sI4s4s4s", offset + len(body), bytes(4), 0x04300000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + WHITE_D50 + bytes(48)
    return header + struct.pack(">I", len(tags)) + table + body
