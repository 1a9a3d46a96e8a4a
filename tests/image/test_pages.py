"""Pages and planes: the chosen one is read and written, and its description holds for it alone."""

import json

import hypothesis.strategies as st
import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner
from hypothesis import given
from picture_files import opened

import tilepipe
from tilepipe.cli.main import tilepipe as command
from tilepipe.errors import SettingsError
from tilepipe.execution.batch import run_images
from tilepipe.execution.job import RunConfig, running, shared_stamp
from tilepipe.image.metadata.ome import ome_of_one_plane
from tilepipe.image.readers import open_image
from tilepipe.image.selection import WHOLE, Selection, plane_position
from tilepipe.psf.shapes import delta, gaussian

Y, X = np.mgrid[:40, :60]
SIZES = {"t": 2, "z": 3, "c": 4}
STACK = np.stack([7 * number + X + 3 * Y for number in range(24)]).reshape(2, 3, 4, 40, 60).astype(np.uint16)
"""Planes along t, z and c; all differ."""


def read(path, **selection):
    """Return the pixels of the chosen picture; without the axis of one sample."""
    reader = open_image(path, Selection(**selection))
    try:
        rows = reader.rows(0, reader.info.height)
        return rows[:, :, 0] if rows.shape[2] == 1 else rows
    finally:
        reader.close()


@pytest.fixture(params=["ome", "imagej", "imagej with one directory", "shaped", "ome big-endian"])
def stack(tmp_path, request):
    path = tmp_path / "stack.tif"
    kind, _, rest = request.param.partition(" ")
    how = {} if kind == "shaped" else {kind: True}
    order = {"byteorder": ">"} if rest == "big-endian" or kind == "imagej" else {}
    with tifffile.TiffWriter(path, **how, **order) as tiff:
        one = {"truncate": True} if rest == "with one directory" else {}
        tiff.write(STACK, photometric="minisblack", metadata={"axes": "TZCYX"}, **one)
    return path


