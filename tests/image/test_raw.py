"""Camera raw: a mosaic whose light is known is developed to that light, in colours that the profile states."""

import os
import struct
import subprocess
import sys

import imagecodecs
import numpy as np
import pytest
import tifffile
from picture_files import opened

import tilepipe
from tilepipe.errors import InputError
from tilepipe.events import Note
from tilepipe.image.metadata.exif import EXIF_POINTER, PLACEHOLDERS, Directory, Entry, graft
from tilepipe.image.metadata.profiles import linear_profile, linear_profile_of
from tilepipe.image.readers import open_image
from tilepipe.image.writers.formats import output_beside
from tilepipe.psf.shapes import delta

rawpy = pytest.importorskip("rawpy", reason="rawpy is not installed", exc_type=ImportError)

BYTE, ASCII, SHORT, RATIONAL, SRATIONAL = 1, 2, 3, 5, 10
BLACK, WHITE = 512, 16383
BALANCE = np.array([2.0, 1.0, 1.5])
"""Factors by which the sensor's red, green and blue of a gray scene are multiplied."""

MATRIX = [6844, -996, -856, -3876, 11761, 2396, -593, 1772, 6198]
"""XYZ to the sensor's colours, in ten thousandths, as ColorMatrix1 of a DNG."""

HEIGHT, WIDTH = 60, 80


def mosaic(light):
    """Return what a sensor of the pattern RGGB records of linear light (h, w, 3), balanced, 1 is clipped green."""
    counts = np.rint(BLACK + (WHITE - BLACK) * light / BALANCE).clip(0, WHITE).astype(np.uint16)
    out = counts[..., 1].copy()
    out[::2, ::2], out[1::2, 1::2] = counts[::2, ::2, 0], counts[1::2, 1::2, 2]
    return out


def write_dng(path, light, *, orientation=1, balance=True, matrix=True, placeholders=()):
    """Write a DNG of a mosaic (DNG 1.4)."""
    tags = [
        (50706, BYTE, 4, bytes([1, 4, 0, 0]), True),
        (50707, BYTE, 4, bytes([1, 1, 0, 0]), True),
        (50708, ASCII, 11, "Kamera K-1\0", True),
        (271, ASCII, 7, "Kamera\0", True),
        (272, ASCII, 4, "K-1\0", True),
        (274, SHORT, 1, orientation, True),
        (315, ASCII, 9, "Jane Doe\0", True),
        (33421, SHORT, 2, (2, 2), True),
        (33422, BYTE, 4, bytes([0, 1, 1, 2]), True),
        (50714, SHORT, 1, BLACK, True),
        (50717, SHORT, 1, WHITE, True),
    ]
    if matrix:
        rationals = [part for number in MATRIX for part in (number, 10_000)]
        tags += [(50721, SRATIONAL, 9, rationals, True), (50778, SHORT, 1, 21, True)]
    if balance:
        tags.append((50728, RATIONAL, 3, (1, 2, 1, 1, 2, 3), True))
    tags += placeholders
    tifffile.imwrite(path, mosaic(light), photometric=32803, metadata=None, software=False, extratags=tags)
    return path


def gray(level, shape=(HEIGHT, WIDTH)):
    return np.full((*shape, 3), float(level))


@pytest.mark.parametrize("level", [0.0, 0.01, 0.1, 0.25, 0.5, 0.99])
def test_a_gray_scene_is_gray_and_proportional_to_its_light(tmp_path, level):
    info, rows = opened(write_dng(tmp_path / "a.dng", gray(level)))
    assert (info.kind, info.dtype, info.colours, rows.shape) == ("camera raw", "uint16", 3, (HEIGHT, WIDTH, 3))
    assert info.light.is_linear
    code = 65535 / (WHITE - BLACK)  # one count of the sensor
    np.testing.assert_allclose(rows, 65535 * level / BALANCE.max(), atol=code * BALANCE.max() / 2 + 1)


def test_a_ramp_stays_a_ramp(tmp_path):
    ramp = gray(1) * np.linspace(0.02, 0.9, WIDTH)[None, :, None]
    _, rows = opened(write_dng(tmp_path / "a.dng", ramp))
    inner = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(rows[inner] / 65535 * BALANCE.max(), ramp[inner], atol=0.002)


