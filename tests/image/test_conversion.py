"""Samples of all kinds that files contain become gray or RGB of 8 or 16 bits or floats, with the right values."""

import io
import json
import os
import struct
import tracemalloc
import zlib
from pathlib import Path

import hypothesis.strategies as st
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from lut_profiles import cmyk_profile
from picture_files import opened
from PIL import Image, ImageCms, PngImagePlugin

import tilepipe
from tilepipe.errors import InputError
from tilepipe.image.metadata.profiles import adobe_rgb_profile, coded_profile, gamma_profile
from tilepipe.image.readers import open_image
from tilepipe.image.readers.convert import scaled, ycbcr_to_rgb
from tilepipe.psf.shapes import delta

DATA = os.environ.get("TILEPIPE_DATA")

Y, X = np.mgrid[:37, :53]
PLANE = (4 * X + Y).astype(np.uint8)


@given(st.integers(1, 16))
def test_scaled_samples_keep_their_values_apart_and_use_the_whole_range(bits):
    samples = np.arange(2**bits, dtype=np.uint8 if bits <= 8 else np.uint16)
    out = scaled(samples, bits)
    assert out.dtype == (np.uint8 if bits <= 8 else np.uint16)
    assert (out[0], out[-1]) == (0, np.iinfo(out.dtype).max)
    assert (np.diff(out.astype(int)) > 0).all()
    np.testing.assert_array_equal(np.rint(out / np.iinfo(out.dtype).max * (2**bits - 1)), samples)


@pytest.mark.parametrize("bits", [8, 16])
def test_ycbcr_as_pillow_has_it(bits):
    rgb = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    coded = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    expected = np.asarray(Image.fromarray(coded, "YCbCr").convert("RGB")).astype(int)
    samples = coded if bits == 8 else coded.astype(np.uint16) << 8
    found = ycbcr_to_rgb(samples).astype(int) >> (bits - 8)
    assert np.abs(found - expected).max() <= 2


def test_white_is_zero(tmp_path):
    gray = (7 * X + Y).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", 255 - gray, photometric="miniswhite")
    info, rows = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows[:, :, 0], gray)
    assert info.notes == ("white is 0 in the file, and the largest value in the output",)


@pytest.mark.parametrize(("factor", "dtype"), [(257, "uint8"), (256, "uint8"), (250, "uint16")])
def test_a_palette_is_expanded(tmp_path, factor, dtype):
    colours = np.random.default_rng(0).integers(0, 256, (3, 256)).astype(np.uint16) * factor
    index = ((3 * X + 5 * Y) % 256).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", index, photometric="palette", colormap=colours)
    info, rows = opened(tmp_path / "a.tif")
    expected = colours.T[index] >> (8 if dtype == "uint8" else 0)
    assert (info.colours, info.dtype, info.notes) == (3, dtype, ("the palette is expanded to RGB",))
    np.testing.assert_array_equal(rows, expected)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint32", "float64"])
def test_other_types_keep_their_values_in_floats(tmp_path, dtype):
    kind = np.dtype(dtype).kind
    values = (1000.0 * X - 3000 * (kind != "u")) if kind != "i" else np.clip(X * 5 - 100, -128, 127)
    tifffile.imwrite(tmp_path / "a.tif", values.astype(dtype), photometric="minisblack")
    info, rows = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows[:, :, 0], values.astype(dtype).astype(np.float32))
    assert (info.dtype, info.light.name) == ("float32", "linear")
    assert "computed and written as float32" in info.notes[0]


