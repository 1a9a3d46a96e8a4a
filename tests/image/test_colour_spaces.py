"""CMYK and Lab are processed as RGB, and a TIFF has them again: exactly where nothing is restored."""

import tracemalloc

import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from colour_difference import delta_e_2000
from hypothesis import given, settings
from imagecodecs import cms_profile, cms_transform
from lut_profiles import cmyk_profile, rgb_profile
from picture_files import opened
from PIL import Image, ImageCms
from scipy.ndimage import gaussian_filter

import tilepipe
from tilepipe.errors import InputError
from tilepipe.events import Note
from tilepipe.image.inks import inks_of
from tilepipe.image.lab import Lab
from tilepipe.image.metadata.icc import curves_from_icc
from tilepipe.image.metadata.record import read_record
from tilepipe.image.readers import open_image, open_stored
from tilepipe.image.writers.formats import TIFF
from tilepipe.psf.shapes import delta, gaussian

CMYK = cmyk_profile()
PHOTOMETRIC = {"CMYK": "separated", "CIELAB": "cielab", "ICCLAB": "icclab"}
ENCODINGS = [(name, dtype) for name in ("CIELAB", "ICCLAB") for dtype in ("uint8", "uint16")]


def scene(height=90, width=110):
    """Return smooth colours with edges, sRGB."""
    y, x = np.mgrid[:height, :width]
    return (
        np.stack([90 + 60 * np.sin(x / 9), 128 + 50 * np.cos(y / 7), 60 + 90 * ((x // 20 + y // 15) % 2)], -1) / 255
    ).astype(np.float32)


def transform(colours, source, target, spaces, dtype="float32"):
    how = {"colorspace": spaces[0], "outcolorspace": spaces[1], "outdtype": dtype, "intent": 1}
    return np.asarray(cms_transform(np.ascontiguousarray(colours), source, target, **how))


def lab_of(samples, name, profile=None):
    """Return L*a*b* of stored samples, independently of the reader: by hand, or by the profile of inks."""
    if name == "CMYK":
        return transform(samples, profile, cms_profile("lab4"), ("cmyk", "lab"))
    bits = 8 * samples.itemsize
    light = samples[..., :1] * 100.0 / {("CIELAB", 16): 65535, ("ICCLAB", 16): 65280}.get((name, bits), 255)
    chroma = samples[..., 1:].astype(float) / 2 ** (bits - 8)
    return np.concatenate([light, chroma - 128 if name == "ICCLAB" else (chroma + 128) % 256 - 128], -1)


def stored_of(rgb, name, dtype):
    """Return sRGB as samples of a file."""
    if name == "CMYK":
        return transform(rgb, cms_profile("srgb"), CMYK, ("rgb", "cmyk"), dtype)
    space = Lab(name, dtype, None)
    return space._encoded(transform(rgb, cms_profile("srgb"), cms_profile("lab4"), ("rgb", "lab")))


def restored(folder, output, psf, **flags):
    """Restore in.tif; return the notes."""
    said = []
    plan = tilepipe.plan(folder / "in.tif", output, psf=psf, cache=str(folder / "cache"), on_event=said.append, **flags)
    plan.run(overwrite=True)
    return [event.text for event in said if isinstance(event, Note)]


# --- encodings


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, -1.3802, -84.2814), (50, 0, -82.7485), 1.0000),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
        ((22.7233, 20.0904, -46.6940), (23.0331, 14.9730, -42.5619), 2.0373),
    ],
)
def test_the_colour_difference_has_its_published_values(first, second, difference):
    np.testing.assert_allclose(delta_e_2000(first, second), difference, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "dtype", "gray", "colour"),
    [
        ("CIELAB", "uint8", (128, 0, 0), (153, 20, 226)),
        ("CIELAB", "uint16", (32768, 0, 0), (39321, 5120, 57856)),
        ("ICCLAB", "uint8", (128, 128, 128), (153, 148, 98)),
        ("ICCLAB", "uint16", (32640, 32768, 32768), (39168, 37888, 25088)),
    ],
)
def test_a_colour_of_lab_has_its_codes_in_each_encoding(name, dtype, gray, colour):
    """L* is 50 (50.2 with 8 bits), and L*a*b* 60, 20, -30; RGB of the gray is the light, 0.1842, in gamma 1.8."""
    space = Lab(name, dtype, None)
    red, green, blue = space.to_rgb(np.array([[gray]], dtype))[0, 0].astype(int)
    light = 100 * gray[0] / (65280 if (name, dtype) == ("ICCLAB", "uint16") else np.iinfo(dtype).max)
    assert abs(red - 65535 * (((light + 16) / 116) ** 3) ** (1 / 1.8)) < 4
    assert max(abs(red - green), abs(red - blue)) < 4
    wide = space.to_rgb(np.array([[colour]], dtype))
    lab = transform(wide, space.rgb_profile, cms_profile("lab4"), ("rgb", "lab"))
    np.testing.assert_allclose(lab[0, 0], (60, 20, -30), atol=0.01)


