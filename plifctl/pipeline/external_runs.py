"""Imports logs of other code, and adds runs of others; implements ``plifctl runs import`` and ``plifctl runs add``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from plifctl import paths
from plifctl.config.lookup import load_registry
from plifctl.errors import DamagedFileError, PlifctlError, UsageError
from plifctl.pipeline.run_name import check_run_name
from plifctl.runs import (
    AddedRun,
    ImportedRun,
    add_run,
    authors_records,
    find_logs,
    import_log,
    save_imported,
)


@dataclass(frozen=True)
class ImportedLogs:
    """The runs that were made from the logs in a folder.

    Attributes:
        runs: The runs.
        errors: Why other logs were not imported.
    """

    runs: list[ImportedRun]
    errors: list[PlifctlError]


def import_logs(
    folder: Path,
    runs_dir: Path | None = None,
    *,
    tags: Mapping[str, str] | None = None,
    name: str | None = None,
    dry_run: bool = False,
) -> ImportedLogs:
    """Imports the runs of other code from the logs in a folder; a log that cannot be imported does not stop the others.

    Args:
        folder: TensorBoard event files, or the CSV files exported from them, in subfolders as well.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        tags: Tag of a series where it is not one of the usual ones, such as ``{"test_accuracy": "top1"}``.
        name: Name of the run, if the folder contains a single one.
        dry_run: Return the runs and save nothing.

    Raises:
        UsageError: Two logs have the same name; or no log could be imported, since its accuracy is unknown or its name
            is taken.
        RawDataError: There are no logs, or all are damaged.
    """
    damaged: list[DamagedFileError] = []
    logs, registry = find_logs(folder, damaged), load_registry()
    experiments, authors = registry.experiments(), authors_records(registry.folders)
    result = ImportedLogs([], [*damaged])
    found: list[ImportedRun] = []
    for log in logs:
        with _collecting(result.errors):
            found.append(import_log(log, folder, tags=tags or {}, experiments=experiments, authors=authors))
    if name is not None and found:
        if (n := len(logs) + len(damaged)) > 1:
            raise UsageError(f"--name {name}: found {n} runs in {folder}", hint="name the folder of a single run")
        check_run_name(name)
        found = [replace(found[0], name=name)]
    names = [run.name for run in found]
    if duplicates := sorted({known for known in names if names.count(known) > 1}):
        raise UsageError(f"{folder}: several logs have the name {', '.join(duplicates)}", hint="import them one by one")
    for run in found:
        with _collecting(result.errors):
            saved = run.name if dry_run else save_imported(run, runs_dir or paths.runs_dir()).name
            result.runs.append(replace(run, name=saved))
    if not result.runs:
        raise result.errors[0]
    return result


@contextmanager
def _collecting(errors: list[PlifctlError]) -> Iterator[None]:
    """Appends the error of a log to ``errors`` instead of raising it."""
    try:
        yield
    except (UsageError, DamagedFileError) as error:
        errors.append(error)


def add_folder(folder: Path, runs_dir: Path | None = None, *, name: str | None = None) -> AddedRun:
    """Adds the run of somebody else: copies an exported folder into the runs directory.

    Args:
        folder: The folder; it has a result and the predictions of the test samples.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        name: Name of the run; None: the one it had.

    Raises:
        UsageError: There is no such folder, or the name is taken.
        RunError: A file is missing or damaged, or the result contradicts the predictions.
        CheckpointError: The weights are missing or damaged.
    """
    from plifctl.exchange.folder import FILES, check_shared  # these import torch
    from plifctl.exchange.model import load_trained

    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder", hint="name a folder that plifctl export wrote")
    load_trained(folder)  # damaged weights are found here, not when they are used
    record = check_shared(folder).record
    assert record is not None  # checked by check_shared
    name = record.run if name is None else name
    check_run_name(name)  # a stranger's file might name a folder outside the runs directory
    there = [file for file in FILES if (folder / file).is_file()]
    return add_run(folder, there, name, runs_dir or paths.runs_dir())
