"""Reads the next images while the net computes on this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


def ahead(read: Callable[[Item], Value], items: Iterable[Item], workers: int) -> Iterator[tuple[Item, Future[Value]]]:
    """(item, future of read(item)) in the order of the items; up to `workers` + 1 are read in advance.

    What `read` raises comes out of `future.result()`, so that the caller decides what one bad file means. Threads do,
    because decoders let go of Python's lock. With `workers` 0 each item is read when it is asked for.
    """
    if workers <= 0:
        for item in items:
            yield item, _now(read, item)
        return
    with ThreadPoolExecutor(workers, thread_name_prefix="read") as pool:
        waiting: deque[tuple[Item, Future[Value]]] = deque()
        try:
            for item in items:
                waiting.append((item, pool.submit(read, item)))
                if len(waiting) > workers:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:  # the caller stopped early: what nobody waits for is not read
            for _, future in waiting:
                future.cancel()


def _now(read: Callable[[Item], Value], item: Item) -> Future[Value]:
    done: Future[Value] = Future()
    try:
        done.set_result(read(item))
    except Exception as error:
        done.set_exception(error)
    return done
