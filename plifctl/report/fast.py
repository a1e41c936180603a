"""Processor time of runs of the recipe ``fast``, beside that of the authors' training to the same accuracy.

The authors' logs have accuracies by epoch, but no processor time. Their epochs are counted with the time that an epoch
of a run of plifctl took: of the recipe ``authors``, else ``paper`` if it has as many training samples, of the same
experiment on the same processor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, product
from statistics import fmean

from plifctl.config.choices import FAST_TABLE, PROTOCOLS, Recipe
from plifctl.evaluation.step_cost import training_operations
from plifctl.report.labels import versions_text
from plifctl.report.results import Group, Results
from plifctl.report.speed import first_epoch
from plifctl.report.table import Cell, Entry, Number, Table, name_runs
from plifctl.runs import ResultRecord

FAST: Recipe = "fast"

_TIMED: tuple[Recipe, ...] = ("authors", "paper")
"""Recipes whose epochs may stand for the authors', in order of preference."""


@dataclass(frozen=True)
class AuthorsCurve:
    """The authors' training of an experiment over processor time.

    Attributes:
        log: Record of their run in protocol A, from its log.
        timed: Runs of plifctl whose epochs were timed.
        minutes: Processor time of an epoch of these, minutes, the mean.
    """

    log: ResultRecord
    timed: Group
    minutes: float

    @cached_property
    def best(self) -> Mapping[int, float]:
        """The best test accuracy so far, by epoch, of the epochs that were logged."""
        return dict(zip(self.log.tests, accumulate(self.log.tests.values(), max), strict=True))

    def accuracy_after(self, minutes: float) -> tuple[int, float] | None:
        """Returns the number of epochs that fit into some minutes, and the best test accuracy of them; None: none."""
        epochs = min(math.floor(minutes / self.minutes + 1e-9), self.log.epochs)
        known = [value for epoch, value in self.best.items() if epoch <= epochs]
        return (epochs, known[-1]) if known else None

    def describe(self) -> str:
        """Returns what the curve is, as one text."""
        run, timed = self.timed.first, name_runs(self.timed.records)
        return (
            f"{self.log.run} (best test accuracy so far, protocol A: the test set selects it; an epoch with "
            f"{self.minutes:.3g} CPU min, the mean of {timed} there, epochs: {run.epochs}, recipe {run.recipe}, "
            f"protocol {run.protocol})"
        )


@dataclass(frozen=True)
class Timing:
    """Runs of the recipe ``fast`` on one processor, which differ in the seed.

    Attributes:
        processor: Name of the processor.
        records: The runs.
        minutes: Processor time of each, minutes.
        authors: The authors' training, timed on this processor; None if it is not compared.
    """

    processor: str
    records: tuple[ResultRecord, ...]
    minutes: tuple[float, ...]
    authors: AuthorsCurve | None

    def describe(self) -> str:
        """Returns runs, processor and the authors' training as one text."""
        beside = f", beside {self.authors.describe()}" if self.authors is not None else ""
        return f"{name_runs(self.records)} on {self.processor}{beside}"


@dataclass(frozen=True)
class FastResult:
    """Runs of the recipe ``fast`` of an experiment, and the authors' training of it.

    Attributes:
        group: The runs, which differ in the seed.
        accuracy: Their mean accuracy.
        title: Title of the experiment.
        reported_b: Accuracy of protocol B that the paper reports, percent; None: none.
        operations: Dense floating-point operations of a run; None if its settings are not known.
        timings: The runs whose processor time is known, one object for each processor.
        problems: Why a value is missing, a text each.
    """

    group: Group
    accuracy: Number
    title: str
    reported_b: float | None
    operations: int | None
    timings: tuple[Timing, ...]
    problems: tuple[str, ...]

    @property
    def name(self) -> str:
        """Experiment and protocol: ``mnist-plif, protocol B``."""
        return f"{self.group.first.experiment}, protocol {self.group.first.protocol}"

    @property
    def runs(self) -> list[str]:
        """Names of the runs."""
        return [record.run for record in self.group.records]

    @property
    def compared_runs(self) -> list[str]:
        """Names of the authors' run and of those whose epochs were timed, if they are known."""
        curves = [timing.authors for timing in self.timings if timing.authors is not None]
        found = [record.run for curve in curves for record in (curve.log, *curve.timed.records)]
        return list(dict.fromkeys(found))

    def describe(self) -> str:
        """Returns the result for a caption."""
        facts = (f"{self.accuracy.text} %", f"epochs: {self.group.first.epochs}", *self.accuracy.flags)
        timed = [record for timing in self.timings for record in timing.records]
        others = [record for record in self.group.records if record not in timed]
        parts = [timing.describe() for timing in self.timings]
        parts += [f"{name_runs(others)} without processor time"] if others else []
        return f"{self.name}: {', '.join(facts)}. {' '.join(f'{part[0].upper()}{part[1:]}.' for part in parts)}"


