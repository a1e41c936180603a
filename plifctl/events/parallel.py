"""Work on recordings in threads, results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_R = TypeVar("_R")


def in_order(work: Callable[[str, bytes], _R], items: Iterator[tuple[str, bytes]], workers: int) -> Iterator[_R]:
    """Yields ``work`` of each item, in order, with no more than a few items in flight: memory stays flat.

    Args:
        work: Is handed a recording's name and content.
        items: The recordings.
        workers: Number of threads; numpy releases the lock where the time goes.
    """
    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[_R]] = []
        try:
            for item in items:
                pending.append(pool.submit(work, *item))
                if len(pending) > workers + 1:
                    yield pending.pop(0).result()
            while pending:
                yield pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()
