"""Curves: the metrics of a training by epoch, from a run, a record or an imported log, for figures and the page."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from plifctl.config.base import canonical_json
from plifctl.config.choices import Protocol, Recipe, ResultOrigin
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.overrides import changed_values
from plifctl.errors import RunError, UsageError, did_you_mean
from plifctl.runs import folders
from plifctl.runs.authors import load_authors
from plifctl.runs.directory import Run, list_runs, match_run
from plifctl.runs.external import load_added
from plifctl.runs.imported import ImportedRun, load_imported
from plifctl.runs.metrics import layers_of, number_layers
from plifctl.runs.records import (
    Fold,
    ResultRecord,
    RunAccuracy,
    authors_records,
    best_epoch,
    is_of_authors,
    load_records,
)
from plifctl.runs.sessions import versions_of

_log = logging.getLogger(__name__)

_SHIPPED = "shipped:"
"""What the name of a record of the registry may begin with."""

SERIES = ("loss", "train_accuracy", "validation_accuracy", "test_accuracy", "lr", "seconds", "cpu_seconds")
"""Scalars of an epoch; accuracies are fractions."""


@dataclass(frozen=True)
class Curve:
    """Metrics of a training by epoch. All sequences of values are as long as ``epochs``.

    Attributes:
        name: Name of the run.
        origin: As that of a :class:`~plifctl.runs.records.ResultRecord`.
        experiment: Name in the registry; None if it is not in the registry.
        recipe: Recipe; None if unknown, as for protocol, T and seed.
        protocol: A, B or C.
        T: Time steps.
        seed: Seed of the training.
        epochs: Logged epochs, ascending from 1; gaps are possible.
        series: By name (:data:`SERIES`, or a tag of a log of other code); None where an epoch has no value.
        layers: Names of the spiking layers.
        tau: τ of each spiking layer, in time steps; None where an epoch has no value.
        w_over_tau: Distribution of W_fc/τ in each epoch, of each fully connected layer before a spiking one, as
            :func:`plifctl.training.layer_metrics.distribution` returns it; empty where it was not recorded.
        overrides: Changes to the experiment, texts ``key=value``.
        fold: The part of the samples that it is tested on; None if it is no cross-validation, or unknown.
        subset: Whether the run used a part of the samples.
        spec: The run's own settings; None where only a record or a log of it is known.
        digest: Digest of its experiment; None if unknown.
        training_versions: The training versions of its epochs; empty if unknown.
        cache: Content digest of its cache; None if unknown.
        folder: Folder of a run that plifctl trained; None of others.
    """

    name: str
    origin: ResultOrigin
    experiment: str | None
    recipe: Recipe | None
    protocol: Protocol | None
    T: int | None
    seed: int | None
    epochs: tuple[int, ...]
    series: Mapping[str, tuple[float | None, ...]]
    layers: tuple[str, ...] = ()
    tau: tuple[tuple[float | None, ...], ...] = ()
    w_over_tau: Mapping[str, tuple[Mapping[str, Any] | None, ...]] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    fold: Fold | None = None
    subset: bool = False
    spec: ExperimentSpec | None = None
    digest: str | None = None
    training_versions: tuple[int, ...] = ()
    cache: str | None = None
    folder: Path | None = None

    @property
    def setting(self) -> Hashable:
        """What runs with a common mean share: everything but the seed and the number of epochs."""
        if self.experiment is None:
            return self.name
        # of experiments that have a digest it says what was changed, in a file or by an option
        changes = canonical_json(changed_values(self.overrides)) if self.digest is None else ""
        known = self.origin, self.experiment, self.recipe, self.protocol, self.T, self.subset, changes
        return *known, self.digest, self.training_versions, self.cache

    @property
    def identity(self) -> Hashable:
        """What tells it from any other run; runs of two folders, or of two origins, may have one name."""
        return (self.origin, self.name) if self.folder is None else self.folder.resolve()


def curve_of_run(run: Run) -> Curve:
    """Returns the curve of a run, finished or not.

    Raises:
        RunError: A file of it is damaged.
    """
    config, rows = run.config(), run.metrics()
    layers = max(map(layers_of, rows), key=len, default=())
    fully_connected = {name: None for row in rows for name in row.get("w_over_tau", {})}
    return Curve(
        run.name,
        "trained",
        config.experiment,
        config.recipe,
        config.protocol,
        config.spec.T,
        config.spec.train.seed,
        tuple(row["epoch"] for row in rows),
        _with_values({name: tuple(row.get(name) for row in rows) for name in SERIES}),
        layers,
        tuple(tuple(row["tau"][index] for row in rows) for index in range(len(layers))),
        {name: tuple(row.get("w_over_tau", {}).get(name) for row in rows) for name in fully_connected},
        config.overrides,
        config.fold,
        config.spec.train.subset < 1 or _is_incomplete(run),
        config.spec,
        config.digest,
        versions_of(run.sessions()) if rows else (),
        run.content_digest,
        run.path,
    )


def _is_incomplete(run: Run) -> bool:
    """Returns whether a run uses a data set that lacks samples; of an unfinished run of 0.1.0 that is not recorded."""
    complete = run.info()["cache"].get("complete")
    if complete is None and (run.path / "result.json").is_file():
        return run.record().is_subset
    return complete is False


def curve_of_record(record: ResultRecord) -> Curve:
    """Returns the curve of a record: validation and test accuracy, and τ."""
    width = max(map(len, record.tau), default=0)
    accuracies = {"validation_accuracy": record.validation_curve, "test_accuracy": record.test_accuracy}
    logged = [
        index
        for index in range(record.epochs)
        if any(_at(values, index) is not None for values in accuracies.values()) or _at(record.tau, index)
    ]
    return Curve(
        record.run,
        record.origin,
        record.experiment,
        record.recipe,
        record.protocol,
        record.T,
        record.seed,
        tuple(index + 1 for index in logged),
        _with_values({name: tuple(_at(values, index) for index in logged) for name, values in accuracies.items()}),
        number_layers(width),
        tuple(tuple(_at(_at(record.tau, index) or (), layer) for index in logged) for layer in range(width)),
        overrides=record.overrides,
        fold=record.fold,
        subset=record.is_subset,
        digest=record.digest,
        training_versions=record.training_versions,
        cache=None if record.data is None else record.data.cache,
    )


def curve_of_imported(run: ImportedRun, origin: ResultOrigin = "imported") -> Curve:
    """Returns the curve of an imported run: its series by epoch.

    Args:
        run: The run.
        origin: ``authors`` if it is one of theirs.
    """
    epochs, by_name = run.logged, run.epochs
    known = {name: tuple(values.get(epoch) for epoch in epochs) for name, values in by_name.items()}
    settings = run.settings
    return Curve(
        run.name,
        origin,
        settings.get("experiment"),
        "authors" if settings.get("experiment") else None,
        settings.get("protocol"),
        settings.get("T"),
        settings.get("seed"),
        tuple(epochs),
        {name: values for name, values in known.items() if not name.startswith("tau/")},
        tuple(run.layers),
        tuple(known[f"tau/{layer}"] for layer in run.layers),
    )


def logged_accuracies(curve: Curve) -> tuple[Literal["test", "validation"], dict[int, float]]:
    """Returns the accuracies by epoch on test samples; if there are none, those on validation samples, perhaps none."""
    known = {
        of: {epoch: value for epoch, value in zip(curve.epochs, values, strict=True) if value is not None}
        for of in ("test", "validation")
        if (values := curve.series.get(f"{of}_accuracy"))
    }
    return ("test", known["test"]) if known.get("test") else ("validation", known.get("validation", {}))


def external_accuracy(curve: Curve, record: ResultRecord | None) -> RunAccuracy | None:
    """Returns the accuracy of a run that was not trained here: that of its result, else the best one that was logged.

    The best one is on test samples; on validation samples if it was not tested. None: neither was logged.
    """
    if record is not None:
        return record.reported
    of, known = logged_accuracies(curve)
    if not known:
        return None
    best = best_epoch(known, "earliest")
    return RunAccuracy(known[best], best, of)


def load_curves(runs_dir: Path, registry_dirs: Sequence[Path]) -> list[Curve]:
    """Returns the curves of all runs in ``runs_dir``, imported ones included, and of records without one.

    Damaged runs are skipped, with a warning.
    """
    found: dict[str, Curve] = {}
    problems: list[str] = []
    for run in list_runs(runs_dir):
        try:
            found[run.name] = curve_of_run(run)
        except RunError as error:
            if not str(error).startswith(str(run.path / "result.json")):  # which load_records warns of
                problems.append(str(error))
    records = [record for record in load_records(runs_dir, registry_dirs) if record.run not in found]
    _warn_of_skipped(problems)
    return [*found.values(), *load_other_curves(runs_dir, registry_dirs, records)]


def load_other_curves(runs_dir: Path, registry_dirs: Sequence[Path], records: Sequence[ResultRecord]) -> list[Curve]:
    """Returns the curves of imported runs in ``runs_dir``, then those of records without one.

    Damaged runs are skipped, with a warning.

    Args:
        runs_dir: Runs directory.
        registry_dirs: Registry folders, which have the authors' curves.
        records: Result records of runs that were not trained in ``runs_dir``.
    """
    curves, problems = _read_other_curves(runs_dir, registry_dirs, records)
    _warn_of_skipped(problems)
    return curves


def _read_other_curves(
    runs_dir: Path, registry_dirs: Sequence[Path], records: Sequence[ResultRecord]
) -> tuple[list[Curve], list[str]]:
    """Returns the curves of :func:`load_other_curves`, and the damage of imported runs that have none."""
    of_authors = [record for record in records if record.origin == "authors"]
    found: dict[Hashable, Curve] = {}
    problems: list[str] = []
    for path in folders.external_folders(runs_dir, folders.IMPORTED):
        try:
            curve = _curve_of_import(path, of_authors)
            found[curve.identity] = curve
        except RunError as error:
            problems.append(str(error))
    theirs = {run.name: run for run in load_authors(registry_dirs)} if of_authors else {}
    for record in records:
        if (record.origin, record.run) not in found:
            is_known = record.origin == "authors" and record.run in theirs
            curve = curve_of_imported(theirs[record.run], "authors") if is_known else curve_of_record(record)
            found[curve.identity] = curve
    return list(found.values()), problems


def _curve_of_import(path: Path, authors: Sequence[ResultRecord]) -> Curve:
    """Returns the curve of the imported run in a folder.

    Args:
        path: The folder.
        authors: Records of the authors' runs, one of which it may be.

    Raises:
        RunError: It is damaged.
    """
    run = load_imported(path)
    record = run.record()
    return curve_of_imported(run, "authors" if record is not None and is_of_authors(record, authors) else "imported")


def _warn_of_skipped(problems: Sequence[str]) -> None:
    for problem in problems:
        _log.warning("skipped: %s", problem)


def find_curves(names: Sequence[str], runs_dir: Path, registry_dirs: Sequence[Path]) -> list[Curve]:
    """Returns the curves of runs, each by a name as :func:`~plifctl.runs.directory.match_run` takes it, or its path.

    Records of the registry and the authors' runs can be named as well: by the whole name, which comes before a part of
    another one, or by a part that no run in ``runs_dir`` has; ``shipped:NAME`` is a record though a run has its name.
    Of the runs trained here, only those that match are read.

    Raises:
        UsageError: No run matches a name, or several do.
        RunError: A file of a run is damaged.
    """
    trained = list_runs(runs_dir)

    @cache
    def other_curves() -> list[Curve]:
        return _read_other_curves(runs_dir, registry_dirs, load_records(runs_dir, registry_dirs))[0]

    @cache
    def others() -> dict[str, Curve]:
        return {curve.name: curve for curve in reversed(other_curves())}  # an import comes before a record of its name

    def find_shipped(name: str) -> Curve:
        records = {r.run: r for r in load_records(runs_dir, registry_dirs) if r.origin == "shipped"}
        matching = folders.only_match(name, folders.match_name(name, list(records)))
        if matching is None:
            raise UsageError(f"no shipped record {name!r}", hint=did_you_mean(name, records))
        return curve_of_record(records[matching])

    def find(name: str) -> Curve:
        if name.startswith(_SHIPPED):
            return find_shipped(name.removeprefix(_SHIPPED))
        folders.check_name(name)
        child = folders.child(name, runs_dir)
        if child is not None and not folders.is_run(child) and name in others():
            return others()[name]
        if (path := match_run(name, runs_dir, trained)) is not None:
            try:
                return _curve_in(path, registry_dirs)
            except RunError:  # its result may be readable; a shipped record of its name is of another run
                own = [curve for curve in other_curves() if curve.name == path.name and curve.origin != "shipped"]
                if not own:
                    raise
                return own[0]
        if (matching := folders.only_match(name, folders.match_name(name, list(others())))) is not None:
            return others()[matching]
        if (path := folders.find_folder(name, runs_dir)) is not None:
            return _curve_in(path, registry_dirs)
        known = [*(run.name for run in trained), *others()]
        raise UsageError(f"no run {name!r} in {runs_dir}", hint=did_you_mean(name, known))

    return [find(name) for name in names]


def _curve_in(path: Path, registry_dirs: Sequence[Path]) -> Curve:
    """Returns the curve of the run of any kind in a folder; raises RunError if it is damaged."""
    if folders.is_trained(path):
        return curve_of_run(Run(path))
    if folders.is_added(path):
        return curve_of_record(load_added(path).record())
    return _curve_of_import(path, authors_records(registry_dirs))


def _at(values: Sequence[Any], index: int) -> Any:
    return values[index] if index < len(values) else None


def _with_values(series: dict[str, tuple[float | None, ...]]) -> dict[str, tuple[float | None, ...]]:
    return {name: values for name, values in series.items() if any(value is not None for value in values)}