def test_lab_as_pillow_writes_it(tmp_path):
    rgb = np.rint(scene() * 255).astype(np.uint8)
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    ImageCms.profileToProfile(Image.fromarray(rgb), srgb, lab, outputMode="LAB").save(tmp_path / "a.tif")
    info, rows = opened(tmp_path / "a.tif")
    shown = transform(rows, info.metadata.icc, cms_profile("srgb"), ("rgb", "rgb"))
    assert (info.colours, info.dtype) == (3, "uint16")
    assert np.abs(shown - rgb / 255).max() < 0.03


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=50), st.sampled_from(ENCODINGS))
@settings(max_examples=60, deadline=None)
def test_colours_of_a_screen_come_back_in_lab_within_a_code(colours, encoding):
    name, dtype = encoding
    stored = stored_of(np.array([colours], np.float32) / 255, name, dtype)
    space = Lab(name, dtype, None)
    back = space.from_rgb(space.to_rgb(stored))
    before, after = lab_of(stored, name), lab_of(back, name)
    if dtype == "uint8":  # L*a*b* that is rounded to whole numbers may lie just outside of white
        assert np.abs(after - before).max() < 1.01
    else:
        assert delta_e_2000(before, after).max() < 0.02


def test_all_samples_of_lab_become_rgb():
    """Most of them are no colours at all; they are clipped."""
    codes = np.linspace(0, 255, 18).astype(np.uint8)
    every = np.stack(np.meshgrid(codes, codes, codes), -1).reshape(18, -1, 3)
    rgb = Lab("ICCLAB", "uint8", None).to_rgb(every)
    assert (rgb.shape, rgb.dtype) == (every.shape, np.uint16)
    assert ((rgb == 0) | (rgb == 65535)).any(-1).mean() > 0.3


# --- files


@st.composite
def pictures(draw):
    """Samples of CMYK or Lab, and how tifffile writes them."""
    name = draw(st.sampled_from(sorted(PHOTOMETRIC)))
    extras = draw(st.sampled_from([[], [2], [0, 0]]))
    shape = (draw(st.integers(24, 60)), draw(st.integers(24, 60)), 4 if name == "CMYK" else 3)
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    random = np.random.default_rng(draw(st.integers(0, 9)))
    samples = random.integers(0, np.iinfo(dtype).max, (*shape[:2], shape[2] + len(extras)), dtype, endpoint=True)
    how = {
        "photometric": PHOTOMETRIC[name],
        "planarconfig": draw(st.sampled_from(["contig", "separate"])),
        "compression": draw(st.sampled_from([None, "lzw"])),
        "extrasamples": extras or None,
        "iccprofile": CMYK if name == "CMYK" else draw(st.sampled_from([None, cms_profile("lab2")])),
        "byteorder": draw(st.sampled_from("<>")),
    }
    if draw(st.booleans()):
        how["tile"] = (16, 32)
    return samples, how


@given(pictures(), st.booleans())
@settings(max_examples=6, deadline=None)
def test_a_picture_of_inks_or_lab_comes_back_where_nothing_is_restored(tmp_path_factory, picture, is_masked):
    check_unchanged(tmp_path_factory.mktemp("space"), picture, is_masked)


@pytest.mark.thorough
@given(pictures(), st.booleans())
@settings(max_examples=24, deadline=None)
def test_any_of_many_pictures_comes_back_where_nothing_is_restored(tmp_path_factory, picture, is_masked):
    check_unchanged(tmp_path_factory.mktemp("space"), picture, is_masked)


