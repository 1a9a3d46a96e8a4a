"""What samples mean: any unit, clipped, not part of the picture, no picture at all."""

import dask.array as da
import numpy as np
import pytest
import scipy.ndimage
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

import tilepipe
from tilepipe import deconvolve
from tilepipe.errors import SettingsError
from tilepipe.image.light import SRGB, Light
from tilepipe.psf.shapes import disk, gaussian, motion
from tilepipe.testing import Scene, degrade, psnr
from tilepipe.testing.shakes import shake

BLUR = gaussian(1.5)
CODES = Light((SRGB,) * 3, "uint8")


@pytest.fixture(scope="module")
def texture():
    """A gray texture, sharp and blurred with noise, (240, 240), 0.25 .. 0.75."""
    sharp = scipy.ndimage.gaussian_filter(np.random.default_rng(0).random((240, 240)), 1)
    sharp = 0.25 + 0.5 * (sharp - sharp.min()) / np.ptp(sharp)
    blurred = scipy.ndimage.gaussian_filter(sharp, 1.5) + np.random.default_rng(1).normal(0, 0.002, sharp.shape)
    return sharp.astype(np.float32), blurred.astype(np.float32)


def through_file(path, pixels, psf=BLUR, photometric=None, extratags=(), **flags):
    """Return what a run makes of `pixels`, written as TIFF."""
    photometric = photometric or ("rgb" if pixels.ndim == 3 else "minisblack")
    extra = {"extrasamples": flags.pop("extrasamples")} if "extrasamples" in flags else {}
    tifffile.imwrite(path / "in.tif", pixels, photometric=photometric, extratags=extratags, metadata=None, **extra)
    flags = {"quality": "fast", "jobs": 1} | flags
    tilepipe.plan(path / "in.tif", path / "out.tif", psf=psf, **flags).run(overwrite=True)
    return tifffile.imread(path / "out.tif", key=0)


# --- units


@pytest.mark.thorough
@settings(max_examples=12)
@given(exponent=st.floats(-30, 30))
def test_a_multiple_of_a_picture_comes_out_as_that_multiple(texture, exponent):
    factor = np.float32(10.0**exponent)
    once = deconvolve(texture[1], BLUR, jobs=1)
    np.testing.assert_allclose(deconvolve(texture[1] * factor, BLUR, jobs=1) / factor, once, rtol=2e-4, atol=2e-5)


def test_a_multiple_of_a_float_file_comes_out_as_that_multiple(texture, tmp_path):
    once = through_file(tmp_path, texture[1])
    counts = through_file(tmp_path, texture[1] * np.float32(1500))
    np.testing.assert_allclose(counts / 1500, once, rtol=2e-4, atol=2e-5)


def test_a_float_picture_with_one_clipped_colour_is_restored_and_resumed(texture, tmp_path):
    picture = np.stack([texture[1]] * 3, -1)
    picture[..., 0] = np.minimum(picture[..., 0], 0.5)
    tifffile.imwrite(tmp_path / "in.tif", picture, photometric="rgb")
    for _ in range(2):
        plan = tilepipe.plan(tmp_path / "in.tif", tmp_path / "out.tif", psf=BLUR, cache=str(tmp_path / "cache"))
        assert plan.recipe.light.white == (0.5, np.inf, np.inf)
        plan.run(overwrite=True)
    assert tifffile.imread(tmp_path / "out.tif").shape == picture.shape


def test_an_underexposed_integer_file_comes_out_as_good_as_its_counts_allow(tmp_path):
    sharp = Scene(300, 300, seed=3).rows(0, 300)[..., 1] * 0.9 + 0.05
    blurred = scipy.ndimage.gaussian_filter(sharp, 1.5)
    seen = np.random.default_rng(1).poisson(blurred * 1500) + np.random.default_rng(2).normal(0, 3, sharp.shape)
    restored = through_file(tmp_path, np.rint(seen.clip(0)).astype(np.uint16)) / 1500
    before = np.rint(seen.clip(0)) / 1500
    inner = np.s_[16:-16, 16:-16]
    assert psnr(restored[inner], sharp[inner]) > psnr(before[inner], sharp[inner]) + 2


