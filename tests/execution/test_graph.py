"""Bands: every task once, no chunk before its tiles, none larger than a message may be."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from tilepipe.cache.layout import chunk_boxes
from tilepipe.execution.graph import BAND_TASKS, Todo, bands
from tilepipe.tiling.grid import Grid


@given(st.integers(100, 3000), st.integers(100, 3000), st.integers(64, 900), st.randoms(use_true_random=False))
def test_every_task_comes_once_and_no_chunk_before_its_tiles(height, width, core, chance):
    grid = Grid(height, width, core, 32)
    boxes = chunk_boxes(height, width)
    chunks = [(y, x) for y in range(len(boxes)) for x in range(len(boxes[0])) if chance.random() < 0.7]
    tiles = [(y, x) for y in range(grid.rows) for x in range(grid.columns) if chance.random() < 0.7]
    job = SimpleNamespace(grid=grid, folder="somewhere", recipe=SimpleNamespace(fingerprint="0" * 64))
    done, blended, wanted = set(), [], set(tiles)
    for band in bands(job, Todo(tiles, chunks, grid.tiles)):
        assert 0 < len(band) <= BAND_TASKS // 2 + BAND_TASKS
        names = [task.key for task in band]
        done.update(tuple(map(int, name.split("-")[2:])) for name in names if name.startswith("restore"))
        for name in names:
            if name.startswith("blend"):
                y, x = map(int, name.split("-")[2:])
                blended.append((y, x))
                needed = {(tile.row, tile.column) for tile in grid.touching(boxes[y][x])}
                assert needed & wanted <= done
    assert done == wanted
    assert sorted(blended) == sorted(chunks)
