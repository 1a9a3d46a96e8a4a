"""Outputs in every format: the pixels that were given, names and formats that follow the input, honest refusals."""

import dataclasses
import json

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from picture_files import opened
from PIL import Image

import tilepipe
from tilepipe.errors import InputError, SettingsError
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import ASSOCIATED_ALPHA, LINEAR, MASK, SRGB, UNASSOCIATED_ALPHA, Light
from tilepipe.image.metadata.blocks import Metadata
from tilepipe.image.metadata.exif import Directory, Entry
from tilepipe.image.metadata.profiles import adobe_rgb_profile, gamma_profile
from tilepipe.image.metadata.record import read_record
from tilepipe.image.orientation import Orientation
from tilepipe.image.writers.formats import FORMATS, format_of, output_beside
from tilepipe.image.writers.output import BLOCK_ROWS, Output
from tilepipe.psf.shapes import delta


def info_for(path, pixels, kinds=()):
    height, width, channels = pixels.shape
    colours = channels - len(kinds)
    light = Light((SRGB,) * colours, str(pixels.dtype), extras=kinds)
    return ImageInfo(
        path, "TIFF", height, width, colours, len(kinds), str(pixels.dtype), "", "none", 0, Metadata(), light, "", kinds
    )


def written(path, pixels, kinds=(), columns=10_000, record=b""):
    """Write `pixels` in blocks of `columns` columns."""
    info = info_for(path, pixels, kinds)
    blocks = (
        pixels[top : top + BLOCK_ROWS, left : left + columns]
        for top in range(0, info.height, BLOCK_ROWS)
        for left in range(0, info.width, columns)
    )
    format_of(path).write(path, Output(info, str(pixels.dtype), blocks, record))
    return path


@st.composite
def pictures(draw):
    channels = draw(st.sampled_from([1, 2, 3, 4]))
    shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)), channels)
    kind = draw(st.sampled_from(["noise", "ramp", "flat"]))
    dtype = draw(st.sampled_from(["uint8", "uint16"]))
    top = np.iinfo(dtype).max
    if kind == "noise":
        return draw(hnp.arrays(dtype, shape))
    if kind == "flat":
        return np.full(shape, draw(st.integers(0, int(top))), dtype)
    y, x, c = np.ogrid[: shape[0], : shape[1], :channels]
    return ((y * 37 + x * 91 + c * 11) * draw(st.integers(1, 300)) % (int(top) + 1)).astype(dtype)


@given(pictures())
@settings(max_examples=150)
def test_a_png_has_the_pixels_that_were_given(tmp_path_factory, pixels):
    kinds = (UNASSOCIATED_ALPHA,) * (pixels.shape[2] in (2, 4))
    path = written(tmp_path_factory.mktemp("png") / "a.png", pixels, kinds)
    np.testing.assert_array_equal(imagecodecs.png_decode(path.read_bytes()).reshape(pixels.shape), pixels)
    with Image.open(path) as image:
        image.verify()


