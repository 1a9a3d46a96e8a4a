"""The graph: every task once, no chunk before its tiles, whatever order they end in."""

from hypothesis import given
from hypothesis import strategies as st

from tilepipe.cache.layout import RESULT_CHUNK, SOURCE_CHUNK, chunk_box, chunks_touching
from tilepipe.execution.graph import Graph, Todo
from tilepipe.tiling.grid import Box, Grid

sizes = st.integers(100, 3000)


def all_chunks(height, width):
    rows, columns = RESULT_CHUNK
    return [(y, x) for y in range(-(-height // rows)) for x in range(-(-width // columns))]


def tiles_of(grid, chunk):
    row, column = chunk
    return {(tile.row, tile.column) for tile in grid.touching(chunk_box(row, column, grid.height, grid.width))}


@given(sizes, sizes, st.integers(64, 900), st.integers(1, 40), st.integers(1, 20), st.randoms(use_true_random=False))
def test_every_task_comes_once_and_no_chunk_before_its_tiles(height, width, core, slots, most, chance):
    grid = Grid(height, width, core, 32)
    chunks = [index for index in all_chunks(height, width) if chance.random() < 0.7]
    tiles = [(y, x) for y in range(grid.rows) for x in range(grid.columns) if chance.random() < 0.7]
    failing = {index for index in tiles if chance.random() < 0.1}
    bands = [band for band in range(-(-height // SOURCE_CHUNK[0])) if chance.random() < 0.7]
    graph = Graph(grid, Todo(tiles, chunks, grid.tiles, bands=bands))
    done, seen, in_flight, unread = set(), [], [], set(bands)
    while True:
        size = graph.group_size(slots, most)
        taken = list(graph.take(slots - len(in_flight), size))
        for group in taken:
            assert len(group) <= {"ingest": 1, "restore": size, "blend": 4 * size}[group[0].stage]
            assert len({task.stage for task in group}) == 1
            for task in group:
                if task.stage == "blend":
                    assert not tiles_of(grid, (task.row, task.column)) & (set(tiles) - done)
                if task.stage == "restore":
                    frame = grid.tile(task.row, task.column).frame
                    rows = range(max(0, frame.y0), min(height, frame.y1))
                    assert not {row // SOURCE_CHUNK[0] for row in rows} & unread
        in_flight += taken
        if not in_flight:
            break
        for task in in_flight.pop(chance.randrange(len(in_flight))):
            seen.append(task)
            index = (task.row, task.column)
            if task.stage == "restore" and index not in failing:
                done.add(index)
                graph.finish(task)
            elif task.stage == "blend":
                graph.finish(task)
            elif task.stage == "ingest":
                unread.discard(task.row)
                graph.finish(task)
    assert len(seen) == len(set(seen))
    assert {(t.row, t.column) for t in seen if t.stage == "restore"} == set(tiles)
    assert {t.row for t in seen if t.stage == "ingest"} == set(bands)
    possible = {chunk for chunk in chunks if not tiles_of(grid, chunk) & failing}
    assert {(t.row, t.column) for t in seen if t.stage == "blend"} == possible


def test_groups_become_smaller_so_that_no_slot_runs_empty():
    grid = Grid(60_000, 60_000, 600, 32)
    graph = Graph(grid, Todo([(y, x) for y in range(grid.rows) for x in range(grid.columns)], [], grid.tiles))
    left, sizes = grid.tiles, []
    while left:
        size = graph.group_size(12, 16)
        sizes.append(size)
        left -= sum(len(group) for group in graph.take(1, size))
        assert size == 1 or left >= 11 * size
    assert sizes == sorted(sizes, reverse=True)
    assert (sizes[0], sizes[-1]) == (16, 1)


def test_a_chunk_comes_as_soon_as_its_tiles_are_done():
    grid = Grid(3000, 600, 600, 32)
    graph = Graph(grid, Todo([(row, 0) for row in range(grid.rows)], all_chunks(3000, 600), grid.tiles))
    ((first,),) = graph.take(1)
    graph.finish(first)
    groups = [[(task.stage, task.row) for task in group] for group in graph.take(2)]
    assert groups == [[("blend", 0), ("blend", 1)], [("restore", 1)]]


@given(sizes, sizes, st.data())
def test_chunks_touching_a_box_are_those_that_meet_it(height, width, data):
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, data.draw(st.integers(y0 + 1, height)), x0, data.draw(st.integers(x0 + 1, width)))

    def meets(chunk):
        row, column = chunk
        common = chunk_box(row, column, height, width).intersection(box)
        return common.y0 < common.y1 and common.x0 < common.x1

    assert list(chunks_touching(box)) == [chunk for chunk in all_chunks(height, width) if meets(chunk)]
