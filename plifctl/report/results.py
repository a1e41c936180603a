"""The numbers of a table: the runs behind a cell, what they can be compared with, and which runs are left out.

A number says what it is: ``91.34 @4 subset`` is the mean over runs of 4 epochs on a part of the data. A difference is
taken only against the same number of epochs: against the reported number after all epochs of the experiment, before
that, with recipe ``authors``, against the best of the same first epochs of the authors' run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from plifctl.config.choices import (
    PROTOCOL_ACCURACY,
    RECIPES,
    RUNS_TABLE,
    Protocol,
    Recipe,
    ResultOrigin,
    ResultSource,
)
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.registry import Registry
from plifctl.config.structure import Conv, Linear, Pool, parse_structure
from plifctl.errors import RegistryError, did_you_mean
from plifctl.report.labels import versions_text
from plifctl.report.table import (
    Number,
    flags_of,
    left_out_as_modified,
    mean_text,
    name_runs,
    name_unverified,
    other_versions,
    sample_std,
)
from plifctl.runs import RegisteredExperiments, ResultRecord
from plifctl.runs.records import environment_values
from plifctl.runs.sessions import COMPARED
from plifctl.units import letters

OF_NETWORKS = ("structure", "N_conv", "N_down", "N_fc")
Measure = Literal[
    "accuracy A",
    "accuracy B",
    "accuracy C",
    "T",
    "structure",
    "N_conv",
    "N_down",
    "N_fc",
    "test accuracy",
    "tau 0",
    "tau 1",
    "tau 2",
    "tau 3",
]
"""Measures that a column can be compared with; ``test accuracy`` and ``tau`` of a layer belong to one epoch."""

ACCURACIES: dict[Measure, Protocol] = {"accuracy A": "A", "accuracy B": "B", "accuracy C": "C"}
"""The protocol of each measure that is the accuracy of whole runs."""

ORIGINS: dict[ResultSource, ResultOrigin] = {
    "mine": "trained",
    "shipped": "shipped",
    "authors": "authors",
    "imported": "imported",
    "added": "added",
}
"""Origin of the records of each source."""

SOURCES: dict[ResultOrigin, ResultSource] = {origin: source for source, origin in ORIGINS.items()}
"""Source of the records of each origin."""


@dataclass(frozen=True)
class SourceWords:
    """What the runs of a source are called.

    Attributes:
        runs: All of them, at the head of a column.
        verdict: The same behind ``Verdict,``.
        result: Their result, at the head of a column.
        row: Their result, at the head of a row.
        caption: Of the table of them.
        whose: Before their number.
        one: One of them, after the number.
        prefix: Before recipe and seed of a run in a table with runs of other sources.
        note: In the note on a number.
    """

    runs: str
    verdict: str
    result: str
    row: str
    caption: str
    whose: str
    one: str
    prefix: str = ""
    note: str = ""


SOURCE_WORDS: dict[ResultSource, SourceWords] = {
    "mine": SourceWords(
        runs="My runs",
        verdict="mine",
        result="result",
        row="my result",
        caption="Finished runs of the runs folder",
        whose="my",
        one="run",
    ),
    "shipped": SourceWords(
        runs="Shipped records",
        verdict="shipped",
        result="shipped",
        row="shipped result",
        caption="Runs whose records come with plifctl",
        whose="the",
        one="shipped record",
        prefix="shipped, ",
        note="record of a registry folder",
    ),
    "authors": SourceWords(
        runs="Authors' runs",
        verdict="authors",
        result="authors",
        row="authors' logs",
        caption="Runs of the authors, from their logs",
        whose="the authors'",
        one="log",
    ),
    "imported": SourceWords(
        runs="Imported runs",
        verdict="imported",
        result="imported",
        row="imported logs",
        caption="Runs of other code, from their logs",
        whose="the",
        one="imported log",
        prefix="imported, ",
    ),
    "added": SourceWords(
        runs="Runs of others",
        verdict="others",
        result="added",
        row="result of others",
        caption="Runs of others that were added",
        whose="others'",
        one="run",
        prefix="of others, ",
        note="trained by somebody else",
    ),
}


@dataclass(frozen=True)
class Group:
    """Runs with a common mean: they differ in nothing but the seed."""

    records: tuple[ResultRecord, ...]

    @property
    def first(self) -> ResultRecord:
        return self.records[0]

    @property
    def seeds(self) -> set[int]:
        """The seed of each run."""
        return {record.seed for record in self.records}


class Results:
    """Finds the numbers from runs, and gives each a letter and a note.

    Args:
        records: Result records of all sources.
        registry: Defines the experiments and networks.
        source: Whose runs the numbers come from.
        include_modified: Use runs with overrides as well.
        epochs: Count only the first epochs of every run, those of the authors too; None: all.
    """

    def __init__(
        self,
        records: Sequence[ResultRecord],
        registry: Registry,
        source: ResultSource = "mine",
        *,
        include_modified: bool = False,
        epochs: int | None = None,
    ) -> None:
        self.registry, self._epochs, self._include_modified = registry, epochs, include_modified
        self._records = [record for record in records if record.origin == ORIGINS[source]]
        self._authors = {
            record.experiment: record for record in records if (record.origin, record.protocol) == ("authors", "A")
        }
        self._experiments = RegisteredExperiments(registry)
        self.notes: dict[str, str] = {}
        self._left_out: dict[str, str] = {}
        self._passed_over: dict[str, str] = {}  # for other runs of the same cell or pair
        self._counted: set[str] = set()

    def numbers(self, subject: str, measure: Measure, reported: str, epoch: int | None) -> tuple[Number, ...]:
        """Returns the numbers of an experiment or a network, one for each recipe that has a run.

        Args:
            subject: The experiment, or the network.
            measure: What is compared.
            reported: The number in the paper, as printed.
            epoch: The epoch of the number, where it is not of a whole training.
        """
        if measure in OF_NETWORKS:
            return self._of_networks(subject, measure)
        groups = self.groups(self.candidates(subject, ACCURACIES.get(measure, "A")))
        numbers = [self._number(group, measure, reported, epoch) for group in groups]
        return tuple(number for number in numbers if number is not None)

    def groups(self, candidates: Sequence[Group]) -> list[Group]:
        """Returns the groups that count: the best of each recipe, and of its modified runs."""
        found: dict[tuple[Recipe, bool], list[Group]] = {(r, changed): [] for r in RECIPES for changed in (False, True)}
        for group in candidates:
            found[group.first.recipe, bool(self.changes(group.first))].append(group)
        return [self.count(known[0], known) for known in found.values() if known]

    def candidates(
        self,
        experiment: str,
        protocol: Protocol,
        recipes: Sequence[Recipe] = RECIPES,
        fits: Callable[[ResultRecord], bool] = lambda record: True,
    ) -> list[Group]:
        """Returns the runs of an experiment that may count, in groups, those of the highest :meth:`rank` first.

        Args:
            experiment: Name of the experiment.
            protocol: A, B or C.
            recipes: The recipes.
            fits: Returns whether a run, and its first epochs that count, are of use at all; others are not named among
                those left out.
        """
        usable = [
            cut
            for record in self._records
            if (record.experiment, record.protocol) == (experiment, protocol)
            and record.recipe in recipes
            and fits(record)
            and (cut := self._usable(record)) is not None
            and fits(cut)
        ]
        groups = self._grouped(usable)
        grouped = [record for group in groups for record in group.records]
        self._passed_over |= {r.run: f"the same seed as a later run ({r.seed})" for r in usable if r not in grouped}
        return groups

    @property
    def records(self) -> tuple[ResultRecord, ...]:
        """The records of the source, also those that no number counts."""
        return tuple(self._records)

    @property
    def left_out(self) -> dict[str, str]:
        """Why a run is not counted, by its name; runs that another cell or pair counts are not left out."""
        return {run: why for run, why in self._passed_over.items() if run not in self._counted} | self._left_out

    def count(self, chosen: Group, known: Sequence[Group]) -> Group:
        """Returns a group, and notes why the runs of the others are left out."""
        others = [record for group in known for record in group.records if record not in chosen.records]
        self._passed_over |= {record.run: self._why_not(record, chosen) for record in others}
        self._counted |= {record.run for record in chosen.records}
        return chosen

    def accuracy(self, group: Group) -> Number:
        """Returns the mean accuracy of runs with its note, compared with nothing."""
        measure = next(one for one, protocol in ACCURACIES.items() if protocol == group.first.protocol)
        number = self._number(group, measure, None, None)
        assert number is not None  # every run has an accuracy
        return number

    def experiments(self, recipe: Recipe) -> list[str]:
        """Returns the experiments with runs of a recipe, in the order of the registry; those that it lacks are last."""
        known = {record.experiment for record in self._records if record.recipe == recipe}
        registered = self.registry.experiments()
        return [*(name for name in registered if name in known), *sorted(known.difference(registered))]

    def authors_log(self, experiment: str) -> ResultRecord | None:
        """Returns the record of the authors' own run of an experiment in protocol A, from its log."""
        return self._authors.get(experiment)

    def registered(self, record: ResultRecord) -> ExperimentSpec | None:
        """Returns the experiment of a run as it is in the registry now, with the changes of the run; None: not there.

        If one of the changes can no longer be made, it is the experiment without any.
        """
        if record.experiment not in self.registry.experiments():
            return None
        if (found := self._experiments.find(record)) is not None:
            return found
        unchanged = self.registry.experiment(record.experiment, recipe=record.recipe)
        return unchanged.for_protocol(record.protocol).spec

    def spec_of(self, record: ResultRecord) -> ExperimentSpec | None:
        """Returns the settings of a run; None if the registry has no such experiment, or another one of that name."""
        spec = self.registered(record)
        return spec if spec is not None and spec.digest == record.digest else None

    def rank(self, group: Group) -> tuple[bool | int, ...]:
        """Returns how good a group is: without changes, no fold, complete data, many epochs, many training samples.

        Runs that are longer than planned come after those of the planned length, with which numbers are compared.
        """
        first, data = group.first, group.first.data
        within_plan = min(first.epochs, self._planned(first) or first.epochs)
        epochs = within_plan, first.epochs == within_plan, first.epochs
        return not self.changes(first), first.fold is None, not first.is_subset, *epochs, data.train if data else 0

    def _grouped(self, records: Sequence[ResultRecord]) -> list[Group]:
        """Returns runs as groups, the best first, of equal ones that of the latest run; one run for each seed."""
        found: dict[tuple[object, ...], dict[int, ResultRecord]] = {}
        for record in sorted(records, key=lambda record: record.finished, reverse=True):
            found.setdefault(shared_settings(record), {}).setdefault(record.seed, record)
        groups = [Group(tuple(by_seed[seed] for seed in sorted(by_seed))) for by_seed in found.values()]
        return sorted(groups, key=self.rank, reverse=True)

    def _why_not(self, record: ResultRecord, chosen: Group) -> str:
        """Returns why a run is not counted beside the runs of its cell."""
        best = chosen.first
        if self.rank(Group((record,))) > self.rank(chosen):
            return "the other experiment has no run that can be compared with it, or fewer seeds"
        if shared_settings(record) == shared_settings(best):
            return f"the other experiment has no run of seed {record.seed}"
        if self.changes(record) and not self.changes(best):
            return "modified, while there is a run that is not"
        if record.fold is not None and record.fold != best.fold:
            return f"{record.fold.text}: the table {RUNS_TABLE} has the mean of folds"
        if record.is_subset and not best.is_subset:
            return "on a subset, while there is a run on all samples"
        if record.epochs != best.epochs:
            return f"{_count_epochs(record.epochs)}, while there is a run of {best.epochs}"
        if record.training_versions != best.training_versions:
            return f"{versions_text(record.training_versions)}, which gives other numbers"
        return "other samples or settings"

    def _usable(self, record: ResultRecord) -> ResultRecord | None:
        """Returns a record, cut to the epochs that count; None if it is left out."""
        changes = self.changes(record)
        if changes and not self._include_modified:
            self._left_out[record.run] = left_out_as_modified(changes)
            return None
        if self._epochs is None or record.epochs <= self._epochs:
            return record
        if record.protocol != "A":
            self._left_out[record.run] = f"a run of protocol {record.protocol} cannot be cut to fewer epochs"
            return None
        if not any(epoch <= self._epochs for epoch in record.tests):
            self._left_out[record.run] = f"not tested within {_count_epochs(self._epochs)}"
            return None
        return cut_record(record, self._epochs)

    def _number(self, group: Group, measure: Measure, reported: str | None, epoch: int | None) -> Number | None:
        found = [(record, value) for record in group.records if (value := _value(record, measure, epoch)) is not None]
        if not found:
            return None
        records, values = zip(*found, strict=True)
        self._left_out |= {r.run: f"without a value of epoch {epoch}" for r in group.records if r not in records}
        first, planned = records[0], self._planned(records[0])
        digits = 3 if measure.startswith("tau") else 2
        mean, flags = statistics.fmean(values), (*self.flags(first), *(("fast",) if first.recipe == "fast" else ()))
        text = str(first.T) if measure == "T" else mean_text(values, digits)
        alone = reported is None or flags or measure == "T"
        compared = None if alone else self._compared(first, planned, measure, reported or "", epoch)
        difference = None if compared is None else round(mean, digits) - compared
        is_result = epoch is None and measure != "T"
        authors = compared if first.epochs != planned and is_result else None
        note = self._note(records, planned, authors, is_result=is_result)
        mark = self.mark(note)
        shown_epochs = first.epochs if is_result else None
        facts = (text, mean, difference, records, mark, note, shown_epochs, planned, flags)
        validated = self._validated(first) if measure == "accuracy A" else ()
        std = None if measure == "T" else sample_std(values)
        return Number(*facts, validated=validated, is_result=is_result, std=std)

    def _validated(self, record: ResultRecord) -> tuple[ResultRecord, ...]:
        """Returns the runs of protocol B that differ from one of protocol A in nothing but the validation samples."""

        def shared(run: ResultRecord) -> tuple[object, ...]:
            data = run.data and (run.data.cache, run.data.complete)
            fold = run.fold and run.fold.number
            return run.experiment, run.recipe, run.T, run.epochs, run.training_versions, data, fold, self.changes(run)

        same = [run for run in self._records if run.protocol == "B" and shared(run) == shared(record)]
        return self._grouped(same)[0].records if same else ()

    def _planned(self, record: ResultRecord) -> int | None:
        """Returns the number of epochs of the experiment of a run; None if it is not in the registry."""
        registered = self.registered(record)
        return None if registered is None else registered.train.epochs

    def _compared(
        self, record: ResultRecord, planned: int | None, measure: Measure, reported: str, epoch: int | None
    ) -> float | None:
        """Returns what a number is compared with: of the same number of epochs; None if there is nothing."""
        authors_log = record.origin == "authors"  # the reported number is its maximum, also where its end is missing
        is_whole = record.epochs == planned or (authors_log and self._epochs is None)
        authors = self._authors.get(record.experiment)
        if authors is not None and record.recipe != "authors" and (epoch is not None or not is_whole):
            return None  # an epoch of another recipe is another training: it has another loss, or other samples
        if epoch is not None or is_whole:
            return float(reported) if _is_number(reported) else None
        if authors is None or authors_log or measure != "accuracy A":
            return None
        known = [value for tested, value in authors.tests.items() if tested <= record.epochs]
        return round(100 * max(known), 2) if len(known) == record.epochs else None

    def mark(self, note: str) -> str:
        """Adds a note, unless it is known, and returns its letter."""
        known = {text: mark for mark, text in self.notes.items()}
        mark = known.get(note) or letters(len(self.notes))
        self.notes[mark] = note
        return mark

    def flags(self, record: ResultRecord) -> tuple[str, ...]:
        """Returns what forbids to compare a run, a word each."""
        fold = () if record.fold is None else (f"fold {record.fold.number}",)
        return (*fold, *flags_of(record, bool(self.changes(record))))

    def _note(
        self, found: Sequence[ResultRecord], planned: int | None, authors: float | None, *, is_result: bool
    ) -> str:
        """Returns the note on a number.

        Args:
            found: The runs behind it.
            planned: Number of epochs of the experiment; None: unknown.
            authors: The accuracy of the authors' first epochs that it is compared with; None: it is not.
            is_result: Whether it is the accuracy of a whole run, and not of one epoch, T or τ.
        """
        first = found[0]
        measure, best = f" ({PROTOCOL_ACCURACY[first.protocol].short})", f", best epoch {first.best_epoch}"
        seeds = ", ".join(str(record.seed) for record in found)
        parts = [
            f"{first.experiment}: protocol {first.protocol}{measure if is_result else ''}",
            f"recipe {first.recipe}, T = {first.T}",
            f"{first.epochs} of {planned} epochs" if first.epochs < (planned or 0) else _count_epochs(first.epochs),
            f"seed{'s' if len(found) > 1 else ''} {seeds}",
            name_runs(found),
        ]
        if authors is not None:
            same = f"the best of the first {first.epochs} epochs" if first.epochs > 1 else "the first epoch"
            parts.append(f"Δ to {authors:.2f}, {same} of the authors' run")
        if first.origin in ("authors", "imported"):
            log = "the authors' log" if first.origin == "authors" else "a log of other code"
            parts.append(f"{log}, {_count_epochs(len(first.tests))} logged{best if is_result else ''}")
        if note := SOURCE_WORDS[SOURCES[first.origin]].note:
            parts.append(note)
        if any(record.stopped_early for record in found):
            parts.append("stopped early")
        parts += other_versions(first)
        parts += version_notes(found)
        if first.fold is not None:
            parts.append(f"{first.fold.text} ONLY: the table {RUNS_TABLE} has the mean of folds")
        if (data := first.data) is not None and first.is_subset:
            parts.append(f"SUBSET: {data.train + data.validation} training and {data.test} test samples")
        if data is not None and data.without_events:
            parts.append(f"{data.without_events} SAMPLES WITHOUT EVENTS")
        parts += name_unverified(found)
        if changes := self.changes(first):
            parts.append(f"MODIFIED: {', '.join(changes)}")
        return "; ".join(parts)

    def changes(self, record: ResultRecord) -> tuple[str, ...]:
        """Returns how the experiment of a record differs from that of its name."""
        return self._experiments.changes(record)

    def _of_networks(self, name: str, measure: Measure) -> tuple[Number, ...]:
        """Returns the number of a network, or those of an experiment's networks, one for each recipe if they differ."""
        numbers = []
        for recipe, text in network_texts(self.registry, name, measure).items():
            note = f"recipe {recipe}" if recipe else ""
            value = float(text) if text.isdecimal() else None
            numbers.append(Number(text, value, mark=self.mark(note) if note else "", note=note))
        return tuple(numbers)


