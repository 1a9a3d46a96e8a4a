"""OME-Zarr and plain zarr arrays as inputs: the samples of one plane, whatever the axes, chunks, codecs and version."""

import json
import os
import pickle
import shutil
import tracemalloc

import hypothesis.strategies as st
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from picture_files import opened

from tilepipe.errors import DoesNotFitError, InputError, InputNotFoundError
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.image.light import UNASSOCIATED_ALPHA
from tilepipe.image.readers import open_image
from tilepipe.psf.shapes import gaussian

TYPES = {"t": "time", "c": "channel", "z": "space", "y": "space", "x": "space"}


def picture(channels, dtype="uint16", height=90, width=130):
    random = np.random.default_rng(5)
    if np.dtype(dtype).kind == "f":
        return random.normal(0.4, 0.2, (height, width, channels)).astype(dtype)
    return random.integers(0, np.iinfo(dtype).max, (height, width, channels), np.dtype(dtype).newbyteorder("="))


def write_ome(path, pixels, axes="tczyx", version="0.5", labels=(), types=None, names=None, **options):
    """Write `pixels` (h, w, c) and a smaller level, the smaller one first in the folder's order of names."""
    zarr_format = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=zarr_format)
    for name, level in (("full", pixels), ("a-half", pixels[::2, ::2])):
        data = np.moveaxis(level, -1, 0)[None, :, None]  # t, c, z, y, x
        data = data[tuple(slice(None) if axis in axes else 0 for axis in "tczyx")]
        data = data.transpose(["".join(axis for axis in "tczyx" if axis in axes).index(axis) for axis in axes])
        options.setdefault("chunks", tuple(min(40, length) for length in data.shape))
        group.create_array(name, data=data, **options)
    described = [
        {"name": name, "type": kind} if kind else {"name": name}
        for name, kind in zip(names or axes, types or [TYPES[axis] for axis in axes], strict=True)
    ]
    scales = [
        {"path": name, "coordinateTransformations": [{"type": "scale", "scale": [1] * len(axes)}]}
        for name in ("full", "a-half")
    ]
    attributes = {"multiscales": [{"version": version, "axes": described, "datasets": scales}]}
    if labels:
        attributes["omero"] = {"channels": [{"label": label} for label in labels]}
    group.attrs.update({"ome": {"version": version} | attributes} if version == "0.5" else attributes)
    return path


def change(path, document, edit):
    """Edit a JSON document in place."""
    content = json.loads((path / document).read_text())
    edit(content)
    (path / document).write_text(json.dumps(content))


# --- what is read


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("axes", "channels"), [("yx", 1), ("cyx", 3), ("zyx", 1), ("tczyx", 3), ("tyx", 1), ("cxy", 4)]
)
def test_one_plane_is_read_whatever_its_axes(tmp_path, version, axes, channels):
    pixels = picture(channels)
    info, rows = opened(write_ome(tmp_path / "a.zarr", pixels, axes, version))
    assert (info.kind, info.height, info.width, info.channels) == ("OME-Zarr", 90, 130, channels)
    np.testing.assert_array_equal(rows, pixels)


def test_axes_are_known_by_their_types(tmp_path):
    """Names are free: only types say what an axis is; of those of space, the last two are the plane."""
    pixels = picture(3)
    names, types = ["when", "dye", "depth", "lat", "lon"], ["time", "channel", "space", "space", "space"]
    _, rows = opened(write_ome(tmp_path / "a.zarr", pixels, names=names, types=types))
    np.testing.assert_array_equal(rows, pixels)
    _, rows = opened(write_ome(tmp_path / "b.zarr", pixels, "cyx", types=[None] * 3))
    np.testing.assert_array_equal(rows, pixels)


@pytest.mark.parametrize("axes", [None, ["t", "c", "z", "y", "x"]])
def test_axes_of_old_versions(tmp_path, axes):
    path = write_ome(tmp_path / "a.zarr", picture(3), version="0.4")

    def edit(content):
        content["multiscales"][0].pop("axes")
        content["multiscales"][0] |= {"axes": axes} if axes else {}

    change(path, ".zattrs", edit)
    np.testing.assert_array_equal(opened(path)[1], picture(3))


