"""Tiles cover the picture exactly, whatever its size."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilepipe.tiling.blend import axis_weights, blend
from tilepipe.tiling.grid import FRAME_EDGE, OVERLAP, Box, Grid, default_core, has_seams

grids = st.builds(
    Grid,
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    core=st.integers(64, 800),
    halo=st.integers(0, 200),
)


def all_tiles(grid):
    return [tile for row in range(grid.rows) for tile in grid.row_of_tiles(row)]


@given(grids)
def test_cores_tile_the_picture_exactly(grid):
    counts = np.zeros((grid.height, grid.width), int)
    for tile in all_tiles(grid):
        counts[tile.core.y0 : tile.core.y1, tile.core.x0 : tile.core.x1] += 1
    assert (counts == 1).all()


@given(grids)
def test_cores_are_balanced(grid):
    heights = {tile.core.shape[0] for tile in all_tiles(grid)}
    widths = {tile.core.shape[1] for tile in all_tiles(grid)}
    assert max(heights) - min(heights) <= 1
    assert max(widths) - min(widths) <= 1
    assert max(heights | widths) <= grid.core


@given(grids)
def test_boxes_nest_and_frames_have_one_shape(grid):
    picture = Box(0, grid.height, 0, grid.width)
    for tile in all_tiles(grid):
        assert tile.core.intersection(tile.stored) == tile.core
        assert tile.stored.intersection(picture) == tile.stored
        assert tile.stored.intersection(tile.frame) == tile.stored
        assert tile.frame.shape == grid.frame_shape
        assert tile.stored.y0 - tile.frame.y0 == grid.halo
        assert tile.frame.y1 - tile.stored.y1 >= grid.halo
        assert tile.stored.x0 - tile.frame.x0 == grid.halo
        assert tile.frame.x1 - tile.stored.x1 >= grid.halo
        assert tile.stored.shape[0] <= grid.stored_shape[0]
        assert tile.stored.shape[1] <= grid.stored_shape[1]


@given(grids, st.data())
def test_touching_finds_exactly_the_tiles_that_meet_a_box(grid, data):
    y0 = data.draw(st.integers(0, grid.height - 1))
    x0 = data.draw(st.integers(0, grid.width - 1))
    box = Box(y0, data.draw(st.integers(y0 + 1, grid.height)), x0, data.draw(st.integers(x0 + 1, grid.width)))

    def meets(tile):
        common = tile.stored.intersection(box)
        return common.y0 < common.y1 and common.x0 < common.x1

    expected = [(t.row, t.column) for t in all_tiles(grid) if meets(t)]
    assert [(t.row, t.column) for t in grid.touching(box)] == expected


@given(grids)
def test_weights_are_a_partition_of_unity(grid):
    ones = ((tile, np.ones((1, *tile.stored.shape), np.float32)) for tile in all_tiles(grid))
    total = blend(grid, Box(0, grid.height, 0, grid.width), 1, ones)
    np.testing.assert_allclose(total, 1, atol=3e-7)


@given(grids, st.integers(0, 2**32 - 1))
def test_blending_pieces_equals_blending_the_whole(grid, seed):
    generator = np.random.default_rng(seed)
    pixels = {(t.row, t.column): generator.random((2, *t.stored.shape), dtype=np.float32) for t in all_tiles(grid)}

    def part(box):
        common = ((t, box.intersection(t.stored).within(t.stored)) for t in grid.touching(box))
        return blend(grid, box, 2, ((t, pixels[t.row, t.column][:, y, x]) for t, (y, x) in common))

    whole = part(Box(0, grid.height, 0, grid.width))
    middle = grid.width // 2
    for x0, x1 in ((0, middle), (middle, grid.width)):
        if x0 < x1:
            assert part(Box(0, grid.height, x0, x1)).tobytes() == np.ascontiguousarray(whole[:, :, x0:x1]).tobytes()


def test_weights_rise_and_fall_to_one():
    falling = axis_weights(100, first=True, last=False)
    rising = axis_weights(100, first=False, last=True)
    np.testing.assert_array_equal(falling[-OVERLAP:] + rising[:OVERLAP], np.float32(1))
    assert (falling[:-OVERLAP] == 1).all()
    assert (rising[OVERLAP:] == 1).all()


def test_a_core_larger_than_the_picture_is_one_tile():
    grid = Grid(300, 500, 10_000, 32)
    assert grid.tiles == 1
    assert grid.tile(0, 0).stored == Box(0, 300, 0, 500)


@pytest.mark.parametrize(("height", "width", "core", "halo"), [(0, 5, 64, 8), (5, 5, 63, 8), (5, 5, 64, -1)])
def test_impossible_grids_are_refused(height, width, core, halo):
    with pytest.raises(ValueError, match="invalid grid"):
        Grid(height, width, core, halo)


def test_only_a_picture_of_one_tile_has_no_seams():
    assert not has_seams(768, 768, None, 192)
    assert has_seams(769, 768, None, 192)
    assert not has_seams(1200, 840, None, 64), "the area of the frame counts, not its edges"
    assert has_seams(500, 500, 200, 64)
    assert has_seams(2000, 2000, 5000, 64), "a larger core is no reason to restore otherwise"
    assert not has_seams(300, 300, 5000, 64)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from(range(16, 193, 16)))
def test_without_seams_there_is_one_tile_of_bounded_area(height, width, halo):
    grid = Grid(height, width, default_core(halo, height, width), halo)
    assert (grid.tiles == 1) >= (not has_seams(height, width, None, halo))
    rows, columns = grid.frame_shape
    assert rows * columns <= 1.1 * FRAME_EDGE**2, "memory grows with the area; lengths are rounded up for transforms"
