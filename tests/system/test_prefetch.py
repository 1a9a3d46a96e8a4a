"""Work done ahead comes in order, is bounded, and stops where it fails."""

import threading

import pytest

from tilepipe.system.prefetch import prefetch


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_come_in_order_and_no_more_are_begun_than_threads(threads):
    begun, taken, most = [], 0, 0
    lock = threading.Lock()

    def work(item):
        with lock:
            begun.append(item)
        return item * item

    for index, made in enumerate(prefetch(work, range(40), threads)):
        with lock:
            most = max(most, len(begun) - taken)
        taken += 1
        assert made == index * index
    assert taken == 40
    assert most <= threads


def test_what_fails_is_raised_in_its_turn_and_nothing_begins_after_it():
    begun = []

    def work(item):
        begun.append(item)
        if item == 3:
            raise OSError("disk")
        return item

    got = []
    with pytest.raises(OSError, match="disk"):
        got.extend(prefetch(work, range(100), 2))
    assert got == [0, 1, 2]
    assert max(begun) <= 5


def test_items_are_asked_for_as_they_are_needed():
    asked = []

    def items():
        for item in range(10):
            asked.append(item)
            yield item

    results = prefetch(lambda item: item, items(), 3)
    next(results)
    assert len(asked) <= 3
    results.close()