def test_the_input_curve_can_be_said(texture, tmp_path):
    linear = np.rint(texture[1] * 65535).astype(np.uint16)
    said = through_file(tmp_path, linear, input_curve="linear") / 65535
    guessed = through_file(tmp_path, linear) / 65535
    inner = np.s_[16:-16, 16:-16]
    assert psnr(said[inner], texture[0][inner]) > psnr(guessed[inner], texture[0][inner]) + 0.3
    power = through_file(tmp_path, np.rint(texture[1] ** (1 / 1.8) * 65535).astype(np.uint16), input_curve="gamma:1.8")
    np.testing.assert_allclose((power / 65535.0) ** 1.8, said, atol=2e-3)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input_curve": "gamma:9"}, r"gamma:9.*0\.2\.\.5"),
        ({"input_curve": "photo"}, "neither linear, srgb, gamma"),
        ({"white": "bright"}, "white is 'bright'"),
        ({"white": "1,2"}, "white is '1,2'"),
        ({"white": "70000"}, "largest uint16 sample is 65535"),
        ({"target": 3.0}, r"target is 3 px.*0.*2"),
    ],
)
def test_what_makes_no_sense_of_the_samples_is_refused_with_value_and_limit(texture, tmp_path, flags, message):
    with pytest.raises(tilepipe.errors.TilepipeError, match=message):
        through_file(tmp_path, np.rint(texture[1] * 60000).astype(np.uint16), **flags)


def test_samples_that_cannot_be_what_they_are_taken_for_stop_with_the_setting_to_look_at(tmp_path):
    noise = np.random.default_rng(0).normal(0.5, 1, (200, 200)).astype(np.float32)
    with pytest.raises(SettingsError, match=r"noise is \d+ % .* --input-curve .* --nodata"):
        through_file(tmp_path, noise)


# --- clipped


def lamps(radius, brightness, ground):
    """A night scene (200, 260, 3), linear light, with two coloured lamps."""
    if ground == "textured":
        scene = Scene(260, 200, seed=7).rows(0, 200) * 0.2 + 0.02
    else:
        scene = np.full((200, 260, 3), 0.08) * np.array([1, 0.95, 0.8])
    y, x = np.mgrid[:200, :260]
    for row, column in ((70, 70), (120, 190)):
        scene[(y - row) ** 2 + (x - column) ** 2 <= radius**2] = brightness * np.array([1, 0.9, 0.7])
    return scene


