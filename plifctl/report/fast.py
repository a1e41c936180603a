"""Processor time of runs of the recipe ``fast``, beside that of the authors' training to the same accuracy.

The authors' logs have accuracies by epoch, but no processor time. Their epochs are counted with the time that an epoch
of a run of plifctl took: of the recipe ``authors``, else ``paper``, of the same experiment on the same processor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, product
from statistics import fmean

from plifctl.config.choices import FAST_TABLE, PROTOCOLS, Recipe
from plifctl.config.overrides import is_modification
from plifctl.evaluation.step_cost import epoch_operations
from plifctl.report.results import Group, Results
from plifctl.report.speed import first_epoch
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord

FAST: Recipe = "fast"

_TIMED: tuple[Recipe, ...] = ("authors", "paper")
"""Recipes whose epochs stand for the authors', in order of preference."""


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
        run, runs = self.timed.first, [record.run for record in self.timed.records]
        return (
            f"{self.log.run}: best test accuracy so far, protocol A (the test set selects it); an epoch with "
            f"{self.minutes:.3g} CPU min, the mean of {_runs_text(runs)} (epochs: {run.epochs}, recipe {run.recipe}, "
            f"protocol {run.protocol})"
        )


@dataclass(frozen=True)
class FastResult:
    """Runs of the recipe ``fast`` of an experiment, and the authors' training of it.

    Attributes:
        group: The runs, which differ in the seed.
        accuracy: Their mean accuracy.
        title: Title of the experiment.
        reported_b: Accuracy of protocol B that the paper reports, percent; None: none.
        operations: Dense floating-point operations of a run; None if its settings are not known.
        processor: Name of the processor; empty if it is unknown, or they are several.
        minutes: Processor time of each run, minutes; empty if it is not known of all, on one processor.
        authors: The authors' training; None if it is not compared.
        problems: Why a value is missing, a text each.
    """

    group: Group
    accuracy: Number
    title: str
    reported_b: float | None
    operations: int | None
    processor: str
    minutes: tuple[float, ...]
    authors: AuthorsCurve | None
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
        if self.authors is None:
            return []
        return [self.authors.log.run, *(record.run for record in self.authors.timed.records)]

    def describe(self) -> str:
        """Returns the result for a caption."""
        where = f" on {self.processor}" if self.processor else ""
        beside = f" Beside it: {self.authors.describe()}." if self.authors is not None else ""
        facts = (f"{self.accuracy.text} %", f"epochs: {self.group.first.epochs}", *self.accuracy.flags)
        return f"{self.name}: {', '.join(facts)}, {_runs_text(self.runs)}{where}.{beside}"


def find_fast_results(results: Results) -> list[FastResult]:
    """Returns the runs of the recipe ``fast``, one object for each experiment and protocol."""
    return [
        _result(group, results)
        for experiment, protocol in product(results.experiments(FAST), PROTOCOLS)
        for group in results.groups(experiment, protocol, (FAST,))
    ]


def _result(group: Group, results: Results) -> FastResult:
    first, spec, flags = group.first, results.spec_of(group.first), results.flags(group.first)
    accuracy = replace(results.accuracy(group), flags=flags)  # all are of recipe fast
    data, untimed = first.data, _time_problem(group.records)
    processor = "" if untimed else next(iter(_processors(group.records)))
    authors: AuthorsCurve | str = ""
    if not untimed:
        authors = " and ".join(flags) or _authors_curve(first.experiment, processor, results)
    counted = spec is not None and data is not None
    problems = {
        "no PFLOP": "" if counted else "the registry lacks its experiment, or has changed it",
        "no CPU minutes": untimed,
        "NOT COMPARED with the authors' run": authors if isinstance(authors, str) else "",
    }
    reported = None if spec is None else spec.reported
    return FastResult(
        group,
        accuracy,
        first.experiment if spec is None else spec.title,
        reported.accuracy_b if reported is not None and reported.in_paper else None,
        first.epochs * epoch_operations(spec, data.train, data.validation, data.test) if spec and data else None,
        processor,
        () if untimed else tuple(sum(filter(None, record.cpu_seconds)) / 60 for record in group.records),
        None if isinstance(authors, str) else authors,
        tuple(f"{what}: {why}" for what, why in problems.items() if why),
    )


def _time_problem(records: Sequence[ResultRecord]) -> str:
    """Returns why the processor time of runs has no common mean; empty: it has."""
    if any(len(record.cpu_seconds) != record.epochs or None in record.cpu_seconds for record in records):
        return "not counted in every epoch"
    if not all(any(record.cpu_seconds) for record in records):
        return "too short to be measured"
    if any(environment.get("device") != "cpu" for record in records for environment in record.environments):
        return "not trained on CPUs alone"
    processors = _processors(records)
    if "" in processors:
        return "on an unknown processor"
    return f"on different processors: {'; '.join(sorted(processors))}" if len(processors) > 1 else ""


def _processors(records: Sequence[ResultRecord]) -> set[str]:
    """Returns the names of the processors that trained some runs; an empty one where it is unknown."""
    environments = [environment for record in records for environment in record.environments]
    return {str(environment.get("processor") or "") for environment in environments}


