"""Runs of any kind by their names; and those of somebody else, from the folders they exported.

An added run is a copy of the folder with ``added.json`` beside its files. Its record is a source of its own in reports.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plifctl import files
from plifctl.errors import RunError, UsageError
from plifctl.runs import folders
from plifctl.runs.directory import Run, find_run_folder
from plifctl.runs.documents import add_checksum, file_problem, fingerprint, load_document
from plifctl.runs.imported import ImportedRun, load_imported
from plifctl.runs.records import ResultRecord, read_record

RECORD = "result.json"


def remove_external(path: Path) -> None:
    """Removes an external run, but never what a link points to."""
    folders.check_removable(path, path.parent)
    folders.remove_folder(path)


@dataclass(frozen=True)
class AddedRun:
    """A run of somebody else.

    Attributes:
        path: Its folder in the runs directory.
        source: The folder that it was copied from.
        files: Size in bytes and SHA-256 of each file, by name.
        added: When it was added, in seconds since 1970.
    """

    path: Path
    source: str
    files: dict[str, dict[str, Any]]
    added: float

    def record(self) -> ResultRecord:
        """Returns its result.

        Raises:
            RunError: The file is damaged.
        """
        record = read_record(self.path / RECORD)
        return record.model_copy(update={"origin": "added", "run": self.path.name})

    def problems(self) -> list[str]:
        """Reads all files, and returns those that are missing or have changed."""
        found = ((name, file_problem(self.path / name, facts)) for name, facts in self.files.items())
        return [f"{name}: {problem}" for name, problem in found if problem]


def add_run(folder: Path, names: Sequence[str], name: str, runs_dir: Path) -> AddedRun:
    """Copies files of an exported folder into the runs directory, as a run of somebody else.

    Args:
        folder: The folder.
        names: The files to copy.
        name: Name of the run.
        runs_dir: Runs directory.

    Raises:
        UsageError: Another run or folder has this name.
    """
    path = runs_dir / name
    facts = {file: fingerprint(folder / file) for file in names}
    if folders.is_added(path) and load_added(path).files == facts:
        return load_added(path)
    if path.exists() or path.is_symlink():
        own = "is a run of your own" if folders.is_trained(path) else "exists already"
        raise UsageError(f"{path}: {own}", hint="choose another name: --name NAME")
    with files.atomic_folder(path) as temporary:
        for file in names:
            shutil.copyfile(folder / file, temporary / file)
        tree = {"schema_version": 1, "name": name, "source": str(folder.resolve()), "files": facts}
        text = json.dumps(add_checksum({**tree, "added": time.time()}), ensure_ascii=False)
        files.write_text(temporary / folders.ADDED, text + "\n")
    return load_added(path)


def find_any(name: str, runs_dir: Path) -> Run | ImportedRun | AddedRun:
    """Returns a run of any kind, by a name as :func:`~plifctl.runs.directory.find_run_folder` takes it.

    Raises:
        UsageError: No run matches, or several do.
        RunError: The run was not trained here, and is damaged.
    """
    path = find_run_folder(name, runs_dir)
    return Run(path) if folders.is_trained(path) else load_external(path)


def load_external(path: Path) -> ImportedRun | AddedRun:
    """Returns the external run in a folder.

    Raises:
        RunError: It is damaged.
    """
    return load_added(path) if folders.is_added(path) else load_imported(path)


def load_added(path: Path) -> AddedRun:
    """Returns the run of somebody else in a folder.

    Raises:
        RunError: Its document is damaged.
    """
    document, hint = path / folders.ADDED, "add the folder again: plifctl runs add FOLDER"
    tree = load_document(document, ("source", "files"), hint=hint)
    try:
        return AddedRun(path, str(tree["source"]), dict(tree["files"]), float(tree["added"]))
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"{document}: damaged: {error!r}", hint=hint) from error
