"""Truncated files: refused, or with --salvage restored as far as they go; what is missing is masked."""

import io
import struct
import tracemalloc
import zlib

import hypothesis.strategies as st
import imagecodecs
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner
from hypothesis import given, settings
from picture_files import opened
from PIL import Image
from scipy.ndimage import gaussian_filter

import tilepipe
from tilepipe.cli.main import tilepipe as command
from tilepipe.errors import InputError
from tilepipe.events import Note
from tilepipe.execution.batch import run_images
from tilepipe.image.light import MASK
from tilepipe.image.linearise import hidden
from tilepipe.image.readers import open_image
from tilepipe.image.selection import WHOLE, Selection
from tilepipe.psf.shapes import delta, gaussian

SALVAGE = Selection(salvage=True)
HEIGHT, WIDTH = 203, 310
Y, X = np.mgrid[:HEIGHT, :WIDTH]
RGB = np.stack([X * Y // 200 % 256, (3 * X + Y) % 256, (X // 3 + 5 * Y) % 256], -1).astype(np.uint8)
RGB16 = RGB.astype(np.uint16) * 257
CUTS = (0.2, 0.5, 0.9)


def tiff(**how):
    def content():
        file = io.BytesIO()
        tifffile.imwrite(file, RGB16, photometric="rgb", metadata=None, **how)
        return file.getvalue()

    return content


def planar():
    file = io.BytesIO()
    tifffile.imwrite(file, np.moveaxis(RGB16, 2, 0), photometric="rgb", planarconfig="separate", metadata=None)
    return file.getvalue()


def pillow(kind, mode="RGB", **how):
    def content():
        file = io.BytesIO()
        Image.fromarray(RGB).convert(mode).save(file, kind, **how)
        return file.getvalue()

    return content


def png16():
    return imagecodecs.png_encode(RGB16)


ROWS = {
    "TIFF, one strip": tiff(),
    "TIFF, strips": tiff(rowsperstrip=10),
    "TIFF, LZW": tiff(rowsperstrip=10, compression="lzw"),
    "TIFF, BigTIFF, big-endian": tiff(rowsperstrip=7, bigtiff=True, byteorder=">"),
    "PNG": pillow("PNG"),
    "PNG, palette": pillow("PNG", "P"),
    "PNG, 1 bit": pillow("PNG", "1"),
    "PNG, alpha": pillow("PNG", "RGBA"),
    "PNG, 16 bits": png16,
    "JPEG": pillow("JPEG"),
    "JPEG, 4:4:4": pillow("JPEG", subsampling=0),
    "JPEG, 4:2:2": pillow("JPEG", subsampling=1),
    "JPEG, restarts": pillow("JPEG", restart_marker_blocks=7),
    "JPEG, own codes": pillow("JPEG", optimize=True),
    "JPEG, gray": pillow("JPEG", "L"),
    "JPEG, CMYK": pillow("JPEG", "CMYK"),
}
"""Files whose pixels are stored row by row."""


def cut(path, content, share):
    path.write_bytes(content[: int(share * len(content))])
    return path


def salvaged(path):
    """Return description, samples without the mask, and which pixels are marked as present: all without a mask."""
    reader = open_image(path, SALVAGE)
    try:
        rows = reader.rows(0, reader.info.height)
        if not reader.info.has_mask:
            return reader.info, rows, np.ones(rows.shape[:2], bool)
        return reader.info, rows[:, :, :-1], rows[:, :, -1] != 0
    finally:
        reader.close()


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("kind", ROWS)
def test_rows_that_are_in_the_file_are_those_of_the_whole_picture(tmp_path, kind, share):
    content = ROWS[kind]()
    (tmp_path / "whole").write_bytes(content)
    _, whole = opened(tmp_path / "whole")
    info, rows, present = salvaged(cut(tmp_path / "cut", content, share))
    number = int(present.all(1).sum())
    assert present[:number].all()
    assert not present[number:].any()
    np.testing.assert_array_equal(rows[:number], whole[:number])
    assert info.extra_kinds[-1] == MASK
    assert info.selection == SALVAGE
    assert info.notes[-1].startswith(f"the file is truncated: rows {number}..{HEIGHT - 1} of 0..{HEIGHT - 1} are incom")
    if kind not in ("PNG, palette", "PNG, 1 bit", "PNG, alpha"):  # rows of these are compressed to very different sizes
        assert abs(number / HEIGHT - share) < 0.15, "hardly more is masked than is missing"


@pytest.mark.parametrize("kind", ROWS)
def test_a_truncated_file_is_refused_with_the_way_out(tmp_path, kind):
    with pytest.raises(InputError, match=r"is truncated: .*; --salvage restores the part that is there") as error:
        opened(cut(tmp_path / "cut", ROWS[kind](), 0.6))
    assert error.value.exit_code == 3


@pytest.mark.parametrize("kind", ROWS)
def test_a_whole_file_is_read_as_without_salvage(tmp_path, kind):
    (tmp_path / "whole").write_bytes(ROWS[kind]())
    info, whole = opened(tmp_path / "whole")
    reader = open_image(tmp_path / "whole", SALVAGE)
    np.testing.assert_array_equal(reader.rows(0, HEIGHT), whole)
    assert (reader.info.selection, reader.info.extra_kinds) == (WHOLE, info.extra_kinds)
    reader.close()


@pytest.mark.parametrize("kind", ROWS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_a_file_cut_anywhere_is_a_picture_or_an_input_error(tmp_path_factory, kind, data):
    content = ROWS[kind]()
    path = tmp_path_factory.mktemp("cut") / "a"
    (path.parent / "whole").write_bytes(content)
    path.write_bytes(content[: data.draw(st.integers(16, len(content) - 1))])
    try:
        _, rows, present = salvaged(path)
    except InputError as error:
        message = str(error)
    else:
        message = "one line"
        np.testing.assert_array_equal(rows[present], opened(path.parent / "whole")[1][present])
    assert "\n" not in message


@pytest.mark.parametrize("share", CUTS)
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_tiles_that_are_missing_are_masked_one_by_one(tmp_path, compression, share):
    content = tiff(tile=(64, 64), compression=compression)()
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages.first
        ends = [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)]
    _, rows, present = salvaged(cut(tmp_path / "cut", content, share))
    across = -(-WIDTH // 64)
    for index, end in enumerate(ends):
        top, left = index // across * 64, index % across * 64
        assert (present[top : top + 64, left : left + 64] == (end <= int(share * len(content)))).all()
    np.testing.assert_array_equal(rows[present], RGB16[present])


def test_a_planar_tiff_without_its_last_plane_has_no_complete_pixel(tmp_path):
    with pytest.raises(InputError, match="no complete row"):
        salvaged(cut(tmp_path / "cut", planar(), 0.6))
    _, rows, present = salvaged(cut(tmp_path / "cut", planar(), 0.9))
    assert 0.6 < present.mean() < 0.8
    np.testing.assert_array_equal(rows[present], RGB16[present])


def test_a_mask_page_is_combined_with_what_is_missing(tmp_path):
    """The page is there, the picture behind it is cut: as tifffile writes neither so, the bytes are moved."""
    mask = X < 100
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(RGB16, photometric="rgb", metadata=None, rowsperstrip=10)
        file.write(mask, photometric="minisblack", subfiletype=4, metadata=None)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offsets = file.pages.first.tags["StripOffsets"]
        counts, values = file.pages.first.databytecounts, list(offsets.value)
        content = bytearray((tmp_path / "a.tif").read_bytes())
        values[-1] = len(content) - counts[-1] // 2
        where = offsets.valueoffset + 4 * (len(values) - 1)
        content[where : where + 4] = struct.pack("<I", values[-1])
    (tmp_path / "a.tif").write_bytes(content)
    info, _, present = salvaged(tmp_path / "a.tif")
    assert (info.extras, info.mask_is_made) == (1, False)
    assert (present == (mask & (Y < 201))).all()


def test_the_header_alone_is_no_picture(tmp_path):
    for kind, size in (("TIFF, one strip", 300), ("PNG", 60), ("JPEG", 700)):
        (tmp_path / "a").write_bytes(ROWS[kind]()[:size])
        with pytest.raises(InputError, match="truncated"):
            salvaged(tmp_path / "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [(pillow("JPEG", progressive=True), "progressive"), (png16, None)],
    ids=["progressive JPEG", "interlaced PNG"],
)
def test_files_whose_rows_are_spread_over_them_are_refused(tmp_path, content, message):
    content = bytearray(content())
    if message is None:
        content[28] = 1  # the interlace method, and its checksum
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    with pytest.raises(InputError, match=message or "interlaced"):
        salvaged(cut(tmp_path / "a", bytes(content), 0.9))


def test_only_the_end_marker_is_missing(tmp_path):
    (tmp_path / "a").write_bytes(pillow("JPEG")()[:-2])
    info, rows, present = salvaged(tmp_path / "a")
    assert present.all()
    assert info.notes == ("the file is truncated behind its last row",)
    np.testing.assert_array_equal(rows, imagecodecs.jpeg8_decode(pillow("JPEG")()))


def test_rows_behind_a_wrong_checksum_are_missing(tmp_path):
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in RGB))
    parts = [packed[at : at + 4000] for at in range(0, len(packed), 4000)]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    chunks = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)),
        *(chunk(b"IDAT", p) for p in parts),
    ]
    damaged = bytearray(chunks[4])
    damaged[2000] ^= 1
    for index, changed in ((len(chunks), b""), (4, bytes(damaged))):
        content = b"".join([*chunks[:index], changed, *chunks[index + 1 :]])
        (tmp_path / "a").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
        _, rows, present = salvaged(tmp_path / "a")
        assert present.all() if not changed else 0 < present.mean() < 0.9
        np.testing.assert_array_equal(rows[present], RGB[present])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF, LZW"])
