"""Progress of a verb: it opens tasks and updates them; the caller decides what to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One piece of work whose progress is reported."""

    def update(self, done: int, total: int, *, title: str | None = None, detail: str = "") -> None:
        """Reports that ``done`` of ``total`` units are done; ``title`` names the current part of the work."""


Progress = Callable[[str, str], AbstractContextManager[Task]]
"""Opens a task: called with its title and its unit, e.g. ``("framing N-MNIST", "samples")``."""


class _Silent:
    def update(self, done: int, total: int, *, title: str | None = None, detail: str = "") -> None:
        """Reports nothing."""


@contextmanager
def silent(title: str, unit: str) -> Iterator[Task]:
    """Opens a task that reports nothing: the progress of the Python API unless the caller passes another."""
    yield _Silent()
