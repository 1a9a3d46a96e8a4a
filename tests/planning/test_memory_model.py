"""Memory decides how many tiles are in flight, and nothing else."""

from dataclasses import replace

import pytest

from tilepipe.errors import DoesNotFitError
from tilepipe.planning.memory_model import (
    WORKER_SHARE,
    StageModel,
    check_memory,
    plan_memory,
    threads_that_fit,
    worker_memory,
)
from tilepipe.system.memory import MOST_KEPT
from tilepipe.tiling.grid import Grid
from tilepipe.units import human_bytes

MODEL = StageModel(
    process=200_000_000,
    decoded=0,
    pixel=6,
    channels=3,
    stored=3,
    extra=0,
    writing=0,
    planning=210_000_000,
    planes=21,
    kernels=1,
    band=256,
    columns=4096,
    chunk=512 * 512,
)
GRID = Grid(4000, 6000, 768, 128)


def test_more_memory_gives_more_jobs_up_to_what_was_asked():
    jobs = [plan_memory(MODEL, GRID, allowed * 10**6, 8).jobs for allowed in (400, 600, 800, 5000)]
    assert jobs == sorted(jobs)
    assert jobs[0] < jobs[-1] == 8


def test_a_second_tile_in_flight_takes_a_heap_more_than_its_arrays():
    """Measured on a 24 Mpx TIFF: two tiles took 9 to 18 MB more than was projected without it."""
    large = Grid(4000, 6000, 1024, 128)
    one, two, three = (MODEL.restore(large, jobs) for jobs in (1, 2, 3))
    assert two - one == MODEL.per_job(large) + MOST_KEPT
    assert three - two == MODEL.per_job(large)


def test_a_heap_keeps_no_more_than_a_small_tile_used():
    """Measured on 1500 x 1100 px in four tiles: 309 MB where 409 MB were projected with whole heaps."""
    small = Grid(1100, 1500, 300, 48)
    assert 0 < MODEL.kept(small, 1) < MOST_KEPT == MODEL.kept(Grid(4000, 6000, 1024, 128), 1)
    assert MODEL.restore(small, 2) - MODEL.restore(small, 1) < 2 * MODEL.per_job(small)


def test_the_number_that_fits_is_the_largest():
    for limit in range(300_000_000, 3_000_000_000, 90_000_000):
        fitting = MODEL.jobs_that_fit(GRID, 16, limit)
        assert fitting == 0 or MODEL.restore(GRID, fitting) <= limit
        assert fitting == 16 or MODEL.restore(GRID, fitting + 1) > limit


def test_a_picture_wider_than_a_block_takes_no_more_memory_to_write():
    assert MODEL.export(Grid(4000, 100_000, 768, 128), 2) == MODEL.export(GRID, 2)


def test_a_plan_that_fits_is_projected_below_its_budget():
    for allowed in (400, 512, 800, 2000):
        plan = plan_memory(MODEL, GRID, allowed * 10**6, 8)
        assert plan.projected <= plan.allowed
        check_memory(plan, MODEL, GRID)


def test_what_does_not_fit_names_ways_out_that_do():
    plan = plan_memory(MODEL, GRID, 360_000_000, 2)
    assert plan.jobs == 1
    with pytest.raises(DoesNotFitError, match="--memory") as error:
        check_memory(plan, MODEL, GRID)
    text = str(error.value)
    tile = int(text.split("--tile ")[1].split()[0])
    smaller = Grid(4000, 6000, tile, 128)
    check_memory(plan_memory(MODEL, smaller, 360_000_000, 2), MODEL, smaller)
    memory = int(text.split("--memory ")[1].split("MB")[0]) * 10**6
    check_memory(plan_memory(MODEL, GRID, memory, 1), MODEL, GRID)


def test_without_a_fitting_tile_only_memory_is_offered():
    plan = plan_memory(MODEL, GRID, 100_000_000, 2)
    with pytest.raises(DoesNotFitError) as error:
        check_memory(plan, MODEL, GRID)
    assert "--tile" not in str(error.value)


def test_no_more_jobs_than_tiles():
    assert plan_memory(MODEL, Grid(500, 500, 768, 32), 10**11, 16).jobs == 1


@pytest.mark.parametrize(
    ("size", "text"), [(512_000_000, "512 MB"), (1_900_000_000, "1.9 GB"), (20_000, "20.0 kB"), (12, "12 B")]
)
def test_sizes_for_people(size, text):
    assert human_bytes(size) == text


@pytest.mark.parametrize("threads", [1, 3, 64])
def test_a_worker_with_the_memory_that_the_plan_names_is_accepted(threads):
    limit = worker_memory(MODEL, GRID, threads)
    needed, fitting = threads_that_fit(MODEL, GRID, 0, threads, int(limit * WORKER_SHARE))
    assert fitting == threads
    assert needed == pytest.approx(limit * WORKER_SHARE, abs=10**6)
    assert threads_that_fit(MODEL, GRID, 0, threads, int(limit * WORKER_SHARE) - 10**6)[1] == threads - 1


def test_what_the_planning_process_holds_is_not_asked_of_a_worker():
    """A notebook that holds 8 GB of other data plans runs for workers of 2 GB."""
    notebook = replace(MODEL, process=8 * 10**9)
    assert worker_memory(notebook, GRID, 2) == worker_memory(MODEL, GRID, 2)
    assert threads_that_fit(notebook, GRID, 0, 64, 2 * 10**9) == threads_that_fit(MODEL, GRID, 0, 64, 2 * 10**9)