@pytest.mark.parametrize(
    ("labels", "colours", "kinds"),
    [
        (("gray", "alpha"), 1, (UNASSOCIATED_ALPHA,)),
        (("DAPI", "GFP"), 1, (0,)),
        (("red", "green", "blue", "alpha"), 3, (UNASSOCIATED_ALPHA,)),
        (("DAPI", "GFP", "RFP", "Cy5"), 3, (0,)),
        (("a", "b", "c"), 3, ()),
    ],
)
def test_channels_by_their_labels(tmp_path, labels, colours, kinds):
    info, _ = opened(write_ome(tmp_path / "a.zarr", picture(len(labels)), "cyx", labels=labels))
    assert (info.colours, info.extra_kinds) == (colours, kinds)
    assert info.notes == tuple(f"channel {len(labels)} is copied unchanged" for kind in kinds if not kind)
    known = labels[0] in ("gray", "red")
    assert info.metadata.dropped == ([] if known else ["names and display settings of the channels"])


def test_what_is_left_out_is_named(tmp_path):
    path = write_ome(tmp_path / "a.zarr", picture(1), "yx")
    zarr.create_group(path / "labels")
    change(path, "zarr.json", lambda found: found["attributes"]["ome"]["multiscales"].append({}))
    assert opened(path)[0].metadata.dropped == ["all but the first of 2 multiscale images", "labels"]


def test_the_first_image_of_bioformats2raw(tmp_path):
    zarr.create_group(tmp_path / "a.zarr", zarr_format=2, attributes={"bioformats2raw.layout": 3})
    for index in range(2):
        write_ome(tmp_path / "a.zarr" / str(index), picture(3) // (index + 1), version="0.4")
    info, rows = opened(tmp_path / "a.zarr")
    np.testing.assert_array_equal(rows, picture(3))
    assert info.metadata.dropped == ["the OME-XML", "all but the first image"]


@pytest.mark.parametrize(
    ("unit", "scale", "whole", "centimetre"),
    [
        ("micrometer", 0.5, None, (20_000, 20_000)),
        ("nanometer", 125, 2, (40_000, 40_000)),
        ("parsec", 1, None, None),
        (None, 1, None, None),
        ("micrometer", "a lot", None, None),
        ("micrometer", -1, None, None),
    ],
)
def test_scales_with_a_unit_of_length_become_the_resolution(tmp_path, unit, scale, whole, centimetre):
    path = write_ome(tmp_path / "a.zarr", picture(1), "yx")

    def edit(found):
        image = found["attributes"]["ome"]["multiscales"][0]
        for axis in image["axes"] if unit else []:
            axis["unit"] = unit
        image["datasets"][0]["coordinateTransformations"][0]["scale"] = [scale] * 2
        if whole:
            image["coordinateTransformations"] = [{"type": "scale", "scale": [whole, whole]}]

    change(path, "zarr.json", edit)
    found = opened(path)[0].metadata.resolution
    assert found == (centimetre and ((centimetre[1], 1), (centimetre[0], 1), 3))


# --- plain arrays


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_any_array_of_a_picture_is_read(tmp_path_factory, data):
    check_array(tmp_path_factory.mktemp("any"), data)


@pytest.mark.thorough
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_any_array_of_many_is_read(tmp_path_factory, data):
    check_array(tmp_path_factory.mktemp("any"), data)


def check_array(folder, data):
    dtype = data.draw(st.sampled_from(["u1", ">u2", "<u2", "i2", "u4", "f2", ">f4", "f8", "bool"]))
    shape = data.draw(st.tuples(st.integers(5, 60), st.integers(5, 60)))
    channels, version = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([2, 3]))
    dtype = dtype.lstrip("<>") if version == 3 else dtype
    samples = picture(max(channels, 1), "uint8", *shape).astype(dtype)
    array = samples[..., 0] if not channels else samples if data.draw(st.booleans()) else np.moveaxis(samples, -1, 0)
    chunks = tuple(data.draw(st.integers(1, length + 3)) for length in array.shape)
    path = folder / "a.zarr"
    shards = tuple(2 * chunk for chunk in chunks) if version == 3 and data.draw(st.booleans()) else None
    order = {"order": data.draw(st.sampled_from("CF"))} if version == 2 else {}
    zarr.create_array(path, data=array, chunks=chunks, shards=shards, zarr_format=version, **order)
    reader = open_image(path)
    y0 = data.draw(st.integers(0, shape[0] - 1))
    y1 = data.draw(st.integers(y0 + 1, shape[0]))
    expected = 255 * samples if dtype == "bool" else samples
    np.testing.assert_array_equal(reader.rows(y0, y1), expected[y0:y1].astype(reader.info.dtype))
    assert (reader.info.kind, reader.info.extras) == ("zarr", int(channels in (2, 4)))