@pytest.mark.parametrize("solver", ["tv", pytest.param("richardson-lucy", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("ground", [pytest.param("plain", marks=pytest.mark.thorough), "textured"])
@pytest.mark.parametrize(("radius", "brightness"), [(1, 50), (4, 3), (10, 1.2), (30, 5)])
def test_lamps_stay_white_and_get_no_ring(radius, brightness, ground, solver):
    psf = motion(9, 20) if radius == 4 else disk(3) if radius == 10 else gaussian(1.5)
    scene = lamps(radius, brightness, ground)
    seen = np.minimum(degrade(scene, psf, 0.005), 1).astype(np.float32)
    rim = psf.size // 2
    scene = scene[rim:-rim, rim:-rim]
    restored = deconvolve(seen, psf, solver=solver, jobs=1)
    clipped = seen >= 1
    assert restored[clipped].min() >= 1
    beside = scipy.ndimage.binary_dilation(clipped.any(-1), iterations=3 * psf.size // 2) & ~clipped.any(-1)
    floor = scipy.ndimage.minimum_filter(scene, (11, 11, 1))
    assert (floor - restored)[beside].max() < 0.05, "no dark ring"

    def chroma(picture):
        codes = np.stack(
            [CODES.encoded(c, np.ascontiguousarray(picture[..., c], np.float32), "uint8") for c in range(3)], -1
        )
        return codes / 255.0 - codes.mean(-1, keepdims=True) / 255.0

    error = np.abs(chroma(restored) - chroma(scene))[beside]
    assert np.quantile(error, 0.99) < np.quantile(np.abs(chroma(seen) - chroma(scene))[beside], 0.99) + 0.06, (
        "no coloured one"
    )


@pytest.mark.parametrize(("psf", "least"), [(motion(9, 20), 33.0), (shake(13, 1), 30.0)], ids=["motion", "shake"])
def test_dark_bars_on_a_clipped_white_ground_are_restored(psf, least):
    """A white ground is clipped but no lamp: with the bounds for lamps it is 31 and 21 dB."""
    y, x = np.mgrid[:200, :240]
    sharp = np.where(((x % 60 > 8) & (y % 60 > 8))[..., None], 1.0, np.array([0.12, 0.114, 0.096]))
    seen = np.minimum(degrade(sharp, psf, 0.004), 1).astype("f4")
    rim = psf.size // 2
    restored = np.clip(deconvolve(seen, psf, jobs=1), 0, 1)
    assert psnr(restored, sharp[rim:-rim, rim:-rim]) > least


@pytest.mark.thorough
@pytest.mark.parametrize(("radius", "brightness"), [(1, 50), (10, 1.2), (30, 5)])
def test_tiles_that_cut_a_lamp_show_no_seam(radius, brightness):
    psf = gaussian(1.5)
    seen = np.minimum(degrade(lamps(radius, brightness, "textured"), psf, 0.01), 1).astype(np.float32)
    pictures = [deconvolve(seen, psf, tile=tile, jobs=1) for tile in (64, 150)]  # cut in other places, same numbers
    codes = [CODES.encoded(1, np.ascontiguousarray(picture[..., 1]), "float32") for picture in pictures]
    assert np.abs(np.clip(codes[0], 0, 1) - np.clip(codes[1], 0, 1)).max() < 1 / 255


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_what_is_white_in_a_file_stays_white(tmp_path, dtype):
    seen = np.minimum(degrade(lamps(5, 8, "textured"), motion(9, 20), 0.005), 1).astype(np.float32)
    if dtype == "float32":
        pixels, white = seen, 1.0
    else:
        planes = [Light((SRGB,) * 3, dtype).encoded(c, np.ascontiguousarray(seen[..., c]), dtype) for c in range(3)]
        pixels, white = np.stack(planes, -1), np.iinfo(dtype).max
    restored = through_file(tmp_path, pixels, motion(9, 20))
    assert (pixels == white).sum() > 200
    assert (restored[pixels == white] >= white).all()


def stars():
    sky = np.full((240, 240), 0.02)
    sky[40:220:60, 40:220:60] += 100
    return np.minimum(
        scipy.ndimage.gaussian_filter(sky, 2) + np.random.default_rng(0).normal(0, 0.0015, sky.shape), 1
    ).astype(np.float32)


@pytest.mark.parametrize("white", [None, 1.0])
def test_saturated_stars_of_a_float_picture_get_no_black_rings(white):
    restored = deconvolve(stars(), gaussian(2), white=white, jobs=1)
    assert restored.min() > 0.005
    assert restored[stars() >= 1].min() >= 1


def test_the_level_of_white_can_be_said_for_each_colour(tmp_path):
    seen = (np.stack([stars()] * 3, -1) * np.array([900, 1000, 1200])).astype(np.float32)
    restored = through_file(tmp_path, seen, gaussian(2), white="900,1000,1200")
    assert (restored / np.array([900, 1000, 1200])).min() > 0.005


def test_a_hot_pixel_stays_alone(texture):
    hot = texture[1].copy()
    hot[100, 120] = 3.0
    restored, plain = (deconvolve(picture, BLUR, jobs=1) for picture in (hot, texture[1]))
    assert restored[100, 120] == pytest.approx(hot[100, 120], rel=1e-5)
    ring = np.s_[94:107, 114:127]
    difference = np.abs(restored - plain)
    difference[100, 120] = 0
    assert difference[ring].max() < 0.06


# --- not part of the picture


@pytest.mark.parametrize("value", [np.nan, -9999.0, 0.0, -3.4028234663852886e38])
def test_nodata_is_unknown_to_the_solver_and_comes_back(texture, tmp_path, value):
    sharp, blurred = texture
    pixels = blurred.copy()
    pixels[:, :80] = value
    text = repr(float(value)) if np.isfinite(value) else "nan"
    restored = through_file(tmp_path, pixels, extratags=[(42113, 2, 0, text, True)])
    np.testing.assert_array_equal(restored[:, :80], pixels[:, :80])
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert tiff.pages.first.tags[42113].value.strip("\0") == text
    beside, far = np.s_[20:-20, 80:92], np.s_[20:-20, 110:220]

    def error(box):
        return float(np.sqrt(np.mean((restored[box] - sharp[box]) ** 2)))

    assert error(beside) < 1.3 * error(far)


def test_nodata_can_be_said(texture, tmp_path):
    pixels = np.rint(texture[1] * 40000).astype(np.uint16)
    pixels[:, :80] = 7
    restored = through_file(tmp_path, pixels, nodata=7.0, input_curve="linear")
    np.testing.assert_array_equal(restored[:, :80], 7)
    assert np.abs(restored[20:-20, 80:92] / 40000 - texture[0][20:-20, 80:92]).max() < 0.2


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_transparent_pixels_are_unknown_and_come_back_with_their_alpha(texture, tmp_path, kind):
    alpha = np.ones((240, 240))
    alpha[:, :80] = 0
    alpha[:, 80:100] = np.linspace(0.2, 1, 20)
    light = Light((SRGB,), "uint16").encoded(0, texture[1], "float32")
    colour = light * (alpha if kind == "assocalpha" else 1)
    pixels = np.rint(np.dstack([colour] * 3 + [alpha]) * 65535).astype(np.uint16)
    restored = through_file(tmp_path, pixels, extrasamples=[kind], photometric="rgb")
    np.testing.assert_array_equal(restored[:, :80], pixels[:, :80])
    np.testing.assert_array_equal(restored[..., 3], pixels[..., 3])
    if kind == "assocalpha":
        assert (restored[..., :3] <= restored[..., 3:]).all()
    linear = Light((SRGB,), "uint16").linear(0, np.ascontiguousarray(restored[..., 1]))
    assert np.abs(linear - texture[0])[20:-20, 105:125].max() < 0.15


def test_a_mask_page_hides_pixels_and_is_carried_over(texture, tmp_path):
    pixels = np.rint(texture[1] * 255).astype(np.uint8)
    mask = np.full(pixels.shape, 255, np.uint8)
    mask[:, :80] = 0
    pixels[:, :80] = 0
    with tifffile.TiffWriter(tmp_path / "in.tif") as tiff:
        tiff.write(pixels, photometric="minisblack", metadata=None)
        tiff.write(mask > 0, photometric="minisblack", subfiletype=4, metadata=None)
    tilepipe.plan(tmp_path / "in.tif", tmp_path / "out.tif", psf=BLUR, jobs=1).run()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        restored, carried = tiff.pages[0].asarray(), tiff.pages[1]
        assert carried.subfiletype == 4
        np.testing.assert_array_equal(carried.asarray() > 0, mask > 0)
    np.testing.assert_array_equal(restored[:, :80], 0)
    light = Light((SRGB,), "uint8")
    clean = light.linear(0, pixels)[20:-20, 80:92], light.linear(0, restored)[20:-20, 80:92]
    assert clean[1].std() > clean[0].std()


@pytest.mark.parametrize("lazy", [False, True])
def test_arrays_return_what_is_unknown_as_it_is(texture, lazy):
    picture = texture[1].copy()
    picture[:, :60], picture[100, 100], picture[120, 120] = np.nan, np.inf, -np.inf
    picture[:40] = -9999
    given = da.from_array(picture, chunks=100) if lazy else picture
    restored = np.asarray(deconvolve(given, BLUR, nodata=-9999.0, tile=128, jobs=1, quality="fast"))
    lost = ~np.isfinite(picture) | (picture == -9999)
    np.testing.assert_array_equal(restored[lost], picture[lost])
    assert np.abs(restored - texture[0])[60:80, 62:70].max() < 0.2


def test_masked_arrays_come_back_masked(texture):
    masked = np.ma.masked_array(texture[1].copy(), mask=np.zeros(texture[1].shape, bool))
    masked[100:110, 100:110] = -9999
    masked[100:110, 100:110] = np.ma.masked
    restored = deconvolve(masked, BLUR, jobs=1)
    assert isinstance(restored, np.ma.MaskedArray)
    np.testing.assert_array_equal(restored.mask, masked.mask)
    np.testing.assert_array_equal(restored.data[100:110, 100:110], masked.data[100:110, 100:110])
    np.testing.assert_allclose(np.ma.getdata(restored)[180:], deconvolve(texture[1], BLUR, jobs=1)[180:], atol=2e-3)


# --- no picture


@pytest.mark.parametrize("shape", [(20, 64, 64), (64, 64, 5), (64, 64, 300)])
def test_a_stack_is_not_taken_for_colours(shape):
    with pytest.raises(SettingsError, match=r"colours.*at most 4.*stack=True"):
        deconvolve(np.full(shape, 0.5, np.float32), BLUR)


def test_a_stack_is_restored_plane_by_plane_when_asked(texture):
    stack = np.stack([texture[1], texture[1][::-1]])
    restored = deconvolve(stack, BLUR, stack=True, jobs=1)
    np.testing.assert_array_equal(restored[0], deconvolve(texture[1], BLUR, jobs=1))
    np.testing.assert_array_equal(restored[1], deconvolve(texture[1][::-1], BLUR, jobs=1))