def ink_profile():
    """The sRGB profile is no CMYK profile, so that lcms refuses it."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("profile", [None, b"damaged", ink_profile()], ids=["none", "damaged", "RGB"])
def test_inks_without_a_usable_profile_absorb_their_colours(tmp_path, profile):
    inks = np.zeros((37, 53, 4), np.uint8)
    inks[..., 0], inks[..., 3] = 4 * X, 5 * Y
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated", iccprofile=profile)
    info, rows = opened(tmp_path / "a.tif")
    black = 255 - 5 * Y.astype(int)
    np.testing.assert_array_equal(rows[..., 0], (255 - 4 * X) * black // 255)
    np.testing.assert_array_equal(rows[..., 1], black)
    assert info.curve_note == "Adobe RGB (compatible) (ICC)"
    assert "CMYK is converted" in info.notes[0]


def test_cmyk_of_a_jpeg_as_pillow_has_it(tmp_path):
    rgb = np.stack([4 * X, 5 * Y, 255 - 3 * X], -1).astype(np.uint8)
    Image.fromarray(rgb).convert("CMYK").save(tmp_path / "a.jpg", quality=100, subsampling=0)
    _, rows = opened(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        expected = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(rows - expected).max() <= 2


def test_a_jpeg_of_12_bits(tmp_path):
    samples = (60 * X + 3 * Y).astype(np.uint16)
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(samples, level=100, bitspersample=12))
    info, rows = opened(tmp_path / "a.jpg")
    assert (info.dtype, info.notes) == ("uint16", ("12-bit samples are scaled to 16 bits",))
    assert np.abs(rows[:, :, 0] / 65535 * 4095 - samples).max() < 8


@pytest.mark.parametrize("mode", ["1", "P", "PA"])
def test_png_of_few_bits_or_with_a_palette(tmp_path, mode):
    source = Image.fromarray(((X // 9 + Y // 7) % 4 * 60).astype(np.uint8))
    image = source.convert("P" if mode == "PA" else mode)
    image.save(tmp_path / "a.png", **({"transparency": 0} if mode == "PA" else {}))
    info, rows = opened(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as image:
        expected = np.asarray(image.convert({"1": "L", "P": "RGB", "PA": "RGBA"}[mode]))
    np.testing.assert_array_equal(rows, np.atleast_3d(expected))
    assert info.notes


@pytest.mark.parametrize("seed", range(20))
def test_bytes_after_the_end_of_a_jpeg_do_not_matter(tmp_path, seed):
    """Motion photos and some cameras append anything."""
    buffer = io.BytesIO()
    Image.fromarray(PLANE).save(buffer, "JPEG", progressive=bool(seed % 2))
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
    (tmp_path / "b.jpg").write_bytes(buffer.getvalue() + np.random.default_rng(seed).bytes(200_000))
    np.testing.assert_array_equal(opened(tmp_path / "a.jpg")[1], opened(tmp_path / "b.jpg")[1])


def test_pictures_that_are_not_kept_are_said(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(PLANE).save(buffer, "JPEG")
    parts = [
        (0xE2, b"MPF\0II*\0"),
        (0xE2, b"urn:iso:std:iso:ts:21496:-1\0"),
        (0xE1, b"http://ns.adobe.com/xmp/extension/\0x"),
    ]
    segments = b"".join(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content for marker, content in parts)
    (tmp_path / "a.jpg").write_bytes(buffer.getvalue()[:2] + segments + buffer.getvalue()[2:])
    info, _ = opened(tmp_path / "a.jpg")
    assert info.metadata.dropped == ["extended XMP", "further pictures of the file (MPF)", "gain map"]


def large(kind, path):
    y, x = np.mgrid[:1000, :1500]
    gray = ((x // 3 + y // 2) % 256).astype(np.uint8)
    rgb = Image.fromarray(np.stack([gray, 255 - gray, gray // 2], -1))
    if kind == "CMYK":
        rgb.convert("CMYK").save(path, "JPEG")
    elif kind == "12-bit JPEG":
        path.write_bytes(imagecodecs.jpeg8_encode(np.asarray(rgb).astype(np.uint16) * 16, bitspersample=12))
    elif kind == "palette":
        rgb.convert("P").save(path, "PNG")
    elif kind in ("JPEG", "progressive"):
        rgb.save(path, "JPEG", progressive=kind == "progressive")
    else:
        rgb.save(path, kind)
    return path


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "CMYK", "12-bit JPEG", "PNG", "palette", "WebP", "AVIF"])
def test_decoding_takes_no_more_memory_than_is_counted(tmp_path, kind):
    reader = open_image(large(kind, tmp_path / "a"))
    tracemalloc.start()
    reader.rows(0, 10)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    reader.close()
    assert peak <= 1.02 * reader.info.decoded_bytes + 2e6


# --- which page


def test_the_largest_page_is_read_and_the_others_are_said(tmp_path):
    small, large = np.full((20, 20), 9, np.uint8), (4 * X + Y).astype(np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (small, large, large // 2):
            tiff.write(page, photometric="minisblack", metadata=None)
        tiff.write(large[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    info, rows = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows[:, :, 0], large)
    assert info.metadata.dropped == ["all pages but page 1 of 0..3", "reduced-size images"]


# --- descriptions that programs wrote for themselves


def described(tmp_path, **how):
    """Write a stack of two planes or one, restore it with nothing to restore; return the output's description."""
    tifffile.imwrite(tmp_path / "a.ome.tif" if how.get("ome") else tmp_path / "a.tif", **how)
    path = next(tmp_path.glob("a.*"))
    out = tmp_path / "out.tif"
    tilepipe.plan(path, out, psf=delta(), cache=str(tmp_path / "cache"), dtype="uint16").run(overwrite=True)
    with tifffile.TiffFile(out) as tiff:
        assert tiff.asarray().shape == (37, 53)
        return tiff.pages.first.description, tiff


