"""Where raw data come from: folders and archives of the user's, and published files that can be downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from plifctl import paths

DEFAULT_WORKERS = min(8, os.cpu_count() or 1)
"""Default number of threads that read, decode and frame."""


@dataclass(frozen=True)
class RawSource:
    """Where the raw files of a data set are, and how to read them.

    Attributes:
        root: Folder of the files or its parent, or one archive; None: PLIFCTL_RAW_DIR, then the system's folders.
        verify: Refuse files whose checksum differs from the published one.
        download: Download missing files that are published.
        workers: Threads that read, decode and frame.
        cache_dir: Cache directory, where surveys and downloads are kept; None: nothing is kept.
        remember: Save surveys, so that files that have not changed are not read again.
    """

    root: Path | None = None
    verify: bool = True
    download: bool = True
    workers: int = DEFAULT_WORKERS
    cache_dir: Path | None = None
    remember: bool = True

    @property
    def survey_dir(self) -> Path | None:
        """Directory of saved surveys; None: every file is read again."""
        return paths.survey_dir(self.cache_dir) if self.cache_dir is not None and self.remember else None

    def download_dir(self, dataset: str) -> Path | None:
        """Returns the folder that files are downloaded to unless the user names one."""
        return paths.download_dir(self.cache_dir, dataset) if self.cache_dir is not None else None


@dataclass(frozen=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: Its name on the disk, whatever its URLs call it.
        urls: Its URLs, tried in this order; none where it has to be downloaded by hand.
        md5: Its published checksum.
        nbytes: Its size where that is known, to be shown; not compared with anything.
        page: URL where a person finds it.
    """

    name: str
    urls: tuple[str, ...]
    md5: str
    nbytes: int | None = None
    page: str = ""