def check_unchanged(folder, picture, is_masked):
    samples, how = picture
    planes = np.moveaxis(samples, -1, 0) if how["planarconfig"] == "separate" else samples
    tifffile.imwrite(folder / "in.tif", planes, metadata=None, **how)
    kept = np.ones(samples.shape[:2], bool)
    flags = {}
    if is_masked:
        kept[:, samples.shape[1] // 2 :] = False
        Image.fromarray(np.where(kept, 0, 255).astype(np.uint8)).save(folder / "mask.png")
        flags = {"mask": str(folder / "mask.png"), "force": True}  # random samples are all noise
    restored(folder, folder / "out.tif", gaussian(1.2) if is_masked else delta(), **flags)
    with tifffile.TiffFile(folder / "out.tif") as tiff:
        page = tiff.pages.first
        written = page.asarray().reshape(samples.shape)
        assert page.photometric.name.lower() == how["photometric"]
        assert page.iccprofile == how["iccprofile"]
        assert list(page.extrasamples) == (how["extrasamples"] or [])
    assert written.dtype == samples.dtype
    np.testing.assert_array_equal(written[kept], samples[kept])


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        # each name and each type once; all pairs in the thorough tests
        pytest.param(name, dtype, marks=() if (dtype == "uint16") == (name == "CIELAB") else pytest.mark.thorough)
        for name in PHOTOMETRIC
        for dtype in ("uint8", "uint16")
    ],
)
def test_a_blurred_picture_is_closer_to_the_sharp_one_after_it_is_restored(tmp_path, name, dtype):
    sharp = scene()
    stored = stored_of(blur(sharp), name, dtype)
    profile = CMYK if name == "CMYK" else None
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric=PHOTOMETRIC[name], iccprofile=profile)
    restored(tmp_path, tmp_path / "out.tif", gaussian(1.5))
    truth = lab_of(stored_of(sharp, name, dtype), name, CMYK)
    before, after = (
        delta_e_2000(lab_of(samples, name, CMYK), truth)[10:-10, 10:-10].mean()
        for samples in (stored, tifffile.imread(tmp_path / "out.tif"))
    )
    assert after < 0.6 * before


