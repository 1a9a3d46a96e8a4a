"""Transfer curves: what is decoded and encoded again is what it was."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tilepipe.errors import InputError
from tilepipe.image.light import LINEAR, SRGB, Curve, Light, check_monotone, with_positive_slope
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.image.metadata.icc import curves_from_icc

ADOBE_GAMMA = 2.19921875
"""AdobeRGB (1998), 563/256."""


ALPHA, BETA = 1.09929682680944, 0.018053968510807
"""Rec. ITU-R BT.2020, table 4, at full precision: the rounded constants make the curve fall at its joint."""

few = settings(max_examples=25)


def power_law(name: str, gamma: float) -> Curve:
    return Curve(name, (gamma, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0))


def sampled(count: int, gamma: float) -> Curve:
    """A curve as profiles store it: 16-bit samples of a power law, flat near black."""
    codes = np.rint(65535 * np.linspace(0, 1, count) ** gamma) / 65535
    return with_positive_slope(Curve(f"{count} samples", samples=tuple(float(code) for code in codes)))


CURVES = {
    "srgb": SRGB,
    "linear": LINEAR,
    "gamma-2.2": power_law("gamma 2.2", 2.2),
    "gamma-1.8": power_law("gamma 1.8", 1.8),
    "adobe-rgb": power_law("AdobeRGB", ADOBE_GAMMA),
    "pillow-srgb": curves_from_icc(srgb_profile(), 3)[0],
    "rec-2020": Curve("Rec. 2020", (1 / 0.45, 1 / ALPHA, (ALPHA - 1) / ALPHA, 1 / 4.5, 4.5 * BETA, 0.0, 0.0)),
    "l-star": Curve("L*", (3.0, 1 / 1.16, 0.16 / 1.16, 1 / 9.033, 0.08, 0.0, 0.0)),
    "type-1": Curve("type 1", (2.2, 0.9, 0.1, 0.0, -0.1 / 0.9, 0.0, 0.0)),
    "offset": Curve("offset", (2.0, 0.9375, 0.0625, 0.125, 0.125, 0.003, 0.01966259765625)),
    "sampled-1024": sampled(1024, 2.2),
    "sampled-33": sampled(33, 1.8),
    "sampled-3": Curve("3 samples", samples=(0.0, 0.3, 1.0)),
}
POWER_LAWS = [name for name, curve in CURVES.items() if curve.samples is None and curve.is_mirrored]

every_curve = pytest.mark.parametrize("name", CURVES)
integers = pytest.mark.parametrize("dtype", ["uint8", "uint16"])

linear_light = hnp.arrays(
    np.float32, st.integers(1, 50), elements=st.floats(-0.5, 1.5, width=32, allow_nan=False, allow_subnormal=True)
)


def light_of(name: str, dtype: str) -> Light:
    return Light((CURVES[name],), dtype)


def all_codes(dtype: str) -> np.ndarray:
    return np.arange(np.iinfo(dtype).max + 1).astype(dtype)


@every_curve
@integers
def test_every_code_comes_back_exactly(name, dtype):
    light, codes = light_of(name, dtype), all_codes(dtype)
    decoded = light.linear(0, codes)
    assert decoded.dtype == np.float32
    assert (np.diff(decoded) > 0).all(), "two codes decode alike"
    np.testing.assert_array_equal(light.encoded(0, decoded, dtype), codes)


@every_curve
def test_eight_bits_widen_to_sixteen_by_257(name):
    codes = all_codes("uint8")
    wide = light_of(name, "uint8").encoded(0, light_of(name, "uint8").linear(0, codes), "uint16")
    np.testing.assert_array_equal(wide, codes.astype(np.uint16) * 257)


@every_curve
def test_black_and_white_stay_put(name):
    curve = CURVES[name]
    assert curve.decode(np.array([1.0]))[0] == pytest.approx(1.0, abs=0.1)
    assert curve.encode(curve.decode(np.array([0.0, 1.0]))) == pytest.approx([0.0, 1.0], abs=1e-6)


def test_srgb_is_the_standards_curve():
    at = SRGB.decode(np.array([0.0, 0.04045, 0.5, 1.0]))
    assert at == pytest.approx([0.0, 0.0031308, 0.21404114, 1.0], abs=1e-7)


def test_pillows_profile_is_srgb_within_its_own_rounding():
    encoded = np.linspace(0, 1, 1001)
    assert np.abs(CURVES["pillow-srgb"].decode(encoded) - SRGB.decode(encoded)).max() < 5e-5


@every_curve
@integers
@few
@given(values=linear_light)
def test_encoding_is_monotone(name, dtype, values):
    codes = light_of(name, dtype).encoded(0, np.sort(values), dtype)
    assert all(int(a) <= int(b) for a, b in pairwise(codes))


@every_curve
@integers
def test_encoding_clips_at_both_ends(name, dtype):
    low, high = CURVES[name].decode(np.array([0.0, 1.0]))
    values = np.array([-np.inf, -1e30, -0.5, low, high * 1.01, 2.0, 1e30, np.inf], np.float32)
    codes = light_of(name, dtype).encoded(0, values, dtype)
    top = np.iinfo(dtype).max
    np.testing.assert_array_equal(codes, np.array([0, 0, 0, 0, top, top, top, top], dtype))


@every_curve
@integers
@few
@given(values=linear_light)
def test_encoding_takes_the_nearest_code(name, dtype, values):
    top = np.iinfo(dtype).max
    codes = light_of(name, dtype).encoded(0, values, dtype)
    curve = CURVES[name]
    above_black = np.maximum(values.astype(np.float64), curve.decode(np.array([0.0])))
    exact = np.clip(curve.encode(above_black), 0, 1) * top
    # half a code, and what float32 holds of a threshold
    assert np.abs(codes - exact).max() <= 0.5 + 0.01


def test_nan_becomes_code_zero_not_noise():
    assert Light((SRGB,), "uint8").encoded(0, np.array([np.nan], np.float32), "uint8")[0] == 0


@integers
def test_encoding_keeps_shape_and_takes_views(dtype):
    light = Light((SRGB,), dtype)
    values = np.linspace(0, 1, 7 * 12, dtype=np.float32).reshape(7, 12)
    strided = light.encoded(0, values[::2, ::3], dtype)
    assert strided.shape == (4, 4)
    np.testing.assert_array_equal(strided, light.encoded(0, values, dtype)[::2, ::3])


def test_each_channel_has_its_own_curve():
    light = Light((LINEAR, SRGB, power_law("gamma 2.2", 2.2)), "uint8")
    code = np.array([128], np.uint8)
    assert [float(light.linear(c, code)[0]) for c in range(3)] == pytest.approx([0.50196, 0.21586, 0.21952], abs=1e-4)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_linear_floats_pass_untouched(dtype):
    samples = np.array([-1e4, -0.0, 0.0, 1e-6, 1.0, 6e4, np.inf, -np.inf, np.nan], dtype)
    light = Light((LINEAR,), dtype)
    np.testing.assert_array_equal(light.encoded(0, light.linear(0, samples), dtype), samples)


@pytest.mark.parametrize("name", POWER_LAWS)
@few
@given(values=hnp.arrays(np.float32, 40, elements=st.floats(-4, 4, width=32, allow_subnormal=False)))
def test_float_curves_undo_themselves_beyond_black_and_white(name, values):
    light = light_of(name, "float32")
    back = light.encoded(0, light.linear(0, values), "float32")
    usable = np.abs(values) > 1e-6  # power laws push smaller ones below what float32 holds
    np.testing.assert_allclose(back[usable], values[usable], rtol=2e-5, atol=2e-5)
    # the sign is carried, not clipped; only decode(x) too small for float32 may lose it
    assert (np.sign(back[np.abs(values) > 1e-3]) == np.sign(values[np.abs(values) > 1e-3])).all()


@pytest.mark.parametrize("name", ["sampled-1024", "sampled-33", "sampled-3"])
def test_sampled_float_curves_undo_themselves_beyond_both_ends(name):
    encoded = np.linspace(-0.5, 1.5, 4001)
    curve = CURVES[name]
    decoded = curve.decode(encoded)
    assert (np.diff(decoded) > 0).all()
    np.testing.assert_allclose(curve.encode(decoded), encoded, atol=1e-6)


def test_every_half_float_comes_back_through_srgb():
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves) & (np.abs(halves.astype(np.float32)) <= 8)]
    light = Light((SRGB,), "float16")
    np.testing.assert_array_equal(light.encoded(0, light.linear(0, halves), "float16"), halves)


@pytest.mark.parametrize(
    "curve",
    [
        Curve("constant", (0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),
        Curve("falling", (1.0, -1.0, 1.0, 0.0, 0.0, 0.0, 0.0)),
        Curve("falls at the joint", (1.0, 1.0, 0.0, 1.0, 0.5, -0.2, 0.0)),
        Curve("falling samples", samples=(1.0, 0.5, 0.0)),
    ],
    ids=lambda curve: curve.name,
)
def test_curves_that_cannot_be_undone_are_refused_by_name(curve):
    with pytest.raises(InputError, match=f"{curve.name}.*not increasing"):
        check_monotone(curve)


@pytest.mark.thorough
@integers
@given(st.lists(st.floats(0, 1), min_size=2, max_size=50).filter(lambda values: max(values) > 0))
def test_flat_stretches_still_tell_codes_apart(dtype, values):
    curve = Curve("flat in places", samples=tuple(float(value) for value in np.maximum.accumulate(values)))
    light = Light((curve,), dtype)
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    np.testing.assert_array_equal(light.encoded(0, light.linear(0, codes), dtype), codes)


@integers
def test_a_joint_that_falls_by_rounding_still_tells_codes_apart(dtype):
    rec709 = check_monotone(Curve("Rec. 709", (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081, 0.0, 0.0)))
    light = Light((rec709,), dtype)
    codes = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    np.testing.assert_array_equal(light.encoded(0, light.linear(0, codes), dtype), codes)


@pytest.mark.parametrize("samples", [(1.0, 0.4, 0.0), (0.0, 0.0, 0.0)])
def test_sampled_curves_that_fall_or_stand_still_are_refused(samples):
    with pytest.raises(InputError, match="not increasing"):
        check_monotone(Curve("wrong", samples=samples))