def test_named_dimensions_say_what_an_axis_is(tmp_path):
    pixels = picture(3, height=4, width=3)
    names = ["z", "x", "c", "y"]
    zarr.create_array(tmp_path / "a", data=pixels.transpose(1, 2, 0)[None], dimension_names=names)
    np.testing.assert_array_equal(opened(tmp_path / "a")[1], pixels)
    array = zarr.create_array(tmp_path / "b", data=pixels.transpose(1, 2, 0)[None], zarr_format=2)
    array.attrs["_ARRAY_DIMENSIONS"] = names
    np.testing.assert_array_equal(opened(tmp_path / "b")[1], pixels)


def test_a_chunk_that_is_not_there_has_the_fill_value(tmp_path):
    array = zarr.create_array(tmp_path / "a", shape=(50, 60), chunks=(20, 20), dtype="u2", fill_value=7)
    array[:20, :20] = 9
    rows = opened(tmp_path / "a")[1][..., 0]
    assert (rows[:20, :20] == 9).all()
    assert np.unique(rows[20:]).tolist() == [7]


@pytest.mark.parametrize(
    ("shape", "chunks", "shards"),
    [
        ((3, 2000, 1500), (1, 200, 300), None),
        ((2000, 1500, 3), (2000, 1500, 3), None),
        ((2000, 60_000), (1000, 1000), None),
        ((3, 2000, 1500), (1, 250, 250), (3, 1000, 1000)),
    ],
)
def test_memory_is_bounded_by_what_is_announced(tmp_path, shape, chunks, shards):
    array = zarr.create_array(tmp_path / "a", shape=shape, chunks=chunks, shards=shards, dtype="u2")
    array[..., 600:700, :] = 5
    reader = open_image(tmp_path / "a")
    reader.rows(0, 1)
    reader.close()
    height = 256
    tracemalloc.start()
    rows = [reader.rows(top, top + height).nbytes for top in range(500, 1268, height)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < reader.info.decoded_bytes + 2 * max(rows)
    assert reader.info.decoded_bytes < 150e6


# --- what is refused


@pytest.mark.parametrize(
    ("shape", "axes", "words"),
    [
        ((5, 3, 30, 20, 20), "tczyx", "t = 5, c = 3, z = 30, y = 20, x = 20"),
        ((7, 20, 20), "cyx", "c = 7, y = 20, x = 20; at most 4 channels"),
        ((2, 20, 20), "zyx", "z = 2"),
    ],
)
def test_what_is_not_one_picture_is_refused_with_its_sizes(tmp_path, shape, axes, words):
    path = write_ome(tmp_path / "a.zarr", picture(1), axes)
    for name in ("full", "a-half"):
        shutil.rmtree(path / name)
    zarr.create_array(path / "full", shape=shape, dtype="u1")
    with pytest.raises(InputError, match=words):
        open_image(path)


@pytest.mark.parametrize(
    ("shape", "dtype", "words"),
    [
        ((20,), "u1", "an image is"),
        ((5, 6, 7), "u1", "c = 5.*at most 4"),
        ((1, 3, 20, 20), "u1", "without names of its axes"),
        ((20, 20), "c8", "complex64 samples"),
        ((20, 0), "u1", "shape"),
    ],
)
def test_arrays_that_are_no_image(tmp_path, shape, dtype, words):
    zarr.create_array(tmp_path / "a", shape=shape, dtype=dtype)
    with pytest.raises(InputError, match=words):
        open_image(tmp_path / "a")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, "without a multiscale image"),
        ({"ome": {"plate": {}}}, "a plate or a well"),
        ({"ome": {"multiscales": 5}}, "without a multiscale image"),
        ({"ome": {"multiscales": [{"datasets": [{"path": "../b"}]}]}}, "leads out of it"),
        ({"ome": {"multiscales": [{"datasets": [{"path": "/etc"}]}]}}, "leads out of it"),
        ({"ome": {"multiscales": [{"datasets": [{"path": "gone"}, 5, {"path": 6}]}]}}, "none of the arrays"),
        ({"ome": {"multiscales": [{"axes": [{"name": "y"}], "datasets": [{"path": "0"}]}]}}, "2 dimensions, its axes"),
        ({"ome": {"multiscales": [{"axes": ["c", "y"], "datasets": [{"path": "0"}]}]}}, "its axes are c, y"),
        ({"ome": {"multiscales": [{"axes": ["x" * 9999] * 3, "datasets": [{"path": "0"}]}]}}, "dimensions"),
    ],
)
def test_groups_that_are_no_image(tmp_path, attributes, words):
    zarr.create_array(tmp_path / "b", shape=(9, 9), dtype="u1")
    group = zarr.create_group(tmp_path / "a", attributes=attributes)
    group.create_array("0", shape=(9, 9), dtype="u1")
    with pytest.raises(InputError, match=words) as caught:
        open_image(tmp_path / "a")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300


