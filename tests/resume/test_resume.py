"""Nothing lost: stop it anywhere, run it again, and the bytes are those of an undisturbed run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tilepipe.cache.collection import runs_in
from tilepipe.events import Note
from tilepipe.execution.runnable import plan as make_plan

QUICK = {"quality": "fast"}

TILE = 200
"""Of a 900 x 700 scene: 5 x 4 tiles."""


@pytest.fixture(scope="module")
def undisturbed(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    plan = make_plan(
        small / "blurred.tif", folder / "out.tif", psf=small / "psf.tif", tile=TILE, cache=str(folder / "c"), **QUICK
    )
    plan.run()
    return folder


@pytest.fixture(autouse=True)
def decided(request, tmp_path):
    """Blur and halo are known, as after a run that was killed while it read the picture: planning takes no time."""
    if "undisturbed" in request.fixturenames:
        cache = request.getfixturevalue("undisturbed") / "c"
        for known in [cache / "hashes", *cache.glob("*/memos")]:
            shutil.copytree(known, tmp_path / known.relative_to(cache.parent))


def planned(small, tmp_path, **settings):
    settings = {"psf": small / "psf.tif", "tile": TILE, "cache": str(tmp_path / "c")} | QUICK | settings
    return make_plan(small / "blurred.tif", tmp_path / "out.tif", **settings)


def copy_cache(undisturbed, tmp_path):
    """A finished cache, as it would stand after the run: the source is found by its content."""
    shutil.copytree(undisturbed / "c", tmp_path / "c", dirs_exist_ok=True)
    return next(runs_in(tmp_path / "c")).folder


def collect(plan, **options):
    events = []
    report = plan.run(events.append, **options)
    return report, events


def same_bytes(tmp_path, undisturbed):
    return (tmp_path / "out.tif").read_bytes() == (undisturbed / "out.tif").read_bytes()


def test_a_finished_run_computes_nothing_again(small, tmp_path, undisturbed):
    copy_cache(undisturbed, tmp_path)
    report, _ = collect(planned(small, tmp_path))
    assert report.tiles == {"total": 20, "computed": 0, "reused": 20, "repaired": 0, "failed": 0}
    assert same_bytes(tmp_path, undisturbed)


def test_a_lost_tile_is_never_taken_for_zeros(small, tmp_path, undisturbed):
    folder = copy_cache(undisturbed, tmp_path)
    for chunk in (folder / "result.zarr").glob("c.*"):
        chunk.unlink()
    (folder / "tiles.zarr/c.1.2.0.0.0").unlink()
    report, events = collect(planned(small, tmp_path))
    assert (report.tiles["computed"], report.tiles["repaired"]) == (1, 1)
    assert any(isinstance(e, Note) and "1 damaged" in e.text for e in events)
    assert same_bytes(tmp_path, undisturbed)


@pytest.mark.parametrize(
    ("damage", "stage"),
    [
        # without its source, every tile is computed again
        pytest.param(damage, stage, marks=pytest.mark.thorough if stage == "source" and damage != "flip" else ())
        for damage in ("flip", "truncate", "delete")
        for stage in ("source", "tiles", "result")
    ],
)
def test_a_damaged_chunk_is_made_anew(small, tmp_path, undisturbed, stage, damage):
    folder = copy_cache(undisturbed, tmp_path)
    place = folder.parent if stage == "source" else folder
    if stage == "source":
        for ledger in ("tiles.ledger", "result.ledger"):  # only then are the pixels looked at again
            shutil.rmtree(folder / ledger)
    elif stage == "tiles":
        shutil.rmtree(folder / "result.ledger")
    chunks = sorted((place / f"{stage}.zarr").glob("c.*"))
    chunk = chunks[len(chunks) // 2]
    content = bytearray(chunk.read_bytes())
    if damage == "flip":
        content[len(content) // 3] ^= 16
        chunk.write_bytes(content)
    elif damage == "truncate":
        chunk.write_bytes(content[: len(content) // 2])
    else:
        chunk.unlink()
    planned(small, tmp_path).run()
    assert same_bytes(tmp_path, undisturbed)


STAGE_MARKS = {
    "ingest": "source.ledger",
    "restore": "tiles.ledger",
    "blend": "result.ledger",
    "export": "out.tif.partial",
}


def start(small, tmp_path, *extra):
    command = [sys.executable, "-m", "tilepipe", "run", small / "blurred.tif", "-o", tmp_path / "out.tif"]
    command += [
        "--psf",
        small / "psf.tif",
        "--tile",
        TILE,
        "--cache",
        tmp_path / "c",
        "-j",
        2,
        "--json",
        "--quality",
        "fast",
        *extra,
    ]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_stage(process, tmp_path, stage):
    deadline = time.monotonic() + 900
    while process.poll() is None and time.monotonic() < deadline:
        if stage == "export":
            if (tmp_path / STAGE_MARKS[stage]).exists():
                return
        elif any((tmp_path / "c").rglob(f"{STAGE_MARKS[stage]}/*.json")):
            return
        time.sleep(0.002)


@pytest.mark.parametrize(
    "stage", [stage if stage == "restore" else pytest.param(stage, marks=pytest.mark.thorough) for stage in STAGE_MARKS]
)
def test_kill_9_in_every_stage_then_the_same_bytes(small, tmp_path, undisturbed, stage):
    process = start(small, tmp_path)
    wait_for_stage(process, tmp_path, stage)
    process.kill()
    process.communicate()
    before = len(list((tmp_path / "c").rglob("tiles.ledger/*.json")))
    again = start(small, tmp_path, "--overwrite")
    out, err = again.communicate(timeout=900)
    assert again.returncode == 0, err
    assert json.loads(out)["tiles"]["computed"] <= 20 - before
    assert same_bytes(tmp_path, undisturbed)


def test_ctrl_c_exits_130_and_says_how_to_go_on(small, tmp_path, undisturbed):
    process = start(small, tmp_path)
    wait_for_stage(process, tmp_path, "restore")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 130, err
    assert "run the same command to resume" in err
    assert "Traceback" not in err
    again = start(small, tmp_path)
    out, err = again.communicate(timeout=900)
    assert json.loads(out)["tiles"]["reused"] >= 1
    assert same_bytes(tmp_path, undisturbed)


@pytest.mark.thorough
def test_ctrl_c_twice_ends_at_once_and_the_same_command_goes_on(small, tmp_path, undisturbed):
    process = start(small, tmp_path)
    wait_for_stage(process, tmp_path, "restore")
    process.send_signal(signal.SIGINT)
    assert "stopping" in next(line for line in process.stderr if "stopping" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=900)
    assert process.returncode == 130
    again = start(small, tmp_path, "--overwrite")
    _, err = again.communicate(timeout=900)
    assert again.returncode == 0, err
    assert same_bytes(tmp_path, undisturbed)


@pytest.mark.thorough
def test_sigterm_exits_143(small, tmp_path):
    process = start(small, tmp_path)
    wait_for_stage(process, tmp_path, "restore")
    process.terminate()
    process.communicate(timeout=900)
    assert process.returncode == 143


@pytest.mark.thorough
def test_a_second_run_on_the_same_recipe_is_refused(small, tmp_path):
    process = start(small, tmp_path)
    wait_for_stage(process, tmp_path, "ingest")
    second = start(small, tmp_path)
    _, err = second.communicate(timeout=900)
    _, first_err = process.communicate(timeout=900)
    assert process.returncode == 0, first_err
    if second.returncode != 4:  # it may also have come after the first had written the output
        assert second.returncode == 7, err
        assert f"process {process.pid}" in err


@pytest.mark.slow
def test_twenty_kills_at_random_moments(small, tmp_path, undisturbed):
    generator = random.Random(5)
    for _ in range(20):
        process = start(small, tmp_path, "--overwrite")
        time.sleep(generator.uniform(1.0, 9.0))
        process.kill()
        process.communicate()
    process = start(small, tmp_path, "--overwrite")
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert same_bytes(tmp_path, undisturbed)
    assert os.path.exists(tmp_path / "out.tif")
