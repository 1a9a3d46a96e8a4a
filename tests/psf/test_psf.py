"""The PSF's rules, and its file."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from tilepipe.errors import InputError, InputNotFoundError, OutputError, OutputExistsError, PsfError, SettingsError
from tilepipe.psf.model import LARGEST_PSF, PSF


def flat(size: int, total: float = 1.0) -> np.ndarray:
    return np.full((size, size), total / size**2)


def with_value(value: float) -> np.ndarray:
    kernel = flat(5)
    kernel[1, 2] = value
    return kernel


BROKEN = {
    "even": (flat(4), r"4 x 4.*odd"),
    "empty": (np.zeros((0, 0)), "0 x 0"),
    "not square": (flat(5)[:3], r"\(3, 5\).*square"),
    "a line": (np.ones(5) / 5, r"\(5,\).*square"),
    "colour": (np.ones((5, 5, 3)) / 75, r"\(5, 5, 3\).*square"),
    "huge": (flat(LARGEST_PSF + 2), r"257 x 257.*limit is 255"),
    "NaN": (with_value(np.nan), "NaN or infinite"),
    "infinite": (with_value(np.inf), "NaN or infinite"),
    "negative": (with_value(-0.25), r"negative.*-0\.25"),
    "sums to more": (flat(5, 1.002), r"sums to 1\.002.*0\.001"),
    "sums to less": (flat(5, 0.998), r"sums to 0\.998.*0\.001"),
    "sums to nothing": (np.zeros((5, 5)), "sums to 0;"),
}


@pytest.mark.parametrize(("kernel", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_rule_is_named_with_its_value(kernel, message):
    with pytest.raises(PsfError, match=message) as caught:
        PSF(kernel)
    assert isinstance(caught.value, SettingsError)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("total", [0.9995, 1.0005, 1.0009])
def test_a_sum_off_by_rounding_is_renormalised(total):
    np.testing.assert_allclose(PSF(flat(5, total)).kernel, flat(5), rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, LARGEST_PSF])
def test_odd_sizes_up_to_the_limit_are_taken(size):
    psf = PSF(flat(size))
    assert psf.size == size
    assert psf.kernel.dtype == np.float32
    assert float(psf.kernel.sum(dtype=np.float64)) == pytest.approx(1, abs=1e-6)


@given(hnp.arrays(np.float64, st.sampled_from([(1, 1), (3, 3), (7, 7)]), elements=st.floats(0.001, 1)))
def test_any_normalised_kernel_is_kept_as_it_is(kernel):
    kernel = kernel / kernel.sum()
    np.testing.assert_allclose(PSF(kernel).kernel, kernel, rtol=2e-7)


def test_the_kernel_is_the_psfs_own_and_cannot_be_written():
    mine = flat(3).astype(np.float32)
    psf = PSF(mine)
    mine[1, 1] = 5
    assert psf.kernel[1, 1] == pytest.approx(1 / 9)
    with pytest.raises(ValueError, match="read-only"):
        psf.kernel[0, 0] = 1


def test_a_delta_is_known_only_in_the_middle():
    assert PSF(np.ones((1, 1))).is_delta
    middle, corner = np.zeros((5, 5)), np.zeros((5, 5))
    middle[2, 2] = corner[0, 0] = 1
    assert PSF(middle).is_delta
    assert not PSF(corner).is_delta, "a shift is a change"
    assert not PSF(flat(3)).is_delta


def test_the_digest_follows_the_kernel_alone():
    assert PSF(flat(3), {"a": 1}).digest == PSF(flat(3).astype(np.float32), {"b": 2}).digest
    assert PSF(flat(3)).digest != PSF(flat(5)).digest


def test_facts_describe_position_and_spread():
    kernel = np.zeros((7, 7))
    kernel[1, 2] = kernel[1, 6] = 0.5  # two points, 4 px apart in x, centred 1 right of and 2 above the middle
    facts = PSF(kernel, {"shape": "by hand"}).facts()
    assert facts["size"] == 7
    assert facts["centroid"] == [1.0, -2.0]
    assert facts["spread"] == [2.0, 0.0]
    assert facts["peak"] == 0.5
    assert facts["taps"] == 2
    assert facts["made_by"] == {"shape": "by hand"}
    json.dumps(facts)


# --- the file


def test_a_file_gives_the_same_psf_back(tmp_path):
    kernel = np.random.default_rng(1).random((9, 9))
    psf = PSF(kernel / kernel.sum(), {"shape": "random", "seed": 1, "note": "schräg"})
    psf.save(tmp_path / "psf.tif")
    loaded = PSF.load(str(tmp_path / "psf.tif"))
    np.testing.assert_array_equal(loaded.kernel, psf.kernel)
    assert loaded.digest == psf.digest
    assert loaded.made_by == {"shape": "random", "seed": 1, "note": "schräg"}


def test_a_kernel_for_each_colour(tmp_path):
    kernels = np.random.default_rng(2).random((3, 7, 7))
    kernels /= kernels.sum((1, 2), keepdims=True)
    psf = PSF(kernels, {"shape": "random"})
    assert psf.planes.shape == (3, 7, 7)
    assert psf.facts()["planes"] == 3
    np.testing.assert_allclose(psf.kernel, kernels.mean(0), atol=1e-7)
    psf.save(tmp_path / "psf.tif")
    loaded = PSF.load(tmp_path / "psf.tif")
    np.testing.assert_array_equal(loaded.planes, psf.planes)
    assert loaded.digest == psf.digest != PSF(psf.kernel).digest
    assert loaded.made_by == psf.made_by


def test_colours_that_are_all_deltas_are_a_delta():
    deltas = np.zeros((3, 5, 5))
    deltas[:, 2, 2] = 1
    assert PSF(deltas).is_delta
    deltas[1] = flat(5)
    assert not PSF(deltas).is_delta
    moved = np.zeros((3, 5, 5))
    moved[[0, 1, 2], [2, 2, 2], [2, 2, 3]] = 1
    assert not PSF(moved).is_delta


def test_pages_that_are_no_kernels_for_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.full((9, 3, 3), 1 / 9, np.float32), photometric="minisblack")
    with pytest.raises(InputError, match="9 pages"):
        PSF.load(tmp_path / "stack.tif")
    with tifffile.TiffWriter(tmp_path / "mixed.tif") as tiff:
        for size in (3, 5):
            tiff.write(flat(size).astype(np.float32), photometric="minisblack")
    with pytest.raises(PsfError, match="all must be equal"):
        PSF.load(tmp_path / "mixed.tif")


def test_the_file_is_a_plain_float_tiff_with_json_in_it(tmp_path):
    PSF(flat(5), {"sigma": 2.0}).save(tmp_path / "psf.tif")
    with tifffile.TiffFile(tmp_path / "psf.tif") as tiff:
        page = tiff.pages.first
        assert (page.shape, page.dtype, len(tiff.pages)) == ((5, 5), np.float32, 1)
        assert page.description == 'tilepipe PSF {"sigma": 2.0}'
        assert "Software" not in page.tags
        assert "DateTime" not in page.tags


@pytest.mark.parametrize("planes", [1, 3])
def test_other_software_reads_the_file(tmp_path, planes):
    """Its description says "shape", which tifffile takes for a key of its own if the description is only JSON."""
    psf = PSF(np.stack([flat(5)] * planes), {"shape": "gaussian", "sigma": 2.0})
    psf.save(tmp_path / "psf.tif")
    read = tifffile.imread(tmp_path / "psf.tif")
    np.testing.assert_array_equal(np.atleast_3d(read.T).T, psf.planes)
    with Image.open(tmp_path / "psf.tif") as image:
        assert (image.mode, image.size, getattr(image, "n_frames", 1)) == ("F", (5, 5), planes)
        np.testing.assert_array_equal(np.asarray(image), psf.planes[0])
    assert PSF.load(tmp_path / "psf.tif").made_by == psf.made_by


def test_files_of_earlier_versions_load(tmp_path):
    note = json.dumps({"shape": "gaussian", "sigma": 2.0, "tilepipe": "psf"})
    tifffile.imwrite(tmp_path / "psf.tif", flat(5).astype("f4"), description=note, metadata=None)
    assert PSF.load(tmp_path / "psf.tif").made_by == {"shape": "gaussian", "sigma": 2.0}


def test_saving_is_atomic(tmp_path, monkeypatch):
    path = tmp_path / "psf.tif"
    PSF(flat(3)).save(path)
    before = path.read_bytes()

    def fail(*_):
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OutputError, match="cannot write PSF"):
        PSF(flat(5)).save(path, overwrite=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_psf_makes_the_same_bytes(tmp_path):
    for name in ("a.tif", "b.tif"):
        PSF(flat(5), {"b": 1, "a": 2}).save(tmp_path / name)
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_saving_does_not_clobber(tmp_path):
    path = tmp_path / "psf.tif"
    PSF(flat(3)).save(path)
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="--overwrite"):
        PSF(flat(5)).save(path)
    assert path.read_bytes() == before
    PSF(flat(5)).save(path, overwrite=True)
    assert PSF.load(path).size == 5


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path):
    with pytest.raises(OutputError, match="cannot write PSF"):
        PSF(flat(3)).save(tmp_path / "no" / "psf.tif")


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int32"])
def test_integer_files_are_counts(tmp_path, dtype):
    counts = np.array([[0, 20, 0], [20, 100, 20], [0, 40, 0]], dtype)
    tifffile.imwrite(tmp_path / "psf.tif", counts, photometric="minisblack")
    np.testing.assert_allclose(PSF.load(tmp_path / "psf.tif").kernel, counts / 200, rtol=1e-6)


def test_uint16_counts_do_not_overflow(tmp_path):
    tifffile.imwrite(tmp_path / "psf.tif", np.full((21, 21), 65535, np.uint16), photometric="minisblack")
    np.testing.assert_allclose(PSF.load(tmp_path / "psf.tif").kernel, flat(21), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_float_files_of_other_programs_are_read(tmp_path, dtype, byteorder):
    kernel = np.array([[0, 0.125, 0], [0.125, 0.5, 0.125], [0, 0.125, 0]], dtype)
    path = tmp_path / "psf.tif"
    tifffile.imwrite(path, kernel, photometric="minisblack", compression="deflate", byteorder=byteorder)
    psf = PSF.load(path)
    np.testing.assert_array_equal(psf.kernel, kernel.astype(np.float32))
    assert psf.kernel.dtype == np.dtype("=f4")


@pytest.mark.parametrize("description", ["ImageJ=1.54f\nunit=px\n", "[1, 2]", '"text"', "", "{broken"])
def test_any_description_is_taken(tmp_path, description):
    tifffile.imwrite(
        tmp_path / "psf.tif",
        flat(3).astype(np.float32),
        photometric="minisblack",
        description=description,
        metadata=None,
    )
    assert PSF.load(tmp_path / "psf.tif").made_by == {}


def test_a_floats_file_must_sum_to_one(tmp_path):
    tifffile.imwrite(tmp_path / "psf.tif", np.ones((3, 3), np.float32), photometric="minisblack")
    with pytest.raises(PsfError, match=r"psf\.tif: PSF sums to 9"):
        PSF.load(tmp_path / "psf.tif")


WRITABLE = {name: case for name, case in BROKEN.items() if case[0].size}
"""A TIFF cannot be empty."""


@pytest.mark.parametrize(("kernel", "message"), WRITABLE.values(), ids=WRITABLE)
def test_a_file_that_breaks_a_rule_is_refused_with_its_name(tmp_path, kernel, message):
    if kernel.ndim == 1:
        kernel = kernel[None]
        message = "square"
    tifffile.imwrite(tmp_path / "psf.tif", kernel.astype(np.float32), photometric="rgb" if kernel.ndim == 3 else None)
    with pytest.raises(PsfError, match=rf"psf\.tif: .*{message}"):
        PSF.load(tmp_path / "psf.tif")


def test_missing_and_damaged_files_are_input_errors(tmp_path):
    with pytest.raises(InputNotFoundError, match=r"no\.tif does not exist"):
        PSF.load(tmp_path / "no.tif")
    PSF(flat(9)).save(tmp_path / "psf.tif")
    content = (tmp_path / "psf.tif").read_bytes()
    for damaged in (b"", b"hello", content[:20], content[:-1], content[: len(content) // 2]):
        (tmp_path / "bad.tif").write_bytes(damaged)
        with pytest.raises(InputError, match=r"bad\.tif is not a readable PSF") as caught:
            PSF.load(tmp_path / "bad.tif")
        assert caught.value.exit_code == 3