def network_texts(registry: Registry, name: str, measure: Measure) -> dict[str, str]:
    """Returns a measure of a network, or of an experiment's networks by recipe; by "" where all have the same.

    Raises:
        RegistryError: There is neither a network nor an experiment of this name, or the measure is undefined for it.
    """
    if name in registry.networks():
        found = {"": _of_structure(name, registry.network(name).structure, measure)}
    elif name in registry.experiments():
        recipes: tuple[Recipe, ...] = ("paper", "authors")  # fast has the networks of paper
        networks = {recipe: registry.experiment(name, recipe=recipe).spec.network for recipe in recipes}
        found = {recipe: _of_structure(one.name, one.structure, measure) for recipe, one in networks.items()}
    else:
        known = did_you_mean(name, [*registry.networks(), *registry.experiments()])
        raise RegistryError(f"no network or experiment {name}; {known}")
    return {"": next(iter(found.values()))} if len(set(found.values())) == 1 else found


def _of_structure(name: str, structure: str, measure: Measure) -> str:
    """Returns a measure of a network: its structure, or the number of a kind of layers."""
    if measure == "structure":
        return structure
    layers = parse_structure(structure)
    pools = sum(isinstance(layer, Pool) for layer in layers)
    if pools == 0:
        raise RegistryError(f"network {name} has no pooling, so {measure} is undefined")
    counts = {
        "N_conv": sum(isinstance(layer, Conv) for layer in layers) // pools,
        "N_down": pools,
        "N_fc": sum(isinstance(layer, Linear) for layer in layers),
    }
    return str(counts[measure])