def test_ome_xml_of_one_plane_states_the_type_that_is_written(tmp_path):
    text, tiff = described(tmp_path, data=PLANE, ome=True, metadata={"axes": "YX", "PhysicalSizeX": 0.2})
    assert 'Type="uint16"' in text
    assert 'PhysicalSizeX="0.2"' in text
    assert tiff.is_ome


def test_ome_xml_of_one_rgb_page_is_kept(tmp_path):
    rgb = np.stack([PLANE] * 3, -1)
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", ome=True)
    info, _ = opened(tmp_path / "a.tif")
    assert b"<OME" in info.metadata.tags.get(270).data
    assert info.metadata.dropped == []


@pytest.mark.parametrize("kind", ["ome", "shaped", "imagej"])
def test_a_description_of_several_planes_is_not_kept(tmp_path, kind):
    how = {} if kind == "shaped" else {kind: True}
    text, _ = described(tmp_path, data=np.stack([PLANE, PLANE]), **how)
    assert kind == "ome" or "OME" not in text
    assert "shape" not in text
    assert 'SizeZ="2"' not in text
    assert "images=" not in text
    assert kind != "imagej" or text.startswith("ImageJ=")


def test_facts_beside_the_shape_are_kept(tmp_path):
    text, _ = described(tmp_path, data=PLANE, metadata={"sample": "B 7"})
    assert json.loads(text) == {"sample": "B 7"}


# --- curves that a PNG states


def png_with(path, *chunks):
    """Write a gray ramp of 16 bits with further chunks."""
    content = imagecodecs.png_encode((np.arange(256, dtype=np.uint16) * 257)[None].repeat(4, 0))
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    path.write_bytes(content[:33] + body + content[33:])
    return path


def test_gamma_of_a_png_is_used_and_written_as_a_profile(tmp_path):
    info, _ = opened(png_with(tmp_path / "a.png", (b"gAMA", struct.pack(">I", 100000))))
    np.testing.assert_allclose(info.light.curves[0].decode(np.array([0.25])), 0.25)
    assert info.metadata.icc == gamma_profile(1.0, (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06), 1)
    info, _ = opened(png_with(tmp_path / "b.png", (b"gAMA", struct.pack(">I", 55556))))
    np.testing.assert_allclose(info.light.curves[0].decode(np.array([0.5])), 0.5 ** (1 / 0.55556), rtol=1e-4)


@pytest.mark.parametrize(
    "chunks",
    [
        [(b"gAMA", struct.pack(">I", 45455))],
        [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100000))],
        [(b"gAMA", b"\0\0\0\0")],
        [(b"gAMA", b"\0")],
    ],
)
def test_srgb_or_nothing_stated(tmp_path, chunks):
    info, _ = opened(png_with(tmp_path / "a.png", *chunks))
    assert (info.light.name, info.metadata.icc) == ("sRGB", None)


@pytest.mark.parametrize(
    ("transfer", "value", "light"),
    [(16, 0.508078, 0.01), (18, 0.5, 1 / 12), (8, 0.3, 0.3), (13, 0.5, 0.21404), (1, 0.5, 0.25970)],
)
def test_code_points_of_a_png(tmp_path, transfer, value, light):
    """PQ: 100 cd/m^2 of 10,000 (Rec. ITU-R BT.2100, table 4); HLG: the joint of its parts."""
    info, _ = opened(png_with(tmp_path / "a.png", (b"cICP", bytes([9, transfer, 0, 1]))))
    np.testing.assert_allclose(info.light.curves[0].decode(np.array([value])), light, rtol=2e-3)
    assert info.metadata.icc == coded_profile(9, transfer, 1)


