"""OME-Zarr as an output: the samples given, levels that are averages in linear light, metadata that validate."""

import itertools
import json
import tracemalloc

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from picture_files import opened

from tilepipe.errors import SettingsError
from tilepipe.image.info import ImageInfo
from tilepipe.image.light import ASSOCIATED_ALPHA, LINEAR, MASK, SRGB, UNASSOCIATED_ALPHA, Light, gamma
from tilepipe.image.metadata.blocks import Metadata, srgb_profile
from tilepipe.image.metadata.exif import Directory, Entry
from tilepipe.image.metadata.record import read_record
from tilepipe.image.writers.formats import FORMATS
from tilepipe.image.writers.omezarr import level_shapes
from tilepipe.image.writers.output import BLOCK_ROWS, Output

OME_ZARR = FORMATS["ome-zarr"]
DTYPES = ["uint8", "uint16", "float16", "float32"]


def info_for(pixels, kinds=(), curve=SRGB, metadata=None):
    height, width, channels = pixels.shape
    colours = channels - len(kinds)
    dtype = str(pixels.dtype)
    light = Light((curve,) * colours, dtype, unit=0.3, extras=kinds)
    return ImageInfo(
        None, "TIFF", height, width, colours, len(kinds), dtype, "", "", 0, metadata or Metadata(), light, "", kinds
    )


def written(path, pixels, kinds=(), columns=10_000, record=b"", **options):
    """Write `pixels` in blocks of `columns` columns."""
    info = info_for(pixels, kinds, **options)
    blocks = (
        pixels[top : top + BLOCK_ROWS, left : left + columns]
        for top in range(0, info.height, BLOCK_ROWS)
        for left in range(0, info.width, columns)
    )
    OME_ZARR.write(path, Output(info, info.dtype, blocks, record))
    return path


def samples(shape, dtype, seed=0):
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.normal(0.4, 0.3, shape).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


def ome_of(path):
    return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]


def levels(path):
    """The pixels of each level, (h, w, channels)."""
    group = zarr.open_group(path, mode="r")
    arrays = [np.asarray(group[level["path"]]) for level in ome_of(path)["multiscales"][0]["datasets"]]
    return [array[..., None] if array.ndim == 2 else np.moveaxis(array, 0, -1) for array in arrays]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kinds", [(), (UNASSOCIATED_ALPHA,), (ASSOCIATED_ALPHA,), (0,)])
@pytest.mark.parametrize("colours", [1, 3])
def test_samples_and_kinds_of_channels_come_back(tmp_path, dtype, colours, kinds):
    pixels = samples((300, 530, colours + len(kinds)), dtype)
    info, rows = opened(written(tmp_path / "a.zarr", pixels, kinds))
    np.testing.assert_array_equal(rows, pixels)
    assert (info.kind, info.dtype, info.colours, info.extra_kinds) == ("OME-Zarr", dtype, colours, kinds)


@given(st.data())
@settings(max_examples=30)
def test_any_picture_in_blocks_of_any_width_comes_back(tmp_path_factory, data):
    channels = data.draw(st.sampled_from([1, 3, 4]))
    shape = (data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40)), channels)
    pixels = data.draw(hnp.arrays(data.draw(st.sampled_from(DTYPES)), shape))
    pixels = np.tile(pixels, (data.draw(st.sampled_from([1, 17])), data.draw(st.sampled_from([1, 29])), 1))
    columns = data.draw(st.sampled_from([256, 512, 768, 10_000]))
    path = written(tmp_path_factory.mktemp("any") / "a.zarr", pixels, (UNASSOCIATED_ALPHA,) * (channels == 4), columns)
    np.testing.assert_array_equal(opened(path)[1], pixels)


