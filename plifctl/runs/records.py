"""Result records: the small documents of finished runs that reports are made from."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from plifctl.config.base import Spec
from plifctl.config.choices import Protocol, Recipe, ResultOrigin, TauControl, Ties, TimeControl
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.identity import current_word
from plifctl.config.overrides import changed_values
from plifctl.config.problems import first_problem
from plifctl.config.training import MAX_COUNT
from plifctl.errors import RunError
from plifctl.runs import folders
from plifctl.runs.controls import ControlResult, read_controls
from plifctl.runs.documents import add_checksum, load_document
from plifctl.runs.sessions import Session, versions_of

_log = logging.getLogger(__name__)

Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]

LATE_EPOCHS = 64
"""Epochs that the mean of the last ones is taken over: half a period of the authors' learning-rate schedule."""


def best_epoch(values: Mapping[int, float], ties: Ties) -> int:
    """Returns the epoch with the highest value.

    Args:
        values: The values by epoch, at least one.
        ties: Which of equal ones is returned, ``train.ties`` of the run; the authors' code keeps the latest.

    Example:
        >>> best_epoch({1: 0.9, 2: 0.95, 3: 0.95}, "earliest"), best_epoch({1: 0.9, 2: 0.95, 3: 0.95}, "latest")
        (2, 3)
    """
    return max(values, key=lambda epoch: (values[epoch], epoch if ties == "latest" else -epoch))


@dataclass(frozen=True)
class RunAccuracy:
    """The accuracy that a run has reached.

    Attributes:
        value: The accuracy, a fraction.
        epoch: Its epoch, from 1.
        of: The samples that it was measured on.
    """

    value: float
    epoch: int
    of: Literal["test", "validation"]


