"""Tables of the paper, with results of our runs or of the authors' logs beside the reported numbers.

A file of ``registry/tables`` has the numbers as reported, and the experiment or network of each. Without a run a cell
is empty, and every number has a note on the runs behind it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from plifctl.config.base import Spec
from plifctl.config.choices import RECIPES, RUNS_TABLE, SELECTION_TABLE, ResultSource
from plifctl.config.identity import TABLE_FOLDERS
from plifctl.config.overrides import is_modification
from plifctl.config.registry import Registry
from plifctl.config.structure import Conv, Linear, Pool, parse_structure
from plifctl.config.yaml_tree import YamlError, read_tree
from plifctl.errors import RegistryError, UsageError, did_you_mean, join_problems
from plifctl.report.runs_table import build_runs_table
from plifctl.report.selection import build_selection_table
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord
from plifctl.runs.sessions import COMPARED

_OF_NETWORKS = ("structure", "N_conv", "N_down", "N_fc")
Measure = Literal[
    "accuracy A",
    "accuracy B",
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


class _Row(Spec):
    """The cells of a row after the first.

    Attributes:
        cells: As reported.
        of: The experiment or network they belong to, or one for each column by its name.
        epoch: The epoch of the numbers, where they are not of the whole training.
        bold: Columns whose cell is printed in bold.
    """

    cells: tuple[str, ...] = Field(strict=False)
    of: str | dict[str, str] | None = None
    epoch: int | None = None
    bold: tuple[str, ...] = Field(default=(), strict=False)

    def subject(self, column: str) -> str | None:
        return self.of.get(column) if isinstance(self.of, dict) else self.of


class _ReportedTable(Spec):
    """A table as reported.

    Attributes:
        caption: Content of the table.
        source: Where it was published.
        ours: Place of numbers from runs: in a column beside the reported one, or in a row below it.
        columns: Name of each column, and the measure compared with it.
        rows: Rows by their first cells.
    """

    caption: str
    source: str
    ours: Literal["columns", "rows"]
    columns: dict[str, Measure | None]
    rows: dict[str, _Row]


def build_table(
    name: str,
    records: Sequence[ResultRecord],
    registry: Registry,
    *,
    source: ResultSource = "ours",
    include_modified: bool = False,
) -> Table:
    """Returns a table with the numbers that were reported and those from runs.

    Args:
        name: One of the paper's tables, another one of a registry folder, ``selection``, or ``runs``.
        records: Result records of finished runs.
        registry: Defines the tables, and the experiments of the runs.
        source: Whose runs fill the table; ``selection`` has the runs of both.
        include_modified: Use runs with overrides as well.

    Raises:
        UsageError: There is no such table.
        RegistryError: Its file is invalid.
    """
    if name == SELECTION_TABLE:
        not_in_paper = _not_in_paper(records, registry)
        return build_selection_table(records, include_modified=include_modified, not_in_paper=not_in_paper)
    if name == RUNS_TABLE:
        return build_runs_table(records)
    files = _files(registry.folders)
    if name not in files:
        raise UsageError(f"unknown table {name!r}", hint=did_you_mean(name, [*files, SELECTION_TABLE, RUNS_TABLE]))
    reported = _read(files[name])
    results = _Results([r for r in records if r.origin == _ORIGINS[source]], registry, include_modified)
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for label, row in reported.rows.items():
        numbers = [
            results.numbers(subject, measure, text, row.epoch) if measure and (subject := row.subject(column)) else ()
            for (column, measure), text in zip(reported.columns.items(), (label, *row.cells), strict=True)
        ]
        rows += _cells(reported, label, row, numbers, _ROW_LABELS[source])
        entries += _entries(reported, label, row, numbers)
    columns = _heads(reported, _HEADS[source])
    return Table(name, reported.caption, reported.source, columns, tuple(rows), tuple(entries), results.notes)


def _not_in_paper(records: Sequence[ResultRecord], registry: Registry) -> set[str]:
    """Returns the experiments of records whose accuracy only the authors' logs have."""
    known = {record.experiment for record in records} & set(registry.experiments())
    reported = {name: registry.experiment(name).spec.reported for name in known}
    return {name for name, accuracy in reported.items() if accuracy is not None and not accuracy.in_paper}


_ORIGINS: dict[ResultSource, str] = {"ours": "trained", "authors": "imported", "added": "added"}
_HEADS: dict[ResultSource, str] = {"ours": "result", "authors": "authors", "added": "added"}
_ROW_LABELS: dict[ResultSource, str] = {
    "ours": "our result, Δ",
    "authors": "authors' logs, Δ",
    "added": "result of others, Δ",
}


def _heads(reported: _ReportedTable, head: str) -> tuple[str, ...]:
    heads: list[str] = []
    for column, measure in reported.columns.items():
        heads.append(column)
        if measure and reported.ours == "columns":
            heads.append("registry" if measure in _OF_NETWORKS else head if measure == "T" else f"{head}, Δ")
    return tuple(heads)


