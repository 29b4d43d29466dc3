"""Work that threads do ahead of whoever takes it."""

import collections
import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_ahead(function: Callable[[Item], Result], items: Iterable[Item], num_threads: int) -> Iterator[Result]:
    """Yields a function's results, in order, while threads are at the items that follow.

    Items are taken in the calling thread, no more than one beyond those that the threads can be at. What these raise
    comes after the results of the items before it.
    """
    waiting: collections.deque[concurrent.futures.Future] = collections.deque()
    iterator, error = iter(items), None
    with concurrent.futures.ThreadPoolExecutor(num_threads) as threads:
        try:
            while error is None:
                try:
                    waiting.append(threads.submit(function, next(iterator)))
                except StopIteration:
                    break
                except Exception as raised:
                    error = raised
                if len(waiting) > num_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(cancel_futures=True)
    if error:
        raise error


def read_ahead(items: Iterable[Item], num_waiting: int) -> Iterator[Item]:
    """Yields items that another thread takes ahead, so many at the most. What these raise comes after them."""
    iterator, end = iter(items), object()
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        try:
            waiting = collections.deque(thread.submit(next, iterator, end) for _ in range(num_waiting))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(thread.submit(next, iterator, end))
                yield item
        finally:
            thread.shutdown(cancel_futures=True)
