"""Caches are listed, checked, mended and collected; what runs, or can be gone on with, is not touched unasked."""

import json
import os
import time

import pytest
from workplace import PRIORITIES, TILES, at, reference

from tilepipe.cache.collection import collect, runs_in, size_of
from tilepipe.cache.lock import locked
from tilepipe.cli.main import main
from tilepipe.errors import InterruptedRunError


@pytest.fixture
def call(capsys):
    """Run the command line here; give (exit code, stdout, stderr)."""

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    return run


def interrupted(place, priority=0.0, tiles=4):
    """Leave a run of which some tiles are done."""

    for mark in ("done.json", "tiles.ledger", "result.ledger"):
        path = place.run_folder(priority) / mark
        for file in path.glob("*") if path.is_dir() else [path]:
            file.unlink()
    with pytest.raises(InterruptedRunError):
        place.run(priority=priority, on_event=at("restore", place.stop, tiles))


def used(place, priority, moment):
    """Let the run seem last used at a moment."""
    os.utime(place.run_folder(priority) / "recipe.json", (moment, moment))


def names(place):
    return {run.recipe.priority for run in runs_in(place.cache)}


def test_ls_tells_progress_size_age_settings_and_image(finished, call):
    interrupted(finished, 0.5)
    _, out, _ = call("cache", "ls", "--cache", finished.cache, "--json")
    listing = json.loads(out)
    rows = {row["priority"]: row for row in listing["runs"]}
    assert (rows[0.0]["complete"], rows[0.5]["complete"]) == (True, False)
    assert 0 < rows[0.5]["tiles"]["done"] < rows[0.5]["tiles"]["total"] == TILES
    for priority, row in rows.items():
        written = (finished.run_folder(priority) / "recipe.json").stat().st_mtime
        assert 0 <= row["age"] <= time.time() - written
        assert row["bytes"] > 10**5
        assert row["in_use_by"] is None
    assert listing["bytes"] == size_of(finished.cache)
    _, out, _ = call("cache", "ls", "--cache", finished.cache)
    assert "complete, used" in out
    assert f"/{TILES} tiles" in out


def test_ls_tells_who_works_there(finished, call):
    with locked(finished.run_folder(0.5), finished.cache):
        _, out, _ = call("cache", "ls", "--cache", finished.cache)
    assert out.count(f"in use by process {os.getpid()}") == 1


def test_collecting_takes_the_least_recently_used_first_and_only_as_much_as_needed(finished):
    used(finished, 0.0, 1000)
    used(finished, 0.5, 2000)
    total = size_of(finished.cache)
    assert [item.reason.split(",")[0] for item in collect(finished.cache, total - 1, dry_run=True)] == ["complete"]
    assert names(finished) == set(PRIORITIES), "a dry run removes nothing"
    collect(finished.cache, total - 1)
    assert names(finished) == {0.5}
    assert size_of(finished.cache) < total
    collect(finished.cache, 0)
    assert names(finished) == set()
    assert not list(finished.cache.rglob("*.zarr")), "the source goes with its last run"


def test_collecting_leaves_what_can_be_gone_on_with_unless_told(finished, call):
    interrupted(finished, 0.5)
    used(finished, 0.5, 1000)
    call("cache", "gc", "--cache", finished.cache, "--limit", "0")
    assert names(finished) == {0.5}
    done = finished.run(priority=0.5)
    assert 0 < len(done.computed) < TILES
    interrupted(finished, 0.5)
    code, out, err = call("cache", "gc", "--cache", finished.cache, "--limit", "0", "--resumable", "--dry-run")
    assert (code, names(finished)) == (0, {0.5})
    assert "would remove" in out
    assert "would be freed" in err
    call("cache", "gc", "--cache", finished.cache, "--limit", "0", "--resumable")
    assert names(finished) == set()


def test_collecting_never_touches_a_run_at_work(finished):
    with locked(finished.run_folder(0.0), finished.cache):
        collect(finished.cache, 0, resumable=True)
    assert names(finished) == {0.0}


def test_collecting_without_a_limit_takes_leftovers_only(finished, call):
    folder = finished.run_folder(0.0)
    (folder / "tiles.zarr" / "c.0.0.0.0.abc.partial").write_bytes(b"half")
    trash = finished.cache / ".trash-1"
    trash.mkdir()
    orphan = finished.cache / "0123456789abcdef"
    (orphan / "source.zarr").mkdir(parents=True)
    mine = finished.cache / "my notes"
    mine.mkdir()
    call("cache", "gc", "--cache", finished.cache)
    assert names(finished) == set(PRIORITIES)
    assert mine.is_dir()
    assert not orphan.exists()
    assert not trash.exists()
    assert not list(finished.cache.rglob("*.partial"))


def test_a_run_keeps_the_cache_within_its_limit_and_itself(finished):
    used(finished, 0.0, 1000)
    happened = finished.run(priority=0.5, cache_limit="1MB")
    assert names(finished) == {0.5}
    assert "older runs removed" in happened.notes


def test_the_cache_can_be_dropped_after_a_run(finished, template):
    finished.run(keep_cache=False)
    assert names(finished) == {0.5}
    assert finished.output.read_bytes() == reference(template)


def damage(finished, stage):
    """Flip a bit in the middle of one chunk of each run; return how many."""
    chunks = [sorted(folder.glob("c.*"))[0] for folder in finished.cache.rglob(f"{stage}.zarr")]
    for chunk in chunks:
        content = bytearray(chunk.read_bytes())
        content[len(content) // 2] ^= 8
        chunk.write_bytes(content)
    return len(chunks)


@pytest.mark.parametrize("stage", ["source", "tiles", "result"])
def test_verify_finds_damage_and_fix_drops_it(finished, template, call, stage):
    count = damage(finished, stage)
    code, _, err = call("cache", "verify", "--cache", finished.cache)
    assert code == 7
    assert "--fix" in err
    code, out, err = call("cache", "verify", "--cache", finished.cache, "--fix")
    assert code == 0
    assert f"{count} damaged ones dropped" in out
    assert call("cache", "verify", "--cache", finished.cache)[0] == 0
    happened = finished.run()
    assert len(happened.computed) == 0, "the results of damaged tiles are there"
    assert finished.output.read_bytes() == reference(template)


def test_verify_does_not_mend_under_a_run_at_work(finished, call):
    damage(finished, "tiles")
    with locked(finished.run_folder(0.0), finished.cache):
        code, _, err = call("cache", "verify", "--cache", finished.cache, "--fix")
    assert code == 7
    assert "in use by process" in err


def test_rm_refuses_a_run_at_work(finished, call):
    with locked(finished.run_folder(0.0), finished.cache):
        assert call("cache", "rm", "--cache", finished.cache, "--all")[0] == 7
    assert 0.0 in names(finished)