def test_code_points_survive_in_a_png(tmp_path):
    path = png_with(tmp_path / "a.png", (b"cICP", bytes([9, 16, 0, 1])))
    tilepipe.plan(path, tmp_path / "out.png", psf=delta(), cache=str(tmp_path / "cache")).run()
    before, after = opened(path), opened(tmp_path / "out.png")
    assert before[0].metadata.cicp == after[0].metadata.cicp
    np.testing.assert_array_equal(before[1], after[1])


@pytest.mark.parametrize("chromaticities", [bytes(32), struct.pack(">8I", *[30000] * 8), b"\xff" * 32])
def test_chromaticities_that_are_no_colours(tmp_path, chromaticities):
    content = io.BytesIO()
    Image.fromarray(np.stack([PLANE] * 3, -1)).save(content, "PNG")
    chunks = [(b"gAMA", struct.pack(">I", 100000)), (b"cHRM", chromaticities)]
    body = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(content.getvalue()[:33] + body + content.getvalue()[33:])
    info, _ = opened(tmp_path / "a.png")
    np.testing.assert_allclose(info.light.curves[0].decode(np.array([0.25])), 0.25)


@pytest.mark.parametrize(
    ("photometric", "stored", "converted"), [("miniswhite", 0, 255), ("minisblack", 7, 7), ("palette", 3, None)]
)
def test_the_value_of_missing_pixels_is_converted_with_them(tmp_path, photometric, stored, converted):
    gray = np.tile(np.arange(50, dtype=np.uint8), (20, 1))
    tags = [(42113, 2, len(str(stored)) + 1, f"{stored}\0", True)]
    more = {"colormap": np.arange(768, dtype=np.uint16).reshape(3, 256)} if photometric == "palette" else {}
    tifffile.imwrite(tmp_path / "a.tif", gray, photometric=photometric, extratags=tags, **more)
    info, rows = opened(tmp_path / "a.tif")
    assert info.light.nodata == info.metadata.nodata == converted
    if converted is not None:
        np.testing.assert_array_equal(rows[..., 0] == converted, gray == stored)
    else:
        assert "GDAL_NODATA" in info.metadata.dropped


def test_iptc_in_the_long_words_of_a_big_endian_file(tmp_path):
    iptc = b"\x1c\x02\x78\x00\x05hello\0\0"
    tags = [(33723, 4, len(iptc) // 4, struct.unpack(f">{len(iptc) // 4}I", iptc), True)]
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="minisblack", byteorder=">", extratags=tags)
    assert opened(tmp_path / "a.tif")[0].metadata.iptc == iptc


@pytest.mark.parametrize("kind", [1, 3, 4])
def test_the_orientation_of_any_integer_type(tmp_path, kind):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="minisblack", extratags=[(274, kind, 1, 6, True)])
    assert opened(tmp_path / "a.tif")[0].metadata.orientation_number == 6


def test_a_comment_of_a_jpeg_is_said(tmp_path):
    Image.fromarray(PLANE).save(tmp_path / "a.jpg", comment="on the beach")
    assert opened(tmp_path / "a.jpg")[0].metadata.dropped == ["comment"]


def test_text_of_a_png_is_said(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Author", "Jane Doe")
    Image.fromarray(PLANE).save(tmp_path / "a.png", pnginfo=text)
    assert opened(tmp_path / "a.png")[0].metadata.dropped == ["text (Author)"]


def test_a_damaged_profile_is_no_profile(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PLANE, photometric="minisblack", iccprofile=b"no profile at all")
    info, _ = opened(tmp_path / "a.tif")
    assert info.light.name == "sRGB"
    assert "damaged" in info.curve_note


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("space", "index", "is_adobe"),
    [(1, "R98", False), (65535, "R03", True), (2, None, True), (65535, None, False), (1, "R03", False)],
)
def test_adobe_rgb_that_exif_states(tmp_path, suffix, space, index, is_adobe):
    exif = Image.Exif()
    exif[271] = "Kamera"  # Pillow leaves out an Exif block without such a tag
    exif.get_ifd(0x8769)[0xA001] = space
    if index:
        exif.get_ifd(0x8769)[0xA005] = {1: index}
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.stack([PLANE] * 3, -1)).save(path, exif=exif)
    info, _ = opened(path)
    assert info.metadata.icc == (adobe_rgb_profile() if is_adobe else None)
    assert info.light.name == ("Adobe RGB (compatible)" if is_adobe else "sRGB")


