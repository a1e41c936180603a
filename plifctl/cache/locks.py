"""One build of a cache at a time: its lock, and the journals that the lock protects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from plifctl.cache.key import framing_label
from plifctl.config.base import digest_of


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