def _cells(
    reported: _ReportedTable, label: str, row: _Row, numbers: Sequence[tuple[Number, ...]], row_label: str
) -> list[tuple[Cell, ...]]:
    """Returns the row as reported, with numbers from runs in their own columns or in a row below it."""
    texts = [
        Cell(text, bold=column in row.bold) for column, text in zip(reported.columns, (label, *row.cells), strict=True)
    ]
    if reported.ours == "rows":
        below = (Cell(row_label), *(Cell(numbers=found) for found in numbers[1:]))
        return [tuple(texts), below] if row.of else [tuple(texts)]
    cells: list[Cell] = []
    for text, measure, found in zip(texts, reported.columns.values(), numbers, strict=True):
        cells += [text, Cell(numbers=found)] if measure else [text]
    return [tuple(cells)]


def _entries(reported: _ReportedTable, label: str, row: _Row, numbers: Sequence[tuple[Number, ...]]) -> list[Entry]:
    """Returns the row in the long form: the cells that runs are compared with; all cells if the table has none."""
    compared = any(reported.columns.values())
    cells = zip(reported.columns.items(), (label, *row.cells), numbers, strict=True)
    return [
        Entry(label, column, text, found)
        for index, ((column, measure), text, found) in enumerate(cells)
        if measure or (index and not compared)
    ]


class _Results:
    """Finds the numbers from runs, and gives each a letter and a note."""

    def __init__(self, records: Sequence[ResultRecord], registry: Registry, include_modified: bool) -> None:
        self.registry = registry
        self.records = [r for r in records if include_modified or not self._changes(r)]
        self.notes: dict[str, str] = {}

    def numbers(self, subject: str, measure: Measure, reported: str, epoch: int | None) -> tuple[Number, ...]:
        """Returns the numbers of an experiment or a network, one for each recipe that has a run."""
        if measure in _OF_NETWORKS:
            return self._of_networks(subject, measure)
        protocol = "B" if measure == "accuracy B" else "A"
        candidates = [r for r in self.records if (r.experiment, r.protocol) == (subject, protocol)]
        by_recipe = [[r for r in candidates if r.recipe == recipe] for recipe in RECIPES]
        numbers = (self._number(_best(known), known, measure, reported, epoch) for known in by_recipe if known)
        return tuple(number for number in numbers if number is not None)

    def _number(
        self,
        found: list[ResultRecord],
        candidates: list[ResultRecord],
        measure: Measure,
        reported: str,
        epoch: int | None,
    ) -> Number | None:
        values = [value for record in found if (value := _value(record, measure, epoch)) is not None]
        if not values:
            return None
        note = self._note(found, candidates)
        mark = self._mark(note)
        if measure == "T":
            return Number(str(found[0].T), float(found[0].T), None, tuple(found), mark, note)
        digits = 3 if measure.startswith("tau") else 2
        mean = statistics.fmean(values)
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        difference = round(mean, digits) - float(reported) if _is_number(reported) else None
        return Number(f"{mean:.{digits}f}{spread}", mean, difference, tuple(found), mark, note)

    def _note(self, found: list[ResultRecord], candidates: list[ResultRecord]) -> str:
        first = found[0]
        planned = self.registry.experiment(first.experiment, recipe=first.recipe).spec.train.epochs
        seeds = ", ".join(str(record.seed) for record in found)
        logged = sum(value is not None for value in first.test_accuracy)
        parts = [
            f"{first.experiment}: protocol {first.protocol}, recipe {first.recipe}, T = {first.T}",
            f"{first.epochs} of {planned} epochs" if first.epochs < planned else f"{first.epochs} epochs",
            f"seed{'s' if len(found) > 1 else ''} {seeds}",
            f"run{'s' if len(found) > 1 else ''} {', '.join(record.run for record in found)}",
        ]
        if first.origin == "imported":
            parts.append(f"imported, {logged} epochs logged, best epoch {first.best_epoch}")
        if first.origin == "added":
            parts.append("trained by somebody else")
        if any(record.stopped_early for record in found):
            parts.append("stopped early")
        parts += _version_notes(found, candidates)
        if (data := first.data) is not None and not data.complete:
            parts.append(f"SUBSET: {data.train + data.validation} training and {data.test} test samples")
        if data is not None and data.without_events:
            parts.append(f"{data.without_events} SAMPLES WITHOUT EVENTS")
        if data is not None and not data.verified:
            parts.append("source not verified")
        if changes := self._changes(first):
            parts.append(f"MODIFIED: {', '.join(changes)}")
        return "; ".join(parts)

    def _changes(self, record: ResultRecord) -> list[str]:
        """Returns how the experiment of a record differs from the registry's experiment of that name."""
        changes = [text for text in record.overrides if is_modification(text)]
        if not changes and record.digest is not None and record.experiment in self.registry.experiments():
            now = self.registry.experiment(record.experiment, recipe=record.recipe).for_protocol(record.protocol)
            if now.spec.digest != record.digest:
                return ["the experiment has been changed since"]
        return changes

    def _mark(self, note: str) -> str:
        """Returns the letter of a note; notes with the same text have one letter."""
        known = {text: mark for mark, text in self.notes.items()}
        mark = known.get(note) or _letters(len(self.notes))
        self.notes[mark] = note
        return mark

    def _of_networks(self, name: str, measure: Measure) -> tuple[Number, ...]:
        """Returns the number of a network, or those of an experiment's networks, one for each recipe if they differ."""
        if name in self.registry.networks():
            found = {"": self._of_structure(name, self.registry.network(name).structure, measure)}
        else:
            networks = {recipe: self.registry.experiment(name, recipe=recipe).spec.network for recipe in RECIPES}
            found = {recipe: self._of_structure(one.name, one.structure, measure) for recipe, one in networks.items()}
        if len(set(found.values())) == 1:
            found = {"": next(iter(found.values()))}
        numbers = []
        for recipe, text in found.items():
            note = f"recipe {recipe}" if recipe else ""
            value = float(text) if text.isdecimal() else None
            numbers.append(Number(text, value, mark=self._mark(note) if note else "", note=note))
        return tuple(numbers)

    @staticmethod
    def _of_structure(name: str, structure: str, measure: Measure) -> str:
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


