"""The same bytes on one thread, on two, and on a cluster of processes that see only receipts."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tilepipe.errors import InputError, SettingsError
from tilepipe.events import Receipt, StageStart
from tilepipe.execution.runnable import plan as make_plan
from tilepipe.psf.lens import LensBlur

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # distributed's own, at shutdown

MESSAGE_LIMIT = 64 * 1024


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
    ) as cluster:
        yield cluster


@pytest.fixture
def messages(monkeypatch):
    """Sizes of everything that this process sends or receives over the cluster's connections."""
    from distributed.comm import tcp

    sizes = []
    real = tcp.to_frames

    async def measured(*arguments, **options):
        frames = await real(*arguments, **options)
        sizes.append(sum(len(memoryview(frame).cast("B")) for frame in frames))
        return frames

    monkeypatch.setattr(tcp, "to_frames", measured)
    return sizes


def run(moving, folder, on_event=None, **settings):
    events = []

    def listen(event):
        events.append(event)
        if on_event:
            on_event(event)

    plan = make_plan(
        moving / "blurred.tif",
        folder / "out.tif",
        psf=moving / "psf.tif",
        tile=200,
        quality="fast",
        cache=str(folder / "c"),
        **settings,
    )
    report = plan.run(listen)
    return (folder / "out.tif").read_bytes(), report, [e for e in events if isinstance(e, Receipt)]


@pytest.mark.thorough
def test_one_thread_two_threads_and_a_cluster_give_the_same_bytes(moving, tmp_path, cluster, messages):
    for name in ("one", "two", "cluster"):
        (tmp_path / name).mkdir()
    one, _, _ = run(moving, tmp_path / "one", jobs=1)
    two, _, _ = run(moving, tmp_path / "two", jobs=2)
    far, report, receipts = run(moving, tmp_path / "cluster", scheduler=cluster.scheduler_address)
    assert one == two == far
    workers = {receipt.pid for receipt in receipts if receipt.stage == "restore"}
    assert len(workers) == 2
    assert os.getpid() not in workers
    assert {receipt.pid for receipt in receipts if receipt.stage == "ingest"} <= workers, "they read the image, too"
    assert len(report.workers) == 2
    assert messages
    assert max(messages) <= MESSAGE_LIMIT


@pytest.mark.thorough
def test_a_psf_field_gives_the_same_bytes_on_a_cluster(moving, tmp_path, cluster):
    lens = LensBlur(((0.5, 1.5),)).field(0.0, {})
    outputs = []
    for name, settings in (("here", {"jobs": 1}), ("there", {"scheduler": cluster.scheduler_address})):
        options = {"psf": lens, "tile": 200, "quality": "fast", "cache": str(tmp_path / name)} | settings
        make_plan(moving / "blurred.tif", tmp_path / f"{name}.tif", **options).run()
        outputs.append((tmp_path / f"{name}.tif").read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.thorough
def test_an_image_that_workers_are_not_sent_to_is_read_by_the_run_itself(moving, tmp_path, cluster):
    """Its name holds a byte that is not UTF-8, as no text that goes to a worker can."""
    image = tmp_path / "not for workers \udcff.tif"
    image.write_bytes((moving / "blurred.tif").read_bytes())
    outputs = []
    for name, settings in (("here", {}), ("there", {"scheduler": cluster.scheduler_address})):
        receipts = []
        options = {"psf": moving / "psf.tif", "tile": 200, "quality": "fast", "cache": str(tmp_path / name)}
        make_plan(image, tmp_path / f"{name}.tif", **options, **settings).run(receipts.append)
        read = [event for event in receipts if isinstance(event, Receipt) and event.stage == "ingest"]
        assert read
        assert {event.pid for event in read} == {0}, "not read by a task"
        outputs.append((tmp_path / f"{name}.tif").read_bytes())
    assert outputs[0] == outputs[1]


@pytest.mark.thorough
def test_an_image_that_changes_while_workers_read_it_ends_the_run(moving, tmp_path, cluster):
    image = tmp_path / "picture.tif"
    image.write_bytes((moving / "blurred.tif").read_bytes())

    def change(event):
        if isinstance(event, StageStart) and event.stage == "ingest":  # at the first receipt all may have been read
            os.utime(image, (1, 1))

    plan = make_plan(
        image,
        tmp_path / "out.tif",
        psf=moving / "psf.tif",
        tile=100,
        quality="fast",
        cache=str(tmp_path / "c"),
        scheduler=cluster.scheduler_address,
    )
    with pytest.raises(InputError, match="was changed or removed"):
        plan.run(change)
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.thorough
def test_a_scheduler_that_is_not_there_is_one_sentence(moving, tmp_path):
    with pytest.raises(SettingsError, match="no scheduler with workers answers"):
        run(moving, tmp_path, scheduler="tcp://127.0.0.1:9")


@pytest.mark.thorough
def test_a_worker_that_is_killed_costs_what_it_had_in_hand(moving, tmp_path, cluster):
    (tmp_path / "calm").mkdir()
    (tmp_path / "killed").mkdir()
    calm, _, _ = run(moving, tmp_path / "calm", jobs=2)
    victims = []

    def kill(event):
        if isinstance(event, Receipt) and event.stage == "restore" and not victims:
            victims.append(event.pid)
            os.kill(event.pid, signal.SIGKILL)

    shaken, report, _ = run(moving, tmp_path / "killed", on_event=kill, scheduler=cluster.scheduler_address)
    assert victims
    assert shaken == calm
    assert report.tiles["failed"] == 0


@pytest.mark.thorough
def test_a_cluster_reuses_what_threads_made(moving, tmp_path, cluster):
    first, _, _ = run(moving, tmp_path, jobs=2)
    (tmp_path / "out.tif").unlink()
    second, report, _ = run(moving, tmp_path, scheduler=cluster.scheduler_address)
    assert report.tiles["computed"] == 0
    assert first == second


@pytest.mark.thorough
def test_two_runs_of_one_picture_share_a_scheduler(moving, tmp_path, cluster):
    """The same recipe in two caches: equal keys would give one run the receipts of the other."""
    (tmp_path / "alone").mkdir()
    alone, _, _ = run(moving, tmp_path / "alone", jobs=2)
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda folder: run(moving, folder, scheduler=cluster.scheduler_address), folders))
    for written, report, _ in both:
        assert written == alone
        assert report.tiles["computed"] == report.tiles["total"]


@pytest.mark.thorough
def test_a_scheduler_in_this_process(moving, tmp_path):
    (tmp_path / "threads").mkdir()
    threads, _, _ = run(moving, tmp_path / "threads", jobs=2)
    with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
        here, report, _ = run(moving, tmp_path, scheduler=client.scheduler.address)
    assert here == threads
    assert report.tiles["computed"] == report.tiles["total"]
    (tmp_path / "out.tif").unlink()
    with pytest.raises(SettingsError, match="in another process"):
        run(moving, tmp_path, scheduler="inproc://10.0.0.1/1/1", halo=64)
