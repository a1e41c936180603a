"""Sources of raw data: the user's folders and archives, and published files that can be downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from plifctl.errors import UsageError

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
"""Default number of threads that read, decode and frame."""


@dataclass(frozen=True)
class RawSource:
    """Location of the raw files of a data set, and options for reading them.

    Attributes:
        root: Folder of the files or its parent, or one archive; None: PLIFCTL_RAW_DIR, then the system's folders.
        verify: Refuse files whose checksum differs from the published one.
        download: Download missing files that are published.
        workers: Threads that read, decode and frame.
        cache_dir: Cache directory, in which surveys and downloads are stored; None: nothing is stored.
        remember: Save surveys, so that files that have not changed are not read again.
        read: Read files; False: use what the saved surveys say, and refuse recordings that changed since.

    Raises:
        UsageError: ``workers`` is no number from 1.
    """

    root: Path | None = None
    verify: bool = True
    download: bool = True
    workers: int = DEFAULT_WORKERS
    cache_dir: Path | None = None
    remember: bool = True
    read: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.workers, int) or self.workers < 1:
            raise UsageError(f"workers: found {self.workers!r}, expected a number of threads, at least 1")

    @property
    def survey_dir(self) -> Path | None:
        """Directory of saved surveys; None: every file is read again."""
        return self.cache_dir / ".surveys" if self.cache_dir is not None and self.remember else None

    def download_dir(self, dataset: str) -> Path | None:
        """Returns the folder that files are downloaded to unless the user names one."""
        return self.cache_dir / "raw" / dataset if self.cache_dir is not None else None


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: Its name on disk, which may differ from that in its URLs.
        urls: Its URLs, tried in this order; empty if it must be downloaded by hand.
        md5: Its published checksum.
        nbytes: Its size if known; for display only.
        page: URL of its web page.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    nbytes: int | None = None
    page: str = ""
