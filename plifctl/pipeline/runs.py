"""Lists, describes, compares, verifies, removes and imports runs; implements ``plifctl runs``."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from plifctl import paths
from plifctl.config.base import flatten
from plifctl.config.choices import Protocol, Recipe, RunFilter
from plifctl.config.lookup import load_registry
from plifctl.config.registry import Registry
from plifctl.errors import DamagedFileError, PlifctlError, RunError, UsageError, did_you_mean
from plifctl.exchange.lookup import names_file
from plifctl.pipeline.progress import Progress, silent
from plifctl.runs import (
    AddedRun,
    ControlResult,
    Curve,
    ImportedRun,
    ResultRecord,
    Run,
    add_run,
    authors_records,
    best_row,
    candidates,
    check_removable,
    curve_of_imported,
    external_accuracy,
    external_folders,
    find_curves,
    find_logs,
    find_run_folder,
    import_log,
    is_added,
    is_imported,
    is_trained,
    list_runs,
    load_external,
    read_controls,
    remove_external,
    remove_run,
    save_imported,
    verify_run,
)
from plifctl.units import format_accuracy

_log = logging.getLogger(__name__)

_MAX_NAME_BYTES = 200  # of 255; files and folders are written under longer, temporary names first
_RESERVED = {"last": "the last run", "auto": "the run that --name states", "sweeps": "the folder of sweeps"}
"""Names that no run can have, and what they mean where a run is named."""


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
        "files": _file_sizes(run.path),
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


def _file_sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of each file of a run."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def compare_runs(names: Sequence[str], runs_dir: Path | None = None) -> dict[str, Any]:
    """Returns the settings in which runs differ, and accuracy and τ of each at the same epochs.

    The accuracy is the one by which a run selects its model: on validation samples where there are any, else on test
    samples. ``accuracy_of`` has the samples of each run, ``validation`` or ``test``.

    Args:
        names: Runs, imported runs, or records of the registry.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: No such run, or fewer than two different ones.
    """
    folder, registry = runs_dir or paths.runs_dir(), load_registry()
    found = find_curves(names, folder, registry.folders)
    curves = list({curve.identity: curve for curve in found}.values())
    names = [curve.name for curve in curves]
    if len(curves) < 2:
        raise UsageError(
            "found one run, expected two or more to compare",
            hint="plifctl runs ls lists all runs; shipped:NAME is the record of that name that comes with plifctl",
        )
    kinds = ["validation" if "validation_accuracy" in curve.series else "test" for curve in curves]
    accuracies = [_accuracy(curve, kind) for curve, kind in zip(curves, kinds, strict=True)]
    taus = [_tau(curve) for curve in curves]
    epochs = [
        {
            "epoch": epoch,
            "accuracy": [values.get(epoch) for values in accuracies],
            "tau": [[values.get(epoch) for values in layers] for layers in taus],
        }
        for epoch in sorted(set().union(*(curve.epochs for curve in curves)))
    ]
    layers = max((curve.layers for curve in curves), key=len)
    return {
        "runs": [_place(curve) if names.count(curve.name) > 1 else curve.name for curve in curves],
        "settings": _differences(curves),
        "layers": list(layers),
        "accuracy_of": kinds,
        "epochs": epochs,
    }


def _accuracy(curve: Curve, kind: str) -> dict[int, float | None]:
    return dict(zip(curve.epochs, curve.series.get(f"{kind}_accuracy", ()), strict=False))


def _tau(curve: Curve) -> list[dict[int, float | None]]:
    return [dict(zip(curve.epochs, values, strict=True)) for values in curve.tau]


def _differences(curves: Sequence[Curve]) -> dict[str, list[Any]]:
    """The settings in which runs differ, data and machine included, with the value in each run."""
    others = any(curve.folder is None for curve in curves)  # what is known of those is compared with the same of all
    alike = len({curve.digest for curve in curves}) == 1 and curves[0].digest is not None
    settings = []
    for curve in curves:
        known: dict[str, Any] = {
            name: getattr(curve, name) for name in ("origin", "experiment", "recipe", "protocol", "T")
        }
        known["train.seed"] = curve.seed
        known |= _recorded_settings(curve) if others else {}
        if alike:  # one states in a file what another states by an option
            known.pop("changes", None)
        settings.append(known | (_own_settings(curve) if curve.folder is not None else {}))
    keys = {key: None for setting in settings for key in setting if key != "name"}
    values = {key: [setting.get(key) for setting in settings] for key in keys}
    # an unknown value is not a difference
    return {key: found for key, found in values.items() if len({repr(v) for v in found if v is not None}) > 1}


def _place(curve: Curve) -> str:
    """Returns what tells a run from others of its name."""
    return str(curve.folder) if curve.folder is not None else f"{curve.origin}:{curve.name}"


def _own_settings(curve: Curve) -> dict[str, Any]:
    """All settings of a run that was trained here, with its data and its machine."""
    assert curve.spec is not None
    assert curve.folder is not None
    run, spec = Run(curve.folder), curve.spec
    about = {"cache": run.content_digest[:12], "environment": _environment(run)}
    return {"train.epochs": spec.train.epochs, **flatten(spec.identity()), **flatten(about)}


def _recorded_settings(curve: Curve) -> dict[str, Any]:
    """What is known of any run, one of which only a record or a log is left included; None: unknown."""
    if curve.origin == "imported":
        return {"epochs": curve.epochs[-1]}
    return {
        "epochs": curve.epochs[-1] if curve.epochs else 0,
        "changes": ", ".join(curve.changes) or "none",
        "part of the samples": "yes" if curve.subset else "no",
        "experiment digest": curve.digest and curve.digest[:12],
        "cache": curve.cache and curve.cache[:12],
        "training_version": ", ".join(map(str, curve.training_versions)) or None,
    }


def _environment(run: Run) -> dict[str, str]:
    """Versions and machine of a run; where its processes differ, the values of all of them."""
    sessions = run.sessions()
    if not sessions:
        return run.environment()
    found = [{"training_version": s.training_version, "host": s.host, **s.environment} for s in sessions]
    keys = dict.fromkeys(key for values in found for key in values if key != "kernel_choice")  # times always differ
    return {key: ", then ".join(dict.fromkeys(str(v[key]) for v in found if key in v)) for key in keys}


def verify_runs(
    names: Sequence[str] = (), runs_dir: Path | None = None, progress: Progress = silent
) -> Iterator[tuple[str, list[str]]]:
    """Yields the name and the problems of each finished or external run, after all its files were read.

    Args:
        names: Runs; empty: all.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.
        progress: Opens a task for each run.

    Raises:
        UsageError: No such run, or one that was named is not finished.
    """
    folder = runs_dir or paths.runs_dir()
    external, runs = _find_named(names, folder) if names else (external_folders(folder), list_runs(folder))
    for path in external:
        try:
            other = load_external(path)
            yield path.name, other.problems() if isinstance(other, AddedRun) else []
        except RunError as error:
            yield path.name, [str(error)]
    for run in runs:
        try:
            status = run.status()
        except RunError as error:
            yield run.name, [str(error)]
            continue
        if status == "finished":
            with progress(f"verifying {run.name}", "files") as task:
                problems = verify_run(run, task.update)
            yield run.name, problems
        elif names:
            raise UsageError(f"{run.name}: {status}; only finished runs have a manifest")


def _find_named(names: Sequence[str], runs_dir: Path) -> tuple[list[Path], list[Run]]:
    """Returns the folders of the external ones of named runs, and those trained here, each once.

    Raises:
        UsageError: No run matches a name, or several do.
    """
    listed = list_runs(runs_dir) if len(names) > 1 else None
    found = list(dict.fromkeys(find_run_folder(name, runs_dir, listed) for name in names))
    trained = [path for path in found if is_trained(path)]
    return [path for path in found if path not in trained], [Run(path) for path in trained]


def find_removable(names: Sequence[str], runs_dir: Path | None = None) -> dict[Path, int]:
    """Returns the folders of runs, and how many bytes removing each of them frees.

    Only children of the runs directory are removed, which are no links and which plifctl wrote.

    Raises:
        UsageError: No such run, it may not be removed, or it is being trained.
    """
    folder = runs_dir or paths.runs_dir()
    external, runs = _find_named(names, folder)
    folders = list(dict.fromkeys([*external, *(run.path for run in runs)]))
    for path in folders:
        check_removable(path, folder)
    if live := sorted({run.name for run in runs if _is_running(run)}):
        raise UsageError(
            f"being trained: {', '.join(live)}; nothing was removed", hint="stop the training first (Ctrl-C)"
        )
    return {path: sum(_file_sizes(path).values()) for path in folders}


def _is_running(run: Run) -> bool:
    try:
        return run.status() == "running" or run.beating_host() is not None
    except RunError:  # damaged; the lock is tried again before it is removed
        return False


def remove_folders(folders: Iterable[Path], *, dry_run: bool = False) -> Iterator[Path]:
    """Removes runs by their folders, as :func:`find_removable` returned them; yields each one that was removed.

    Raises:
        UsageError: A run is being trained.
    """
    for path in folders:
        if not dry_run:
            if is_imported(path) or is_added(path):
                remove_external(path)
            else:
                remove_run(Run(path))
        yield path


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


def check_run_name(name: str) -> None:
    """Raises UsageError for a name that no folder of the runs directory can have, or that never names a run."""
    if not name.strip() or {"/", "\\"} & set(name) or name.startswith(".") or not name.isprintable():
        raise UsageError(f"{name!r}: not a valid folder name", hint="choose another name: --name NAME")
    if name.startswith("-"):
        raise UsageError(
            f"{name!r}: a name that begins with - would be read as an option", hint="choose another --name"
        )
    if (nbytes := len(os.fsencode(name))) > _MAX_NAME_BYTES:
        raise UsageError(
            f"{name[:20]}…: a name of {nbytes} bytes", hint=f"choose one of at most {_MAX_NAME_BYTES}: --name NAME"
        )
    if name in _RESERVED or names_file(name):
        kind = _RESERVED.get(name, "a file, or a network of the zoo")
        raise UsageError(f"{name!r}: as the name of a run it means {kind}", hint="choose another name: --name NAME")


@contextmanager
def _collecting(errors: list[PlifctlError]) -> Iterator[None]:
    """Appends the error of a log to ``errors`` instead of raising it."""
    try:
        yield
    except (UsageError, DamagedFileError) as error:
        errors.append(error)
