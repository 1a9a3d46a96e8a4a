"""Curves out of ICC profiles, checked against profiles built by hand from the standard's text."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

import numpy as np
import pytest

from tilepipe.errors import InputError
from tilepipe.image.light import Light
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.image.metadata.icc import curves_from_icc, describe_icc

ENCODED = np.linspace(0, 1, 257)


def profile(tags: dict[bytes, bytes]) -> bytes:
    """Lay out an ICC profile: 128 bytes of header, the tag table, the tags, each on a multiple of 4."""
    start = 132 + 12 * len(tags)
    table, body = b"", b""
    for signature, data in tags.items():
        table += struct.pack(">4sII", signature, start + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    header = bytearray(128)
    header[36:40] = b"acsp"
    header[0:4] = struct.pack(">I", start + len(body))
    return bytes(header) + struct.pack(">I", len(tags)) + table + body


def curv(*values: int) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(f">I{len(values)}H", len(values), *values)


def para(function: int, *values: float) -> bytes:
    fixed = [round(value * 65536) for value in values]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(fixed)}i", function, 0, *fixed)


def mluc(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def gray(curve: bytes, **more: bytes) -> bytes:
    return profile({b"kTRC": curve} | {name.encode(): data for name, data in more.items()})


def rgb(red: bytes, green: bytes, blue: bytes) -> bytes:
    return profile({b"rTRC": red, b"gTRC": green, b"bTRC": blue})


def decoded(curve: bytes) -> np.ndarray:
    curves = curves_from_icc(gray(curve), 1)
    assert curves is not None
    return curves[0].decode(ENCODED)


def test_curv_without_values_is_the_identity():
    np.testing.assert_allclose(decoded(curv()), ENCODED, atol=1e-12)


def test_curv_of_one_value_is_a_gamma_in_256ths():
    np.testing.assert_allclose(decoded(curv(563)), ENCODED ** (563 / 256), atol=1e-12)


def test_curv_of_many_values_is_interpolated_between_them():
    values = [0, 1000, 9000, 30000, 65535]
    expected = np.interp(ENCODED, np.linspace(0, 1, 5), np.array(values) / 65535)
    np.testing.assert_allclose(decoded(curv(*values)), expected, atol=2e-6)


def test_curv_with_flat_black_can_still_be_undone():
    curve = curves_from_icc(gray(curv(0, 0, 0, 500, 30000, 65535)), 1)[0]
    np.testing.assert_allclose(curve.encode(curve.decode(ENCODED)), ENCODED, atol=1e-6)


def piecewise(joint: float, above: Callable, below: Callable) -> np.ndarray:
    return np.array([above(x) if x >= joint else below(x) for x in ENCODED])


PARAMETRIC = {
    # function type: its numbers, and the standard's formula (ICC.1:2022, table 68) written out
    0: ((2.0,), lambda: ENCODED**2),
    1: ((2.5, 0.75, 0.25), lambda: piecewise(-0.25 / 0.75, lambda x: (0.75 * x + 0.25) ** 2.5, lambda x: 0.0)),
    2: (
        (2.0, 1.0, -0.0625, 0.03125),
        lambda: piecewise(0.0625, lambda x: (x - 0.0625) ** 2 + 0.03125, lambda x: 0.03125),
    ),
    3: (
        (2.0, 0.75, 0.25, 0.5, 0.125),
        lambda: piecewise(0.125, lambda x: (0.75 * x + 0.25) ** 2, lambda x: 0.5 * x),
    ),
    4: (
        (2.0, 0.75, 0.1875, 0.5, 0.125, 0.015625, 0.0078125),
        lambda: piecewise(0.125, lambda x: (0.75 * x + 0.1875) ** 2 + 0.015625, lambda x: 0.5 * x + 0.0078125),
    ),
}


@pytest.mark.parametrize("function", PARAMETRIC)
def test_parametric_curves_follow_the_standard(function):
    values, formula = PARAMETRIC[function]
    np.testing.assert_allclose(decoded(para(function, *values)), formula(), atol=1e-12)


def test_colour_channels_come_in_order():
    curves = curves_from_icc(rgb(curv(256), curv(512), curv(768)), 3)
    assert [curve.parameters[0] for curve in curves] == [1.0, 2.0, 3.0]


def test_a_gray_picture_may_carry_a_colour_profile():
    assert curves_from_icc(rgb(curv(256), curv(512), curv(768)), 1)[0].parameters[0] == 2.0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_profile_of_tables_has_no_curves(channels):
    assert curves_from_icc(profile({b"A2B0": b"mft2" + bytes(60), b"desc": mluc("Scanner")}), channels) is None


def test_one_missing_channel_means_no_curves():
    assert curves_from_icc(profile({b"rTRC": curv(256), b"gTRC": curv(256)}), 3) is None


def test_pillows_srgb_has_three_equal_curves():
    curves = curves_from_icc(srgb_profile(), 3)
    assert len(curves) == 3
    assert len(set(curves)) == 1
    assert curves[0].decode(np.array([0.5]))[0] == pytest.approx(0.21404, abs=1e-4)


@pytest.mark.parametrize(
    ("tag", "name"),
    [
        (b"desc\0\0\0\0" + struct.pack(">I", 6) + b"Adobe\0", "Adobe"),
        (mluc("Grün 2.2"), "Grün 2.2"),
        (b"text\0\0\0\0something else", "ICC"),
    ],
)
def test_the_profiles_own_name_is_given(tag, name):
    assert describe_icc(gray(curv(), desc=tag)) == name
    assert curves_from_icc(gray(curv(), desc=tag), 1)[0].name == name


@pytest.mark.parametrize(
    "damaged",
    {
        "empty": b"",
        "text": b"not a profile" * 20,
        "header only": profile({})[:100],
        "no signature": bytes(200),
        "cut tag table": gray(curv())[:140],
        "tag beyond the end": gray(curv(563))[:-4],
        "cut curve type": gray(b"curv"),
        "fewer values than counted": gray(b"curv\0\0\0\0" + struct.pack(">I", 1024)),
        "one value of many": gray(b"curv\0\0\0\0" + struct.pack(">IH", 1024, 7)),
        "cut parametric": gray(para(3, 2.4, 1.0)),
        "unknown function": gray(para(7, 2.4)),
        "unknown curve type": gray(b"abcd" + bytes(20)),
        "gamma zero": gray(curv(0)),
        "constant": gray(para(0, 0.0)),
        "falling": gray(para(1, 1.0, -1.0, 1.0)),
        "jumps down": gray(para(3, 1.0, 0.5, 0.0, 1.0, 0.75)),
    }.items(),
    ids=lambda item: item[0],
)
def test_a_damaged_profile_is_an_input_error(damaged):
    with pytest.raises(InputError, match="profile"):
        curves_from_icc(damaged[1], 1)


@pytest.mark.parametrize("end", range(0, len(srgb_profile()), 12))
def test_a_real_profile_cut_short_yields_curves_or_an_input_error(end):
    whole = srgb_profile()
    with contextlib.suppress(InputError):
        curves = curves_from_icc(whole[:end], 3)
        assert curves is None or curves == curves_from_icc(whole, 3)


# --- profiles of tables


def lut(gamma: float, points: int = 17) -> bytes:
    """A profile of tables: XYZ of RGB with the sRGB primaries (D50), each channel a power of its sample.

    Type lut16Type (ICC.1:2022, 10.10).
    """
    matrix = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, points) ** gamma] * 3, indexing="ij"), -1)
    table = np.rint((grid @ matrix.T) * 32768).clip(0, 65535).astype(">u2").tobytes()
    straight = struct.pack(">2H", 0, 65535)
    body = b"mft2\0\0\0\0" + bytes([3, 3, points, 0])
    body += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536) + struct.pack(">HH", 2, 2)
    content = bytearray(profile({b"A2B0": body + 3 * straight + table + 3 * straight, b"wtpt": xyz(0.9642, 1, 0.8249)}))
    content[8:12], content[12:16] = struct.pack(">I", 0x02400000), b"scnr"
    content[16:20], content[20:24] = b"RGB ", b"XYZ "
    content[68:80] = struct.pack(">3i", 63190, 65536, 54061)
    return bytes(content)


def xyz(*values: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))


@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_a_profile_of_tables_has_the_curve_of_its_neutral_colours(gamma):
    curves = curves_from_icc(lut(gamma, 33), 3)
    assert curves is not None
    assert curves[0] == curves[1] == curves[2]
    np.testing.assert_allclose(curves[0].decode(ENCODED), ENCODED**gamma, atol=2e-3)


def test_samples_of_a_profile_of_tables_come_back():
    curve = curves_from_icc(lut(2.2), 3)[0]
    for dtype in ("uint8", "uint16"):
        light = Light((curve,), dtype)
        codes = np.arange(np.iinfo(dtype).max + 1).astype(dtype)
        np.testing.assert_array_equal(light.encoded(0, light.linear(0, codes), dtype), codes)


@pytest.mark.parametrize("tags", [{}, {b"A2B0": b"mft2"}, {b"A2B0": bytes(400)}])
def test_damaged_tables_are_none(tags):
    assert curves_from_icc(profile(tags), 3) is None