def cut_record(record: ResultRecord, epochs: int) -> ResultRecord:
    """Returns the record of a run of protocol A as it was after its first epochs.

    Args:
        record: The record; it has more epochs.
        epochs: Number of epochs; at least one of them was tested.
    """
    best = record.best_test_epoch(epochs)
    sessions = tuple(
        session.model_copy(update={"epochs": (session.epochs[0], min(session.epochs[1], epochs))})
        for session in record.sessions
        if session.epochs[0] <= epochs
    )
    return record.model_copy(
        update={
            "epochs": epochs,
            "accuracy": record.tests[best],
            "best_epoch": best,
            "test_accuracy": record.test_accuracy[:epochs],
            "validation_curve": record.validation_curve[:epochs],
            "cpu_seconds": record.cpu_seconds[:epochs],
            "tau": record.tau[:epochs],
            "stopped_early": False,
            "environment": sessions[-1].environment if sessions else record.environment,
            "sessions": sessions,
        }
    )


def _value(record: ResultRecord, measure: Measure, epoch: int | None) -> float | None:
    """Returns a number of a run: accuracies in percent, τ in steps; None if it has none at that epoch."""
    match measure:
        case "T":
            return float(record.T)
        case "accuracy A" | "accuracy B" | "accuracy C":
            return 100 * record.accuracy
    assert epoch is not None
    if measure == "test accuracy":
        accuracy = record.tests.get(epoch)
        return None if accuracy is None else 100 * accuracy
    layer = int(measure.removeprefix("tau "))
    of_layer = [tau[layer] for tau in record.tau[epoch - 1 : epoch] if layer < len(tau)]
    return of_layer[0] if of_layer else None


def shared_settings(record: ResultRecord) -> tuple[object, ...]:
    """Returns what runs of an experiment and protocol with a common mean share."""
    data = record.data and (record.data.cache, record.data.complete)
    return record.recipe, record.training_versions, record.digest, record.epochs, data


def version_notes(found: Sequence[ResultRecord]) -> list[str]:
    """Returns in which versions and devices the runs of one number differ."""
    notes = []
    for name in COMPARED:
        values = environment_values(found, name)
        if len(values) > 1:
            notes.append(f"DIFFERENT {name}: {', '.join(values)}")
    return notes


def _count_epochs(number: int) -> str:
    return "1 epoch" if number == 1 else f"{number} epochs"


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()