def exact_means(pixels):
    """Means of 2 x 2, at odd edges of the pixels that are there, in float64."""
    height, width, _ = pixels.shape
    sums = np.zeros((-(-height // 2), -(-width // 2), pixels.shape[2]))
    counts = np.zeros((*sums.shape[:2], 1))
    for y in (0, 1):
        for x in (0, 1):
            part = pixels[y::2, x::2]
            sums[: part.shape[0], : part.shape[1]] += part
            counts[: part.shape[0], : part.shape[1]] += 1
    return sums / counts


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("curve", [LINEAR, SRGB, gamma(1.8)], ids=lambda curve: curve.name)
def test_each_level_is_the_mean_of_the_one_before_in_linear_light(tmp_path, dtype, curve):
    shape = (1031, 513) if curve == SRGB else (512, 517)
    pixels = samples((*shape, 2), dtype)
    if np.dtype(dtype).kind == "f":
        pixels = np.abs(pixels)
    found = levels(written(tmp_path / "a.zarr", pixels, (UNASSOCIATED_ALPHA,), 768, curve=curve))
    assert [level.shape[:2] for level in found] == level_shapes(*shape)
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    for larger, smaller in itertools.pairwise(found):
        light = exact_means(curve.decode(larger[..., :1] / np.float64(top)))
        alpha = exact_means(larger[..., 1:].astype(float))
        expected = np.concatenate([curve.encode(light) * top, alpha], -1)
        if np.dtype(dtype).kind == "u":
            assert np.abs(smaller - expected).max() <= 0.5 + 1e-2
        else:
            np.testing.assert_allclose(smaller, expected, rtol=1e-3 if dtype == "float16" else 1e-5, atol=1e-5)


def test_levels_are_added_until_the_smaller_side_is_below_512():
    assert level_shapes(511, 9000) == [(511, 9000)]
    assert level_shapes(512, 9001) == [(512, 9001), (256, 4501)]
    assert level_shapes(2049, 2049)[-1] == (257, 257)


def test_a_gap_of_nan_stays_in_all_levels(tmp_path):
    pixels = np.full((600, 600, 1), 0.25, np.float32)
    pixels[:300, :300], pixels[400, 400] = np.nan, 3e38
    found = levels(written(tmp_path / "a.zarr", pixels, curve=LINEAR))
    assert np.isnan(found[1][:150, :150]).all()
    assert found[1][200, 200] == pytest.approx(7.5e37)
    assert np.delete(found[1][150:, 150:].ravel(), 50 * 150 + 50).max() == 0.25


@pytest.mark.parametrize(
    ("colours", "kinds", "dtype"),
    [
        # the type is one word of it
        pytest.param(*case, marks=() if case[2] == "uint16" or case[:2] == (3, ()) else pytest.mark.thorough)
        for case in itertools.product((1, 3), ((), (UNASSOCIATED_ALPHA,)), DTYPES)
    ],
)
def test_the_metadata_validate(tmp_path, dtype, colours, kinds):
    yaozarrs = pytest.importorskip("yaozarrs", reason="yaozarrs validates OME-Zarr: pip install 'tilepipe[dev]'")
    path = written(tmp_path / "a.ome.zarr", samples((600, 1100, colours + len(kinds)), dtype), kinds)
    yaozarrs.validate_zarr_store(str(path))
    image = yaozarrs.validate_ome_object(ome_of(path)).multiscales[0]
    assert [axis.name for axis in image.axes] == (["y", "x"] if colours + len(kinds) == 1 else ["c", "y", "x"])
    assert len(image.datasets) == 2


def test_channels_have_names_colours_and_ranges(tmp_path):
    path = written(tmp_path / "a.zarr", samples((20, 30, 4), "uint16"), (UNASSOCIATED_ALPHA,))
    channels = ome_of(path)["omero"]["channels"]
    assert [one["label"] for one in channels] == ["red", "green", "blue", "alpha"]
    assert [one["color"] for one in channels] == ["FF0000", "00FF00", "0000FF", "FFFFFF"]
    assert [one["active"] for one in channels] == [True, True, True, False]
    assert channels[0]["window"] == {"min": 0, "max": 65535, "start": 0, "end": 65535}


def description(text):
    return Directory((Entry(270, 2, len(text) + 1, text + b"\0"),))


PIXEL = b'<OME><Pixels PhysicalSizeX="%s" PhysicalSizeY="2" PhysicalSizeXUnit="nm" PhysicalSizeYUnit="mm"/></OME>'


@pytest.mark.parametrize(
    ("metadata", "micrometres"),
    [
        (Metadata(resolution=((300, 1), (600, 2), 2)), (84.66666667, 84.66666667)),
        (Metadata(resolution=((50_000, 1), (40_000, 1), 3)), (0.25, 0.2)),
        (Metadata(tags=description(PIXEL % b"325"), resolution=((1, 1), (1, 1), 2)), (2000, 0.325)),
        (Metadata(tags=description(PIXEL % b"0"), resolution=((1, 1), (1, 1), 3)), (10_000, 10_000)),
        (Metadata(tags=description(b'<OME><Pixels PhysicalSizeX="0.5" PhysicalSizeY="1e-1"/></OME>')), (0.1, 0.5)),
        (Metadata(tags=description(b"A street, PhysicalSizeX, 5")), None),
        (Metadata(resolution=((3, 1), (4, 1), 1)), None),
        (Metadata(resolution=((0, 1), (4, 1), 2)), None),
    ],
)
def test_the_size_of_a_pixel_becomes_the_scale_and_comes_back(tmp_path, metadata, micrometres):
    path = written(tmp_path / "a.zarr", samples((600, 700, 3), "uint8"), metadata=metadata)
    image = ome_of(path)["multiscales"][0]
    first, second = (level["coordinateTransformations"] for level in image["datasets"])
    height, width = micrometres or (1, 1)
    assert first == [{"type": "scale", "scale": pytest.approx([1, height, width])}]
    assert second[0]["scale"] == pytest.approx([1, 2 * height, 2 * width])
    assert second[1] == {"type": "translation", "translation": pytest.approx([0, height / 2, width / 2])}
    assert [axis.get("unit") for axis in image["axes"]] == [None] + ["micrometer" if micrometres else None] * 2
    resolution = opened(path)[0].metadata.resolution
    if micrometres is None:
        assert resolution is None
    else:
        (x, x_parts), (y, y_parts), unit = resolution
        assert (1e4 * y_parts / y, 1e4 * x_parts / x, unit) == pytest.approx((*micrometres, 3))


def test_the_record_can_be_read_back(tmp_path):
    record = {"lambda": 0.001, "tilepipe": 5}
    pixels = samples((20, 20, 3), "uint8")
    with_one = opened(written(tmp_path / "a.zarr", pixels, record=json.dumps(record).encode()))[0]
    assert read_record(with_one.metadata) == record
    assert read_record(opened(written(tmp_path / "b.zarr", pixels))[0].metadata) is None


def test_what_is_not_written_is_named():
    tags = Directory((Entry(274, 3, 1, b"\6\0"), Entry(315, 2, 5, b"Jane\0")))
    metadata = Metadata(icc=srgb_profile(), xmp=b"<x/>", resolution=((2, 1), (1, 1), 1), tags=tags)
    assert OME_ZARR.lost(metadata) == ["ICC profile", "XMP", "Orientation", "Artist", "aspect ratio"]
    assert OME_ZARR.lost(Metadata(resolution=((300, 1), (600, 1), 2))) == []
    assert OME_ZARR.lost(Metadata(resolution=((1, 1), (2, 2), 1))) == []


@pytest.mark.parametrize(
    ("channels", "kinds", "wanted", "message"),
    [
        (4, (MASK,), None, "no place for a mask page; write a TIFF"),
        (5, (UNASSOCIATED_ALPHA, 0), None, "it has 5 channels, and 4 are written"),
        (3, (), "float32", "as float32 it would need an ICC profile, which has no place"),
    ],
)
def test_pictures_that_are_refused(channels, kinds, wanted, message):
    with pytest.raises(SettingsError, match=message):
        OME_ZARR.dtype_for(info_for(np.zeros((4, 4, channels), np.uint8), kinds), wanted)


def test_bytes_do_not_depend_on_the_blocks(tmp_path):
    pixels = samples((900, 1100, 3), "uint16")
    for name, columns in (("a.zarr", 256), ("b.zarr", 10_000)):
        written(tmp_path / name, pixels, columns=columns)
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "a.zarr", tmp_path / "b.zarr")
    ]
    assert len(contents[0]) == 3 + 3 * 8 + 3 * 2
    assert contents[0] == contents[1]


@pytest.mark.parametrize(("dtype", "curve"), [("uint8", SRGB), ("float32", LINEAR), ("float32", SRGB)])
def test_memory_is_bounded_by_what_is_announced(tmp_path, dtype, curve):
    """Whatever the size: the blocks here hold one value and take no memory."""
    height, width = 1100, 2500
    info = info_for(np.empty((1, 1, 3), dtype), curve=curve)
    info = ImageInfo(**(vars(info) | {"height": height, "width": width}))
    block = np.broadcast_to(np.ones((1, 1, 3), dtype), (BLOCK_ROWS, width, 3))
    blocks = (block[: min(BLOCK_ROWS, height - top)] for top in range(0, height, BLOCK_ROWS))
    tracemalloc.start()
    OME_ZARR.write(tmp_path / "a.zarr", Output(info, dtype, blocks))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.4 * OME_ZARR.held(info, dtype) < peak < OME_ZARR.held(info, dtype)
