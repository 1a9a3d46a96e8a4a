"""Pictures in bands: whatever the layout, rows are the rows of the whole picture; damage is said, not crashed on."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tilepipe.errors import InputError, InputNotFoundError, TilepipeError
from tilepipe.image.readers import open_image

DATA = os.environ.get("TILEPIPE_DATA")

HEIGHT, WIDTH = 75, 53
"""No multiple of any strip or tile below."""

quick = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def pixels(channels: int, dtype: str, *, seed: int = 0) -> np.ndarray:
    """A picture smooth enough to compress and different in every row, column and channel."""
    y, x, c = np.ogrid[0:HEIGHT, 0:WIDTH, 0:channels]
    wave = (
        0.5
        + 0.2 * np.sin(x / 7 + c)
        + 0.2 * np.cos(y / 5 - c)
        + np.random.default_rng(seed).normal(0, 0.01, (HEIGHT, WIDTH, channels))
    )
    if np.dtype(dtype).kind == "f":
        return (4 * wave - 1).astype(dtype)
    return np.clip(wave * np.iinfo(dtype).max, 0, np.iinfo(dtype).max).astype(dtype)


# one line a kind: samples, then how tifffile is to write them
KINDS: dict[str, tuple[int, str, dict]] = {
    "gray8-one-strip": (1, "uint8", {}),
    "rgb8-strips-of-7": (3, "uint8", {"rowsperstrip": 7}),
    "rgb16-strips-of-1": (3, "uint16", {"rowsperstrip": 1}),
    "rgb16-strip-beyond-the-end": (3, "uint16", {"rowsperstrip": 1000}),
    "rgb32f-strips": (3, "float32", {"rowsperstrip": 11}),
    "rgb16f-strips": (3, "float16", {"rowsperstrip": 16}),
    "gray-alpha16": (2, "uint16", {"rowsperstrip": 9, "extrasamples": ["unassalpha"]}),
    "rgba8": (4, "uint8", {"rowsperstrip": 13, "extrasamples": ["assocalpha"]}),
    "rgb16-planar-strips": (3, "uint16", {"rowsperstrip": 10, "planarconfig": "separate"}),
    "rgba32f-planar-strips": (4, "float32", {"rowsperstrip": 8, "planarconfig": "separate"}),
    "rgb16-planar-lzw": (3, "uint16", {"rowsperstrip": 10, "planarconfig": "separate", "compression": "lzw"}),
    "rgb8-tiles": (3, "uint8", {"tile": (16, 32)}),
    "gray32f-tiles": (1, "float32", {"tile": (32, 16)}),
    "rgb16-tile-larger-than-picture": (3, "uint16", {"tile": (128, 96), "compression": "deflate"}),
    "rgb16-planar-tiles": (3, "uint16", {"tile": (16, 16), "planarconfig": "separate"}),
    "rgba16-planar-tiles-zstd": (4, "uint16", {"tile": (32, 16), "planarconfig": "separate", "compression": "zstd"}),
    "rgb16-bigtiff": (3, "uint16", {"rowsperstrip": 7, "bigtiff": True}),
    "rgb16-bigtiff-tiles-big-endian": (3, "uint16", {"tile": (16, 16), "bigtiff": True, "byteorder": ">"}),
    "rgb16-big-endian": (3, "uint16", {"rowsperstrip": 7, "byteorder": ">"}),
    "rgb32f-big-endian-planar": (3, "float32", {"rowsperstrip": 7, "byteorder": ">", "planarconfig": "separate"}),
    "rgb16-big-endian-lzw": (
        3,
        "uint16",
        {"rowsperstrip": 7, "byteorder": ">", "compression": "lzw", "predictor": True},
    ),
    "rgb8-packbits": (3, "uint8", {"rowsperstrip": 7, "compression": "packbits"}),
    "gray16f-tiles-deflate": (1, "float16", {"tile": (16, 16), "compression": "deflate", "predictor": True}),
    "rgb8-jpeg-tiles": (3, "uint8", {"tile": (32, 32), "compression": "jpeg"}),
    "gray8-jpeg-strips": (1, "uint8", {"rowsperstrip": 16, "compression": "jpeg"}),
}
for codec in ("deflate", "lzw", "zstd"):
    for predictor in (False, True):
        for sample in ("uint8", "uint16", "float32"):
            KINDS[f"rgb-{sample}-{codec}{'-predictor' if predictor else ''}"] = (
                3,
                sample,
                {"rowsperstrip": 7, "compression": codec, "predictor": predictor},
            )

every_kind = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, np.ndarray]]:
    """Write a kind once; give its path and tifffile's whole read of it, (H, W, C)."""
    folder = tmp_path_factory.mktemp("kinds")

    @functools.cache
    def write(kind: str) -> tuple[Path, np.ndarray]:
        channels, dtype, how = KINDS[kind]
        samples, how = pixels(channels, dtype), dict(how)
        outer = {key: how.pop(key) for key in ("bigtiff", "byteorder") if key in how}
        data = np.moveaxis(samples, -1, 0) if how.get("planarconfig") == "separate" else samples
        path = folder / f"{kind}.tif"
        with tifffile.TiffWriter(path, **outer) as tiff:
            photometric = "rgb" if channels >= 3 else "minisblack"
            tiff.write(data if channels > 1 else data[:, :, 0], photometric=photometric, metadata=None, **how)
        whole = tifffile.imread(path)
        whole = whole[:, :, None] if whole.ndim == 2 else whole
        whole = np.moveaxis(whole, 0, -1) if how.get("planarconfig") == "separate" else whole
        assert whole.shape == samples.shape
        return path, whole

    return write


