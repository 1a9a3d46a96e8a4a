"""FITS: every kind of sample as its standard defines it, headers that are kept, outputs that astropy reads."""

import json
import subprocess
import sys

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from picture_files import opened
from PIL import Image

import tilepipe
from tilepipe.errors import InputError, SettingsError
from tilepipe.events import Note
from tilepipe.execution.batch import run_images
from tilepipe.image.light import ASSOCIATED_ALPHA, LINEAR, SRGB, Light
from tilepipe.image.metadata.blocks import srgb_profile
from tilepipe.image.metadata.record import read_record
from tilepipe.image.readers import open_image
from tilepipe.image.writers.formats import FORMATS, format_of, output_beside
from tilepipe.psf.shapes import delta

fits = pytest.importorskip("astropy.io.fits", reason="astropy is not installed", exc_type=ImportError)
CompImageHDU = fits.CompImageHDU

Y, X = np.mgrid[:45, :70]
COUNTS = (90 * X + 7 * Y).astype(np.uint16)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.fits"


def stored(path, samples, header=(), **options):
    """Write an image HDU with astropy; `header` is a list of keywords and values."""
    hdu = fits.PrimaryHDU(samples, fits.Header(list(header)), **options)
    hdu.writeto(path, overwrite=True)
    return path


def run(source, output, folder, **options):
    """Write `source` as `output` without any restoration; return the notes."""
    events = []
    plan = tilepipe.plan(source, output, psf=delta(), cache=str(folder / "c"), on_event=events.append, **options)
    plan.run(events.append, overwrite=True)
    return [event.text for event in events if isinstance(event, Note)]


# --- samples


@pytest.mark.parametrize("shape", [(45, 70), (1, 45, 70), (1, 1, 45, 70), (3, 45, 70), (1, 3, 45, 70), (3, 1, 45, 70)])
@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [
        ("uint8", "uint8"),
        ("int8", "float32"),
        ("uint16", "uint16"),
        ("int16", "float32"),
        ("uint32", "float32"),
        ("int32", "float32"),
        ("int64", "float32"),
        ("float32", "float32"),
        ("float64", "float32"),
    ],
)
def test_samples_have_the_values_of_the_file(path, shape, dtype, becomes):
    limits = (-1, 1) if dtype.startswith("f") else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    samples = np.random.default_rng(1).uniform(*limits, shape).astype(dtype)
    info, rows = opened(stored(path, samples))
    planes = samples.reshape(-1, 45, 70)
    assert (info.kind, info.colours, info.extras, info.dtype) == ("FITS", len(planes), 0, becomes)
    np.testing.assert_array_equal(rows, np.moveaxis(planes, 0, -1).astype(becomes))
    assert info.light.curves == (LINEAR,) * len(planes)
    assert bool(info.notes) == (becomes != dtype)


@given(st.integers(0, 44), st.integers(1, 45), st.sampled_from(["uint16", "float32"]), st.sampled_from([1, 3]))
@settings(max_examples=40)
def test_any_band_is_that_of_the_whole(tmp_path_factory, first, count, dtype, planes):
    path = tmp_path_factory.mktemp("fits") / "a.fits"
    stored(path, np.random.default_rng(2).uniform(0, 60_000, (planes, 45, 70)).astype(dtype))
    reader = open_image(path)
    last = min(45, first + count)
    np.testing.assert_array_equal(reader.rows(first, last), reader.rows(0, 45)[first:last])
    reader.close()


def test_scaled_integers_have_their_physical_values(path):
    hdu = fits.PrimaryHDU(COUNTS.astype(np.int16))
    hdu.header["BSCALE"], hdu.header["BZERO"] = 0.5, 10.0
    hdu.writeto(path)
    info, rows = opened(path)
    raw = fits.getdata(path, do_not_scale_image_data=True)
    np.testing.assert_array_equal(rows[..., 0], (0.5 * raw + 10).astype(np.float32))
    assert "written as float32" in info.notes[0]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_blank_samples_are_no_data(path, dtype):
    samples = np.minimum(COUNTS, 120).astype(dtype)
    samples[3, 5:9] = 77
    stored(path, samples)
    with fits.open(path, mode="update", uint=False, do_not_scale_image_data=True) as hdus:
        hdus[0].header["BLANK"] = 77 - (32768 if dtype == "uint16" else 0)
    info, rows = opened(path)
    expected = np.where(samples == 77, np.nan, samples)
    assert info.dtype == "float32"
    np.testing.assert_array_equal(rows[..., 0], expected)


def test_nan_is_kept_to_the_pixel_in_the_output(path, tmp_path):
    samples = (COUNTS / 100).astype(np.float32)
    samples[10:13, 20:25] = np.nan
    run(stored(path, samples), tmp_path / "out.fits", tmp_path)
    np.testing.assert_array_equal(fits.getdata(tmp_path / "out.fits"), samples)