def test_missing_pixels_are_hidden_from_the_solver(tmp_path, kind):
    info, rows, present = salvaged(cut(tmp_path / "cut", ROWS[kind](), 0.5))
    samples = np.concatenate([rows, present[:, :, None].astype(rows.dtype)], -1)
    np.testing.assert_array_equal(hidden(np.moveaxis(samples, 2, 0), info.light), ~present)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_no_more_memory_is_taken_than_is_counted(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1500, 3), np.uint8)
    encode = imagecodecs.png_encode if kind == "PNG" else imagecodecs.jpeg8_encode
    cut(tmp_path / "cut", encode(noise), 0.8)
    tracemalloc.start()
    reader = open_image(tmp_path / "cut", SALVAGE)
    reader.rows(0, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    reader.close()
    assert noise.nbytes < peak < reader.info.decoded_bytes + 1_000_000


# --- whole runs


@pytest.fixture(scope="module")
def blurred():
    """A picture of edges in gray, 16 bits."""
    y, x = np.mgrid[:330, :260]
    codes = 20_000 + 20_000 * ((x // 21 + y // 17) % 2) + np.random.default_rng(0).normal(0, 100, x.shape)
    return gaussian_filter(codes, 1.2).astype(np.uint16)


@pytest.mark.parametrize("share", CUTS)
def test_good_rows_are_restored_as_in_the_whole_picture_and_missing_ones_are_not(tmp_path, blurred, share):
    tifffile.imwrite(tmp_path / "whole.tif", blurred, metadata=None, rowsperstrip=10)
    cut(tmp_path / "cut.tif", (tmp_path / "whole.tif").read_bytes(), share)
    options = {"psf": gaussian(1.2), "quality": "fast", "cache": str(tmp_path / "cache"), "halo": 32}
    tilepipe.plan(tmp_path / "whole.tif", tmp_path / "a.tif", **options).run()
    events = []
    plan = tilepipe.plan(tmp_path / "cut.tif", tmp_path / "b.tif", salvage=True, on_event=events.append, **options)
    plan.run()
    first = int(share * 330) - 10
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("the file is truncated: rows" in note and "..329 of 0..329 are incomplete" in note for note in notes)
    whole, part = tifffile.imread(tmp_path / "a.tif"), tifffile.imread(tmp_path / "b.tif", key=0)
    mask = tifffile.imread(tmp_path / "b.tif", key=1)
    good = int(mask[:, 0].sum())
    assert first <= good < first + 20
    assert (mask == (np.arange(330) < good)[:, None]).all()
    np.testing.assert_array_equal(part[good:], salvaged(tmp_path / "cut.tif")[1][good:, :, 0])  # as they were read
    assert (part[good + 1 :] == 0).all()
    far = good - 24
    difference = np.abs(part[:far].astype(float) - whole[:far])
    change = np.abs(whole.astype(float) - blurred)[:far]
    assert difference.mean() < 0.05 * change.mean()
    assert part[: good - 4].min() > 10_000, "black does not spread into the good rows"


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_truncated_jpeg_is_written_in_every_format(tmp_path, suffix):
    cut(tmp_path / "cut.jpg", pillow("JPEG", quality=95)(), 0.5)
    out = tmp_path / f"out{suffix}"
    tilepipe.plan(tmp_path / "cut.jpg", out, psf=delta(), salvage=True, cache=str(tmp_path / "cache")).run()
    info, rows = opened(out)
    assert info.extra_kinds == ((MASK,) if suffix == ".tif" else ())
    _, expected, present = salvaged(tmp_path / "cut.jpg")
    if suffix == ".jpg":
        assert np.abs(rows.astype(int) - expected)[present].mean() < 3
    else:
        np.testing.assert_array_equal(rows[:, :, :3], expected)


def test_the_command_line_names_the_way_out_and_takes_it(tmp_path):
    path = cut(tmp_path / "cut.jpg", pillow("JPEG", quality=95)(), 0.5)
    refused = CliRunner().invoke(command, ["psf", "estimate", str(path), "-o", str(tmp_path / "psf.tif")])
    assert isinstance(refused.exception, InputError)
    assert "--salvage" in str(refused.exception)
    shown = CliRunner().invoke(command, ["inspect", str(path), "--salvage", "--json"])
    assert shown.exit_code == 0, shown.output
    assert "are incomplete; what is missing is masked" in shown.output


def test_a_truncated_file_among_several_is_restored_with_the_others(tmp_path, blurred):
    tifffile.imwrite(tmp_path / "a.tif", blurred, metadata=None)
    cut(tmp_path / "b.tif", (tmp_path / "a.tif").read_bytes(), 0.5)
    images, options = [tmp_path / "a.tif", tmp_path / "b.tif"], {"psf": delta(), "cache": str(tmp_path / "cache")}
    assert [one.code for one in run_images(images, tmp_path / "without", **options)] == [0, 3]
    assert [one.code for one in run_images(images, tmp_path / "with", salvage=True, **options)] == [0, 0]


def test_a_file_that_was_completed_is_restored_again(tmp_path, blurred):
    tifffile.imwrite(tmp_path / "whole.tif", blurred, metadata=None)
    content = (tmp_path / "whole.tif").read_bytes()
    options = {"psf": gaussian(1.2), "quality": "fast", "cache": str(tmp_path / "cache"), "salvage": True, "halo": 32}

    def run(content):
        (tmp_path / "a.tif").write_bytes(content)
        tilepipe.plan(tmp_path / "a.tif", tmp_path / "out.tif", **options).run(overwrite=True)
        return tifffile.imread(tmp_path / "out.tif", key=0)

    assert (run(content[: len(content) // 2])[-50:] == 0).all()
    completed = run(content)
    tilepipe.plan(tmp_path / "whole.tif", tmp_path / "b.tif", **(options | {"salvage": False})).run()
    np.testing.assert_array_equal(completed, tifffile.imread(tmp_path / "b.tif"))


def test_impossible_sampling_factors_are_one_line(tmp_path):
    content = bytearray(imagecodecs.jpeg_encode(np.full((40, 50, 3), 90, np.uint8)))
    frame = content.index(b"\xff\xc0")
    content[frame + 11] = 0  # of the first component
    (tmp_path / "a.jpg").write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"sampling factors are .* 1 to 4 are possible|damaged"):
        open_image(tmp_path / "a.jpg", Selection(salvage=True))
