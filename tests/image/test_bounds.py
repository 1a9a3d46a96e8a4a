"""Files that ask for more than they hold: loops, trailers, huge sizes, short reads."""

import struct
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image

from tilepipe.errors import DoesNotFitError, InputError
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.metadata.blocks import from_exif_block
from tilepipe.image.metadata.exif import EXIF_POINTER, GPS_POINTER, INTEROP_POINTER, MOST_KEPT, read_directory
from tilepipe.image.readers import open_image
from tilepipe.image.readers.whole import WholeReader
from tilepipe.psf.shapes import gaussian
from tilepipe.system import files

POINTERS = (EXIF_POINTER, GPS_POINTER, INTEROP_POINTER)


def directory(entries):
    """A little-endian directory of (code, type, count, value or offset)."""
    return struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)


def counted(content):
    """A reader of `content`, and the list of its calls."""
    calls = []

    def read(offset, size):
        calls.append((offset, size))
        return content[offset : offset + size]

    return read, calls


def test_directories_that_point_at_each_other_are_read_once():
    at = (8, 500, 1000, 1500)
    content = bytearray(2000)
    for start in at:
        table = directory([(POINTERS[i % 3], 4, 1, at[i % 4]) for i in range(32)])
        content[start : start + len(table)] = table
    read, calls = counted(bytes(content))
    read_directory(read, 8, "<", big=False)
    assert len(calls) <= 2 * len(at)


def test_a_directory_too_deep_is_dropped_with_its_pointer():
    """An offset into the old file would be wrong in the new one."""
    at = [8, 100, 200, 300, 400]
    content = bytearray(500)
    for start, target in zip(at, [*at[1:], 480], strict=True):
        table = directory([(EXIF_POINTER, 4, 1, target)])
        content[start : start + len(table)] = table
    found = read_directory(counted(bytes(content))[0], 8, "<", big=False)
    while found.children:
        found = found.children[EXIF_POINTER]
    assert found.entries == ()


def test_the_bytes_kept_are_bounded():
    """Many entries that all point at the same large block."""
    block = 1 << 20
    table = directory([(40000 + i, 1, block, 2000) for i in range(120)])
    content = bytes(8) + table + bytes(2000 + block)
    found = read_directory(counted(content)[0], 8, "<", big=False)
    assert sum(len(entry.data) for entry in found.entries) <= MOST_KEPT


def test_a_tiff_whose_next_directory_is_itself(tmp_path):
    entries = [(256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 64), (279, 4, 1, 4096)]
    table = directory(entries)[:-4] + struct.pack("<I", 4104)
    (tmp_path / "loop.tif").write_bytes(struct.pack("<2sHI", b"II", 42, 4104) + bytes(4096) + table)
    with pytest.raises(InputError, match="is a loop"):
        open_image(tmp_path / "loop.tif")


def test_an_exif_block_that_points_at_itself():
    table = directory([(EXIF_POINTER, 4, 1, 8)] * 3 + [(271, 2, 4, 0x41414100)])
    assert from_exif_block(struct.pack("<2sHI", b"II", 42, 8) + table).tags.entries


@pytest.fixture
def jpeg(tmp_path):
    """A JPEG with a restart interval and a thumbnail in its EXIF block, which has markers of its own."""
    pixels = np.random.default_rng(0).integers(0, 255, (64, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "thumbnail.jpg")
    thumbnail = (tmp_path / "thumbnail.jpg").read_bytes()[:60000]
    Image.fromarray(pixels).save(tmp_path / "a.jpg", restart_marker_blocks=2)
    content = (tmp_path / "a.jpg").read_bytes()
    block = b"Exif\0\0" + thumbnail
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + content[2:]


@pytest.mark.parametrize(
    "trailer",
    [b"", b"\0" * 99, b"\xff\xda\0\x08 and a scan", b"\xff\xd8\xff\xd9", b"ftypmp42" + b"\xff\xd9\xff\xda" * 9],
    ids=["none", "zeros", "a scan", "a picture", "a film"],
)
def test_what_follows_the_end_of_a_jpeg_is_not_its_business(tmp_path, jpeg, trailer):
    (tmp_path / "b.jpg").write_bytes(jpeg + trailer)
    reader = open_image(tmp_path / "b.jpg")
    assert reader.rows(0, 64).shape == (64, 80, 3)


def test_a_cut_jpeg_with_markers_in_its_thumbnail_is_truncated(tmp_path, jpeg):
    for cut in range(2, len(jpeg) // 3, 97):
        (tmp_path / "b.jpg").write_bytes(jpeg[:-cut])
        with pytest.raises(InputError, match=r"truncated|damaged"):
            open_image(tmp_path / "b.jpg").rows(0, 64)


def test_pillow_guards_its_other_users_as_before(tmp_path, jpeg):
    (tmp_path / "a.jpg").write_bytes(jpeg)
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    open_image(tmp_path / "a.jpg").close()
    assert limit == Image.MAX_IMAGE_PIXELS


def huge(path, side=30000):
    """A PNG whose header states a size that its data do not have."""
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9))) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return path


@pytest.mark.parametrize("psf", [gaussian(1), None], ids=["given", "blind"])
def test_nothing_is_decoded_that_does_not_fit(tmp_path, monkeypatch, psf):
    def decode(self):
        raise AssertionError("decoded")

    monkeypatch.setattr(WholeReader, "_decoded", decode)
    monkeypatch.setitem(sys.modules, "pyvips", None)  # with it nothing large would be decoded
    with pytest.raises(DoesNotFitError, match=r"2\.7 GB of it for decoding the image.*--memory \d+MB"):
        make_plan(huge(tmp_path / "huge.png"), psf=psf, memory="2GB", cache=str(tmp_path))


def test_a_picture_with_more_pixels_than_allowed_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(WholeReader, "_decoded", lambda self: pytest.fail("decoded"))
    path = huge(tmp_path / "huge.png", 70000)
    with pytest.raises(InputError, match=r"70000 x 70000 px; 4000000000 px are allowed.*--max-pixels 4900000000"):
        make_plan(path, psf=gaussian(1), memory="100GB", cache=str(tmp_path))


def test_a_progressive_jpeg_counts_its_coefficients(tmp_path):
    picture = Image.fromarray(np.zeros((400, 600, 3), np.uint8))
    sizes = {}
    for subsampling in (0, 2):  # 4:4:4, 4:2:0
        for progressive in (False, True):
            path = tmp_path / f"{subsampling}{progressive}.jpg"
            picture.save(path, progressive=progressive, subsampling=subsampling)
            sizes[subsampling, progressive] = open_image(path).info.decoded_bytes - path.stat().st_size
    pixels = 400 * 600
    assert sizes[0, False] == sizes[2, False] == 3 * pixels
    assert sizes[0, True] == (3 + 2 * 3) * pixels
    assert sizes[2, True] == (3 + 2 * 1.5) * pixels


@pytest.mark.parametrize("kind", ["plain", "deflate"])
def test_reads_that_return_less_than_asked(tmp_path, monkeypatch, kind):
    pixels = np.random.default_rng(1).integers(0, 65535, (90, 70, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression=None if kind == "plain" else kind)
    real = files._read_some
    monkeypatch.setattr(files, "_read_some", lambda descriptor, size, at: real(descriptor, min(size, 1000), at))
    reader = open_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(reader.rows(0, 90), pixels)
    reader.close()