class RunData(Spec):
    """Data of a run: numbers of samples, and the content digest of the cache.

    Attributes:
        without_events: Number of samples that contain no events; 0 in records of version 0.1.0, which did not count.
    """

    verified: bool
    complete: bool
    train: Count
    validation: Count
    test: Count
    cache: str
    without_events: Count = 0

    @model_serializer(mode="wrap")
    def _leave_out_zero(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records of data without empty samples stay as they were before the field existed."""
        return _leave_out_empty(serialize(self), "without_events")


class Fold(Spec):
    """The part of the samples that a run of a cross-validation was tested on.

    Attributes:
        number: Its number, from 1.
        folds: Number of parts; None where each is a group.
        series: Digest of the experiment without the number: the same for all runs of the cross-validation.
    """

    number: int
    folds: int | None
    series: str

    @property
    def text(self) -> str:
        """The part as one text: ``fold 2 of 5``."""
        return f"fold {self.number}{f' of {self.folds}' if self.folds else ''}"


def fold_of(spec: ExperimentSpec) -> Fold | None:
    """Returns the part of the samples that an experiment is tested on; None if it is no cross-validation."""
    split = spec.split
    if split.fold is None:
        return None
    first = spec.model_copy(update={"split": split.model_copy(update={"fold": 1})})
    return Fold(number=split.fold, folds=split.folds, series=first.digest)


class StartedFrom(Spec):
    """The network whose weights a training began with.

    Attributes:
        name: The run, or the file as it was named.
        digest: SHA-256 of the tensors that were taken, as in ``train.weights``.
        experiment: Name of the experiment that it was trained by.
        epoch: Its epoch; None: unknown.
        accuracy: Its accuracy in the evaluation that selected the epoch, or that of its result; None: unknown.
        taken: Names of the tensors that were taken.
        anew: Names of the tensors that were drawn from the seed.
        unused: Names of its tensors that the network does not have; empty also in records of older versions.
        seen_test: Number of test samples of the training that the network had been trained on or selected by; 0 also in
            records of older versions.
        seen_validation: Number of such validation samples.
        presumed: Both numbers are presumed: the weights come from a file, which lists no training samples.
    """

    name: str
    digest: str
    experiment: str
    epoch: int | None
    accuracy: Fraction | None
    taken: tuple[str, ...]
    anew: tuple[str, ...]
    unused: tuple[str, ...] = ()
    seen_test: int = 0
    seen_validation: int = 0
    presumed: bool = False

    @model_serializer(mode="wrap")
    def _leave_out_unseen(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records without them stay as they were before these fields existed."""
        return _leave_out_empty(serialize(self), "seen_test", "seen_validation", "presumed")

    def describe_seen(self) -> str:
        """Returns which samples of the training are not new to the network; empty if none is known to be."""
        parts = {"test": self.seen_test, "validation": self.seen_validation}
        counts = " and ".join(f"{count} of the {part} samples" for part, count in parts.items() if count)
        if not counts:
            return ""
        measured = " and ".join(part for part, count in parts.items() if count)
        if self.presumed:
            return f"{self.name} may have been trained on {counts}: the {measured} accuracy may be too high"
        return f"{self.name} was trained on, or selected by, {counts}: the {measured} accuracy will be too high"

    def describe(self) -> str:
        """Returns the network as one text, e.g. ``20260730T080000Z-demo-… (demo, epoch 3, 96.50 %)``."""
        epoch = [] if self.epoch is None else [f"epoch {self.epoch}"]
        accuracy = [] if self.accuracy is None else [f"{100 * self.accuracy:.2f} %"]
        return f"{self.name} ({', '.join([self.experiment, *epoch, *accuracy])})"


class ResultRecord(Spec):
    """Result of a finished run. Accuracies are fractions, epochs count from 1.

    Attributes:
        origin: ``trained`` here; ``shipped`` with a registry folder; of the ``authors``, from their logs; ``imported``
            from other logs; or ``added``, trained by somebody else. The files of all imports say ``imported``.
        epochs: Number of epochs trained.
        stopped_early: Whether ``train.early_stop`` ended the training.
        digest: Digest of the experiment; None where other code ran it.
        data: None where the data are unknown.
        test_accuracy: Test accuracy after each epoch; None where it was not tested, or not logged.
        validation_curve: Validation accuracy after each epoch; empty where it is unknown, or there is none.
        cpu_seconds: Processor time of each epoch, as :attr:`plifctl.training.progress.EpochRow.cpu_seconds`; None for
            an epoch where it is unknown, empty where no epoch has one.
        tau: τ of each spiking layer after each epoch; empty for an epoch that was not logged.
        fold: Of a cross-validation; None of other runs.
        started_from: The network whose weights it began with; None: all weights were drawn.
        controls: Tests under controls, perhaps of another epoch; :meth:`control` returns those of the reported one.
        environment: Versions and machine of the last process.
        sessions: Every process that trained the run, with its epochs; empty in records of 0.1.0.
    """

    schema_version: Literal[1]
    origin: ResultOrigin = "trained"
    run: str
    experiment: str
    recipe: Annotated[Recipe, BeforeValidator(current_word)]
    protocol: Protocol
    dataset: str
    T: int
    seed: int
    epochs: Count
    stopped_early: bool = False
    digest: str | None
    overrides: tuple[str, ...]
    data: RunData | None
    accuracy: Fraction
    best_epoch: Count
    validation_accuracy: Fraction | None
    test_accuracy: tuple[Fraction | None, ...]
    validation_curve: tuple[Fraction | None, ...] = ()
    cpu_seconds: tuple[Annotated[float, Field(ge=0, le=1e12)] | None, ...] = ()
    tau: tuple[tuple[float, ...], ...]
    fold: Fold | None = None
    started_from: StartedFrom | None = None
    environment: dict[str, Any]
    sessions: tuple[Session, ...] = ()
    controls: tuple[ControlResult, ...] = ()
    finished: str

    @model_serializer(mode="wrap")
    def _leave_out_unknown(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Records without them stay as they were before these fields existed."""
        return _leave_out_empty(serialize(self), "validation_curve", "cpu_seconds", "controls")

    def control(self, time: TimeControl | None = None, tau: TauControl | float | None = None) -> ControlResult | None:
        """Returns the test of the reported network under a control; None: there is none."""
        same = (one for one in self.controls if (one.time, one.tau) == (time, tau) and not self.control_problem(one))
        return next(same, None)

    def control_problem(self, found: ControlResult) -> str:
        """Returns why a test under a control is not of the network and samples of this result; empty: it is."""
        if found.epoch != self.best_epoch:
            return f"of epoch {found.epoch}, and the result is of epoch {self.best_epoch}"
        if self.data is None or (found.cache, found.samples) != (self.data.cache, self.data.test):
            return "of other test samples than the result"
        if found.right_unchanged != round(self.accuracy * found.samples):
            accuracy = 100 * found.right_unchanged / found.samples
            return f"the unchanged network has {accuracy:.2f} %, and the result is {100 * self.accuracy:.2f} %"
        return ""

    @property
    def training_versions(self) -> tuple[int, ...]:
        """The training versions of its epochs, each once."""
        return versions_of(self.sessions)

    @property
    def reported(self) -> RunAccuracy:
        """The accuracy with its epoch, on test samples."""
        return RunAccuracy(self.accuracy, self.best_epoch, "test")

    @property
    def is_subset(self) -> bool:
        """Whether it is known to have used a part of the samples only, by its cache or by ``train.subset``."""
        part = changed_values(self.overrides).get("train.subset", 1)
        return part != 1 or (self.data is not None and not self.data.complete)

    @property
    def environments(self) -> list[dict[str, Any]]:
        """Versions and machine of each process that trained it."""
        return [session.environment for session in self.sessions] or [self.environment]

    @property
    def tests(self) -> dict[int, float]:
        """The test accuracy by epoch, of the epochs that were tested."""
        return {epoch: value for epoch, value in enumerate(self.test_accuracy, 1) if value is not None}

    def best_test_epoch(self, epochs: int | None = None) -> int:
        """Returns the epoch with the highest test accuracy: of equal ones the reported one, else as the recipe chooses.

        Args:
            epochs: Number of first epochs among which it is; None: all. At least one of them was tested.
        """
        tests = {epoch: value for epoch, value in self.tests.items() if epochs is None or epoch <= epochs}
        best = best_epoch(tests, "latest" if self.recipe == "authors" else "earliest")
        return self.best_epoch if tests.get(self.best_epoch) == tests[best] else best

    @property
    def late_tests(self) -> list[float]:
        """The test accuracies of the last epochs (:func:`late_values`)."""
        return late_values(self.tests)


def late_values(by_epoch: Mapping[int, float]) -> list[float]:
    """Returns the values of the last :data:`LATE_EPOCHS` epochs, of those that have one.

    None of a training that has no more epochs: their mean would be that of its beginning.
    """
    last = max(by_epoch, default=0)
    return [value for epoch, value in by_epoch.items() if last > LATE_EPOCHS and epoch > last - LATE_EPOCHS]


def environment_values(records: Iterable[ResultRecord], name: str) -> list[str]:
    """Returns the different values of a fact on versions and machine in runs, sorted."""
    environments = (environment for record in records for environment in record.environments)
    return sorted({str(environment[name]) for environment in environments if name in environment})


def check_records(registry_dirs: Sequence[Path]) -> list[str]:
    """Returns the problems of the registry's folders ``results/`` and ``authors/``."""
    from plifctl.runs.authors import load_authors  # it makes records, so it imports this module

    problems: list[str] = []
    for folder in registry_dirs:
        for path in sorted((folder / "results").glob("*.json")):
            try:
                read_record(path)
            except RunError as error:
                problems.append(str(error))
        try:
            load_authors([folder])
        except RunError as error:
            problems.append(str(error))
    return problems


def load_records(runs_dir: Path, registry_dirs: Sequence[Path]) -> list[ResultRecord]:
    """Returns the records of finished runs, and those of the registry: its ``results/`` and the authors' runs.

    Each run of a source is returned once: a sweep that is repeated gives its runs the names of the shipped ones, which
    it does not replace. An import of the authors' logs replaces the registry's record of them; it is known by its test
    accuracies, whatever its name.
    """
    found: dict[tuple[bool, str], ResultRecord] = {}  # by name, apart from the shipped ones
    files = [path for folder in registry_dirs for path in sorted((folder / "results").glob("*.json"))]
    for path in [*files, *sorted(runs_dir.glob("[!.]*/result.json"))]:
        try:
            record = read_record(path)
        except RunError as error:
            is_denied = isinstance(error.__cause__, PermissionError)
            if path in files or is_denied or folders.is_run(path.parent):
                _log.warning("skipped: %s", error)
            continue  # no warning: a file of another program
        if path not in files:
            record = with_controls(record, path.parent)
        if path not in files and record.run != path.parent.name:  # the user renamed the run
            record = record.model_copy(update={"run": path.parent.name})
        if path in files and record.origin == "trained":
            record = record.model_copy(update={"origin": "shipped"})
        elif folders.is_added(path.parent):
            record = record.model_copy(update={"origin": "added"})
        found[record.origin == "shipped", record.run] = record
    authors = authors_records(registry_dirs)
    records = [with_origin(record, authors) for record in found.values()]
    imported = [record for record in records if record.origin == "authors"]
    return [*records, *(record for record in authors if not is_of_authors(record, imported))]


def authors_records(registry_dirs: Sequence[Path]) -> list[ResultRecord]:
    """Returns the records of the authors' runs in the registry; none, with a warning, if their files are damaged."""
    from plifctl.runs.authors import load_authors  # it makes records, so it imports this module

    try:
        records = [record for run in load_authors(registry_dirs) if (record := run.record()) is not None]
    except RunError as error:
        _log.warning("skipped: %s", error)
        return []
    return [record.model_copy(update={"origin": "authors"}) for record in records]


def is_of_authors(record: ResultRecord, authors: Iterable[ResultRecord]) -> bool:
    """Returns whether a record is that of one of the authors' runs: it has the same test accuracies."""
    return any(
        (one.experiment, one.protocol, one.test_accuracy) == (record.experiment, record.protocol, record.test_accuracy)
        for one in authors
    )


def with_origin(record: ResultRecord, authors: Sequence[ResultRecord]) -> ResultRecord:
    """Returns the record of an imported run of the authors as theirs, and any other as it is.

    Args:
        record: The record of a run.
        authors: Those of the authors' runs. If another run has the name of one, there is a warning.
    """
    if record.origin != "imported":
        return record
    if is_of_authors(record, authors):
        return record.model_copy(update={"origin": "authors"})
    if record.run in {one.run for one in authors}:
        _log.warning("%s: has the name of a run of the authors, but not its accuracies: rename its folder", record.run)
    return record


def read_record(path: Path) -> ResultRecord:
    """Reads a record.

    Raises:
        RunError: The file is missing, damaged, made by an older plifctl, or not a record.
    """
    tree = load_document(path, ("experiment", "protocol", "accuracy"))
    try:
        return ResultRecord.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        raise RunError(f"{path}: not a result record: {first_problem(error)}") from error


def with_controls(record: ResultRecord, folder: Path) -> ResultRecord:
    """Returns the record of a run with the tests under controls that its folder keeps; warns if they are damaged."""
    try:
        found = read_controls(folder)
    except RunError as error:
        _log.warning("not counted: %s", error)
        return record
    return record.model_copy(update={"controls": found}) if found else record


def record_text(record: ResultRecord) -> str:
    """Returns a record as it is written."""
    return json.dumps(add_checksum(record.model_dump(mode="json")), indent=1, ensure_ascii=False) + "\n"


def _leave_out_empty(tree: dict[str, Any], *names: str) -> dict[str, Any]:
    """Returns a record, or a part of it, without those of the named fields that are empty or 0."""
    return {name: value for name, value in tree.items() if name not in names or value}