# --- HDUs


@pytest.mark.parametrize(
    ("kind", "tile"),
    [("RICE_1", (1, 70)), ("RICE_1", (20, 30)), ("GZIP_1", (45, 70)), ("GZIP_2", (7, 70)), ("HCOMPRESS_1", (20, 30))],
)
def test_compressed_images(path, kind, tile):
    fits.CompImageHDU(COUNTS, compression_type=kind, tile_shape=tile).writeto(path)
    info, rows = opened(path)
    assert (info.dtype, info.compression) == ("uint16", kind.lower())
    np.testing.assert_array_equal(rows[..., 0], COUNTS)
    assert info.decoded_bytes > 0


def test_a_compressed_image_in_tall_tiles_is_decoded_once(path, monkeypatch):
    samples = np.random.default_rng(3).integers(0, 4000, (600, 50), np.int32).astype(np.uint16)
    CompImageHDU(samples, compression_type="GZIP_1", tile_shape=(600, 50)).writeto(path)
    reader = open_image(path)
    assert reader.info.decoded_bytes > 4 * samples.size
    calls, section = [], CompImageHDU.section

    def counted(hdu):
        calls.append(hdu)
        return section.fget(hdu)

    monkeypatch.setattr(CompImageHDU, "section", property(counted))
    found = np.concatenate([reader.rows(top, min(top + 256, 600)) for top in range(0, 600, 256)])
    reader.close()
    np.testing.assert_array_equal(found[..., 0], samples)
    assert len(calls) == 1