def test_a_folder_without_zarr_is_not_read(tmp_path):
    with pytest.raises(InputNotFoundError, match="it is a folder without zarr metadata"):
        open_image(tmp_path)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_links_that_lead_out_are_refused(tmp_path, version):
    path = write_ome(tmp_path / "a.zarr", picture(1), "yx", version)
    chunk = path / "full" / ("c/1/1" if version == "0.5" else "1.1")
    chunk.rename(tmp_path / "secret")
    chunk.symlink_to(tmp_path / "secret")
    reader = open_image(path)
    with pytest.raises(InputError, match="through a symbolic link"):
        reader.rows(0, 90)
    shutil.move(path / "full", tmp_path / "elsewhere")
    (path / "full").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="through a symbolic link"):
        open_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this platform has no named pipes")
def test_a_pipe_in_place_of_a_chunk_is_refused(tmp_path):
    zarr.create_array(tmp_path / "a", shape=(9, 9), dtype="u1")
    os.makedirs(tmp_path / "a" / "c" / "0")
    os.mkfifo(tmp_path / "a" / "c" / "0" / "0")
    with pytest.raises(InputError, match="is a pipe"):
        opened(tmp_path / "a")


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harm",)


def test_code_in_a_chunk_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    zarr.create_array(tmp_path / "a", shape=(9, 9), dtype="u1", zarr_format=2)
    change(tmp_path / "a", ".zarray", lambda found: found.update(filters=[{"id": "pickle", "protocol": 5}]))
    (tmp_path / "a" / "0.0").write_bytes(numcodecs.Zstd().encode(pickle.dumps(Harmful())))
    with pytest.raises(InputError, match="encoded by 'pickle'"):
        opened(tmp_path / "a")
    assert not (tmp_path / "harm").exists()


COMPRESSORS = {
    "zstd": (numcodecs.Zstd(), zarr.codecs.ZstdCodec()),
    "blosc": (numcodecs.Blosc(), zarr.codecs.BloscCodec()),
    "gzip": (numcodecs.GZip(), zarr.codecs.GzipCodec()),
    "none": (None, None),
}


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("codec", COMPRESSORS)
def test_a_damaged_chunk_is_an_input_error_in_one_line(tmp_path, codec, version):
    """Cut anywhere; a flipped bit shows where the format can show it, and never as anything else."""
    y, x = np.mgrid[:90, :130]
    array = zarr.create_array(
        tmp_path / "a", data=7 * y + x // 9, zarr_format=version, compressors=COMPRESSORS[codec][version - 2]
    )
    (chunk,) = (path for path in (tmp_path / "a").rglob("*") if path.is_file() and "0" in path.name)
    content = chunk.read_bytes()
    random = np.random.default_rng(1)
    for end in [0, 1, 5, 16, 17, *random.integers(0, len(content), 20), len(content) - 1]:
        chunk.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"is damaged in rows 0\.\.90") as caught:
            opened(tmp_path / "a")
        assert "\n" not in str(caught.value)
    messages = []
    for at in [*range(16), *random.integers(0, len(content), 40)]:
        chunk.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            opened(tmp_path / "a")
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 5 or codec == "none"
    assert not any("\n" in message for message in messages)
    assert array.nbytes == 90 * 130 * 8