def _authors_curve(experiment: str, processor: str, results: Results) -> AuthorsCurve | str:
    """Returns the authors' training of an experiment on a processor, or why it is not known."""
    log = results.authors_log(experiment)
    if log is None or not log.tests:
        return "its accuracies by epoch are not known"

    def fits(record: ResultRecord) -> bool:
        whole = record.data is not None and record.data.complete and not any(map(is_modification, record.overrides))
        return whole and not _time_problem([record]) and _processors([record]) == {processor}

    for recipe, protocol in product(_TIMED, PROTOCOLS):
        for timed in results.groups(experiment, protocol, (recipe,), fits):
            seconds = [value for record in timed.records for value in record.cpu_seconds if value is not None]
            return AuthorsCurve(log, timed, fmean(seconds) / 60)
    return f"no run of recipe {' or '.join(_TIMED)} on {processor} has CPU minutes"


_COLUMNS = (
    *("Experiment", "A/B", "Epochs", "Accuracy (%)", "CPU min", "PFLOP"),
    *("Authors: CPU min to the same accuracy (epochs)", "Authors: accuracy after the same CPU min (epochs)"),
)

_ABOUT = (
    "Runs of recipe fast: means over seeds ± their standard deviation. CPU min: processor time of a run, of all "
    "threads, for training and the evaluation after each epoch. PFLOP: 10^15 dense floating-point operations of the "
    "same, counted from the structure, two for a multiply-add: forward, gradients of weights and of inputs. Authors: "
    "the best test accuracy so far of the authors' run, protocol A, in which the test set selects the epoch. Epochs "
    "are counted with the CPU minutes of an epoch of recipe authors, else paper, run by plifctl on the same processor; "
    "those that were not logged are passed over. >: not reached in all epochs."
)


def build_fast_table(results: Results) -> Table:
    """Returns accuracy, processor time and operations of the runs of ``fast``, beside the authors' training."""
    cells: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    found = find_fast_results(results)
    for row in found:
        first, numbers = row.group.first, (*_own_numbers(row, results), *_authors_numbers(row, results))
        shown = [Cell(numbers=() if number is None else (number,)) for number in numbers]
        cells.append((Cell(first.experiment), Cell(first.protocol), Cell(str(first.epochs)), *shown))
        named = zip(_COLUMNS[3:], numbers, strict=True)
        known = [(column, replace(number, flags=row.accuracy.flags)) for column, number in named if number is not None]
        entries += [Entry(row.name, column, "", (number,)) for column, number in known]
    problems = [f"{row.name}: {problem}" for row in found for problem in row.problems]
    if not found:
        problems.append("no run of recipe fast counts: plifctl validate EXPERIMENT --recipe fast")
    caption = "Accuracy and processor time of recipe fast, beside the authors' training"
    return Table(FAST_TABLE, caption, _ABOUT, _COLUMNS, tuple(cells), tuple(entries), warnings=tuple(problems))


def _own_numbers(row: FastResult, results: Results) -> tuple[Number | None, ...]:
    """Returns accuracy, CPU minutes and PFLOP; None where they are not known."""
    records = row.group.records
    minutes = petaflop = None
    if row.minutes:
        note = f"on {row.processor}"
        value = fmean(row.minutes)
        minutes = Number(_minutes_text(value), value, records=records, mark=results.mark(note), note=note)
    if row.operations is not None:
        value = 1e-15 * row.operations
        petaflop = Number(f"{value:.3g}", value, records=records, decimals=12)
    return row.accuracy, minutes, petaflop


def _authors_numbers(row: FastResult, results: Results) -> tuple[Number | None, Number | None]:
    """Returns the authors' CPU minutes to the same accuracy, and their accuracy after the same CPU minutes."""
    if (authors := row.authors) is None:
        return None, None
    note = authors.describe()

    def number(text: str, value: float | None, epochs: int, mark: str = "") -> Number:
        return Number(f"{text} ({epochs:,})", value, mark=mark, note=note)

    last, level = authors.log.epochs, fmean(record.accuracy for record in row.group.records)
    mark = results.mark(note)  # of both
    if (epoch := first_epoch(authors.log, level)) is not None:
        to_level = number(_minutes_text(epoch * authors.minutes), epoch * authors.minutes, epoch, mark)
    else:
        to_level = number(f"> {_minutes_text(last * authors.minutes)}", None, last, mark)
    if (reached := authors.accuracy_after(fmean(row.minutes))) is None:
        return to_level, number("less than an epoch", None, 0)
    epochs, best = reached
    return to_level, number(f"{100 * best:.2f}", 100 * best, epochs)


def _minutes_text(minutes: float) -> str:
    return f"{minutes:,.0f}" if minutes >= 100 else f"{minutes:.1f}" if minutes >= 1 else f"{minutes:.2g}"


def _runs_text(runs: Sequence[str]) -> str:
    return f"run{'s' if len(runs) > 1 else ''} {', '.join(runs)}"