def test_the_first_image_is_read_and_the_others_are_said(path):
    table = fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])])
    hdus = [fits.PrimaryHDU(), table, fits.ImageHDU(COUNTS, name="SCI"), fits.ImageHDU(COUNTS[:9], name="ERR")]
    fits.HDUList(hdus).writeto(path)
    info, rows = opened(path)
    np.testing.assert_array_equal(rows[..., 0], COUNTS)
    assert info.metadata.dropped == ["all but HDU 2 of 4"]
    assert info.metadata.fits.count(b"EXTNAME") == 1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((5, 9, 8), np.uint8), "a cube of 8 x 9 x 5"),
        (np.zeros((3, 3, 9, 8), np.uint8), "a cube of 8 x 9 x 3 x 3"),
        (np.zeros(9, np.float32), "has no image"),
        (None, "has no image"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_sizes(path, samples, message):
    with pytest.raises(InputError, match=message):
        open_image(stored(path, samples))


def damaged(path):
    """Read a file, which may be damaged; return whether it was refused."""
    try:
        opened(path)
    except InputError as error:
        return str(path) in str(error) and "\n" not in str(error)
    return False


@pytest.mark.parametrize("compressed", [False, True])
def test_a_file_cut_anywhere_is_refused(path, compressed):
    hdu = fits.CompImageHDU(COUNTS, compression_type="GZIP_1") if compressed else fits.PrimaryHDU(COUNTS)
    hdu.writeto(path)
    content = path.read_bytes()
    end = len(content) - 2880  # the last block may be filled, or not
    for size in range(9, end, 397):
        path.write_bytes(content[:size])
        assert damaged(path), size


@given(st.lists(st.tuples(st.integers(9, 5760 + 900), st.integers(0, 255)), min_size=1, max_size=12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_file_with_changed_bytes_is_refused_or_read(tmp_path_factory, changes, compressed):
    path = tmp_path_factory.mktemp("fits") / "a.fits"
    samples = COUNTS[:10, :20]
    (fits.CompImageHDU(samples) if compressed else fits.PrimaryHDU(samples)).writeto(path)
    content = bytearray(path.read_bytes())
    for at, value in changes:
        content[at % len(content)] = value
    content[:9] = b"SIMPLE  ="
    path.write_bytes(content)
    damaged(path)


def test_rows_take_the_memory_that_is_counted_and_not_that_of_the_picture(path):
    samples = np.random.default_rng(0).normal(1000, 30, (4000, 2000))
    stored(path, samples)
    code = (
        "import sys\nfrom tilepipe.image.readers import open_image\n"
        "from tilepipe.system.memory import peak_memory\n"
        "reader = open_image(sys.argv[1])\nreader.rows(0, 2)\nbefore = peak_memory()\n"
        "for top in range(0, 4000, 256):\n    reader.rows(top, min(top + 256, 4000))\n"
        "print(reader.info.decoded_bytes, peak_memory() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    counted, used = map(int, done.stdout.split())
    assert 0 < used < counted < samples.nbytes / 2


def test_without_astropy_the_extra_is_named(path):
    stored(path, COUNTS)
    code = (
        "import sys\nsys.modules['astropy'] = None\n"
        "from tilepipe.cli.main import main\nmain(['inspect', sys.argv[1]])\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "pip install 'tilepipe[astro]'" in done.stderr


# --- outputs


@given(
    hnp.arrays("uint16", st.tuples(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 3]))),
    st.sampled_from(["uint8", "uint16", "float32"]),
)
@settings(max_examples=25, deadline=None)
def test_pixels_come_back_from_a_fits(tmp_path_factory, samples, dtype):
    folder = tmp_path_factory.mktemp("fits")
    samples = samples.astype(dtype)
    stored(folder / "a.fits", np.moveaxis(samples, -1, 0))
    run(folder / "a.fits", folder / "b.fits", folder)
    with fits.open(folder / "b.fits") as hdus:
        hdus.verify("exception")
        np.testing.assert_array_equal(np.atleast_3d(hdus[0].data.T), samples.swapaxes(0, 1))
    assert (folder / "b.fits").stat().st_size % 2880 == 0


@pytest.mark.parametrize("planes", [1, 3])
def test_blocks_of_a_wide_picture(path, tmp_path, planes):
    """Wider than the columns that are exported at a time."""
    samples = np.random.default_rng(4).integers(0, 65536, (planes, 300, 4200), np.uint16)
    run(stored(path, samples), tmp_path / "out.fits", tmp_path)
    np.testing.assert_array_equal(fits.getdata(tmp_path / "out.fits").reshape(samples.shape), samples)


HEADER: list[tuple] = [
    ("OBJECT", "M 31", "target"),
    ("EXPTIME", 120.5, "[s]"),
    ("CTYPE1", "RA---TAN"),
    ("CRVAL1", 10.684708),
    ("CRPIX1", 35.5),
    ("CD1_1", -0.000123),
    ("BUNIT", "adu"),
    ("HIERARCH ESO DET DIT", 1.5),
    ("LONGTEXT", "words " * 40),
    ("COMMENT", "a remark"),
    ("HISTORY", "flat-fielded"),
]


def test_the_header_is_kept_except_for_what_describes_the_file(path, tmp_path):
    stored(path, COUNTS, [*HEADER, ("DATAMAX", 99.0)])
    with fits.open(path, mode="update") as hdus:
        hdus[0].add_checksum()
    notes = run(path, tmp_path / "out.fits", tmp_path)
    header = fits.getheader(tmp_path / "out.fits")
    for keyword, value, *comment in HEADER:
        keyword = keyword.removeprefix("HIERARCH ")
        found = [str(line) for line in header[keyword]] if keyword in ("COMMENT", "HISTORY") else [header[keyword]]
        assert value.rstrip() in found if isinstance(value, str) else value in found
        assert not comment or header.comments[keyword] == comment[0]
    assert not {"DATAMAX", "CHECKSUM", "DATASUM"} & set(header)
    assert "note     DATAMAX cannot be carried over and is dropped" in notes


def test_the_record_can_be_read_back(path, tmp_path):
    run(stored(path, COUNTS, HEADER), tmp_path / "one.fits", tmp_path)
    run(tmp_path / "one.fits", tmp_path / "two.fits", tmp_path, priority="deblur")
    one, two = (read_record(opened(tmp_path / name)[0].metadata) for name in ("one.fits", "two.fits"))
    assert one["tilepipe"] == two["tilepipe"]
    assert one != two
    assert read_record(opened(path)[0].metadata) is None
    history = "".join(str(line).ljust(72) for line in fits.getheader(tmp_path / "two.fits")["HISTORY"])
    assert json.loads(history.split("tilepipe ")[-1]) == two


def test_a_record_ends_where_it_ends_and_is_replaced(path, tmp_path):
    run(stored(path, COUNTS, HEADER), tmp_path / "one.fits", tmp_path)
    with fits.open(tmp_path / "one.fits", mode="update") as file:
        file[0].header["HISTORY"] = "flat-fielded by another program"
    first = read_record(opened(tmp_path / "one.fits")[0].metadata)
    assert first["tilepipe"]
    run(tmp_path / "one.fits", tmp_path / "two.fits", tmp_path, priority="deblur")
    history = "".join(str(line) for line in fits.getheader(tmp_path / "two.fits")["HISTORY"])
    assert history.count('"tilepipe":') == 1
    assert "flat-fielded by another program" in history
    assert read_record(opened(tmp_path / "two.fits")[0].metadata) != first


def test_pixels_without_data_have_the_units_of_the_others(path, tmp_path):
    counts = COUNTS.copy()
    counts[2:9, 3:9] = 1000
    run(stored(path, counts), tmp_path / "out.fits", tmp_path, nodata=1000.0, dtype="float32")
    found = fits.getdata(tmp_path / "out.fits")
    assert found[5, 5] == 1000
    assert found[20, 20] > 100


def test_the_header_that_another_format_does_not_hold_is_named(path, tmp_path):
    notes = run(stored(path, COUNTS, HEADER), tmp_path / "out.zarr", tmp_path)
    assert any("the FITS header" in note for note in notes)


def test_an_extension_keeps_the_header_of_its_file(path, tmp_path):
    primary = fits.PrimaryHDU(header=fits.Header([("TELESCOP", "1.2 m"), ("EXPTIME", 1.0)]))
    fits.HDUList([primary, fits.CompImageHDU(COUNTS, fits.Header([("EXPTIME", 2.0)]))]).writeto(path)
    run(path, tmp_path / "out.fits", tmp_path)
    header = fits.getheader(tmp_path / "out.fits")
    assert (header["TELESCOP"], header["EXPTIME"], header.count("EXPTIME")) == ("1.2 m", 2.0, 1)
    assert not [keyword for keyword in header if keyword.startswith("Z") or keyword in ("XTENSION", "TFIELDS")]


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_other_formats_get_a_profile_of_linear_light_and_no_header(path, tmp_path, suffix):
    notes = run(stored(path, COUNTS, HEADER), tmp_path / f"out{suffix}", tmp_path)
    info, rows = opened(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(rows[..., 0], COUNTS)
    assert info.light.is_linear
    assert any("the FITS header (" in note and "cannot be carried over" in note for note in notes)


def test_a_picture_of_another_curve_becomes_linear_light(tmp_path):
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(codes).save(tmp_path / "a.png")
    notes = run(tmp_path / "a.png", tmp_path / "out.fits", tmp_path)
    found = fits.getdata(tmp_path / "out.fits")
    assert found.dtype == np.dtype(">f4")
    np.testing.assert_allclose(found, SRGB.decode(codes / 255), atol=1e-6)
    assert "note     samples are written as linear light in float32: FITS has no other curves" in notes
    run(tmp_path / "a.png", tmp_path / "out.fits", tmp_path, dtype="uint16")
    np.testing.assert_allclose(fits.getdata(tmp_path / "out.fits"), 65535 * SRGB.decode(codes / 255), atol=0.51)


def test_counts_stay_counts_in_floats_and_integers(path, tmp_path):
    run(stored(path, COUNTS), tmp_path / "f.fits", tmp_path, dtype="float32")
    np.testing.assert_allclose(fits.getdata(tmp_path / "f.fits"), COUNTS, rtol=1e-6)
    run(tmp_path / "f.fits", tmp_path / "u.fits", tmp_path, dtype="uint16")
    np.testing.assert_array_equal(fits.getdata(tmp_path / "u.fits"), COUNTS)


def test_what_a_fits_does_not_hold_is_said(tmp_path):
    tags = [(274, 3, 1, 6, True), (315, 2, 9, "Jane Doe\0", True)]
    rgb = np.stack([COUNTS] * 3, -1)
    own = {"metadata": None, "software": False, "iccprofile": srgb_profile(), "extratags": tags}
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb", **own)
    info, _ = opened(tmp_path / "a.tif")
    assert FORMATS["fits"].lost(info.metadata) == ["ICC profile", "resolution", "Orientation", "Artist"]
    tifffile.imwrite(tmp_path / "b.tif", np.dstack([rgb, COUNTS]), photometric="rgb", extrasamples=[ASSOCIATED_ALPHA])
    with pytest.raises(SettingsError, match="no place for alpha"):
        FORMATS["fits"].dtype_for(opened(tmp_path / "b.tif")[0], None)


def test_names_of_outputs(path, tmp_path):
    assert format_of(tmp_path / "a.FIT").name == "FITS"
    assert output_beside(path, None) == tmp_path / "a-sharp.fits"
    stored(path, COUNTS)
    outcomes = run_images([path], None, psf=delta(), cache=str(tmp_path / "c"))
    assert [(outcome.output, outcome.output.is_file()) for outcome in outcomes] == [(tmp_path / "a-sharp.fits", True)]


def test_linear_light_is_known_by_its_curve():
    assert Light((LINEAR,), "uint8").is_linear
    assert not Light((SRGB,), "uint8").is_linear


@pytest.mark.parametrize("suffix", [".png", ".fits"])
def test_counts_beyond_what_an_integer_holds_are_said_to_be_clipped(path, tmp_path, suffix):
    samples = (20.0 * COUNTS).astype(np.float32)
    notes = run(stored(path, samples), tmp_path / f"out{suffix}", tmp_path, dtype="uint16")
    white = 65535 if suffix == ".fits" else 1
    assert f"note     samples above {white} are clipped in uint16; TIFF and FITS hold float32" in notes