def _value(record: ResultRecord, measure: Measure, epoch: int | None) -> float | None:
    """Returns a number of a run: accuracies in percent, τ in steps; None if it has none at that epoch."""
    match measure:
        case "T":
            return float(record.T)
        case "accuracy A" | "accuracy B":
            return 100 * record.accuracy
    assert epoch is not None
    if epoch > record.epochs:
        return None
    if measure == "test accuracy":
        accuracy = record.test_accuracy[epoch - 1]
        return None if accuracy is None else 100 * accuracy
    tau, layer = record.tau[epoch - 1], int(measure.removeprefix("tau "))
    return tau[layer] if layer < len(tau) else None


def _best(records: list[ResultRecord]) -> list[ResultRecord]:
    """Returns the best runs of one cell: with complete data, then more epochs, then the latest; one for each seed."""
    if not records:
        return []

    def rank(record: ResultRecord) -> tuple[bool, int, int, str]:
        data = record.data
        return data is None or data.complete, record.epochs, data.train if data else 0, record.finished

    best = max(records, key=rank)
    same_settings = {r.seed: r for r in sorted(records, key=lambda r: r.finished) if _settings(r) == _settings(best)}
    return [same_settings[seed] for seed in sorted(same_settings)]


def _settings(record: ResultRecord) -> tuple[object, ...]:
    """Returns what runs with a common mean share."""
    data = record.data and (record.data.cache, record.data.complete)
    return record.training_versions, record.digest, record.epochs, data


def _version_notes(found: list[ResultRecord], candidates: list[ResultRecord]) -> list[str]:
    """Returns in which versions and devices the runs of one number differ, and how many of other versions it omits."""
    notes = []
    for name in COMPARED:
        environments = [
            environment
            for record in found
            for environment in ([session.environment for session in record.sessions] or [record.environment])
        ]
        values = sorted({str(environment[name]) for environment in environments if name in environment})
        if len(values) > 1:
            notes.append(f"DIFFERENT {name}: {', '.join(values)}")
    versions, *settings = _settings(found[0])
    omitted = [r for r in candidates if _settings(r)[1:] == tuple(settings) and r.training_versions != versions]
    if omitted:
        others = sorted({version for record in omitted for version in record.training_versions})
        count = f"{len(omitted)} run{'s' if len(omitted) > 1 else ''}"
        notes.append(f"{count} of training version {', '.join(map(str, others))} left out")
    return notes


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+\.\d+|\d+", text) is not None


def _letters(index: int) -> str:
    letter = "abcdefghijklmnopqrstuvwxyz"[index % 26]
    return letter if index < 26 else f"{_letters(index // 26 - 1)}{letter}"


def _files(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the file of each table by name; files in later folders replace those in earlier ones."""
    files = [
        path for folder in folders for name in TABLE_FOLDERS for path in sorted((folder / name).glob("table-*.yaml"))
    ]
    return {path.stem.removeprefix("table-"): path for path in files}


def check_tables(folders: Sequence[Path]) -> list[str]:
    """Returns the problems of the tables in registry folders."""
    problems: list[str] = []
    for path in _files(folders).values():
        try:
            _read(path)
        except RegistryError as error:
            problems += error.problems
    return problems


def _read(path: Path) -> _ReportedTable:
    try:
        tree = read_tree(path, str(path))
        found = _ReportedTable.model_validate(tree.plain())
    except YamlError as error:
        raise RegistryError(str(error)) from None
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise RegistryError(join_problems(problems)) from None
    wrong = [label for label, row in found.rows.items() if len(row.cells) != len(found.columns) - 1]
    if wrong:
        raise RegistryError(
            f"{path}: expected {len(found.columns) - 1} cells in each row, found others in: {', '.join(wrong)}"
        )
    return found
