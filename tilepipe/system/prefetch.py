"""Process items ahead of their consumer, in order, so that reading, computing and writing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Generator[Made]:
    """Yield ``work(item)`` for every item, in order, with at most `threads` items running or waiting to be consumed.

    `items` is iterated in the caller's thread.  An exception of `work` is raised when its item is due, and pending
    items are cancelled.
    """
    pending: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) == threads:  # yield before fetching the next item, which takes memory too
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