@pytest.mark.parametrize("nested", [False, True])
def test_a_blosc_header_is_not_believed(tmp_path, nested):
    """Lengths that the chunk does not have: the library would read beyond its end."""
    shards = {"shards": (180, 130)} if nested else {}
    codec = zarr.codecs.BloscCodec()
    zarr.create_array(tmp_path / "a", data=picture(1)[..., 0], chunks=(90, 130), compressors=codec, **shards)
    chunk = tmp_path / "a" / "c" / "0" / "0"
    content = chunk.read_bytes()
    for at in (4, 12):  # decoded and encoded bytes
        for value in (0, 17, 2**31 - 1, 2**32 - 1):
            chunk.write_bytes(content[:at] + value.to_bytes(4, "little") + content[at + 4 :])
            with pytest.raises(InputError, match="is damaged in rows"):
                opened(tmp_path / "a")


def test_a_file_larger_than_any_chunk_is_not_read(tmp_path):
    zarr.create_array(tmp_path / "a", data=picture(1)[..., 0], chunks=(40, 40))
    (tmp_path / "a" / "c" / "0" / "0").write_bytes(bytes(1 << 20))
    with pytest.raises(InputError, match="1048576 bytes for a chunk of at most"):
        opened(tmp_path / "a")


EDITS: dict[str, list] = {
    "shape": [[2**40, 2**40], [-5, 5], "big", None, [1.5, 2], [True, True], [90] * 40],
    "chunk_grid": [{"name": "regular", "configuration": {"chunk_shape": [0, 0]}}, {}, 5],
    "data_type": ["uint7", None, {"name": "structured"}, "string"],
    "codecs": [[], None, [{"name": "bytes"}], [5], [{"name": "sharding_indexed"}], "bytes"],
    "fill_value": ["x", None, [1]],
    "zarr_format": [4, "3", None, [3]],
    "node_type": ["tree", 5],
    "dimension_names": [["y", "y"], 5, ["y"]],
    "storage_transformers": [[{"name": "x"}]],
    "chunk_key_encoding": [{"name": "x"}, {"name": "v2", "configuration": {"separator": "../"}}],
}


@pytest.mark.parametrize("key", EDITS)
def test_hostile_metadata_give_a_picture_or_one_line(tmp_path, psf_file, key):
    zarr.create_array(tmp_path / "a", data=picture(1)[..., 0], chunks=(40, 40))
    original = (tmp_path / "a" / "zarr.json").read_text()
    for value in EDITS[key]:
        (tmp_path / "a" / "zarr.json").write_text(original)
        change(tmp_path / "a", "zarr.json", lambda found, value=value: found.update({key: value}))
        message = ""
        try:
            make_plan(tmp_path / "a", psf=psf_file, cache=str(tmp_path / "cache"), max_pixels=10**5)
        except (InputError, DoesNotFitError) as error:
            message = str(error)
        except Exception as error:
            pytest.fail(f"{value!r}: {error!r}")
        assert "\n" not in message


@pytest.fixture
def psf_file(tmp_path):
    gaussian(1).save(tmp_path / "psf.tif")
    return tmp_path / "psf.tif"


def test_a_chunk_too_large_for_the_memory_is_refused_before_it_is_read(tmp_path, psf_file):
    zarr.create_array(tmp_path / "a", shape=(90, 90), chunks=(10**5, 10**5), dtype="u2")
    with pytest.raises(DoesNotFitError):
        make_plan(tmp_path / "a", psf=psf_file, cache=str(tmp_path / "cache"), memory="1GB")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"5", b"\xff", b"[" * 100_000, b"{}"])
@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup"])
def test_documents_that_are_not_metadata(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        open_image(tmp_path)
    assert "\n" not in str(caught.value)