@pytest.mark.parametrize("columns", [512, 10_000])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".jxl", ".webp", ".npy", ".zarr"])
def test_blocks_come_in_any_width(tmp_path, suffix, columns):
    y, x, c = np.ogrid[:700, :1300, :3]
    pixels = ((y // 3 + x // 5 + 40 * c) % 256).astype(np.uint8)
    path = written(tmp_path / f"a{suffix}", pixels, columns=columns)
    found = opened(path)[1]
    if suffix == ".jpg":
        assert np.abs(found.astype(int) - pixels).mean() < 2
    else:
        np.testing.assert_array_equal(found, pixels)


@given(pictures(), st.sampled_from([".jxl", ".webp", ".npy"]))
@settings(max_examples=150, deadline=None)
def test_other_formats_have_the_pixels_that_were_given(tmp_path_factory, pixels, suffix):
    kinds = (UNASSOCIATED_ALPHA,) * (pixels.shape[2] in (2, 4))
    if suffix == ".webp":
        pixels = pixels.astype(np.uint8)
    path = written(tmp_path_factory.mktemp("other") / f"a{suffix}", pixels, kinds)
    decode = {".jxl": imagecodecs.jpegxl_decode, ".webp": imagecodecs.webp_decode, ".npy": lambda _: np.load(path)}
    found = np.atleast_3d(decode[suffix](path.read_bytes()))
    if suffix == ".webp" and pixels.shape[2] < 3:  # which has no gray
        assert (found[:, :, :3] == pixels[:, :, :1]).all()
        return
    if suffix == ".webp" and (pixels[:, :, 3:] == 255).all():  # opaque: the decoder leaves alpha out
        pixels = pixels[:, :, :3]
    np.testing.assert_array_equal(found, pixels)


def test_an_array_holds_floats_of_any_value(tmp_path):
    pixels = np.random.default_rng(0).normal(0, 9, (30, 20, 3)).astype(np.float32)
    pixels[3, 3] = np.nan
    np.testing.assert_array_equal(opened(written(tmp_path / "a.npy", pixels))[1], pixels)


@pytest.mark.parametrize(
    "number",
    # as it is, turned by a quarter, mirrored and turned; each is read by a process
    [number if number in (1, 6, 7) else pytest.param(number, marks=pytest.mark.thorough) for number in range(1, 9)],
)
def test_a_jpeg_xl_is_stored_as_it_is_seen(tmp_path, number):
    """Its viewers ignore the orientation in Exif."""
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", extratags=[(274, 3, 1, number, True)])
    tilepipe.plan(tmp_path / "a.tif", tmp_path / "a.jxl", psf=delta(), cache=str(tmp_path / "c")).run()
    info, found = opened(tmp_path / "a.jxl")
    assert info.metadata.orientation_number == 1
    np.testing.assert_array_equal(found, Orientation.of(number).seen(pixels))


def test_a_gray_webp_has_a_profile_of_rgb(tmp_path):
    """Of the same curve: WebP has no gray."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, iccprofile=gamma_profile(1.8, (0.3127, 0.329), 1))
    tilepipe.plan(tmp_path / "a.tif", tmp_path / "a.webp", psf=delta(), cache=str(tmp_path / "c")).run()
    before, after = opened(tmp_path / "a.tif")[0], opened(tmp_path / "a.webp")[0]
    assert "ICC" in after.curve_note
    codes = pixels.ravel()
    np.testing.assert_allclose(after.light.linear(0, codes), before.light.linear(0, codes), atol=2e-4)


def test_upright_pixels_have_upright_metadata():
    xmp = b"<x tiff:Orientation='6'/><tiff:Orientation>8</tiff:Orientation>"
    entry = Entry(274, 3, 1, b"\6\0")
    stored = Metadata(xmp=xmp, resolution=((300, 1), (150, 1), 2), tags=Directory((entry,)))
    upright = stored.upright()
    assert upright.xmp == b"<x tiff:Orientation='1'/><tiff:Orientation>1</tiff:Orientation>"
    assert upright.resolution == ((150, 1), (300, 1), 2)
    assert upright.upright() == upright


def test_floats_with_a_curve_need_a_format_with_profiles(tmp_path):
    info = info_for(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float32))
    for kind in ("npy", "ome-zarr"):
        with pytest.raises(SettingsError, match="as float32 it would need an ICC profile"):
            FORMATS[kind].dtype_for(info, None)
        linear = dataclasses.replace(info, light=Light((LINEAR,) * 3, "float32"))
        assert FORMATS[kind].dtype_for(linear, None) == "float32"


def test_a_jpeg_xl_has_its_profile(tmp_path):
    pixels = np.zeros((8, 8, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", iccprofile=adobe_rgb_profile())
    tilepipe.plan(tmp_path / "a.tif", tmp_path / "a.jxl", psf=delta(), cache=str(tmp_path / "c")).run()
    assert opened(tmp_path / "a.jxl")[0].metadata.icc == adobe_rgb_profile()
    content = (tmp_path / "a.jxl").read_bytes()
    assert b"Exif\0\0\0\0II*\0" in content, "libjxl's own boxes are compressed, and few programs read them"
    assert b"xml <?xpacket" in content


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_all_bits_of_a_jpeg_xl_are_read(tmp_path, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    codes = np.linspace(0, 2**bits - 1, 900).astype(dtype).reshape(10, 30, 3)
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(codes, lossless=True, bitspersample=bits))
    info, found = opened(tmp_path / "a.jxl")
    assert info.dtype == np.dtype(dtype).name
    np.testing.assert_allclose(found / np.iinfo(dtype).max, codes / (2**bits - 1), atol=0.51 / np.iinfo(dtype).max)


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((3, 10, 30, 3), np.uint8), "animation of 3 frames"),
        (np.zeros((10, 30, 3), np.float16), "floats of 16 bits"),
        (np.zeros((2, 10, 30), np.uint8), r"decodes to .*2, 10, 30"),
    ],
    ids=["animation", "half floats", "further channels"],
)
def test_a_jpeg_xl_that_would_not_be_read_right_is_refused(tmp_path, pixels, message):
    planar = {"planar": True} if len(pixels) == 2 else {}
    (tmp_path / "a.jxl").write_bytes(imagecodecs.jpegxl_encode(pixels, lossless=True, **planar))
    with pytest.raises(InputError, match=message):
        opened(tmp_path / "a.jxl")


@pytest.mark.parametrize("cut", [2, 12, 40, 200, -1])
def test_a_damaged_jpeg_xl_is_one_line(tmp_path, cut):
    path = written(tmp_path / "a.jxl", np.random.default_rng(0).integers(0, 255, (50, 50, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"damaged JPEG XL|is not an image"):
        opened(path)


def test_rows_are_filtered_as_well_as_libpng_does(tmp_path):
    y, x, c = np.ogrid[:512, :512, :3]
    smooth = 120 + 60 * np.sin(x / 31 + c) + 50 * np.cos(y / 47) + np.random.default_rng(0).normal(0, 1, (512, 512, 3))
    pixels = smooth.astype(np.uint8)
    ours = written(tmp_path / "a.png", pixels).stat().st_size
    assert ours <= 1.02 * len(imagecodecs.png_encode(pixels, level=6))


def test_a_jpeg_keeps_colours_at_full_resolution(tmp_path):
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[:, ::2, 0] = 200  # a pattern that chrominance at half the resolution cannot hold
    found = imagecodecs.jpeg_decode(written(tmp_path / "a.jpg", pixels).read_bytes())
    assert np.abs(found.astype(int) - pixels).max() < 30


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".jxl", ".webp", ".zarr"])
def test_the_record_can_be_read_back(tmp_path, suffix):
    pixels = np.full((20, 20, 3), 90, np.uint8)
    record = {"lambda": 0.001, "tilepipe": 5}
    with_one, _ = opened(written(tmp_path / f"a{suffix}", pixels, record=json.dumps(record).encode()))
    without, _ = opened(written(tmp_path / f"b{suffix}", pixels))
    assert read_record(with_one.metadata) == record
    if suffix != ".zarr":  # which has no tags
        assert with_one.metadata.tags.get(305).data.startswith(b"tilepipe ")
    assert read_record(without.metadata) is None


def test_formats_follow_the_name(tmp_path):
    names = {
        "a.TIF": "TIFF",
        "a.tiff": "TIFF",
        "a.jpg": "JPEG",
        "a.JPEG": "JPEG",
        "a.png": "PNG",
        "a.ome.zarr": "OME-Zarr",
    }
    assert {name: format_of(tmp_path / name).name for name in names} == names
    assert format_of(tmp_path / "a.data", "png").name == "PNG"
    with pytest.raises(SettingsError, match=r"out\.bmp must end in one of \.tif, .*or give --format"):
        format_of(tmp_path / "out.bmp")


@pytest.mark.parametrize(
    ("name", "kind", "output"),
    [
        ("a.jpg", None, "a-sharp.jpg"),
        ("a.JPEG", None, "a-sharp.JPEG"),
        ("b.c.tif", None, "b.c-sharp.tif"),
        ("a.webp", None, "a-sharp.webp"),
        ("a.avif", None, "a-sharp.tif"),
        ("a", None, "a-sharp.tif"),
        ("a.tif", "png", "a-sharp.png"),
        ("a.zarr", None, "a-sharp.zarr"),
        ("a.b.ome.zarr", None, "a.b-sharp.ome.zarr"),
        ("a.OME.zarr", "tiff", "a-sharp.tif"),
        (".ome.zarr", None, ".ome-sharp.zarr"),
        ("a.tif", "ome-zarr", "a-sharp.zarr"),
    ],
)
def test_an_output_without_a_name_lies_beside_the_image(tmp_path, name, kind, output):
    assert output_beside(tmp_path / name, kind) == tmp_path / output


@pytest.mark.parametrize(
    ("kind", "dtype", "wanted", "result"),
    [
        ("jpeg", "uint16", None, "uint8"),
        ("png", "uint16", None, "uint16"),
        ("png", "float32", None, "uint16"),
        ("png", "float32", "uint8", "uint8"),
        ("tiff", "float16", None, "float16"),
    ],
)
def test_sample_types_that_a_format_holds(tmp_path, kind, dtype, wanted, result):
    info = info_for(tmp_path / "a.tif", np.zeros((4, 4, 3), dtype))
    assert FORMATS[kind].dtype_for(info, wanted) == result


@pytest.mark.parametrize(
    ("kind", "shape", "kinds", "wanted", "message"),
    [
        ("jpeg", (4, 4, 3), (), "uint16", r"--dtype uint16: JPEG holds uint8"),
        ("png", (4, 4, 3), (), "float32", r"PNG holds uint8 and uint16"),
        ("jpeg", (4, 4, 4), (UNASSOCIATED_ALPHA,), None, r"no place for alpha.*write a TIFF"),
        ("jpeg", (4, 70_000, 1), (), None, r"70000 x 4 px, and 65535 px is the largest side"),
        ("png", (4, 4, 4), (ASSOCIATED_ALPHA,), None, r"one straight alpha channel"),
        ("png", (4, 4, 4), (MASK,), None, r"one straight alpha channel"),
        ("png", (4, 4, 5), (UNASSOCIATED_ALPHA, 0), None, r"one straight alpha channel"),
    ],
)
def test_pictures_that_a_format_does_not_hold_are_refused(tmp_path, kind, shape, kinds, wanted, message):
    info = info_for(tmp_path / "a.tif", np.zeros(shape, np.uint8), kinds)
    with pytest.raises(SettingsError, match=message):
        FORMATS[kind].dtype_for(info, wanted)
