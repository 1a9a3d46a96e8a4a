"""Work on pieces ahead of the one who takes them, in order: reading, computing and writing overlap."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["prefetch"]

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(work: Callable[[Item], Made], items: Iterable[Item], threads: int) -> Iterator[Made]:
    """Yield ``work(item)`` for every item, in order; `threads` of them are begun or waiting to be taken, no more.

    `items` is asked by the caller's thread.  What `work` raises is raised in its turn; nothing begins after it.
    """
    begun: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                begun.append(pool.submit(work, item))
                if len(begun) == threads:  # before the next item is asked for: it is memory, too
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        finally:
            for future in begun:
                future.cancel()
