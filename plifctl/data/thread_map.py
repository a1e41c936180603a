"""A map over threads that returns results in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

_TASK_BYTES = 2**20  # for fewer bytes, a separate task costs more than reading them


class WorkItem(Protocol):
    """An item of work."""

    @property
    def nbytes(self) -> int:
        """Approximate number of bytes that a thread reads for the item."""
        ...


_I = TypeVar("_I", bound=WorkItem)
_R = TypeVar("_R")


def ordered_map(work: Callable[[_I], _R], items: Iterable[_I], workers: int) -> Generator[_R, None, None]:
    """Yields ``work(item)`` for each item, in order; only a few tasks are in flight, so memory stays bounded.

    When it is closed, or ``work`` raises, it waits for the tasks that are running and starts no others.

    Args:
        work: Called in a thread; numpy, zlib, hashlib and compiled loops release the GIL.
        items: Items of work; small ones are given to a thread together.
        workers: Number of threads.
    """

    def work_on(group: list[_I]) -> list[_R]:
        return [work(item) for item in group]

    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[list[_R]]] = []
        try:
            for group in _group_items(items):
                pending.append(pool.submit(work_on, group))
                if len(pending) > workers + 1:
                    yield from pending.pop(0).result()
            while pending:
                yield from pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def _group_items(items: Iterable[_I]) -> Iterator[list[_I]]:
    group: list[_I] = []
    nbytes = 0
    for item in items:
        group.append(item)
        nbytes += item.nbytes
        if nbytes >= _TASK_BYTES:
            yield group
            group, nbytes = [], 0
    if group:
        yield group