def test_adobe_rgb_is_reproducible():
    assert adobe_rgb_profile() == adobe_rgb_profile()
    assert adobe_rgb_profile()[24:36] == bytes(12)


# --- real files


def outcome(path):
    """Return the pixels of a file, or the message with which it is refused, which must be one line."""
    try:
        return opened(path)[1]
    except InputError as error:
        message = str(error)
    assert "\n" not in message
    return message


needs_data = pytest.mark.skipif(not DATA, reason="TILEPIPE_DATA does not name the folder of test pictures")


@needs_data
def test_files_of_a_public_suite():
    """At least 95 % of the valid files are read, none fails with another error; equal pictures are equal."""
    found = {path: outcome(path) for path in sorted((Path(DATA or "") / "tiffs").rglob("*/tests/images/**/*.tif*"))}
    refused = [path.name for path, rows in found.items() if isinstance(rows, str)]
    assert len(refused) <= 0.05 * len(found), refused
    assert len(found) > 130
    same = {}
    for path, rows in found.items():
        if path.name.startswith("seq-1c") and path.name not in refused:  # the end of the name stands for the pixels
            expected = same.setdefault(path.stem.rpartition("-")[2], rows)
            np.testing.assert_array_equal(rows, expected, err_msg=path.name)


@needs_data
def test_files_that_crashed_another_reader():
    files = [path for path in (Path(DATA or "") / "tiffs").rglob("*/fuzz_images/**/*") if path.is_file()]
    assert len(files) > 100
    for path in files:
        outcome(path)


# --- damage


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """A folder with small files of every kind."""
    rgb = np.stack([PLANE, PLANE // 2, 255 - PLANE], -1)
    made = []
    for kind, how in (("JPEG", {}), ("JPEG", {"progressive": True}), ("PNG", {})):
        buffer = io.BytesIO()
        Image.fromarray(rgb).save(buffer, kind, exif=Image.Exif().tobytes(), icc_profile=adobe_rgb_profile(), **how)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(rgb).convert("CMYK").save(buffer, "JPEG")
    made.append(buffer.getvalue())
    for how in ({}, {"compression": "lzw", "predictor": True}, {"tile": (16, 16), "compression": "deflate"}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, rgb, photometric="rgb", iccprofile=adobe_rgb_profile(), **how)
        made.append(buffer.getvalue())
    inks, lab = np.concatenate([rgb, rgb[..., :1]], -1), rgb.astype(np.uint16) << 8
    for pixels, how in (
        (inks, {"photometric": "separated", "iccprofile": cmyk_profile()}),
        (lab, {"photometric": "icclab"}),
    ):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, pixels, **how)
        made.append(buffer.getvalue())
    folder = tmp_path_factory.mktemp("samples")
    for index, content in enumerate(made):
        (folder / str(index)).write_bytes(content)
    return folder


def damaged(draws, content):
    """Return `content` with bytes flipped, removed or overwritten in some places."""
    content = bytearray(content)
    for _ in range(draws.draw(st.integers(1, 6))):
        at = draws.draw(st.integers(0, len(content) - 1))
        action = draws.draw(st.sampled_from(["flip", "cut", "zero", "ones"]))
        if action == "flip":
            content[at] ^= 1 << draws.draw(st.integers(0, 7))
        elif action == "cut":
            del content[at + 1 : at + draws.draw(st.integers(2, 40))]
        else:
            content[at : at + 4] = (b"\0" if action == "zero" else b"\xff") * len(content[at : at + 4])
    return bytes(content)


def check_damaged(draws, samples, folder):
    """A damaged file is a picture, or refused in one line; pictures of absurd size are not decoded here."""
    path = folder / "a"
    number = draws.draw(st.integers(0, len(list(samples.iterdir())) - 1))
    path.write_bytes(damaged(draws, (samples / str(number)).read_bytes()))
    try:
        reader = open_image(path)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - any number of files are not refused
        return
    info = reader.info
    reader.close()
    if info.decoded_bytes + info.height * info.width * info.pixel_bytes < 1e8:
        outcome(path)


@given(draws=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_files_are_pictures_or_refused(draws, samples, tmp_path):
    check_damaged(draws, samples, tmp_path)


@pytest.mark.thorough
@given(draws=st.data())
@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_damaged_files_are_pictures_or_refused(draws, samples, tmp_path):
    check_damaged(draws, samples, tmp_path)
