"""Do no harm: what the blur does not explain comes back as it was."""

import numpy as np
import pytest
import tifffile

from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.light import LINEAR, SRGB, Curve, Light
from tilepipe.psf.shapes import delta, gaussian


def run(image, folder, psf, **settings):
    plan = make_plan(image, folder / "out.tif", psf=psf, cache=str(folder / "c"), **settings)
    return plan.run(overwrite=True)


def every_code(dtype, shape):
    top = np.iinfo(dtype).max
    return np.resize(np.arange(top + 1, dtype=dtype), shape)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_delta_psf_is_a_bit_exact_round_trip(tmp_path, dtype, channels):
    shape = (300, 257, channels) if channels > 1 else (300, 257)
    pixels = np.random.default_rng(0).permuted(every_code(dtype, shape), axis=0)
    options = {"photometric": "rgb" if channels > 2 else "minisblack"}
    if channels in (2, 4):
        options["extrasamples"] = [2]
    if channels > 1:
        options["planarconfig"] = "contig"
    tifffile.imwrite(tmp_path / "in.tif", pixels, **options)
    run(tmp_path / "in.tif", tmp_path, delta(), tile=128)
    out = tifffile.imread(tmp_path / "out.tif")
    assert out.dtype == pixels.dtype
    np.testing.assert_array_equal(out, pixels)


def adobe_rgb():
    """A minimal matrix profile with Adobe RGB's curve, gamma 563/256."""
    curve = b"curv" + bytes(4) + (1).to_bytes(4, "big") + (563).to_bytes(2, "big") + bytes(2)
    name = b"desc" + bytes(4) + (10).to_bytes(4, "big") + b"Adobe RGB\0" + bytes(2)
    tags = [(b"desc", name), *((tag, curve) for tag in (b"rTRC", b"gTRC", b"bTRC"))]
    offset, table, body = 132 + 12 * len(tags), b"", b""
    for signature, tag in tags:
        table += signature + (offset + len(body)).to_bytes(4, "big") + len(tag).to_bytes(4, "big")
        body += tag
    size = offset + len(body)
    header = size.to_bytes(4, "big") + bytes(8) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(88)
    return header + len(tags).to_bytes(4, "big") + table + body


def test_an_icc_profile_is_kept_and_used(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 65536, (120, 130, 3), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", iccprofile=adobe_rgb())
    plan = make_plan(tmp_path / "in.tif", tmp_path / "out.tif", psf=delta(), cache=str(tmp_path / "c"))
    assert "Adobe RGB" in plan.info.curve_note
    assert plan.info.light.linear(0, np.array([32768], np.uint16))[0] == pytest.approx(0.5 ** (563 / 256), rel=1e-4)
    plan.run()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages[0].iccprofile == adobe_rgb()
        np.testing.assert_array_equal(tiff.asarray(), pixels)


def test_the_profile_changes_the_restored_pixels(tmp_path):
    """Blur is undone in linear light: with another curve the same codes are restored otherwise."""
    light = Light((SRGB,), "uint16")
    steps = np.where(np.arange(200) // 20 % 2, 0.9, 0.05).astype(np.float32)
    codes = light.encoded(0, np.tile(np.convolve(steps, np.ones(7) / 7, "same").astype(np.float32), (200, 1)), "uint16")
    results = {}
    for name, options in {"srgb": {}, "gamma": {"iccprofile": adobe_rgb().replace(b"rTRC", b"kTRC")}}.items():
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "in.tif", codes, photometric="minisblack", **options)
        run(tmp_path / name / "in.tif", tmp_path / name, gaussian(1.5))
        results[name] = tifffile.imread(tmp_path / name / "out.tif").astype(int)
    assert np.abs(results["srgb"] - results["gamma"]).max() > 257, "more than one code of 8 bits"


def test_float_pictures_keep_values_beyond_white(tmp_path):
    pixels = np.random.default_rng(2).normal(0.5, 1, (90, 100)).astype(np.float32)
    tifffile.imwrite(tmp_path / "in.tif", pixels)
    run(tmp_path / "in.tif", tmp_path, delta())
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)


def test_nan_and_inf_are_counted_and_come_back_as_they_are(tmp_path):
    pixels = np.full((90, 100), 0.5, np.float32)
    pixels[10, 10], pixels[20, 20:22], pixels[30, 30] = np.nan, np.inf, -np.inf
    tifffile.imwrite(tmp_path / "in.tif", pixels)
    report = run(tmp_path / "in.tif", tmp_path, gaussian(1))
    assert report.not_finite == 4
    restored = tifffile.imread(tmp_path / "out.tif")
    lost = ~np.isfinite(pixels)
    np.testing.assert_array_equal(restored[lost], pixels[lost])
    np.testing.assert_allclose(restored[~lost], 0.5, atol=1e-3)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_another_dtype_keeps_the_picture(tmp_path, dtype):
    pixels = np.random.default_rng(3).integers(0, 65536, (64, 64, 4), np.uint16)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb", extrasamples=[2])
    run(tmp_path / "in.tif", tmp_path, delta(), dtype=dtype, dither=False)
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        out = tiff.asarray()
        profile = tiff.pages[0].iccprofile
    assert out.dtype == np.dtype(dtype)
    top = np.iinfo(dtype).max if dtype == "uint8" else 1
    np.testing.assert_allclose(out / top, pixels / 65535, atol=2.1e-3)
    # floats that hold a curve must say so: without a profile they would be read as linear light
    assert (profile is not None) == dtype.startswith("float")


def test_the_output_says_nothing_of_time_or_place(tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (80, 80, 3), np.uint8)
    outputs = []
    for name in ("first place", "zweiter Ört"):
        folder = tmp_path / name
        folder.mkdir()
        tifffile.imwrite(folder / "in.tif", pixels, photometric="rgb")
        run(folder / "in.tif", folder, gaussian(1))
        outputs.append((folder / "out.tif").read_bytes())
    assert outputs[0] == outputs[1]


def test_curves_that_lie_below_each_other_are_told_apart():
    codes = np.arange(256, dtype=np.uint8)
    linear = Light((LINEAR,), "uint8").linear(0, codes)
    gamma = Light((Curve("g", (2.2, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0)),), "uint8").linear(0, codes)
    assert (gamma[1:-1] < linear[1:-1]).all()
