"""Missing raw files: their names, URLs and target folder; and their download."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from plifctl import paths
from plifctl.config.dataset import DatasetSpec
from plifctl.data.datasets import published_files
from plifctl.data.source import RawSource, RemoteFile
from plifctl.errors import MissingRawDataError
from plifctl.pipeline.progress import Progress
from plifctl.units import format_bytes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DownloadPlan:
    """The missing files of a data set.

    Attributes:
        title: Title of the data set.
        folder: Folder that the missing files are downloaded to.
        files: The published files; empty for a user's own data set.
    """

    title: str
    folder: Path
    files: list[RemoteFile]

    @property
    def possible(self) -> bool:
        """Whether all missing files can be downloaded."""
        return bool(self.files) and all(file.urls for file in self.files)

    @property
    def amount(self) -> str:
        """Number of files, and their size where it is known."""
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        sizes = [file.nbytes for file in self.files if file.nbytes is not None]
        return f"{count}, {format_bytes(sum(sizes))}" if len(sizes) == len(self.files) else f"{count}, size unknown"

    def lines(self) -> list[str]:
        """Returns a line for each file: its name, size and first URL."""
        return [_line(file) for file in self.files]

    def instructions(self, command: str) -> str:
        """Returns instructions to get the files by hand and to type ``command``; empty if no files are published."""
        if not self.files:
            return ""
        if self.possible:
            lines = ["omit --no-download, or download by hand:"]
            lines += [f"  {file.urls[0]} as {file.name} (md5 {file.md5})" for file in self.files]
        else:
            wanted = " and ".join(f"{file.name} (md5 {file.md5})" for file in self.files)
            lines = [f"open {self.files[0].page} in a browser and download {wanted}"]
        place = shlex.quote(str(self.folder))
        lines.append(f"mkdir -p {place} and put the files there, packed or extracted (elsewhere: add --raw DIR)")
        lines.append(f"then type: {command}")
        return "\n".join(lines)


def plan_download(dataset: DatasetSpec, missing: MissingRawDataError, source: RawSource) -> DownloadPlan:
    """Returns the files to download and their folder: that of the other parts, the user's, or the cache directory's."""
    files, root = published_files(dataset, missing.parts), source.root
    if root is not None and root.name in {file.name for file in files}:
        root = root.parent  # the user named an archive that does not exist yet
    shared = paths.raw_dir()
    usual = shared / dataset.name if shared is not None else source.download_dir(dataset.name)
    return DownloadPlan(dataset.title, (missing.folder or root or usual or Path()).absolute(), files)


def download_missing(plan: DownloadPlan, progress: Progress) -> None:
    """Downloads the files of a plan.

    Raises:
        RawDataError: A file could not be downloaded.
        ChecksumError: Every URL serves another file.
        MachineError: The disk is full or the folder cannot be written.
    """
    from plifctl.data.download import download  # the network library takes a while to import

    _log.info("downloading %s to %s: %s", plan.title, plan.folder, plan.amount)
    for line in plan.lines():
        _log.info("  %s", line)
    with progress(f"downloading {plan.title}", "MB") as task:

        def report(name: str, done: int, total: int | None) -> None:
            expected = done if total is None else total
            task.update(done // 10**6, max(1, expected // 10**6), title=f"downloading {name}")

        download(plan.files, plan.folder, report)


def _line(file: RemoteFile) -> str:
    size = f" ({format_bytes(file.nbytes)})" if file.nbytes is not None else ""
    return f"{file.name}{size} from {file.urls[0]}"
