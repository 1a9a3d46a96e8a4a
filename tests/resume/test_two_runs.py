"""Two runs in one process, one after the other and at once: each as if it were alone; the process is left as it was."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import dask.callbacks
import pytest
import zarr
from PIL import Image
from workplace import PRIORITIES, TILES, at, reference

from tilepipe.errors import InterruptedRunError
from tilepipe.events import Receipt
from tilepipe.system import memory


def run(place, priority, on_event=None):
    """Run in the calling thread; return the bytes written and the receipts heard."""
    heard = []

    def listen(event):
        heard.append(event)
        if on_event:
            on_event(event)

    output = place.folder / f"mine-{priority}.tif"
    place.plan(output=output, priority=priority, jobs=2).run(listen)
    return output.read_bytes(), [event for event in heard if isinstance(event, Receipt)]


def test_two_at_once_hear_only_their_own(place, template):
    with ThreadPoolExecutor(2) as pool:
        results = dict(zip(PRIORITIES, pool.map(lambda priority: run(place, priority), PRIORITIES), strict=True))
    for priority, (written, receipts) in results.items():
        assert written == reference(template, priority)
        assert sum(receipt.stage == "restore" for receipt in receipts) == TILES


def test_stopping_one_does_not_stop_the_other(place, template):
    with ThreadPoolExecutor(1) as pool:
        other = []

        def begin_another():
            other.append(pool.submit(run, place, PRIORITIES[1]))
            place.stop()

        with pytest.raises(InterruptedRunError):
            place.run(on_event=at("restore", begin_another))
        assert other[0].result()[0] == reference(template, PRIORITIES[1])
    assert run(place, PRIORITIES[0])[0] == reference(template, PRIORITIES[0])


def state():
    """What a library must leave alone in the process of its user."""
    return {
        "zarr": str(zarr.config.to_dict()) if hasattr(zarr.config, "to_dict") else str(zarr.config.config),
        "pillow": Image.MAX_IMAGE_PIXELS,
        "dask": set(dask.callbacks.Callback.active),
        "environment": dict(os.environ),
        "signals": [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
        "folder": os.getcwd(),
    }


def test_a_run_leaves_the_process_as_it_was(place, monkeypatch):
    def refuse(*_):
        raise AssertionError("the allocator belongs to the process")

    monkeypatch.setattr(memory, "_set_malloc", refuse)
    before = state()
    place.run()
    assert state() == before
