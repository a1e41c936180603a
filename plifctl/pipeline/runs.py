"""Lists and describes runs; implements ``plifctl runs ls`` and ``plifctl runs show``."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.choices import Protocol, Recipe, RunFilter
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import PlifctlError, RunError, UsageError, did_you_mean
from plifctl.pipeline.run_files import file_sizes
from plifctl.runs import (
    AddedRun,
    ControlResult,
    ImportedRun,
    ResultRecord,
    Run,
    best_row,
    candidates,
    curve_of_imported,
    external_accuracy,
    external_folders,
    is_trained,
    list_runs,
    load_external,
    read_controls,
)
from plifctl.units import format_accuracy

_log = logging.getLogger(__name__)

AnyRun = Run | ImportedRun | AddedRun


@dataclass(frozen=True)
class RunEntry:
    """A run in a list of runs; what is not known of it is None.

    Attributes:
        run: Its name.
        status: Its status.
        experiment: Name of its experiment.
        protocol: A, B or C.
        recipe: Recipe of the experiment.
        best_test: Test accuracy of the result; before the end, of the best epoch so far.
        best_validation: Validation accuracy of that epoch.
        accuracy_of: Which of the two is the accuracy of the run so far, as :meth:`Run.accuracy_so_far` gives it.
        epoch: Epochs trained; of an imported run, those that were logged.
        epochs: Epochs planned; of an imported run, the last one that was logged.
        age_seconds: Time since it was created.
    """

    run: str
    status: RunFilter
    experiment: str | None = None
    protocol: Protocol | None = None
    recipe: Recipe | None = None
    best_test: float | None = None
    best_validation: float | None = None
    accuracy_of: Literal["test", "validation"] | None = None
    epoch: int | None = None
    epochs: int | None = None
    age_seconds: int = 0

    @property
    def best_text(self) -> str:
        """The accuracy so far in percent, that on validation samples marked; empty if it is not known."""
        value = self.best_validation if self.accuracy_of == "validation" else self.best_test
        return format_accuracy(value, self.accuracy_of)

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)


def list_entries(
    runs_dir: Path | None = None, *, experiment: str | None = None, status: str | None = None
) -> list[RunEntry]:
    """Returns an entry for each run: external ones by name, then the others, oldest first.

    A folder with a document named as one of a run, none of which plifctl wrote, counts as a damaged run.

    Args:
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        experiment: Only the runs of this experiment.
        status: Only the runs with this status.

    Raises:
        UsageError: No run belongs to the experiment, and it is not in the registry.
    """
    folder = runs_dir or paths.runs_dir()
    runs = list_runs(folder)
    trained = {run.path for run in runs}
    others = [path for path in candidates(folder) if path not in trained and not is_trained(path)]
    entries = list(_external_entries(folder))
    for run in runs:
        with suppress(FileNotFoundError):  # removed since it was listed
            entries.append(run_entry(run))
    for path in others:
        with suppress(FileNotFoundError):
            entries.append(_damaged_entry(path.name, path.stat().st_mtime))
            _log.warning("%s: no file in it is readable as a document of plifctl", path)
    if experiment is not None:
        known = {str(entry.experiment) for entry in entries}
        if experiment not in known and experiment not in load_registry().experiments():
            raise UsageError(f"unknown experiment {experiment!r}", hint=did_you_mean(experiment, known))
        entries = [entry for entry in entries if entry.experiment == experiment]
    return [entry for entry in entries if status in (None, entry.status)]


def _external_entries(runs_dir: Path) -> Iterator[RunEntry]:
    for path in external_folders(runs_dir):
        try:
            yield run_entry(load_external(path))
        except RunError as error:
            with suppress(FileNotFoundError):  # removed since it was listed
                yield _damaged_entry(path.name, path.stat().st_mtime)
                _log.warning("%s", error)


def run_entry(run: AnyRun) -> RunEntry:
    """Returns the entry of a run in a list; a damaged run that was trained here has that status, and a warning.

    Raises:
        RunError: A file of a run that was not trained here is damaged.
        FileNotFoundError: Another process has removed the run.
    """
    if isinstance(run, AddedRun):
        return _added_entry(run)
    if isinstance(run, ImportedRun):
        return _imported_entry(run)
    try:
        config, metrics, status = run.config(), run.metrics(), run.status()
        best, found = best_row(metrics, config.spec.train.ties) or {}, run.accuracy_so_far()
        test = run.record().accuracy if status == "finished" else best.get("test_accuracy")
    except RunError as error:
        run.path.stat()  # raises if there is no run any more that could be damaged
        _log.warning("%s", error)
        return _damaged_entry(run.name, run.created)
    return RunEntry(
        run=run.name,
        status=status,
        experiment=config.experiment,
        protocol=config.protocol,
        recipe=config.recipe,
        best_test=test,
        best_validation=best.get("validation_accuracy"),
        accuracy_of=None if found is None else found.of,
        epoch=len(metrics),
        epochs=config.spec.train.epochs,
        age_seconds=_age(run.created),
    )


def _damaged_entry(name: str, created: float) -> RunEntry:
    return RunEntry(name, "damaged", age_seconds=_age(created))


def _imported_entry(run: ImportedRun) -> RunEntry:
    record, test = run.record(), run.epochs.get("test_accuracy", {})
    validation = run.epochs.get("validation_accuracy", {})
    found = external_accuracy(curve_of_imported(run), record)
    return RunEntry(
        run=run.name,
        status="imported",
        experiment=run.settings.get("experiment"),
        protocol=run.settings.get("protocol"),
        recipe="authors" if run.settings.get("experiment") else None,
        best_test=record.accuracy if record else max(test.values(), default=None),
        best_validation=max(validation.values(), default=None),
        accuracy_of=None if found is None else found.of,
        epoch=len(run.accuracies),
        epochs=max(run.accuracies),
        age_seconds=_age(run.imported) if run.imported else 0,
    )


def _added_entry(run: AddedRun) -> RunEntry:
    record = run.record()
    return RunEntry(
        run=run.path.name,
        status="added",
        experiment=record.experiment,
        protocol=record.protocol,
        recipe=record.recipe,
        best_test=record.accuracy,
        best_validation=record.validation_accuracy,
        accuracy_of=record.reported.of,
        epoch=record.epochs,
        epochs=record.epochs,
        age_seconds=_age(run.added),
    )


def _age(created: float) -> int:
    return round(time.time() - created)


def describe_run(run: AnyRun) -> dict[str, Any]:
    """Returns a description of a run: its entry in a list, settings, data, machine, epochs, files.

    Raises:
        RunError: A file of the run is damaged.
    """
    if isinstance(run, AddedRun):
        return _describe_added(run)
    return _describe_imported(run) if isinstance(run, ImportedRun) else _describe_trained(run)


def _describe_trained(run: Run) -> dict[str, Any]:
    """Returns a description with the settings that differ from the registry."""
    rows, status, split = run.metrics(), run.status(), run.split()
    kept = run.kept_result()
    others = {"best_test", "best_validation", "accuracy_of"}  # which the rows below and the result say
    entry = {key: value for key, value in run_entry(run).to_json().items() if key not in others}
    return {
        "path": str(run.path),
        **entry,
        "status": status,
        "accuracy": run.record().accuracy if status == "finished" else None,
        "kept_result": kept and {"epochs": kept.epochs, "accuracy": kept.accuracy, "best_epoch": kept.best_epoch},
        "best": best_row(rows, run.config().spec.train.ties),
        "last": rows[-1] if rows else None,
        "changes": _changes(run, load_registry()),
        "overrides": list(run.config().overrides),
        "started_from": None if (began := run.started_from()) is None else began.model_dump(mode="json"),
        "samples": {part: len(split.get(part, [])) for part in ("train", "validation", "test")},
        "environment": run.environment(),
        "sessions": [session.model_dump(mode="json") for session in run.sessions()],
        "cache": run.info()["cache"],
        "controls": _kept_controls(run),
        "files": file_sizes(run.path),
        "resume": None if status == "finished" else run.resume_command(),
    }


def _kept_controls(run: Run) -> list[dict[str, Any]]:
    """Returns the tests under controls that a run keeps; none, with a warning, if they are damaged."""
    try:
        found = read_controls(run.path)
        return _describe_controls(run.record(), found) if found else []
    except RunError as error:
        _log.warning("%s", error)
        return []


def _describe_controls(record: ResultRecord, found: Sequence[ControlResult]) -> list[dict[str, Any]]:
    """Returns tests under controls, and why one is not of the result, ``problem``."""
    return [{**one.describe(), "problem": record.control_problem(one)} for one in found]


def _describe_imported(run: ImportedRun) -> dict[str, Any]:
    record = run.record()
    return {
        **run_entry(run).to_json(),
        "best_epoch": record.best_epoch if record else None,
        "gaps": max(run.accuracies) - len(run.accuracies),
        "source": run.source,
        "settings": run.settings,
        "tags": run.tags,
        "files": run.files,
    }


def _describe_added(run: AddedRun) -> dict[str, Any]:
    record = run.record()
    return {
        "path": str(run.path),
        **run_entry(run).to_json(),
        "best_epoch": record.best_epoch,
        "seed": record.seed,
        "overrides": list(record.overrides),
        "data": record.data and record.data.model_dump(mode="json"),
        "environment": record.environment,
        "controls": _describe_controls(record, record.controls),
        "source": run.source,
        "files": run.files,
    }


def _changes(run: Run, registry: Registry) -> list[dict[str, Any]] | None:
    """The settings that differ from the registry, with their origin; None if it has no such experiment."""
    config = run.config()
    try:
        usual = registry.experiment(config.experiment, recipe=config.recipe).for_protocol(config.protocol).spec
    except PlifctlError:
        return None
    here, there = (flatten(spec.model_dump(mode="json")) for spec in (config.spec, usual))
    return [
        {"key": key, "run": here.get(key), "registry": there.get(key), "from": config.origins.get(key)}
        for key in {**here, **there}
        if here.get(key) != there.get(key)
    ]