bands = st.lists(
    st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT)).map(sorted).filter(lambda band: band[0] < band[1]),
    min_size=1,
    max_size=6,
)


@every_kind
@quick
@given(bands=bands)
def test_any_bands_in_any_order_are_the_rows_of_the_whole(written, kind, bands):
    path, whole = written(kind)
    reader = open_image(path)
    try:
        for y0, y1 in bands:
            rows = reader.rows(y0, y1)
            assert rows.dtype == whole.dtype.newbyteorder("=")
            np.testing.assert_array_equal(rows, whole[y0:y1])
    finally:
        reader.close()


@every_kind
def test_what_is_said_of_a_tiff_is_true(written, kind):
    path, whole = written(kind)
    channels, dtype, how = KINDS[kind]
    reader = open_image(path)
    reader.close()
    info = reader.info
    assert (info.height, info.width, info.channels) == whole.shape == (HEIGHT, WIDTH, channels)
    assert (info.colours, info.extras) == ((3, channels - 3) if channels >= 3 else (1, channels - 1))
    assert info.dtype == dtype
    assert info.kind == ("BigTIFF" if how.get("bigtiff") else "TIFF")
    assert info.pixel_bytes == channels * np.dtype(dtype).itemsize
    assert info.is_float == dtype.startswith("float")
    assert ("planar" in info.layout) == (how.get("planarconfig") == "separate")
    assert ("tiles" in info.layout) == ("tile" in how)
    assert ("linear" if info.is_float else "sRGB") in info.curve_note


def test_uncompressed_strips_take_no_memory_beyond_the_band(written):
    """A file of one strip (tifffile's own default) must not be read whole."""
    path, _ = written("gray8-one-strip")
    reader = open_image(path)
    assert reader.info.decoded_bytes == 0
    reader.close()


def test_a_compressed_segment_counts_as_memory(written):
    path, _ = written("rgb16-tile-larger-than-picture")
    reader = open_image(path)
    reader.close()
    assert reader.info.decoded_bytes >= 128 * 96 * 3 * 2


def test_alpha_kinds_are_kept_apart(written):
    found = {}
    for kind in ("gray-alpha16", "rgba8", "rgb8-tiles"):
        reader = open_image(written(kind)[0])
        reader.close()
        found[kind] = reader.info.extra_kinds
    assert found == {"gray-alpha16": (2,), "rgba8": (1,), "rgb8-tiles": ()}


def test_nan_and_inf_come_through(tmp_path):
    samples = pixels(3, "float32")
    samples[3, 4], samples[5, 6], samples[7, 8] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb", compression="zstd", predictor=True)
    np.testing.assert_array_equal(read_whole(tmp_path / "a.tif"), samples)


