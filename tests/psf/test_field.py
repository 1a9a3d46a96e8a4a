"""PSFs that differ over the image: weights, files, and restoration without steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tilepipe
from tilepipe.errors import InputNotFoundError, PsfError
from tilepipe.psf.field import Lattice, PSFField, Rings, load_psf, psf_from_bytes
from tilepipe.psf.lens import LensBlur
from tilepipe.psf.model import PSF
from tilepipe.psf.shapes import delta, gaussian, motion
from tilepipe.tiling.components import mean_components
from tilepipe.tiling.grid import Grid

SHAPE = 60, 90

rising = st.lists(st.integers(0, 12), min_size=1, max_size=4, unique=True).map(
    lambda values: tuple(value / 10 for value in sorted(values))
)
places = st.one_of(
    st.builds(Rings, rising, st.tuples(st.floats(0, 1), st.floats(0, 1)), st.integers(1, 5)),
    st.builds(Lattice, rising, rising),
)


def weights_of(where, rows, columns):
    total = np.zeros((where.count, len(rows), len(columns)), np.float32)
    for index, weight in where.weights(rows, columns, SHAPE):
        total[index] += 1 if weight is None else weight
    return total


@given(places)
def test_weights_are_a_partition_of_one(where):
    total = weights_of(where, range(SHAPE[0]), range(SHAPE[1]))
    assert total.min() >= 0
    np.testing.assert_allclose(total.sum(0), 1, atol=1e-6)


@given(places, st.integers(0, 50), st.integers(0, 80))
def test_weights_depend_on_the_position_alone(where, top, left):
    whole = weights_of(where, range(SHAPE[0]), range(SHAPE[1]))
    box = weights_of(where, range(top, top + 10), range(left, left + 10))
    np.testing.assert_array_equal(box, whole[:, top : top + 10, left : left + 10])


def test_weights_change_slowly():
    """No step between neighbouring pixels: the restored image is interpolated."""
    total = weights_of(Rings((0.0, 0.5, 1.0)), range(SHAPE[0]), range(SHAPE[1]))
    steps = max(np.abs(np.diff(total, axis=axis)).max() for axis in (1, 2))
    assert steps <= 1.01 / (0.5 * np.hypot(*SHAPE) * 0.5)  # 1 over the distance of two rings, px


def lens(**options):
    return LensBlur(((0.36, 2.88),), **options).field(0.35, {"estimated": True, "confidence": 0.9})


FIELDS = {
    "lens": lens(),
    "colours": LensBlur(((0.5, 1.0), (0.4, 1.0), (0.6, 1.2)), centre=(0.4, 0.55)).field(0.0, {}),
    "anisotropic": LensBlur(((0.5, 2.0),), ((0.5, 0.5),)).field(0.2, {}),
    "grid": PSFField((gaussian(1), motion(5, 0), motion(7, 45), delta()), Lattice((0.2, 0.8), (0.3, 0.6))),
}


@pytest.mark.parametrize("name", FIELDS)
def test_saved_and_loaded_it_is_the_same(tmp_path, name):
    field = FIELDS[name]
    field.save(tmp_path / "field.tif")
    loaded = tilepipe.load_psf(tmp_path / "field.tif")
    assert isinstance(loaded, PSFField)
    assert (loaded.digest, loaded.places, loaded.made_by) == (field.digest, field.places, _json(field.made_by))
    assert psf_from_bytes(field.to_bytes(), "it").digest == field.digest


def _json(made_by):
    import json

    return json.loads(json.dumps(made_by))


def test_the_digest_depends_on_kernels_and_places():
    psfs = gaussian(1), gaussian(2)
    digests = {
        PSFField(psfs, Rings((0.0, 1.0))).digest,
        PSFField(psfs, Rings((0.0, 0.9))).digest,
        PSFField(psfs, Rings((0.0, 1.0), (0.5, 0.4))).digest,
        PSFField((gaussian(1), gaussian(2.1)), Rings((0.0, 1.0))).digest,
    }
    assert len(digests) == 4


def test_a_uniform_psf_loads_as_before(tmp_path):
    gaussian(1.2).save(tmp_path / "psf.tif")
    loaded = load_psf(tmp_path / "psf.tif")
    assert isinstance(loaded, PSF)
    assert loaded.digest == gaussian(1.2).digest
    with pytest.raises(InputNotFoundError):
        load_psf(tmp_path / "none.tif")


def test_psf_load_refuses_a_field(tmp_path):
    lens().save(tmp_path / "field.tif")
    with pytest.raises(PsfError, match="load_psf"):
        PSF.load(tmp_path / "field.tif")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: PSFField((gaussian(1),), Rings((0.0, 1.0))), "1 kernels for 2 places"),
        (lambda: Rings((1.0, 0.5)), "rising"),
        (lambda: Rings(()), "rising"),
        (lambda: Rings((0.0, 1.0), angles=0), "at least one"),
        (lambda: Rings((0.0, 1.0), (float("nan"), 0.5)), "finite"),
        (lambda: Lattice((0.5,), (0.2, float("inf"))), "finite"),
    ],
)
def test_what_is_not_a_field_is_refused(make, why):
    with pytest.raises(PsfError, match=why):
        make()


def test_a_lens_has_the_widths_of_its_model():
    field, shape = lens(), (400, 600)
    for radius in (0.0, 0.5, 1.0):
        y, x = round(200 + 0.5 * radius * 400), round(300 + 0.5 * radius * 600)
        spread = np.mean(field.at(min(y, 399), min(x, 599), shape).facts()["spread"])
        wanted = np.sqrt(0.36 + 2.88 * radius**2 - 0.35**2)
        assert spread == pytest.approx(wanted, abs=0.08)  # of the taps, which are clipped at 0


def test_components_of_a_lens_differ_by_a_third_of_a_pixel():
    spreads = [np.mean(psf.facts()["spread"]) for psf in lens().components]
    assert np.diff(spreads).max() <= 0.38
    assert len(spreads) <= 6


def test_a_lens_without_variation_has_two_equal_components():
    field = LensBlur(((1.0, 0.0),)).field(0.35, {})
    assert len(field.components) == 2
    np.testing.assert_array_equal(field.components[0].planes, field.components[1].planes)


def test_the_components_of_tiles_are_counted():
    grid = Grid(2000, 3000, 500, 32)
    field = lens()
    counts = [
        sum(
            1
            for _ in field.weights(
                range(tile.stored.y0, tile.stored.y1), range(tile.stored.x0, tile.stored.x1), (2000, 3000)
            )
        )
        for row in range(grid.rows)
        for tile in grid.row_of_tiles(row)
    ]
    assert mean_components(field, grid) == pytest.approx(np.mean(counts), rel=0.1)
    assert mean_components(gaussian(1), grid) == 1
