"""Raw files that are missing: which, whence, whereto; and downloading them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from plifctl import paths
from plifctl.cli import console
from plifctl.config.dataset import DatasetSpec
from plifctl.data.datasets import published_files
from plifctl.data.remote import RemoteFile
from plifctl.errors import MissingRawDataError


@dataclass(frozen=True)
class Plan:
    """What is missing of a data set.

    Attributes:
        title: The data set.
        folder: Where its missing files belong.
        files: The published ones; none of a data set of one's own.
    """

    title: str
    folder: Path
    files: list[RemoteFile]

    @property
    def possible(self) -> bool:
        """Whether all that is missing can be downloaded."""
        return bool(self.files) and all(file.urls for file in self.files)

    @property
    def amount(self) -> str:
        """How many files, and how large where that is known."""
        count = f"{len(self.files)} file{'s' if len(self.files) > 1 else ''}"
        sizes = [file.nbytes for file in self.files if file.nbytes is not None]
        return f"{count}, {_size(sum(sizes))}" if len(sizes) == len(self.files) else f"{count}, size not known"


def plan_of(dataset: DatasetSpec, missing: MissingRawDataError, raw: Path | None, cache_dir: Path) -> Plan:
    """Returns what to get, and for which folder: the one begun, the user's, or one beside the caches."""
    files = published_files(dataset, missing.parts)
    if raw is not None and raw.name in {file.name for file in files}:
        raw = raw.parent  # an archive was named, but is not there
    shared = paths.raw_dir()
    usual = shared / dataset.name if shared is not None else paths.download_dir(cache_dir, dataset.name)
    return Plan(dataset.title, (missing.folder or raw or usual).absolute(), files)


def fetch(plan: Plan) -> None:
    """Downloads what is missing, with a bar."""
    from plifctl.data.download import download

    console.note(f"downloading {plan.title} to {plan.folder}: {plan.amount}")
    for file in plan.files:
        console.note(f"  {_line(file)}")

    def told(name: str, done: int, total: int | None) -> None:
        bar.update(done // 10**6, max(1, (done if total is None else total) // 10**6), title=f"downloading {name}")

    with console.bar(f"downloading {plan.title}", "MB") as bar:
        download(plan.files, plan.folder, told)


def say_plan(plan: Plan, as_json: bool) -> None:
    """Says what would be downloaded, as data."""
    if as_json:
        files = [
            {"name": file.name, "urls": list(file.urls), "md5": file.md5, "bytes": file.nbytes} for file in plan.files
        ]
        console.emit_json({"state": "download", "folder": str(plan.folder), "files": files})
        return
    console.emit(f"download: {plan.title} to {plan.folder}, {plan.amount}")
    for file in plan.files:
        console.emit(f"  {_line(file)}")


def how_to_get(plan: Plan, command: str) -> str:
    """Returns what to do by hand, and the command to type then; nothing where no files are published."""
    if not plan.files:
        return ""
    if plan.possible:
        lines = ["leave --no-download out, or get by hand:"]
        lines += [f"  {file.urls[0]} as {file.name} (md5 {file.md5})" for file in plan.files]
    else:
        wanted = " and ".join(f"{file.name} (md5 {file.md5})" for file in plan.files)
        lines = [f"open {plan.files[0].page} in a browser and download {wanted}"]
    place = shlex.quote(str(plan.folder))
    lines.append(f"mkdir -p {place} and put it there, packed or extracted; or anywhere, and add --raw DIR")
    lines.append(f"then type: {command}")
    return "\n".join(lines)


def _line(file: RemoteFile) -> str:
    size = f" ({_size(file.nbytes)})" if file.nbytes is not None else ""
    return f"{file.name}{size} from {file.urls[0]}"


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB" if nbytes >= 10**5 else f"{nbytes / 1e3:,.1f} kB"
