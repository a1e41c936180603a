"""One build of a cache at a time: its lock, and the journals that the lock protects."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock
import numpy as np

from plifctl.cache.key import framing_label
from plifctl.config.base import digest_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BuildPaths:
    """Paths of the lock and the journals of all builds with one framing, independent of the raw data.

    Attributes:
        folder: The folder of the caches.
        name: Name derived from the framing.
    """

    folder: Path
    name: str

    @classmethod
    def of(cls, cache_dir: Path, raw_independent: dict[str, object]) -> BuildPaths:
        """Returns the paths that belong to a :func:`~plifctl.cache.key.raw_independent_key`."""
        name = f"{framing_label(raw_independent)}-{digest_of(raw_independent)[:12]}"
        return cls(cache_dir / str(raw_independent["dataset"]), name)

    @property
    def lock(self) -> Path:
        """File that is locked by the process that builds or removes a cache."""
        return self.folder / f".{self.name}.lock"

    def journal(self, dtype: type[np.unsignedinteger]) -> Path:
        """Returns the journal of samples whose counts have the type ``dtype``."""
        return self.folder / f".{self.name}-{np.dtype(dtype).name}.journal"


@contextmanager
def build_lock(paths: BuildPaths, *, wait: bool = True) -> Iterator[None]:
    """Keeps other processes from building or removing caches with the same framing while the block runs.

    Raises:
        filelock.Timeout: Another process has the lock, and ``wait`` is false.
    """
    lock = filelock.FileLock(paths.lock)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        if not wait:
            raise
        _log.warning("another process builds this cache; waiting for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
