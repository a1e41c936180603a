"""Work in threads, results in order."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

_TASK_BYTES = 2**20  # less work than this is not worth a task of its own


class Weighed(Protocol):
    """An item of work."""

    @property
    def nbytes(self) -> int:
        """About how much there is to read."""
        ...


_I = TypeVar("_I", bound=Weighed)
_R = TypeVar("_R")


def in_order(work: Callable[[_I], _R], items: Iterable[_I], workers: int) -> Generator[_R, None, None]:
    """Yields ``work`` of each item, in order; only a few tasks are in flight, so memory stays flat.

    Args:
        work: Done in a thread; numpy, zlib, hashlib and compiled loops let others run meanwhile.
        items: Small ones are handed to a thread together.
        workers: Number of threads.

    Closed, or left by an exception in ``work``, it waits for the tasks that run and begins no other.
    """

    def all_of(group: list[_I]) -> list[_R]:
        return [work(item) for item in group]

    with ThreadPoolExecutor(workers) as pool:
        pending: list[Future[list[_R]]] = []
        try:
            for group in _groups(items):
                pending.append(pool.submit(all_of, group))
                if len(pending) > workers + 1:
                    yield from pending.pop(0).result()
            while pending:
                yield from pending.pop(0).result()
        finally:
            for future in pending:
                future.cancel()


def _groups(items: Iterable[_I]) -> Iterator[list[_I]]:
    group: list[_I] = []
    weight = 0
    for item in items:
        group.append(item)
        weight += item.nbytes
        if weight >= _TASK_BYTES:
            yield group
            group, weight = [], 0
    if group:
        yield group
