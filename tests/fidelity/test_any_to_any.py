"""Nothing to restore: any picture comes back from any format with the same samples and tags."""

import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from picture_files import opened

import tilepipe
from tilepipe.errors import SettingsError
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.image.metadata.profiles import adobe_rgb_profile, gamma_profile
from tilepipe.image.writers.formats import format_of
from tilepipe.psf.shapes import delta

REC709 = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)

PROFILES = {
    "none": None,
    "sRGB": srgb_profile(),
    "Adobe RGB": adobe_rgb_profile(),
    "gamma 1.8": gamma_profile(1.8, REC709, 3),
    "linear": gamma_profile(1.0, REC709, 3),
}

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
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiff_comes_back(tmp_path_factory, source, suffix):
    check(tmp_path_factory.mktemp("any"), source, suffix)


@pytest.mark.thorough
@given(sources(), st.sampled_from([".tif", ".png", ".zarr"]))
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_tiff_of_many_comes_back(tmp_path_factory, source, suffix):
    check(tmp_path_factory.mktemp("any"), source, suffix)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", PROFILES)
def test_every_code_comes_back_by_each_profile(tmp_path, name, dtype):
    codes = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 64)[..., None].repeat(3, 2)
    tifffile.imwrite(tmp_path / "in.tif", codes, photometric="rgb", iccprofile=PROFILES[name])
    for suffix in (".tif", ".png", ".zarr"):
        output = tmp_path / f"out{suffix}"
        tilepipe.plan(tmp_path / "in.tif", output, psf=delta(), cache=str(tmp_path / "cache")).run()
        np.testing.assert_array_equal(opened(output)[1], codes)
