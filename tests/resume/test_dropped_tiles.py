"""Tiles are removed once their chunks are recorded: less disk, the same bytes, nothing computed twice."""

import shutil

import pytest
from workplace import PSF, Workplace, adopted, at

from tilepipe.errors import InterruptedRunError
from tilepipe.events import Receipt
from tilepipe.planning.disk_model import ROWS_HELD
from tilepipe.testing import BlurredScene, Scene, write_scene

ROWS, COLUMNS = 10, 2
TILES = ROWS * COLUMNS


@pytest.fixture(scope="module")
def tall(tmp_path_factory):
    """A picture of ten rows of tiles and six chunks, planned, and the output of an undisturbed run."""
    place = Workplace(tmp_path_factory.mktemp("tall"))
    write_scene(place.picture, BlurredScene(Scene(300, 1500, seed=2), PSF, 0.01))
    place.run()
    place.output.rename(place.folder / "expected.tif")
    for path in place.cache.glob("*/*/recipe.json"):
        shutil.rmtree(path.parent)
    return place


@pytest.fixture
def place(tall, tmp_path):
    return adopted(Workplace(shutil.copytree(tall.folder, tmp_path / "place")))


@pytest.fixture
def expected(tall):
    return (tall.folder / "expected.tif").read_bytes()


def tiles_on_disk(place):
    return {tuple(path.name.split(".")[1:3]) for path in place.cache.rglob("tiles.zarr/c.*")}


def records(place):
    return {path.stem for path in place.cache.rglob("tiles.ledger/*.json")}


def test_few_tiles_are_held_and_none_is_left(place, expected):
    held = []

    def listen(event):
        if isinstance(event, Receipt) and event.stage in ("restore", "blend"):
            held.append(len(tiles_on_disk(place)))

    happened = place.run(keep_tiles=False, on_event=listen)
    assert place.output.read_bytes() == expected
    assert len(happened.computed) == TILES
    assert max(held) <= ROWS_HELD * COLUMNS < TILES
    assert not tiles_on_disk(place)
    assert not records(place)


def test_a_complete_run_is_reused_without_its_tiles(place, expected):
    place.run(keep_tiles=False)
    again = place.run(keep_tiles=False)
    assert not again.computed
    assert again.report.tiles["reused"] == TILES
    assert place.output.read_bytes() == expected


@pytest.mark.parametrize("number", [*(pytest.param(one, marks=pytest.mark.thorough) for one in (1, 3, 8)), 5])
def test_no_tile_is_computed_twice_when_a_run_is_resumed(place, expected, number):
    computed = set()

    def remember(event):
        if isinstance(event, Receipt) and (event.stage, event.status) == ("restore", "done"):
            assert event.index not in computed
            computed.add(event.index)

    stop = at("restore", lambda: place.stop(), number)

    def listen(event):
        remember(event)
        stop(event)

    with pytest.raises(InterruptedRunError):
        place.run(keep_tiles=False, on_event=listen)
    place.run(keep_tiles=False, on_event=remember)
    assert len(computed) == TILES
    assert place.output.read_bytes() == expected


def test_blended_tiles_that_an_interrupted_run_left_are_removed(place, expected):
    with pytest.raises(InterruptedRunError):
        place.run(keep_tiles=True, on_event=at("restore", lambda: place.stop(), 8))
    assert len(records(place)) == 8
    place.run(keep_tiles=False)
    assert not tiles_on_disk(place)
    assert place.output.read_bytes() == expected


def test_a_damaged_chunk_of_the_result_costs_its_tiles_only(place, expected):
    place.run(keep_tiles=False)
    chunk = sorted(place.cache.rglob("result.zarr/c.*"))[0]
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    again = place.run(keep_tiles=False)
    assert 0 < len(again.computed) < TILES
    assert place.output.read_bytes() == expected


def test_tiles_are_kept_by_default_and_the_plan_states_the_space(place):
    kept, dropped = place.plan(), place.plan(keep_tiles=False)
    assert not kept.drops_tiles
    assert dropped.drops_tiles
    assert dropped.disk.cache < kept.disk.cache
    place.run()
    assert len(records(place)) == TILES