def blur(rgb):
    """Blur sRGB in linear light."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = gaussian_filter(linear, (1.5, 1.5, 0))
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).astype(np.float32)


def cmyk_file(path, profile, dtype="uint8", shape=(40, 50)):
    inks = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*shape, 4), dtype)
    tifffile.imwrite(path, inks, photometric="separated", iccprofile=profile)
    return inks


@pytest.mark.parametrize(
    ("output", "flags"), [("out.png", {}), ("out.jpg", {}), ("out.webp", {}), ("out.tif", {"dtype": "float32"})]
)
def test_an_output_that_has_no_cmyk_is_rgb_with_a_profile_and_a_note(tmp_path, output, flags):
    cmyk_file(tmp_path / "in.tif", CMYK)
    notes = restored(tmp_path, tmp_path / output, delta(), **flags)
    info, _ = opened(tmp_path / output)
    assert "Adobe RGB" in info.curve_note
    assert "note     the output is RGB; CMYK is written as TIFF of uint8" in notes


@pytest.mark.parametrize(
    ("profile", "note"),
    [
        (cmyk_profile(has_way_back=False), "CMYK is converted by its profile to Adobe RGB"),
        (CMYK[:2000], "CMYK is converted without a usable profile to Adobe RGB"),
        (rgb_profile(), "CMYK is converted without a usable profile to Adobe RGB"),
        (None, "CMYK is converted without a usable profile to Adobe RGB"),
    ],
    ids=["one way", "cut", "RGB", "none"],
)
def test_inks_without_a_way_back_are_rgb_in_the_output(tmp_path, profile, note):
    cmyk_file(tmp_path / "in.tif", profile)
    restored(tmp_path, tmp_path / "out.tif", delta())
    assert opened(tmp_path / "in.tif")[0].notes == (note,)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages.first.photometric.name == "RGB"


@pytest.mark.parametrize("flags", [{"page": 1}, {"plane": "z=1"}], ids=str)
def test_the_colours_are_those_of_the_page_or_plane_that_is_restored(tmp_path, flags):
    inks = np.random.default_rng(0).integers(0, 255, (3, 30, 40, 4), np.uint8)
    if "page" in flags:
        with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
            for page in inks:
                tiff.write(page, photometric="separated", iccprofile=CMYK, metadata=None)
    else:  # one directory for all planes
        how = {"photometric": "separated", "iccprofile": CMYK, "metadata": {"axes": "ZYXS"}}
        tifffile.imwrite(tmp_path / "in.tif", inks, **how)
    restored(tmp_path, tmp_path / "out.tif", delta(), **flags)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages.first.photometric.name == "SEPARATED"
        np.testing.assert_array_equal(tiff.pages.first.asarray(), inks[1])


@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_what_a_truncated_file_contains_comes_back_with_a_mask(tmp_path, name):
    shape = (64, 40, 4 if name == "CMYK" else 3)
    samples = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    profile = CMYK if name == "CMYK" else None
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric=PHOTOMETRIC[name], iccprofile=profile, rowsperstrip=16)
    with tifffile.TiffFile(tmp_path / "in.tif") as tiff:
        end = tiff.pages.first.dataoffsets[-1]
    content = (tmp_path / "in.tif").read_bytes()
    (tmp_path / "in.tif").write_bytes(content[:end])
    restored(tmp_path, tmp_path / "out.tif", delta(), salvage=True)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        page, mask = tiff.pages
        assert page.photometric.name.lower() == PHOTOMETRIC[name]
        np.testing.assert_array_equal(page.asarray()[:48], samples[:48])
        assert not page.asarray()[48:].any()
        np.testing.assert_array_equal(mask.asarray() != 0, np.arange(64)[:, None].repeat(40, 1) < 48)


def test_cmyk_has_a_record_and_a_chosen_compression(tmp_path):
    inks = cmyk_file(tmp_path / "in.tif", CMYK)
    restored(tmp_path, tmp_path / "out.tif", delta(), compression="zstd")
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages.first.compression.name == "ZSTD"
        np.testing.assert_array_equal(tiff.pages.first.asarray(), inks)
    info, _ = opened(tmp_path / "out.tif")
    assert read_record(info.metadata)


def test_a_picture_that_is_no_longer_cmyk_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((9, 9, 3), np.uint8), photometric="rgb")
    with pytest.raises(InputError, match="was changed since it was planned"):
        open_stored(tmp_path / "a.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("name", PHOTOMETRIC)
def test_reading_and_converting_takes_no_more_memory_than_is_counted(tmp_path, name, dtype):
    shape = (600, 2000, 4 if name == "CMYK" else 3)
    samples = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype)
    how = {"photometric": PHOTOMETRIC[name], "iccprofile": CMYK if name == "CMYK" else None}
    tifffile.imwrite(tmp_path / "a.tif", samples, compression="lzw", rowsperstrip=64, **how)
    reader = open_image(tmp_path / "a.tif")
    assert reader.info.space is not None
    tracemalloc.start()
    reader.rows(0, 256)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.close()
    assert peak <= reader.info.decoded_bytes + 2e6


# --- how close the way back is


def test_cmyk_comes_back_by_its_profile_as_close_as_its_tables_are():
    """Colours that the tables of the way back hold; the figures of a real profile are in docs/formats.md."""
    inks = inks_of(CMYK, "uint8")
    codes = stored_of(scene(), "CMYK", "uint8")
    rgb = inks.to_rgb(codes)
    shown = transform(rgb, inks.rgb_profile, cms_profile("lab4"), ("rgb", "lab"))
    assert delta_e_2000(lab_of(codes, "CMYK", CMYK), shown).max() < 0.2
    back = delta_e_2000(lab_of(codes, "CMYK", CMYK), lab_of(inks.from_rgb(rgb), "CMYK", CMYK))
    assert back.mean() < 0.8
    assert back.max() < 5


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_every_sample_comes_back_by_a_profile_of_tables(tmp_path, dtype):
    codes = np.arange(np.iinfo(dtype).max + 1).astype(dtype).reshape(-1, 64)
    samples = np.stack([codes, codes[::-1], np.roll(codes, 9)], -1)
    assert curves_from_icc(rgb_profile(), 3) is not None
    tifffile.imwrite(tmp_path / "in.tif", samples, photometric="rgb", iccprofile=rgb_profile())
    restored(tmp_path, tmp_path / "out.tif", delta())
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), samples)


def test_the_space_needs_its_own_type(tmp_path):
    cmyk_file(tmp_path / "in.tif", CMYK, "uint16")
    info, _ = opened(tmp_path / "in.tif")
    assert (TIFF.dtype_for(info, None), TIFF.space_for(info, "uint16")) == ("uint16", info.space)
    assert TIFF.space_for(info, "uint8") is None
