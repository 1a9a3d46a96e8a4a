"""Sixteen bits in eight: the mean is kept, what fits is exact, and parts of a picture fit together."""

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
from hypothesis import given
from picture_files import opened

import tilepipe
from tilepipe.errors import SettingsError
from tilepipe.image.dither import dithered
from tilepipe.image.light import SRGB
from tilepipe.psf.shapes import delta

CODES = hnp.arrays(np.uint16, st.tuples(st.integers(1, 20), st.integers(1, 20)))
PLACES = st.tuples(st.integers(0, 2**31), st.integers(0, 2**31), st.integers(0, 2))


@given(CODES, PLACES)
def test_every_code_goes_to_one_of_its_neighbours(codes, place):
    exact = codes / 257
    found = dithered(codes, *place)
    assert (found >= np.floor(exact)).all()
    assert (found <= np.ceil(exact)).all()


@given(CODES, PLACES, st.data())
def test_parts_fit_together(codes, place, data):
    y, x = (data.draw(st.integers(0, size - 1)) for size in codes.shape)
    whole = dithered(codes, *place)
    np.testing.assert_array_equal(whole[y:, x:], dithered(codes[y:, x:], place[0] + y, place[1] + x, place[2]))


@pytest.mark.parametrize("code", [0, 1, 128, 200, 5000, 33333, 65535 - 100])
@pytest.mark.parametrize("channel", [0, 2])
def test_the_mean_is_kept_without_structure(code, channel):
    error = dithered(np.full((500, 500), code, np.uint16), 1000, 70_000, channel) - code / 257
    spread = 0.5 / 500  # at most: half a code each
    assert abs(error.mean()) < 5 * spread
    assert abs(error.mean(0)).max() < 5 * 0.5 / 500**0.5
    assert abs(error.mean(1)).max() < 5 * 0.5 / 500**0.5
    assert abs((error[1:] * error[:-1]).mean() - error.mean() ** 2) < 5 * 0.25 / 500
    assert abs((error[:, 1:] * error[:, :-1]).mean() - error.mean() ** 2) < 5 * 0.25 / 500


def test_channels_have_thresholds_of_their_own():
    codes = np.full((300, 300), 40_000, np.uint16)
    one, other = (dithered(codes, 0, 0, channel).astype(float) for channel in (0, 1))
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.02


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_an_output_of_8_bits_is_dithered_unless_it_is_refused(tmp_path, dtype):
    ramp = np.linspace(0.4, 0.42, 300)[None].repeat(200, 0)[..., None].repeat(3, 2)
    stored = (ramp * 65535).round().astype(dtype) if dtype == "uint16" else ramp.astype(dtype)
    tifffile.imwrite(tmp_path / "in.tif", stored, photometric="rgb")

    def result(name, **options):
        options |= {"psf": delta(), "cache": str(tmp_path / "c"), "dtype": "uint8", "input_curve": "linear"}
        tilepipe.plan(tmp_path / "in.tif", tmp_path / name, **options).run()
        return opened(tmp_path / name)[1].astype(float)

    plain, dither = result("a.tif", dither=False), result("b.tif")
    exact = 255 * (stored / 65535 if dtype == "uint16" else SRGB.encode(stored.astype(float)))  # floats become sRGB
    np.testing.assert_array_equal(plain, np.rint(exact))
    assert np.abs(dither.mean((0, 2)) - exact[0, :, 0]).max() < 0.2
    assert np.abs(plain.mean((0, 2)) - exact[0, :, 0]).max() > 0.4


def test_8_bits_are_not_dithered(tmp_path):
    codes = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", codes, photometric="rgb")
    for number, dither in enumerate((True, False)):
        output = tmp_path / f"{number}.png"
        tilepipe.plan(tmp_path / "in.tif", output, psf=delta(), cache=str(tmp_path / "c"), dither=dither).run()
        np.testing.assert_array_equal(opened(output)[1], codes)


@pytest.mark.parametrize(
    ("name", "number"), [("none", 1), ("deflate", 8), ("lzw", 5), ("zstd", 50000)], ids=lambda value: str(value)
)
def test_the_compression_of_a_tiff_can_be_chosen(tmp_path, name, number):
    codes = np.random.default_rng(0).integers(0, 256, (70, 80, 3), np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", codes, photometric="rgb", compression="lzw" if number != 5 else None)
    options = {"psf": delta(), "cache": str(tmp_path / "c"), "compression": name}
    tilepipe.plan(tmp_path / "in.tif", tmp_path / "out.tif", **options).run()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages[0].compression == number
        np.testing.assert_array_equal(tiff.asarray(), codes)
    with pytest.raises(SettingsError, match=rf"compression is {name}; it is that of a TIFF, the output is a PNG"):
        tilepipe.plan(tmp_path / "in.tif", tmp_path / "out.png", **options)