def test_a_thumbnail_does_not_count_as_a_page(tmp_path):
    samples = pixels(3, "uint8")
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(samples, photometric="rgb", metadata=None)
        tiff.write(samples[::4, ::4], photometric="rgb", subfiletype=1, metadata=None)
    np.testing.assert_array_equal(read_whole(tmp_path / "a.tif"), samples)


def read_whole(path: Path) -> np.ndarray:
    reader = open_image(path)
    try:
        return reader.rows(0, reader.info.height)
    finally:
        reader.close()


# --- JPEG and PNG


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("how", [{}, {"progressive": True}, {"subsampling": 0}])
def test_jpeg_rows_are_the_decoded_rows(tmp_path, mode, how):
    path = tmp_path / "a.jpg"
    samples = pixels(3 if mode == "RGB" else 1, "uint8")
    Image.fromarray(samples.squeeze(), mode).save(path, quality=90, **how)
    reader = open_image(path)
    whole = imagecodecs.jpeg_decode(path.read_bytes()).reshape(samples.shape)
    assert (reader.info.kind, reader.info.dtype, reader.info.extras) == ("JPEG", "uint8", 0)
    np.testing.assert_array_equal(reader.rows(10, 31), whole[10:31])
    np.testing.assert_array_equal(reader.rows(0, HEIGHT), whole)
    assert reader.info.decoded_bytes >= whole.nbytes
    reader.close()


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_png_keeps_every_bit(tmp_path, dtype, channels):
    path = tmp_path / "a.png"
    samples = pixels(channels, dtype)
    path.write_bytes(imagecodecs.png_encode(samples.squeeze()))
    reader = open_image(path)
    info = reader.info
    assert (info.kind, info.dtype, info.channels, info.extras) == ("PNG", dtype, channels, int(channels in (2, 4)))
    np.testing.assert_array_equal(reader.rows(20, 21), samples[20:21])
    np.testing.assert_array_equal(reader.rows(0, HEIGHT), samples)
    reader.close()


def test_a_picture_is_known_by_content_not_by_name(tmp_path):
    samples = pixels(3, "uint8")
    (tmp_path / "really.png").write_bytes(imagecodecs.png_encode(samples))
    (tmp_path / "really.png").rename(tmp_path / "picture.tif")
    np.testing.assert_array_equal(read_whole(tmp_path / "picture.tif"), samples)


# --- refused, and said so


def with_photometric(number: int, channels: int = 3) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        how = {"photometric": "rgb", "planarconfig": "contig"} if channels > 1 else {"photometric": "minisblack"}
        tifffile.imwrite(path, pixels(channels, "uint8").squeeze(), **how)
        with tifffile.TiffFile(path, mode="r+b") as tiff:
            tiff.pages.first.tags["PhotometricInterpretation"].overwrite(number)

    return write


def thumbnails(path: Path) -> None:
    tifffile.imwrite(path, pixels(3, "uint8"), photometric="rgb", subfiletype=1)


def float_inks(path: Path) -> None:
    tifffile.imwrite(path, pixels(4, "float32"), photometric="separated")


def float_lab(path: Path) -> None:
    tifffile.imwrite(path, pixels(3, "float32"), photometric="cielab")


def pillow(mode: str, **how: object) -> Callable[[Path], None]:
    return lambda path: Image.new(mode, (WIDTH, HEIGHT)).save(path, **how)


REFUSED = {
    "LogLuv": ("a.tif", with_photometric(32845), "LOGLUV"),
    "Lab in floats": ("a.tif", float_lab, "CIELAB of 32-bit float32"),
    "Lab without colours": ("a.tif", with_photometric(9, 1), "ICCLAB with 1 samples"),
    "subsampled YCbCr": ("a.tif", with_photometric(6), "YCBCR with subsampled colours"),
    "inks in floats": ("a.tif", float_inks, "SEPARATED of 32-bit float32"),
    "thumbnails": ("a.tif", thumbnails, "no full-size page"),
    "BMP": ("a.bmp", pillow("RGB"), "not an image that tilepipe reads"),
    "GIF": ("a.gif", pillow("L"), "not an image that tilepipe reads"),
}