def find_fast_results(results: Results) -> list[FastResult]:
    """Returns the runs of the recipe ``fast``, one object for each experiment and protocol."""
    return [
        _result(group, results)
        for experiment, protocol in product(results.experiments(FAST), PROTOCOLS)
        for group in results.groups(results.candidates(experiment, protocol, (FAST,)))
    ]


def _result(group: Group, results: Results) -> FastResult:
    first, spec, flags = group.first, results.spec_of(group.first), results.flags(group.first)
    accuracy = replace(results.accuracy(group), flags=flags)  # all are of recipe fast
    counted = spec is not None and first.data is not None
    problems = [] if counted else ["no PFLOP: the registry lacks its experiment, or has changed it"]
    by_processor: dict[str, list[ResultRecord]] = {}
    for record in group.records:
        if problem := _time_problem(record):
            problems.append(f"no CPU minutes of run {record.run}: {problem}")
        else:
            (processor,) = _processors(record)
            by_processor.setdefault(processor, []).append(record)
    timings = []
    for processor, records in sorted(by_processor.items()):
        authors = " and ".join(flags) or _authors_curve(first, processor, results)
        if isinstance(authors, str):
            problems.append(f"NOT COMPARED with the authors' run: {authors}")
        minutes = tuple(sum(filter(None, record.cpu_seconds)) / 60 for record in records)
        timings.append(Timing(processor, tuple(records), minutes, None if isinstance(authors, str) else authors))
    data, reported = first.data, None if spec is None else spec.reported
    return FastResult(
        group,
        accuracy,
        first.experiment if spec is None else spec.title,
        reported.accuracy_b if reported is not None and reported.in_paper else None,
        None
        if spec is None or data is None
        else training_operations(
            spec, first.protocol, first.epochs, train=data.train, validation=data.validation, test=data.test
        ),
        tuple(timings),
        tuple(dict.fromkeys(problems)),
    )


def _time_problem(record: ResultRecord) -> str:
    """Returns why the processor time of a run cannot be compared; empty: it can."""
    if len(record.cpu_seconds) != record.epochs or None in record.cpu_seconds:
        return "not counted in every epoch"
    if not any(record.cpu_seconds):
        return "too short to be measured"
    if any(environment.get("device") != "cpu" for environment in record.environments):
        return "not trained on CPUs alone"
    processors = _processors(record)
    if "" in processors:
        return "on an unknown processor"
    return f"on several processors: {'; '.join(sorted(processors))}" if len(processors) > 1 else ""


def _processors(record: ResultRecord) -> set[str]:
    """Returns the names of the processors that trained a run; an empty one where it is unknown."""
    return {str(environment.get("processor") or "") for environment in record.environments}


def _authors_curve(ours: ResultRecord, processor: str, results: Results) -> AuthorsCurve | str:
    """Returns the authors' training of a run's experiment on a processor, or why it is not known."""
    experiment, versions = ours.experiment, ours.training_versions
    log = results.authors_log(experiment)
    if log is None or not log.tests:
        return "its accuracies by epoch are not known"

    def fits(record: ResultRecord) -> bool:
        whole = record.data is not None and record.data.complete and not results.changes(record) and record.T == log.T
        alike = record.training_versions == versions and _processors(record) == {processor}
        return whole and alike and not _time_problem(record)

    recipes = _recipes_of_the_same_samples(log, results)
    for recipe in recipes:
        for timed in results.groups(results.candidates(experiment, "A", (recipe,), fits)):
            seconds = [value for record in timed.records for value in record.cpu_seconds if value is not None]
            return AuthorsCurve(log, timed, fmean(seconds) / 60)
    same = versions_text(versions)
    return f"no run of recipe {' or '.join(recipes)}, protocol A, and {same} on {processor} has CPU minutes"


def _recipes_of_the_same_samples(log: ResultRecord, results: Results) -> list[Recipe]:
    """Returns the recipes of :data:`_TIMED` whose epochs have as many training samples as those of the authors' log."""
    specs = {recipe: results.registered(log.model_copy(update={"recipe": recipe})) for recipe in _TIMED}
    chosen = {r: spec and spec.frames and spec.frames.training_set for r, spec in specs.items()}
    return [recipe for recipe in _TIMED if chosen[recipe] == chosen["authors"]]