def many_pages(path):
    """Write a small page, two large ones of which the second is RGB, and an overview."""
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(STACK[0, 0, 0, :20, :30], photometric="minisblack", metadata=None)
        tiff.write(STACK[0, 0, 1], photometric="minisblack", metadata=None)
        tiff.write(np.stack([STACK[0, 0, c] for c in range(3)], -1), photometric="rgb", metadata=None)
        tiff.write(STACK[0, 0, 1, ::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
    return path


# --- planes


@given(st.fixed_dictionaries({axis: st.integers(0, size - 1) for axis, size in SIZES.items()}), st.permutations("tzc"))
def test_a_position_along_the_axes_names_a_plane_in_any_order(position, axes):
    text = ",".join(f"{axis}={position[axis]}" for axis in axes)
    assert plane_position(text) == position
    assert plane_position(text.upper().replace(",", " , ")) == position


@pytest.mark.parametrize("text", ["", "3", "z", "z=", "z=-1", "z=1,z=2", "zz=1", "z=1;c=2", "z=1,", "z=1.5"])
def test_a_position_that_is_none_is_one_line(text):
    with pytest.raises(SettingsError, match="as z=3,c=1"):
        plane_position(text)


@pytest.mark.parametrize("asked", ["t=1,z=2,c=3", "c=1", "z=2", "t=1", "z=0"])
def test_a_plane_is_found_by_its_position(stack, asked):
    position = plane_position(asked)
    np.testing.assert_array_equal(read(stack, plane=asked), STACK[tuple(position.get(axis, 0) for axis in SIZES)])


@pytest.mark.parametrize(("asked", "message"), [("z=3", r"z=0\.\.2: its planes are t="), ("q=1", "no axis q: its")])
def test_a_plane_that_the_stack_does_not_have_is_one_line(stack, asked, message):
    with pytest.raises(SettingsError, match=message) as error:
        read(stack, plane=asked)
    assert "\n" not in str(error.value)


def test_the_first_plane_is_read_by_default_and_the_others_are_said(stack):
    info, rows = opened(stack)
    np.testing.assert_array_equal(rows[:, :, 0], STACK[0, 0, 0])
    assert info.selection == WHOLE
    assert any(lost.endswith("0 of 0..23") for lost in info.metadata.dropped), info.metadata.dropped


def test_a_plane_and_its_page_are_one_choice(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TZCYX"})
    choices = []
    for selection in (Selection(plane="t=1,z=1,c=1"), Selection(page=12 + 4 + 1)):
        reader = open_image(tmp_path / "a.tif", selection)
        choices.append(reader.info.selection)
        reader.close()
    assert choices[0] == choices[1] == Selection(page=17)


@pytest.mark.parametrize("how", ["--plane z=2,c=1", "--page 9", ""])
def test_ome_xml_of_the_output_describes_the_plane_alone(tmp_path, how):
    names = ["DAPI", "GFP", "Cy5", "BF"]
    metadata = {"axes": "TZCYX", "PhysicalSizeX": 0.2, "Channel": {"Name": names}}
    metadata["Plane"] = {"ExposureTime": list(range(24))}
    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, ome=True, photometric="minisblack", metadata=metadata)
    option = dict([how[2:].split(" ")]) if how else {}
    out = tmp_path / "out.ome.tif"
    tilepipe.plan(tmp_path / "a.ome.tif", out, psf=delta(), cache=str(tmp_path / "cache"), **option).run()
    number = 0 if not how else 9
    with tifffile.TiffFile(out) as tiff:
        assert (tiff.is_ome, len(tiff.pages), tiff.series[0].shape) == (True, 1, (40, 60))
        np.testing.assert_array_equal(tiff.asarray(), STACK.reshape(24, 40, 60)[number])
        image = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
    pixels = image["Pixels"]
    assert [pixels[f"Size{axis}"] for axis in "XYZCT"] == [60, 40, 1, 1, 1]
    assert pixels["PhysicalSizeX"] == 0.2
    assert pixels["Channel"]["Name"] == names[number % 4]
    assert pixels["Plane"] == {f"The{axis}": 0 for axis in "CZT"} | {"ExposureTime": number}
    assert pixels["TiffData"] == {"IFD": 0, "PlaneCount": 1}


def test_the_second_image_of_an_ome_tiff_keeps_its_own_description(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(STACK[0, :, 0], metadata={"axes": "ZYX", "Name": "small"}, photometric="minisblack")
        tiff.write(STACK[0, :, 0, :33], metadata={"axes": "ZYX", "Name": "cut"}, photometric="minisblack")
    reader = open_image(tmp_path / "a.ome.tif", Selection(page=4))
    text = reader.info.metadata.tags.get(270).data
    reader.close()
    assert b'Name="cut"' in text
    assert b'Name="small"' not in text


@pytest.mark.parametrize(
    "text",
    [b"<OME", b'<!DOCTYPE a [<!ENTITY b "c">]><OME/>', b"<OME><Image><Pixels SizeX='9' SizeY='40'/></Image></OME>"],
)
def test_ome_xml_that_does_not_fit_describes_no_plane(text):
    assert ome_of_one_plane(text, 0, {}, (40, 60)) is None


def test_a_plane_of_an_imagej_stack_is_written_as_one(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", STACK, imagej=True, metadata={"axes": "TZCYX", "unit": "um", "spacing": 2.0})
    out = tmp_path / "out.tif"
    tilepipe.plan(tmp_path / "a.tif", out, psf=delta(), plane="z=1,c=2", cache=str(tmp_path / "cache")).run()
    with tifffile.TiffFile(out) as tiff:
        assert (tiff.is_imagej, tiff.series[0].shape) == (True, (40, 60))
        assert tiff.imagej_metadata["unit"] == "um"
        assert "slices" not in tiff.imagej_metadata
        np.testing.assert_array_equal(tiff.asarray(), STACK[0, 1, 2])


# --- pages


@pytest.mark.parametrize("page", range(4))
def test_a_page_is_chosen_by_its_number_from_0(tmp_path, page):
    path = many_pages(tmp_path / "a.tif")
    np.testing.assert_array_equal(read(path, page=page), tifffile.imread(path, key=page))


def test_a_page_that_the_file_does_not_have_is_one_line_with_their_number(tmp_path):
    path = many_pages(tmp_path / "a.tif")
    with pytest.raises(SettingsError, match=r"page is 4; .*a\.tif has 4 pages, numbers 0\.\.3$"):
        open_image(path, Selection(page=4))
    np.save(tmp_path / "a.npy", X)
    with pytest.raises(SettingsError, match=r"page is 1; .* it has one page, number 0"):
        open_image(tmp_path / "a.npy", Selection(page=1))
    open_image(tmp_path / "a.npy", Selection(page=0)).close()


def test_a_page_and_a_plane_together_are_refused(tmp_path):
    path = many_pages(tmp_path / "a.tif")
    with pytest.raises(SettingsError, match="give one of them"):
        tilepipe.plan(path, page=1, plane="z=1")
    assert CliRunner().invoke(command, ["inspect", str(path), "--page", "1", "--plane", "z=1"]).exit_code == 2


def test_each_page_has_the_mask_behind_it(tmp_path):
    masks = [X < 30, X >= 30]
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for mask in masks:
            tiff.write(X.astype(np.uint8), photometric="minisblack", metadata=None)
            tiff.write(mask, photometric="minisblack", subfiletype=4, metadata=None)
    for page, mask in ((0, masks[0]), (2, masks[1])):
        reader = open_image(tmp_path / "a.tif", Selection(page=page))
        np.testing.assert_array_equal(reader.rows(0, 40)[:, :, 1] != 0, mask)
        reader.close()


def test_another_page_is_restored_again_and_the_same_page_is_not(tmp_path):
    noise = np.random.default_rng(0).normal(0, 99, (2, 100, 130))
    pages = (20_000 + 9000 * ((np.mgrid[:100, :130][1] // 20) % 2) + noise).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="minisblack", metadata=None)
    for number, page in enumerate(pages):
        tifffile.imwrite(tmp_path / f"{number}.tif", page, metadata=None)

    def run(image, **settings):
        out = tmp_path / "out.tif"
        settings |= {"psf": gaussian(1.0), "tile": 80, "halo": 16, "cache": str(tmp_path / "cache")}
        settings |= {"quality": "fast", "solver": "richardson-lucy", "tolerance": 0.25}  # the least work
        report = tilepipe.plan(tmp_path / image, out, **settings).run(overwrite=True)
        return tifffile.imread(out), report.tiles["reused"]

    first, reused = run("a.tif")
    assert reused == 0
    np.testing.assert_array_equal(first, run("0.tif")[0])
    second, reused = run("a.tif", page=1)
    assert reused == 0
    np.testing.assert_array_equal(second, run("1.tif")[0])
    for again, settings in ((first, {}), (first, {"page": 0}), (second, {"page": 1})):
        pixels, reused = run("a.tif", **settings)
        np.testing.assert_array_equal(pixels, again)
        assert reused > 0


def test_several_images_are_read_at_the_same_page(tmp_path):
    paths = [many_pages(tmp_path / name) for name in ("a.tif", "b.tif")]
    tifffile.memmap(paths[1], page=0)[0, 0] = 1
    outcomes = run_images(paths, tmp_path / "out", psf=delta(), page=0, cache=str(tmp_path / "cache"))
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert tifffile.imread(tmp_path / "out" / "b.tif").shape == (20, 30)


def test_workers_read_the_page_that_was_planned(tmp_path):
    path = many_pages(tmp_path / "a.tif")
    config = RunConfig(image=str(path), image_stamp=shared_stamp(str(path)), selection=Selection(page=0))
    config.save(tmp_path)
    assert RunConfig.of(tmp_path) == config
    plan = tilepipe.plan(path, tmp_path / "out.tif", psf=delta(), page=0, cache=str(tmp_path / "cache"))
    with running(plan.run().folder) as job:
        np.testing.assert_array_equal(job.read_rows(0, 20)[:, :, 0], STACK[0, 0, 0, :20, :30])


def test_inspect_lists_pages_and_planes(tmp_path):
    def facts(*arguments):
        done = CliRunner().invoke(command, ["inspect", *map(str, arguments), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    tifffile.imwrite(tmp_path / "a.ome.tif", STACK, ome=True, photometric="minisblack", metadata={"axes": "TZCYX"})
    assert facts(tmp_path / "a.ome.tif")["pages"] == ["0..23: 60 x 40 px, 1 x uint16"]
    assert facts(tmp_path / "a.ome.tif")["planes"] == ["t=0..1,z=0..2,c=0..3"]
    path = many_pages(tmp_path / "a.tif")
    listed = facts(path, "--page", 0)
    assert listed["pages"][2:] == ["2: 60 x 40 px, 3 x uint16", "3: 30 x 20 px, 1 x uint16, reduced size"]
    assert (listed["width"], listed["height"]) == (30, 20)


# --- pyramids


@pytest.mark.parametrize("kind", ["SubIFDs", "overviews", "slide"])
def test_a_pyramid_is_reduced_to_its_full_size_with_a_note(tmp_path, kind):
    """As in an OME-TIFF, in a cloud-optimised GeoTIFF, and in a scanned slide, whose smaller pages are not marked."""
    full, tiles = STACK[0, 0, 0], {"tile": (16, 16), "photometric": "minisblack", "metadata": None}
    with tifffile.TiffWriter(tmp_path / "a.tif", ome=kind == "SubIFDs") as tiff:
        tiff.write(
            full, subifds=1 if kind == "SubIFDs" else None, **(tiles | {"metadata": {}} if kind == "SubIFDs" else tiles)
        )
        tiff.write(full[::2, ::2], subfiletype=0 if kind == "slide" else 1, **tiles)
    info, rows = opened(tmp_path / "a.tif")
    np.testing.assert_array_equal(rows[:, :, 0], full)
    expected = "all pages but page 0 of 0..1" if kind == "slide" else "reduced-size images"
    assert info.metadata.dropped == [expected]
    tilepipe.plan(tmp_path / "a.tif", tmp_path / "out.tif", psf=delta(), cache=str(tmp_path / "cache")).run()
    with tifffile.TiffFile(tmp_path / "out.tif") as tiff:
        assert (len(tiff.pages), len(tiff.series[0].levels)) == (1, 1)
        assert tiff.is_ome == (kind == "SubIFDs")


@pytest.mark.parametrize("selection", [{"page": 1}, {"plane": "z=3"}])
def test_a_page_of_a_file_that_has_none_is_refused(tmp_path, selection):
    zarr.create_array(store=tmp_path / "a.zarr", data=STACK[0, 0, 0])
    np.save(tmp_path / "a.npy", STACK[0, 0, 0])
    for name in ("a.zarr", "a.npy"):
        with pytest.raises(SettingsError, match=r"is no TIFF: it has one page, number 0, and no planes"):
            read(tmp_path / name, **selection)


@pytest.mark.parametrize(
    ("selection", "message"),
    [({"page": -1}, "page is -1; pages are counted from 0"), ({"page": 0, "plane": "z=1"}, "give one of them")],
)
def test_a_selection_that_selects_nothing_is_refused(selection, message):
    with pytest.raises(SettingsError, match=message):
        Selection(**selection)
