"""Work on a few items at a time in threads of this process."""

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
    """Work on some items at a time; give the results in order.

    Parameters
    ----------
    work
        Called with each item, from several threads where `at_once` is above one.
    items
        Taken one by one: no more than ``at_once + 1`` are taken before a result is given.
    at_once
        Items in work at a time.

    Yields
    ------
    Results in the order of the items. An error of one item is raised in its turn; items that are
    not begun by then are left.

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
