"""Large JPEG and PNG files are decoded by rows: the same pixels, little memory, and damage is an error."""

import io
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import hypothesis.strategies as st
import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from picture_files import opened
from PIL import Image

import tilepipe as library
from tilepipe.errors import DoesNotFitError, InputError
from tilepipe.execution.executors.distributed import Cluster
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.readers import open_image, stream
from tilepipe.image.readers.vips import decodes_as_others
from tilepipe.image.selection import Selection
from tilepipe.planning import analysis
from tilepipe.planning.inspection import inspect_reader
from tilepipe.planning.sample import read_sample
from tilepipe.psf.shapes import gaussian
from tilepipe.system import files

pyvips = pytest.importorskip("pyvips", reason="libvips streams: pip install 'tilepipe[stream]'")

HEIGHT, WIDTH = 611, 157
Y, X = np.mgrid[:HEIGHT, :WIDTH]
NOISE = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3))
RGB = (np.stack([X + Y // 4, 255 - X, 60 + Y // 4], -1) % 200 + NOISE).astype(np.uint8)


@pytest.fixture(autouse=True)
def small_images_stream(monkeypatch):
    monkeypatch.setattr(stream, "LEAST", -1)
    monkeypatch.setattr(stream, "stream_bytes", lambda width, pixel_bytes: -1)


def jpeg(pixels=RGB, mode="RGB", sampling=None, **how):
    if sampling:
        return imagecodecs.jpeg8_encode(np.ascontiguousarray(pixels), level=90, subsampling=sampling)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "JPEG", **{"quality": 90, **how})
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(colour, depth, extra=b"", shape=(97, 61), lines=None):
    """A PNG of random samples; with `lines` its data end there."""
    height, width = shape
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = -(-width * channels * depth // 8)
    content = np.random.default_rng(depth).integers(0, 256, (height if lines is None else lines, 1 + row), np.uint8)
    content[:, 0] = 0  # no filter
    header = struct.pack(">IIBBxxx", width, height, depth, colour)
    parts = [chunk(b"IHDR", header), extra, chunk(b"IDAT", zlib.compress(content.tobytes(), 1)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


PALETTE = chunk(b"PLTE", np.random.default_rng(9).integers(0, 256, 768, np.uint8).tobytes())


def read_in_bands(path, step=100):
    reader = open_image(path)
    assert reader.info.streams
    assert reader.info.layout == "decoded by rows"
    try:
        height = reader.info.height
        return np.concatenate([reader.rows(y, min(y + step, height)) for y in range(0, height, step)])
    finally:
        reader.close()


# --- the same pixels


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (8, 8), (16, 17), (33, 15), (HEIGHT, WIDTH)])
@pytest.mark.parametrize(
    "how",
    [
        *({"sampling": sampling} for sampling in ("444", "422", "420", "411", "440")),
        {"mode": "L"},
        {"quality": 5},
        {"quality": 100, "subsampling": 2},
        {"restart_marker_blocks": 5},
        {"optimize": True},
    ],
    ids=str,
)
def test_a_jpeg_has_the_pixels_of_the_other_decoder(tmp_path, size, how):
    content = jpeg(RGB[: size[0], : size[1]], **how)
    (tmp_path / "a.jpg").write_bytes(content)
    expected = imagecodecs.jpeg8_decode(content)
    np.testing.assert_array_equal(read_in_bands(tmp_path / "a.jpg"), expected.reshape(*size, -1))


@pytest.mark.parametrize(
    ("colour", "depth", "extra"),
    [
        *((0, depth, b"") for depth in (1, 2, 4, 8, 16)),
        *((colour, depth, b"") for colour in (2, 4, 6) for depth in (8, 16)),
        (3, 8, PALETTE),
        (0, 8, chunk(b"tRNS", struct.pack(">H", 5))),
        (2, 16, chunk(b"tRNS", struct.pack(">HHH", 5, 6, 7))),
        (3, 8, PALETTE + chunk(b"tRNS", bytes(range(200)))),
        (2, 8, chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"bKGD", struct.pack(">HHH", 9, 9, 9))),
        (2, 8, chunk(b"sBIT", b"\5\5\5") + chunk(b"cICP", b"\x09\x10\0\1")),
    ],
)
def test_a_png_has_the_samples_of_the_other_decoder(tmp_path, colour, depth, extra):
    content = png(colour, depth, extra)
    (tmp_path / "a.png").write_bytes(content)
    expected = imagecodecs.png_decode(content)
    info, rows = opened(tmp_path / "a.png")
    assert info.streams
    assert rows.dtype == expected.dtype
    np.testing.assert_array_equal(rows, expected.reshape(97, 61, -1))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(st.integers(0, HEIGHT), st.integers(0, HEIGHT)).map(sorted).filter(lambda band: band[0] < band[1]),
        min_size=1,
        max_size=6,
    )
)
def test_any_bands_in_any_order_are_the_rows_of_the_whole(tmp_path, bands):
    path = tmp_path / "a.jpg"
    if not path.exists():
        path.write_bytes(jpeg())
    whole = imagecodecs.jpeg8_decode(path.read_bytes())
    reader = open_image(path)
    for y0, y1 in bands:
        np.testing.assert_array_equal(reader.rows(y0, y1), whole[y0:y1])
    reader.close()