_COLUMNS = (
    *("Experiment", "Protocol", "Epochs", "Accuracy (%)", "CPU min", "PFLOP"),
    *("Authors: CPU min to the same accuracy (epochs)", "Authors: accuracy after the same CPU min (epochs)"),
)

_ABOUT = (
    "Runs of recipe fast: means over seeds ± their standard deviation. CPU min: processor time of a run, of all "
    "threads, for training and the evaluation after each epoch. PFLOP: 10^15 dense floating-point operations of the "
    "same, counted from the structure, two for a multiply-add: forward, gradients of weights and of inputs. Runs on "
    "several processors have a number for each, with the letter of its note. Authors: the best test accuracy so far of "
    "the authors' run, protocol A, in which the test set selects the epoch. Epochs are counted with the CPU minutes of "
    "an epoch of recipe authors, else paper if it has as many training samples, run by plifctl in the same training "
    "version on the same processor; those that were not logged are passed over. >: not reached in all epochs."
)


def build_fast_table(results: Results) -> Table:
    """Returns accuracy, processor time and operations of the runs of ``fast``, beside the authors' training."""
    cells: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    found = find_fast_results(results)
    for row in found:
        first, columns = row.group.first, _numbers(row, results)
        shown = [Cell(numbers=numbers) for numbers in columns]
        cells.append((Cell(first.experiment), Cell(first.protocol), Cell(str(first.epochs)), *shown))
        for column, numbers in zip(_COLUMNS[3:], columns, strict=True):
            flagged = tuple(replace(number, flags=row.accuracy.flags) for number in numbers)
            entries += [Entry(row.name, column, "", flagged)] if flagged else []
    problems = [f"{row.name}: {problem}" for row in found for problem in row.problems]
    if not found:
        problems.append("no run of recipe fast counts: plifctl validate EXPERIMENT --recipe fast")
    caption = "Accuracy and processor time of recipe fast, beside the authors' training"
    return Table(FAST_TABLE, caption, _ABOUT, _COLUMNS, tuple(cells), tuple(entries), warnings=tuple(problems))


def _numbers(row: FastResult, results: Results) -> tuple[tuple[Number, ...], ...]:
    """Returns accuracy, CPU minutes, PFLOP and the authors' two numbers: none, or one for each processor."""
    petaflop = () if row.operations is None else (_petaflop(row.operations, row.group.records),)
    level = fmean(record.accuracy for record in row.group.records)
    minutes = tuple(_own_minutes(timing, results) for timing in row.timings)
    authors = [_authors_numbers(timing, level, results) for timing in row.timings if timing.authors is not None]
    return (row.accuracy,), minutes, petaflop, tuple(to for to, _ in authors), tuple(after for _, after in authors)


def _petaflop(operations: int, records: tuple[ResultRecord, ...]) -> Number:
    value = 1e-15 * operations
    return Number(f"{value:.3g}", value, records=records, decimals=12)


def _own_minutes(timing: Timing, results: Results) -> Number:
    note, value = timing.describe(), fmean(timing.minutes)
    return Number(_minutes_text(value), value, records=timing.records, mark=results.mark(note), note=note)


def _authors_numbers(timing: Timing, level: float, results: Results) -> tuple[Number, Number]:
    """Returns the authors' CPU minutes to the same accuracy, and their accuracy after the same CPU minutes.

    Args:
        timing: Runs that are compared.
        level: The accuracy, a fraction.
        results: Gives the marks.
    """
    authors = timing.authors
    assert authors is not None
    note = timing.describe()

    def number(text: str, value: float | None, epochs: int, mark: str = "") -> Number:
        return Number(f"{text} ({epochs:,})", value, mark=mark, note=note)

    last, mark = authors.log.epochs, results.mark(note)
    if (epoch := first_epoch(authors.log, level)) is not None:
        to_level = number(_minutes_text(epoch * authors.minutes), epoch * authors.minutes, epoch, mark)
    else:
        to_level = number(f"> {_minutes_text(last * authors.minutes)}", None, last, mark)
    if (reached := authors.accuracy_after(fmean(timing.minutes))) is None:
        return to_level, number("less than an epoch", None, 0, mark)
    epochs, best = reached
    return to_level, number(f"{100 * best:.2f}", 100 * best, epochs, mark)


def _minutes_text(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 100 else f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2g}"