@pytest.mark.parametrize(("name", "write", "value"), REFUSED.values(), ids=REFUSED)
def test_an_unsupported_kind_is_refused_by_name(tmp_path, name, write, value):
    write(tmp_path / name)
    with pytest.raises(InputError, match=value) as caught:
        open_image(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("content", [b"", b"I", b"II*\0", b"hello, this is text\n" * 9, bytes(4096)], ids=repr)
def test_what_is_no_image_is_an_input_error(tmp_path, content):
    path = tmp_path / "a.tif"
    path.write_bytes(content[:4096])
    with pytest.raises(InputError, match=r"a\.tif"):
        open_image(path)


def test_a_missing_file_and_a_folder_are_not_found(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no\.tif does not exist"):
        open_image(tmp_path / "no.tif")
    with pytest.raises(InputNotFoundError, match="cannot be read"):
        open_image(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_image(str(tmp_path / "no.tif"))


# --- damage


@pytest.mark.parametrize("kind", ["rgb8-strips-of-7", "rgb16-bigtiff", "rgb16-planar-lzw", "gray32f-tiles"])
def test_a_tiff_cut_anywhere_is_an_input_error(tmp_path, written, kind):
    content = written(kind)[0].read_bytes()
    path = tmp_path / "cut.tif"
    for end in (*range(0, 600, 41), *range(600, len(content), len(content) // 9), len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"cut\.tif"):
            read_whole(path)


@pytest.mark.parametrize(("name", "cuts"), [("a.jpg", (3, 9, 20, 30, 100)), ("a.png", (9, 20, 30, 100, 4000))])
def test_a_cut_jpeg_or_png_is_an_input_error(tmp_path, name, cuts):
    path = tmp_path / name
    Image.fromarray(pixels(3, "uint8")).save(path)
    content = path.read_bytes()
    assert len(content) > cuts[-1]
    for end in cuts:
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=name):
            read_whole(path)


def test_a_strip_of_rubbish_is_named_by_its_rows(tmp_path, written):
    content = bytearray(written("rgb-uint16-deflate")[0].read_bytes())
    with tifffile.TiffFile(written("rgb-uint16-deflate")[0]) as tiff:
        offset = tiff.pages.first.dataoffsets[2]
    content[offset : offset + 16] = bytes(16)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    reader = open_image(path)
    assert reader.rows(0, 14).any(), "the strips before it are sound"
    with pytest.raises(InputError, match=r"damaged in rows 10\.\.20"):
        reader.rows(10, 20)
    reader.close()


SMALL_AREA = 10**7


def read_if_small(path: Path) -> str:
    """Read all rows in bands, unless damage made the picture huge; give "ok" or the error's name and words."""
    try:
        reader = open_image(path)
        try:
            info = reader.info
            if info.height * info.width * info.channels <= SMALL_AREA:
                for y in range(0, info.height, 16):
                    rows = reader.rows(y, min(y + 16, info.height))
                    assert rows.shape == (min(16, info.height - y), info.width, info.channels)
        finally:
            reader.close()
    except TilepipeError as error:
        return f"{type(error).__name__}: {error}"
    return "ok"


@pytest.mark.parametrize(
    "kind", ["rgb8-strips-of-7", "rgb16-bigtiff", "rgb-uint16-lzw-predictor", "rgb16-planar-tiles"]
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 255)), min_size=1, max_size=4))
def test_flipped_bytes_in_header_and_directory_raise_nothing_else(tmp_path, written, kind, flips):
    content = bytearray(written(kind)[0].read_bytes())
    for position, flip in flips:
        content[position] ^= flip
    path = tmp_path / "flipped.tif"
    path.write_bytes(content)
    outcome = read_if_small(path)
    assert outcome == "ok" or "flipped.tif" in outcome


@pytest.mark.skipif(not DATA, reason="TILEPIPE_DATA does not name the folder of test pictures")
def test_a_zoo_of_real_and_fuzzed_tiffs_raises_nothing_else():
    files = [path for path in sorted((Path(DATA or "") / "tiffs").rglob("*")) if path.is_file()]
    assert len(files) > 100
    outcomes = {path: read_if_small(path) for path in files}
    for path, outcome in outcomes.items():
        assert outcome == "ok" or (outcome.startswith("InputError") and path.name in outcome)
    assert list(outcomes.values()).count("ok") >= 50, "most supported kinds are in there"
