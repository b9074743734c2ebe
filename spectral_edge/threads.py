"""Work spread over threads whose results come in the order of the work."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final, TypeVar

_AHEAD: Final = 2
"""Items begun per worker before the oldest result is taken: results wait in memory."""

_Worker = TypeVar("_Worker")
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_in_order(
    function: Callable[[_Worker, _Item], _Result], workers: Sequence[_Worker], items: Iterable[_Item]
) -> Generator[_Result]:
    """`function(worker, item)` of each item by increasing position, in as many threads as there are workers.

    A worker is used by one call at a time. An exception of `function` is raised where its result would have come;
    what had not begun by then never does. The iterator must be exhausted or closed.
    """
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def call(item: _Item) -> _Result:
        worker = idle.get()
        try:
            return function(worker, item)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(len(workers), thread_name_prefix="gram")
    try:
        begun: deque[Future[_Result]] = deque()
        for item in items:
            begun.append(pool.submit(call, item))
            if len(begun) >= _AHEAD * len(workers):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