def test_the_scale_does_not_depend_on_the_brightest_pixel(tmp_path):
    dim, lamp = gray(0.2), gray(0.2)
    lamp[20:24, 20:24] = 5
    _, one = opened(write_dng(tmp_path / "a.dng", dim))
    _, other = opened(write_dng(tmp_path / "b.dng", lamp))
    np.testing.assert_array_equal(one[40:, 40:], other[40:, 40:])


def test_each_colour_is_clipped_at_the_level_that_is_stated(tmp_path):
    info, rows = opened(write_dng(tmp_path / "a.dng", gray(9)))
    assert info.light.white == pytest.approx(BALANCE / BALANCE.max())
    np.testing.assert_allclose(rows[HEIGHT // 2, WIDTH // 2] / 65535, info.light.white, atol=2e-5)
    plan = tilepipe.plan(tmp_path / "a.dng", tmp_path / "o.tif", psf=delta(), cache=str(tmp_path / "c"))
    assert plan.info.light.white == pytest.approx(info.light.white)


def test_red_is_not_clipped_where_green_is(tmp_path):
    _, rows = opened(write_dng(tmp_path / "a.dng", gray(1.6)))
    red, green, _ = rows[HEIGHT // 2, WIDTH // 2] / 65535 * BALANCE.max()
    assert red == pytest.approx(1.6, abs=0.001)
    assert green == pytest.approx(1, abs=0.001)


def test_the_profile_gives_the_colours_that_libraw_computes(tmp_path):
    random = np.random.default_rng(0)
    patches = random.uniform(0.3, 0.5, (6, 8, 3)).repeat(10, 0).repeat(10, 1)
    info, rows = opened(write_dng(tmp_path / "a.dng", patches))
    options = {"gamma": (1, 1), "no_auto_bright": True, "output_bps": 16, "adjust_maximum_thr": 0, "user_flip": 0}
    with rawpy.imread(str(tmp_path / "a.dng")) as raw:
        expected = raw.postprocess(use_camera_wb=True, highlight_mode=rawpy.HighlightMode.Ignore, **options) / 65535
    converted = imagecodecs.cms_transform(
        (rows / 65535).astype(np.float32), info.metadata.icc, linear_profile(3), colorspace="rgb", outcolorspace="rgb"
    )
    inner = np.s_[5::10, 5::10]
    assert np.ptp(expected[inner]) > 0.1
    np.testing.assert_allclose(converted[inner], expected[inner], atol=0.001)


def test_a_profile_of_a_matrix_that_is_none_is_refused():
    with pytest.raises(ValueError, match="cannot be inverted"):
        linear_profile_of(np.zeros((3, 3)))
    assert linear_profile_of(np.eye(3)) == linear_profile(3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pixels_are_as_stored_and_the_tag_is_kept(tmp_path, orientation):
    ramp = gray(1) * np.linspace(0.02, 0.9, WIDTH)[None, :, None]
    info, rows = opened(write_dng(tmp_path / "a.dng", ramp, orientation=orientation))
    assert info.metadata.orientation_number == orientation
    assert rows.shape == (HEIGHT, WIDTH, 3)
    assert (np.diff(rows[30, 10:-10, 1].astype(int)) >= 0).all()


def test_a_run_writes_a_tiff_of_linear_light_with_tags_and_profile(tmp_path):
    path = write_dng(tmp_path / "a.dng", gray(0.3), orientation=6)
    output, events = output_beside(path, None), []
    plan = tilepipe.plan(path, output, psf=delta(), cache=str(tmp_path / "c"), on_event=events.append)
    plan.run()
    assert output == tmp_path / "a-sharp.tif"
    info, rows = opened(output)
    np.testing.assert_array_equal(rows, opened(path)[1])
    assert (info.kind, info.light.is_linear, info.metadata.orientation_number) == ("TIFF", True, 6)
    assert (info.metadata.tags.get(272).data, info.metadata.tags.get(315).data) == (b"K-1\0", b"Jane Doe\0")
    notes = [event.text for event in events if isinstance(event, Note)]
    assert any("developed by LibRaw" in note and "the camera's white balance" in note for note in notes)


def test_exif_of_the_file_is_kept(tmp_path):
    exif = Directory((Entry(33434, RATIONAL, 1, struct.pack("<II", 1, 250)),))
    path = write_dng(tmp_path / "a.dng", gray(0.3), placeholders=[(PLACEHOLDERS[EXIF_POINTER], 4, 1, 0, True)])
    graft(path, {EXIF_POINTER: exif})
    assert opened(path)[0].metadata.directories == {EXIF_POINTER: exif}


def test_without_a_white_balance_it_is_that_of_daylight(tmp_path):
    info, _ = opened(write_dng(tmp_path / "a.dng", gray(0.3), balance=False))
    assert "daylight" in info.notes[0]


def test_a_sensor_without_a_matrix_is_said(tmp_path):
    info, rows = opened(write_dng(tmp_path / "a.dng", gray(0.3), matrix=False))
    assert "not known" in info.notes[0]
    assert info.metadata.icc == linear_profile(3)
    assert np.ptp(rows[20:40, 20:40].reshape(-1, 3), 0).max() < 5


def test_a_sensor_without_colours_is_gray(tmp_path):
    tags = [(50706, BYTE, 4, bytes([1, 4, 0, 0]), True), (50714, SHORT, 1, BLACK, True)]
    tags += [(50708, ASCII, 11, "Kamera K-2\0", True), (50717, SHORT, 1, WHITE, True)]
    samples = np.full((HEIGHT, WIDTH), 4000, np.uint16)
    tifffile.imwrite(tmp_path / "a.dng", samples, metadata=None, software=False, extratags=tags)
    with tifffile.TiffFile(tmp_path / "a.dng", mode="r+b") as tiff:
        tiff.pages.first.tags["PhotometricInterpretation"].overwrite(34892)
    info, rows = opened(tmp_path / "a.dng")
    assert (info.colours, info.light.white, rows.shape) == (1, (1.0,), (HEIGHT, WIDTH, 1))
    np.testing.assert_allclose(rows, 65535 * (4000 - BLACK) / (WHITE - BLACK), atol=1)


def test_a_name_that_is_not_utf_8(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.dng")
    try:
        write_dng(tmp_path / "a.dng", gray(0.3)).rename(path)
    except OSError:
        pytest.skip("the file system allows only names in UTF-8")
    assert opened(path)[1].shape == (HEIGHT, WIDTH, 3)


# --- memory, and what is refused


def test_memory_is_known_before_the_file_is_developed(tmp_path):
    path = write_dng(tmp_path / "a.dng", np.random.default_rng(0).random((1500, 2000, 3)))
    code = (
        "import sys\nfrom tilepipe.image.readers import open_image\n"
        "from tilepipe.system.memory import peak_memory\n"
        "open_image(sys.argv[2]).rows(0, 1)\n"  # loads LibRaw
        "reader, before = open_image(sys.argv[1]), peak_memory()\nreader.rows(0, 1)\n"
        "print(reader.info.decoded_bytes, peak_memory() - before)"
    )
    small = write_dng(tmp_path / "b.dng", gray(0.5))
    done = subprocess.run([sys.executable, "-c", code, path, small], capture_output=True, text=True, check=True)
    counted, used = map(int, done.stdout.split())
    assert 0.5 * counted < used < 1.05 * counted


def test_a_file_cut_anywhere_is_refused(tmp_path, capfd):
    path = write_dng(tmp_path / "a.dng", gray(0.4))
    content = path.read_bytes()
    for end in range(16, len(content), 97):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"a\.dng"):
            opened(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("start", [b"FUJIFILMCCD-RAW ", b"IIRO", b"II*\0\x10\0\0\0CR\2\0", b"\0\0\0\x18ftypcrx "])
def test_what_only_looks_like_a_raw_file_is_refused(tmp_path, start):
    (tmp_path / "a").write_bytes(start + bytes(3000))
    with pytest.raises(InputError, match="LibRaw cannot read"):
        open_image(tmp_path / "a")


def test_without_rawpy_the_extra_is_named(tmp_path):
    path = write_dng(tmp_path / "a.dng", gray(0.3))
    code = "import sys\nsys.modules['rawpy'] = None\nfrom tilepipe.cli.main import main\nmain(['inspect', sys.argv[1]])"
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'tilepipe[raw]'" in done.stderr
