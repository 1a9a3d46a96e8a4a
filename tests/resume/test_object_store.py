"""A cache in an object store gives the bytes of a cache in a folder, through kills, failing requests and damage."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest
from object_server import BUCKET, KEYS, running_server
from workplace import TILES, Workplace, reference

from tilepipe.cache import object_lock
from tilepipe.cache.collection import collect, runs_in
from tilepipe.cache.layout import cache_root
from tilepipe.cache.lock import holder_of, locked
from tilepipe.cache.lock_owner import new_owner
from tilepipe.errors import CacheError, DoesNotFitError, SettingsError, StorageError, TilepipeError
from tilepipe.events import Receipt, silent
from tilepipe.system import object_store

pytest.importorskip("obstore")
pytest.importorskip("moto")


@pytest.fixture(scope="module")
def started():
    with running_server() as server:
        yield server


@pytest.fixture
def server(started, monkeypatch):
    """The server, with this process as its client."""
    for name, value in started.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(started, "answer", lambda method, path, query: None)
    object_store._open_bucket.cache_clear()
    started.requests.clear()
    return started


@pytest.fixture
def root(server, tmp_path):
    """The address of an empty cache."""
    return f"s3://{BUCKET}/{tmp_path.name}/cache"


@pytest.fixture
def expected(template):
    """The output of a run with a folder as its cache."""
    return reference(template)


def objects(root):
    """Return the objects of the cache at `root`, by address."""
    return {str(path): path for path, _ in cache_root(root).below()}


def test_the_output_is_the_same_as_with_a_folder(place, expected, root):
    happened = place.run(cache=root)
    assert place.output.read_bytes() == expected
    assert happened.report.tiles["computed"] == TILES
    again = place.run(cache=root)
    assert place.output.read_bytes() == expected
    assert again.report.tiles["computed"] == 0


@pytest.mark.thorough
def test_a_file_address_is_a_folder(place, expected, tmp_path):
    place.run(cache=f"file://{tmp_path}/by-address")
    assert place.output.read_bytes() == expected
    assert (tmp_path / "by-address").is_dir()


@pytest.mark.thorough
def test_a_killed_run_resumes_from_the_store(place, expected, root, server, tilepipe_command):
    """The process is killed as soon as three tiles are recorded."""
    place.plan().psf.save(place.folder / "psf.tif")
    arguments = [place.picture, "-o", place.output, "--psf", place.folder / "psf.tif", "--tile", 150, "-j", 1]
    arguments += ["--quality", "fast", "--set", "solver=richardson-lucy", "--set", "tolerance=0.25"]  # as `SETTINGS`
    arguments += ["--cache", root, "--json"]
    enough = threading.Event()

    def count(method, path, query):
        recorded = {p for m, p, _ in server.requests if m == "PUT" and "tiles.ledger" in p}
        if len(recorded) >= 3:
            enough.set()

    server.answer = count
    process = subprocess.Popen(
        [sys.executable, "-m", "tilepipe", "run", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert enough.wait(300)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not place.output.exists()
    server.answer = lambda method, path, query: None
    report = json.loads(tilepipe_command("run", *arguments).stdout)
    assert report["tiles"]["reused"] >= 2
    assert place.output.read_bytes() == expected


@pytest.mark.thorough
def test_requests_that_fail_for_a_while_are_repeated(place, expected, root, server):
    """Every seventh request is answered by 503 once."""
    counter = iter(range(10**9))
    server.answer = lambda method, path, query: ("503 Slow Down", "") if next(counter) % 7 == 6 else None
    place.run(cache=root)
    assert place.output.read_bytes() == expected
    assert next(counter) > 50, "the server was asked"


def test_a_full_store_ends_the_run_and_it_resumes_when_there_is_space(place, expected, root, server, monkeypatch):
    monkeypatch.setattr(object_store, "RETRIES", 0)
    body = "<Error><Code>QuotaExceeded</Code><Message>no space</Message></Error>"

    def fill(method, path, query):
        is_full = sum(m == "PUT" and "tiles.zarr/c" in p for m, p, _ in server.requests) > 4
        return ("507 Insufficient Storage", body) if method == "PUT" and is_full else None

    server.answer = fill
    with pytest.raises(DoesNotFitError, match="is full"):
        place.run(cache=root)
    server.answer = lambda method, path, query: None
    assert place.run(cache=root).report.tiles["reused"] >= 3
    assert place.output.read_bytes() == expected


@pytest.mark.parametrize("moment", ["hashes", "recipe.json", "tiles.zarr/c"])
def test_a_refused_request_is_one_line_that_holds_no_secret(place, root, server, moment, monkeypatch):
    monkeypatch.setattr(object_store, "RETRIES", 0)
    body = "<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist.</Message></Error>"
    server.answer = lambda method, path, query: ("403 Forbidden", body) if moment in path else None
    with pytest.raises(TilepipeError, match="the store answers") as caught:
        place.run(cache=root)
    text = str(caught.value)
    assert "\n" not in text
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in text
    assert caught.value.exit_code in (6, 7)


@pytest.mark.thorough
def test_nothing_that_is_stored_or_reported_holds_a_secret(place, root, server, tilepipe_command):
    report = place.run(cache=root).report
    secrets = [KEYS[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    contents = [path.read_bytes() for path in objects(root).values()]
    contents += [json.dumps(report.to_dict()).encode(), place.output.read_bytes()]
    assert len(contents) > TILES
    assert not [content for content in contents for secret in secrets if secret in content]


@pytest.mark.parametrize(
    ("environment", "address", "words"),
    [
        ({}, "s3://no-such-bucket/x", "bucket does not exist"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, f"s3://{BUCKET}/x", "no answer from http://127.0.0.1:9"),
        ({"AWS_SECRET_ACCESS_KEY": None}, f"s3://{BUCKET}/x", "AccessKey|credentials"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_before_anything_is_computed(
    place, server, monkeypatch, environment, address, words
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name)
    monkeypatch.setattr(object_store, "RETRIES", 0)
    object_store._open_bucket.cache_clear()
    with pytest.raises(StorageError, match=words) as caught:
        place.run(cache=address)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("address", ["ftp://host/x", "s3://", "s3://key:secret@bucket/x"])
def test_an_address_that_means_nothing_is_a_usage_error(address):
    with pytest.raises(SettingsError):
        cache_root(address)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("array", "damage"), [("source.zarr", "missing"), ("tiles.zarr", "other"), ("result.zarr", "short")]
)
def test_damaged_objects_are_computed_again(place, expected, root, array, damage):
    place.run(cache=root)
    chunk = next(path for address, path in objects(root).items() if f"{array}/c" in address)
    if damage == "missing":
        chunk.unlink()
    else:
        content = chunk.read_bytes()
        chunk.write_bytes(content[:-1] if damage == "short" else content[:-1] + bytes([content[-1] ^ 1]))
    for address, path in objects(root).items():  # else tiles are not needed
        if array == "tiles.zarr" and "result.ledger" in address:
            path.unlink()
    place.run(cache=root)
    assert place.output.read_bytes() == expected


@pytest.mark.thorough
def test_the_number_of_listings_does_not_grow_with_the_tiles(place, root, server):
    counts = []
    for tile in (300, 100):
        server.requests.clear()
        tiles = place.run(cache=f"{root}{tile}", tile=tile).report.tiles["total"]
        counts.append((tiles, server.lists()))
    assert counts[1][0] > 3 * counts[0][0]
    assert counts[1][1] == counts[0][1]


@pytest.mark.thorough
def test_a_second_run_with_the_same_image_ends_with_the_first_ones_name(place, root):
    def again(event):
        if isinstance(event, Receipt) and event.stage == "restore" and not second:
            second.append(True)
            with pytest.raises(CacheError, match="in use by process"):
                Workplace(place.folder).run(cache=root)

    second = []
    place.run(cache=root, on_event=again)
    assert second


@pytest.mark.thorough
def test_runs_are_listed_and_removed(place, root):
    place.run(cache=root)
    place.run(cache=root, priority=0.5)
    runs = list(runs_in(cache_root(root)))
    assert [run.complete for run in runs] == [True, True]
    collect(cache_root(root), 0, keep=runs[0].folder)
    assert [run.name for run in runs_in(cache_root(root))] == [runs[0].name]
    assert any("source.zarr" in address for address in objects(root)), "still used"
    collect(cache_root(root), 0)
    assert not [address for address in objects(root) if "hashes" not in address]


# the lock


@pytest.fixture
def folder(root):
    return cache_root(root) / "source" / "run"


def elsewhere(folder, count):
    """Write the lock of a process on another host."""
    (folder / "lock").write_bytes(json.dumps({"pid": 1, "host": "elsewhere", "token": "t", "count": count}).encode())


def test_a_lock_from_elsewhere_is_respected_while_it_changes(folder, monkeypatch):
    monkeypatch.setattr(object_lock, "POLL_SECONDS", 0.05)
    elsewhere(folder, 0)
    beat = threading.Timer(0.2, elsewhere, (folder, 1))
    beat.start()
    with pytest.raises(CacheError, match="elsewhere"), locked(folder, folder.parent.parent):
        pass
    beat.join()


def test_a_lock_from_elsewhere_that_does_not_change_is_taken_over(folder, monkeypatch):
    monkeypatch.setattr(object_lock, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(object_lock, "STALE", 0.3)
    elsewhere(folder, 0)
    with locked(folder, folder.parent.parent) as held:
        held.check()
        assert "elsewhere" not in holder_of(folder)
    assert holder_of(folder) is None


def test_a_run_that_slept_notices_that_its_lock_was_taken(folder, monkeypatch):
    monkeypatch.setattr(object_lock, "HEARTBEAT", 1000)
    with locked(folder, folder.parent.parent) as held:
        elsewhere(folder, 0)
        monkeypatch.setattr(object_lock, "HEARTBEAT", -1)  # its count is overdue
        with pytest.raises(CacheError, match="taken over"):
            held.check()
    assert "elsewhere" in holder_of(folder), "the other one's lock stays"


def test_a_run_that_cannot_reach_the_store_for_a_minute_gives_its_lock_up(folder, server, monkeypatch):
    monkeypatch.setattr(object_lock, "HEARTBEAT", 0.05)
    monkeypatch.setattr(object_lock, "STALE", 0.2)
    monkeypatch.setattr(object_store, "RETRIES", 0)
    object_store._open_bucket.cache_clear()
    with locked(folder, folder.parent.parent) as held:
        server.answer = lambda method, path, query: ("500 Internal Error", "")
        time.sleep(1)
        with pytest.raises(CacheError, match="taken over"):
            held.check()
        server.answer = lambda method, path, query: None


def test_an_answer_that_is_lost_does_not_cost_the_lock(folder, server):
    """The store carries a request out and then fails: the repeated request finds the lock, which is this run's own."""
    failed = []

    def fail_once_after_the_first(method, path, query):
        if method == "PUT" and path.endswith("lock") and not failed:
            failed.append(path)
            server.answer = lambda method, path, query: None
            return "503 Slow Down", ""
        return None

    path = folder / "lock"
    with object_lock.locked_object(folder, silent) as held:
        server.answer = fail_once_after_the_first
        content = json.loads(path.read_bytes())
        path.write_bytes(json.dumps(content | {"count": 5}).encode())  # as if by the request whose answer was lost
        held.renew()
        held.check()
    assert failed


def test_one_of_eight_takes_a_dead_lock(folder, monkeypatch):
    dead = subprocess.Popen([sys.executable, "-c", "pass"])
    dead.wait()
    owner = json.loads(new_owner()) | {"pid": dead.pid}
    (folder / "lock").write_bytes(json.dumps(owner).encode())
    inside, outside, tried = [], [], threading.Barrier(8)

    def contend():
        tried.wait()
        try:
            with locked(folder, folder.parent.parent):
                inside.append(1)
                ended.wait(60)
        except CacheError:
            outside.append(1)
            if len(outside) == 7:
                ended.set()

    ended = threading.Event()
    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(inside), len(outside)) == (1, 7)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore")  # distributed's own, at shutdown
def test_workers_of_a_cluster_use_the_store(place, expected, root):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        report = place.plan(cache=root).run(client=client, overwrite=True)
        assert len(report.workers) == 2
    assert place.output.read_bytes() == expected
