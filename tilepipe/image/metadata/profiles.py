"""ICC profiles made from what other standards state: an exponent and primaries, or code points (ITU-T H.273)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tilepipe.dtypes import DoubleArray
from tilepipe.image.light import SRGB, Curve
from tilepipe.image.metadata.blocks import Metadata

__all__ = [
    "adobe_rgb_profile",
    "coded_curve",
    "coded_profile",
    "gamma_profile",
    "linear_profile",
    "linear_profile_of",
    "profile_of_curve",
    "wide_rgb_profile",
    "with_stated_profile",
]

D65 = (0.3127, 0.3290)

REC709 = (*D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)

PRIMARIES = {
    1: REC709,
    9: (*D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),  # Rec. 2020
    12: (*D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),  # Display P3
}
"""Chromaticities of white, red, green and blue by ColourPrimaries (ITU-T H.273, table 2)."""

PROPHOTO = (0.3457, 0.3585, 0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
"""Chromaticities of white (D50), red, green and blue of ProPhoto, also called ROMM RGB (ISO 22028-2)."""

ENTRIES = 4096
"""Number of samples of a curve that is not a power."""


def gamma_profile(exponent: float, primaries: tuple[float, ...], colours: int) -> bytes:
    """Return a profile with linear light = value ** exponent; `primaries` are (x, y) of white, red, green, blue."""
    return _profile(primaries, colours, exponent=exponent)


def linear_profile(colours: int) -> bytes:
    """Return a profile of linear light, with the primaries of sRGB."""
    return gamma_profile(1.0, REC709, colours)


def linear_profile_of(matrix: DoubleArray) -> bytes:
    """Return a profile of linear light in the colours that a matrix converts to linear sRGB.

    Parameters
    ----------
    matrix : ndarray of float64, shape (3, 3)
        Rows are red, green and blue of sRGB; each has the sum 1, so that white is white.

    Raises
    ------
    ValueError
        If the matrix cannot be inverted.
    """
    points = np.array(REC709).reshape(4, 2)
    white, *primaries = np.column_stack([points, 1 - points.sum(1)]) / points[:, 1:]
    columns = np.stack(primaries, 1)
    xyz = columns * np.linalg.solve(columns, white) @ matrix  # sRGB to XYZ: IEC 61966-2-1, from its chromaticities
    sums = xyz.sum(0)
    if not np.isfinite(xyz).all() or abs(np.linalg.det(xyz)) < 1e-6 or np.abs(sums).min() < 1e-6:
        raise ValueError(f"the matrix {matrix.tolist()} of the colours cannot be inverted")
    return gamma_profile(1.0, (*D65, *(float(part) for part in (xyz[:2] / sums).T.reshape(-1))), 3)


def adobe_rgb_profile() -> bytes:
    """Return a profile with the primaries and the exponent of Adobe RGB (1998)."""
    from imagecodecs import cms_profile

    return _reproducible(cms_profile("adobergb"))


def wide_rgb_profile() -> bytes:
    """Return a profile with the primaries of ProPhoto and an exponent of 1.8, for colours that no monitor shows."""
    return gamma_profile(1.8, PROPHOTO, 3)


def with_stated_profile(metadata: Metadata, colours: int) -> Metadata:
    """Return `metadata` with the profile that Exif states, if the file has none of its own."""
    if metadata.icc is None and colours == 3 and metadata.states_adobe_rgb:
        return replace(metadata, icc=adobe_rgb_profile())
    return metadata


def coded_profile(primaries: int, transfer: int, colours: int) -> bytes | None:
    """Return the profile of code points of ITU-T H.273; None for sRGB, or for code points that are not known."""
    if (primaries, transfer) == (1, 13) or primaries not in PRIMARIES or transfer not in TRANSFERS:
        return None
    curve = TRANSFERS[transfer][1](np.linspace(0, 1, ENTRIES))
    return _profile(PRIMARIES[primaries], colours, curve=curve)


def profile_of_curve(curve: Curve, colours: int) -> bytes:
    """Return the profile of a transfer curve, with the primaries of sRGB."""
    return _profile(REC709, colours, curve=curve.decode(np.linspace(0, 1, ENTRIES)))


def coded_curve(transfer: int) -> Curve | None:
    """Return the curve of a code point: more precise than that of a profile, whose samples have 16 bits."""
    if transfer not in TRANSFERS:
        return None
    if transfer == 13:
        return SRGB
    name, decode = TRANSFERS[transfer]
    return Curve(name, samples=tuple(float(value) for value in decode(np.linspace(0, 1, ENTRIES))))


def _rec709(value: DoubleArray) -> DoubleArray:
    """Rec. ITU-R BT.709, inverse of the camera's curve."""
    return np.where(value < 0.081, value / 4.5, ((value + 0.099) / 1.099) ** (1 / 0.45))


def _pq(value: DoubleArray) -> DoubleArray:
    """SMPTE ST 2084 (Rec. ITU-R BT.2100, table 4); 1 is 10,000 cd/m^2."""
    m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
    power = value ** (1 / m2)
    return np.asarray((np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1))


def _hlg(value: DoubleArray) -> DoubleArray:
    """Hybrid log-gamma, scene light (Rec. ITU-R BT.2100, table 5)."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)


TRANSFERS: dict[int, tuple[str, Callable[[DoubleArray], DoubleArray]]] = {
    **dict.fromkeys((1, 6, 14, 15), ("Rec. 709", _rec709)),
    4: ("gamma 2.2", lambda value: np.asarray(value**2.2)),
    8: ("linear", lambda value: value),
    13: ("sRGB", SRGB.decode),
    16: ("PQ", _pq),
    18: ("HLG", _hlg),
}
"""Name and decoding by TransferCharacteristics (ITU-T H.273, table 3)."""


def _profile(
    primaries: tuple[float, ...], colours: int, *, exponent: float | None = None, curve: DoubleArray | None = None
) -> bytes:
    """Return a matrix profile, or a gray one; raises ValueError if the chromaticities make none."""
    from imagecodecs import cms_profile

    points = [part for x, y in zip(primaries[::2], primaries[1::2], strict=True) for part in (x, y, 1.0)]
    transfer = None if curve is None else np.rint(65535 * curve).astype(np.uint16)
    try:
        profile = cms_profile(
            "rgb" if colours == 3 else "gray",
            whitepoint=points[:3],
            primaries=points[3:] if colours == 3 else None,
            transferfunction=transfer,
            gamma=exponent,
        )
    except RuntimeError as error:
        raise ValueError(f"{primaries} are not chromaticities of white, red, green and blue") from error
    return _reproducible(profile)


def _reproducible(profile: bytes) -> bytes:
    """Return `profile` without its creation date (ICC.1:2022, 7.2.1)."""
    return profile[:24] + bytes(12) + profile[36:]
