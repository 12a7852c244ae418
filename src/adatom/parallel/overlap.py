"""Process a few items at the same time, in threads of this process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def overlapped(
    work: Callable[[Item], Result], items: Iterable[Item], at_once: int
) -> Iterator[Result]:
    """Process some items at the same time; yield the results in order.

    Parameters
    ----------
    work
        Function of one item; called from several threads if `at_once` is above one.
    items
        Items; at most ``at_once + 1`` are taken before the first result is yielded.
    at_once
        Number of items processed at the same time.

    Yields
    ------
    Results in the order of the items. The error of an item is raised in its turn; items that have
    not started by then are not processed.

    Examples
    --------
    >>> list(overlapped(abs, [-1, 2, -3], at_once=2))
    [1, 2, 3]
    """
    if at_once <= 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(at_once) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > at_once:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