def test_bands_may_be_read_by_changing_threads(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    whole = imagecodecs.jpeg8_decode((tmp_path / "a.jpg").read_bytes())
    reader = open_image(tmp_path / "a.jpg")
    for y in range(0, HEIGHT, 50):
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(reader.rows, y, min(y + 50, HEIGHT)).result()
        np.testing.assert_array_equal(found, whole[y : y + 50])
    reader.close()


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png"])
def test_a_run_writes_the_same_bytes(tmp_path, monkeypatch, name):
    scene = (RGB[:, :, :1] // 2 + RGB // 2).astype(np.uint8)
    Image.fromarray(scene).save(tmp_path / name, **({"quality": 92} if name == "photo.jpg" else {}))
    options = {"psf": gaussian(1), "quality": "fast", "cache": str(tmp_path / "cache"), "keep_cache": False}
    outputs = []
    for least in (-1, 10**12):
        monkeypatch.setattr(stream, "LEAST", least)
        plan = library.plan(tmp_path / name, tmp_path / f"{least}.tif", **options)
        assert plan.info.streams is (True if least < 0 else None)
        plan.run()
        outputs.append((tmp_path / f"{least}.tif").read_bytes())
    assert outputs[0] == outputs[1]


# --- what is decoded whole


@pytest.mark.parametrize(
    "content",
    [
        jpeg(progressive=True),
        jpeg(mode="CMYK"),
        jpeg(keep_rgb=True, subsampling=0),
        jpeg().replace(b"JFIF\0\1", b"JFIF\0\2"),  # decoders warn of this and go on
        jpeg()[:20] + b"gap" + jpeg()[20:],
        imagecodecs.jpeg8_encode(RGB.astype(np.uint16) * 16, bitspersample=12),
    ],
    ids=["progressive", "CMYK", "RGB", "JFIF 2", "gap", "12 bits"],
)
def test_other_jpegs_are_decoded_whole(tmp_path, content):
    (tmp_path / "a.jpg").write_bytes(content)
    info, rows = opened(tmp_path / "a.jpg")
    assert info.streams is None
    assert info.decoded_bytes > rows.nbytes
    assert rows.shape == (HEIGHT, WIDTH, 3)


def test_interlaced_pngs_are_decoded_whole(tmp_path):
    content = bytearray(png(2, 8, lines=0))
    content[28] = 1  # interlace method
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "a.png").write_bytes(content)
    reader = open_image(tmp_path / "a.png")
    assert reader.info.streams is None
    reader.close()


def test_small_images_are_decoded_whole(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    monkeypatch.setattr(stream, "LEAST", RGB.nbytes)
    assert opened(tmp_path / "a.jpg")[0].streams is None


def test_wide_images_of_few_rows_are_decoded_whole(tmp_path, monkeypatch):
    """Whole they take less memory."""
    monkeypatch.undo()
    (tmp_path / "a.png").write_bytes(png(2, 8, shape=(500, 60000), lines=0))
    reader = open_image(tmp_path / "a.png")
    assert reader.info.streams is None
    assert stream.LEAST < 500 * 60000 * 3 < stream.stream_bytes(60000, 3)
    reader.close()


def test_a_library_with_other_pixels_is_not_used(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    other = pyvips.Image.black(56, 40, bands=3)
    monkeypatch.setattr(pyvips.Image, "jpegload_buffer", staticmethod(lambda content: other), raising=False)
    decodes_as_others.cache_clear()
    try:
        assert opened(tmp_path / "a.jpg")[0].streams is None
    finally:
        decodes_as_others.cache_clear()


# --- damage


def damaged(content, at, by=b"\xff\xd9"):
    return content[:at] + by + content[at + len(by) :]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (jpeg()[:-2], "is truncated: its last scan has no end marker; --salvage"),
        (jpeg()[: len(jpeg()) // 2], "is truncated: its last scan has no end marker; --salvage"),
        (jpeg()[: len(jpeg()) // 2] + b"\xff\xd9", "is a damaged JPEG: .*premature end"),  # the rest would be gray
        (damaged(jpeg(), len(jpeg()) // 2), "is a damaged JPEG: .*premature end"),
        (damaged(jpeg(), len(jpeg()) // 2, b"\xff\x33"), "is a damaged JPEG: .*premature end"),
        (damaged(jpeg(restart_marker_rows=1), len(jpeg()) // 2, b"\xff\xd3"), "is a damaged JPEG: .*Corrupt"),
    ],
    ids=["no end", "half", "half with an end", "an end inside", "a marker inside", "a restart inside"],
)
def test_a_damaged_jpeg_is_one_line(tmp_path, capfd, content, why):
    (tmp_path / "a.jpg").write_bytes(content)
    reader = open_image(tmp_path / "a.jpg")
    for _ in range(2):  # it is not forgotten
        with pytest.raises(InputError, match=why) as raised:
            [reader.rows(y, min(y + 64, HEIGHT)) for y in range(0, HEIGHT, 64)]
        assert "\n" not in str(raised.value)
    reader.close()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "content",
    [png(2, 8, lines=50), damaged(png(2, 8), 9000, b"x"), damaged(png(2, 8), len(png(2, 8)) - 14, b"xy")],
    ids=["short", "inside", "at the end"],
)
def test_a_damaged_png_is_one_line(tmp_path, capfd, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"is a damaged PNG: [^\n]*$"):
        opened(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


def test_truncated_files_are_salvaged_as_without(tmp_path):
    content = jpeg()
    (tmp_path / "whole.jpg").write_bytes(content)
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    for name, streams in (("whole.jpg", True), ("cut.jpg", None)):
        reader = open_image(tmp_path / name, Selection(salvage=True))
        assert reader.info.streams is streams
        assert reader.info.has_mask is not bool(streams)
        reader.close()


def test_a_file_that_cannot_be_read_is_no_damaged_one(tmp_path, monkeypatch, capfd):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    reader = open_image(tmp_path / "a.jpg")
    reader.rows(0, 8)

    def fail(descriptor, size, offset):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files, "_read_some", fail)
    with pytest.raises(InputError, match=r"cannot be read: Permission denied"):
        reader.rows(0, HEIGHT)
    reader.close()
    assert capfd.readouterr().err == ""


def test_ctrl_c_while_libvips_reads_stops(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    reader = open_image(tmp_path / "a.jpg")
    reader.rows(0, 8)

    def interrupt(descriptor, size, offset):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_read_some", interrupt)
    with pytest.raises(KeyboardInterrupt):
        reader.rows(0, HEIGHT)
    reader.close()


# --- what it costs


def test_settings_of_the_library_are_as_before(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    before = pyvips.concurrency_get(), pyvips.cache_get_max()
    opened(tmp_path / "a.jpg")
    assert (pyvips.concurrency_get(), pyvips.cache_get_max()) == before


PEAK = """
import sys
from tilepipe.image.readers import jpeg, open_image, png, stream
from tilepipe.system.memory import peak_memory, return_memory_at_once, used_memory
import imagecodecs
imagecodecs.jpeg8_decode, imagecodecs.png_decode
stream.LEAST = -1
return_memory_at_once()
before = used_memory()
reader = open_image(sys.argv[1])
info = reader.info
assert info.streams
for y in range(0, info.height, 256):
    rows = reader.rows(y, min(y + 256, info.height))
print(peak_memory() - before, info.decoded_bytes + 256 * info.width * info.pixel_bytes)
"""


REPETITIONS = 3
"""Runs whose least peak is compared: the same file takes 24 to 29 MB, by when threads of libvips return memory."""


def peak_of_decoding(path):
    """Return the growth of a process that decodes a file, and what is stated, bytes."""
    environment = {"VIPS_CONCURRENCY": "64", "PATH": ""}  # as on a machine with many cores
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    peak, stated = map(int, done.stdout.split())
    return peak, stated


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is that of /proc")
@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_memory_is_what_is_stated_and_does_not_grow_with_the_height(tmp_path, name):
    peaks = []
    for height in (5000, 10_000):
        pixels = np.broadcast_to(RGB[:1, :1], (height, 3000, 3)).copy()
        pixels[::3, ::7] += 9
        path = tmp_path / name
        encode = imagecodecs.jpeg8_encode if name == "a.jpg" else imagecodecs.png_encode
        path.write_bytes(encode(pixels, level=90 if name == "a.jpg" else 1))
        measured = [peak_of_decoding(path) for _ in range(REPETITIONS)]
        stated = measured[0][1]
        assert max(peak for peak, _ in measured) <= stated
        peaks.append(min(peak for peak, _ in measured))
    assert stated < pixels.nbytes / 2
    assert peaks[1] < peaks[0] + 3e6


def test_planning_decodes_a_picture_at_most_three_times(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(30, 220, (90, 60, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    Image.fromarray(scene).save(tmp_path / "a.jpg", quality=92)
    times, load = [], pyvips.Image.jpegload_source

    def counted(*given, **how):
        times.append(given)
        return load(*given, **how)

    monkeypatch.setattr(pyvips.Image, "jpegload_source", staticmethod(counted), raising=False)
    reader = open_image(tmp_path / "a.jpg")
    read_sample(reader, 800)
    inspect_reader(reader)
    reader.close()
    assert len(times) <= 3


def test_what_is_inspected_is_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(3)
    scene = np.kron(rng.integers(30, 220, (45, 40, 3)), np.ones((40, 40, 1))).astype(np.uint8)
    Image.fromarray(scene).save(tmp_path / "a.jpg", quality=92)
    found = []
    for least in (-1, 10**12):
        monkeypatch.setattr(stream, "LEAST", least)
        reader = open_image(tmp_path / "a.jpg")
        found.append(inspect_reader(reader))
        reader.close()
    assert found[0].boxes == found[1].boxes
    for one, other in zip(found[0].windows, found[1].windows, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(found[0].large, found[1].large)


def test_without_the_extra_too_little_memory_names_it(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(2, 8, shape=(30000, 30000), lines=1))
    monkeypatch.setitem(sys.modules, "pyvips", None)
    monkeypatch.setattr(analysis, "used_memory", lambda: 300_000_000)  # whatever the tests before have left
    with pytest.raises(DoesNotFitError, match=r"--memory \d+MB, after pip install 'tilepipe\[stream\]', or as"):
        make_plan(path, psf=gaussian(1), memory="1GB", cache=str(tmp_path))
    with pytest.raises(DoesNotFitError, match=r"--memory \d+MB, or as"):  # it would not help
        make_plan(path, psf=gaussian(1), memory="100MB", cache=str(tmp_path))


def test_a_picture_that_streams_is_read_by_one_process(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg())
    tifffile.imwrite(tmp_path / "a.tif", RGB, photometric="rgb")
    reads = {}
    for name in ("a.jpg", "a.tif"):
        plan = library.plan(tmp_path / name, tmp_path / "out.tif", psf=gaussian(1), cache=str(tmp_path / "cache"))
        executor = SimpleNamespace(_plan=plan, _admission=SimpleNamespace(image_is_shared=True))
        reads[name] = Cluster.reads_image(executor)
    assert reads == {"a.jpg": False, "a.tif": True}
