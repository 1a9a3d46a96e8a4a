"""Nothing to restore: any picture comes back from any format with the same samples and tags."""

import struct
import zlib

import hypothesis.strategies as st
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from lut_profiles import rgb_profile
from picture_files import opened

import tilepipe
from tilepipe.errors import SettingsError
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.image.metadata.icc import gray_srgb_profile
from tilepipe.image.metadata.profiles import adobe_rgb_profile, coded_profile, gamma_profile, wide_rgb_profile
from tilepipe.image.writers.formats import format_of
from tilepipe.psf.shapes import delta

REC709 = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)

PROFILES = {
    "none": None,
    "sRGB": srgb_profile(),
    "Adobe RGB": adobe_rgb_profile(),
    "ProPhoto": wide_rgb_profile(),
    "Display P3": coded_profile(12, 13, 3),
    "Rec. 2020 PQ": coded_profile(9, 16, 3),
    "Rec. 2020 HLG": coded_profile(9, 18, 3),
    "linear": gamma_profile(1.0, REC709, 3),
    "tables": rgb_profile(),
}

GRAY_PROFILES = {"gray gamma 2.2": gamma_profile(2.2, REC709, 1), "gray sRGB": gray_srgb_profile()}

CODE_POINTS = {"Display P3": (12, 13), "Rec. 2020 PQ": (9, 16), "Rec. 2020 HLG": (9, 18), "Rec. 709": (1, 1)}
"""Primaries and transfer of cICP (ITU-T H.273)."""

SIZES = st.one_of(
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([(3, 2000), (700, 5), (257, 300), (300, 1030)]),
)


@st.composite
def sources(draw):
    """Samples, and how tifffile writes them."""
    dtype = draw(st.sampled_from(["uint8", "uint16", "float16", "float32", "int16", "uint32", "float64"]))
    channels = draw(st.integers(1, 5))
    shape = (*draw(SIZES), channels)
    random = np.random.default_rng(draw(st.integers(0, 9)))
    if np.dtype(dtype).kind == "f":
        samples = random.random(shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        samples = random.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    how = {
        "photometric": "rgb" if channels >= 3 else "minisblack",
        "planarconfig": draw(st.sampled_from(["contig", "separate"])) if channels > 1 else None,
        "compression": draw(st.sampled_from([None, "lzw", "deflate"])),
        "extratags": [(274, 3, 1, draw(st.integers(1, 8)), True), (315, 2, 9, "Jane Doe\0", True)],
        "iccprofile": draw(st.sampled_from(list(PROFILES.values()))) if channels >= 3 else None,
        "extrasamples": {2: [2], 4: [2], 5: [0, 0]}.get(channels),
    }
    layout = draw(st.sampled_from(["strips", "tiles"]))
    how |= {"tile": (16, 32)} if layout == "tiles" else {"rowsperstrip": draw(st.integers(1, 60))}
    return samples, how, {"byteorder": draw(st.sampled_from("<>")), "bigtiff": draw(st.booleans())}


def check(folder, source, suffix):
    samples, how, outer = source
    data = (
        np.moveaxis(samples, -1, 0)
        if how["planarconfig"] == "separate"
        else samples.squeeze(-1 if samples.shape[2] == 1 else ())
    )
    with tifffile.TiffWriter(folder / "in.tif", **outer) as tiff:
        tiff.write(data, metadata=None, **how)
    info, before = opened(folder / "in.tif")
    output = folder / f"out{suffix}"
    try:
        dtype = format_of(output).dtype_for(info, None)
    except SettingsError:
        return
    tilepipe.plan(folder / "in.tif", output, psf=delta(), cache=str(folder / "cache")).run(overwrite=True)
    written, after = opened(output)
    assert after.dtype.name == dtype
    if dtype == info.dtype:
        np.testing.assert_array_equal(after, before)
    else:
        assert info.is_float
        assert after.shape == before.shape
    if suffix != ".zarr":  # which has no place for them
        assert written.metadata.icc == info.metadata.icc
        tags = [entry for entry in written.metadata.tags.entries if not entry.data.startswith(b"tilepipe ")]
        assert tags == list(info.metadata.tags.entries)


@given(sources(), st.sampled_from([".tif", ".png", ".zarr"]))
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiff_comes_back(tmp_path_factory, source, suffix):
    check(tmp_path_factory.mktemp("any"), source, suffix)


@pytest.mark.thorough
@given(sources(), st.sampled_from([".tif", ".png", ".zarr"]))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiff_of_many_comes_back(tmp_path_factory, source, suffix):
    check(tmp_path_factory.mktemp("any"), source, suffix)


def every_code(dtype, channels):
    """Return each code of `dtype` in each channel, in another order."""
    codes = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 64)
    return np.stack([codes, codes[::-1], np.roll(codes, 9)][:channels], -1)


def check_written(folder, source, samples):
    """Restore nothing: each format has the samples of `source`, and its profile where it has a place for one."""
    profile = opened(source)[0].metadata.icc
    for suffix in (".tif", ".png", ".zarr"):
        output = folder / f"out{suffix}"
        tilepipe.plan(source, output, psf=delta(), cache=str(folder / "cache")).run()
        info, rows = opened(output)
        np.testing.assert_array_equal(rows, samples)
        assert info.metadata.icc == (None if suffix == ".zarr" else profile)


ALWAYS = {"none", "sRGB", "Rec. 2020 PQ", "tables", "gray gamma 2.2"}
"""Whose 65536 codes are tried in every run of the tests: a profile of each kind.  The 256 codes are always tried."""


def with_types(names):
    return [
        pytest.param(name, dtype, marks=() if dtype == "uint8" or name in ALWAYS else pytest.mark.thorough)
        for name in names
        for dtype in ("uint8", "uint16")
    ]


@pytest.mark.parametrize(("name", "dtype"), with_types(PROFILES | GRAY_PROFILES))
def test_every_code_comes_back_by_each_profile(tmp_path, name, dtype):
    channels = 3 if name in PROFILES else 1
    samples = every_code(dtype, channels)
    how = {"photometric": "rgb" if channels == 3 else "minisblack", "iccprofile": (PROFILES | GRAY_PROFILES)[name]}
    tifffile.imwrite(tmp_path / "in.tif", samples.squeeze(-1) if channels == 1 else samples, **how)
    assert name == "none" or opened(tmp_path / "in.tif")[0].curve_note.endswith("(ICC)")
    check_written(tmp_path, tmp_path / "in.tif", samples)


@pytest.mark.parametrize(("name", "dtype"), with_types(CODE_POINTS))
def test_every_code_of_a_png_comes_back_by_its_code_points(tmp_path, name, dtype):
    samples = every_code(dtype, 3)
    content = imagecodecs.png_encode(samples)
    chunk = b"cICP" + bytes([*CODE_POINTS[name], 0, 1])
    chunk = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "in.png").write_bytes(content[:33] + chunk + content[33:])
    assert "cICP" in opened(tmp_path / "in.png")[0].curve_note
    check_written(tmp_path, tmp_path / "in.png", samples)
