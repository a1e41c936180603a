"""Tables of the paper with our numbers in them, or with those of the published logs.

A file of ``registry/tables`` holds what the paper prints, and says of which experiment or network a number is. A
number of ours is never a guess: without a run the cell is empty, and every number carries a note on how it came about.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from plifctl.config.base import Spec
from plifctl.config.choices import RECIPES
from plifctl.config.overrides import is_modification
from plifctl.config.identity import TABLE_FOLDERS
from plifctl.config.registry import Registry
from plifctl.config.structure import Conv, Linear, Pool, parse_structure
from plifctl.config.yaml_tree import YamlError, read_tree
from plifctl.errors import RegistryError, UsageError, did_you_mean, join_problems
from plifctl.report.selection import OPTIMISM, build_optimism
from plifctl.report.table import Cell, Entry, Number, Table
from plifctl.runs import ResultRecord

TABLES = ("1", "2", "3", "4", "5", "S1", "S2")
"""The paper's; a registry folder may hold more, ``tables/table-NAME.yaml``."""

Source = Literal["ours", "published"]
"""Whose runs fill the tables: those of plifctl, or those imported from the published logs."""

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
"""What of ours is compared with a column; ``test accuracy`` and ``tau`` of a layer are of one epoch."""


class _Row(Spec):
    """Cells after the first.

    ``of`` is the experiment or network they are of, or one for each column by its name; ``epoch`` says which epoch's
    numbers they are.
    """

    cells: tuple[str, ...] = Field(strict=False)
    of: str | dict[str, str] | None = None
    epoch: int | None = None

    def subject(self, column: str) -> str | None:
        return self.of.get(column) if isinstance(self.of, dict) else self.of


class _Published(Spec):
    """A table as printed.

    ``columns`` names each column and what of ours is compared with it; ``rows`` are named by their first cells;
    ``ours`` is where our numbers stand: in a column beside the published one, or in a row below it.
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
    source: Source = "ours",
    include_modified: bool = False,
) -> Table:
    """Returns a table of the paper with our numbers.

    Args:
        name: One of TABLES, another that a registry folder holds, or OPTIMISM, which is of runs of every source.
        records: Results of finished runs.
        registry: Whose ``tables`` folder holds the tables, and whose experiments the runs are of.
        source: Whose runs fill it.
        include_modified: Use runs with overrides too.

    Raises:
        UsageError: No such table.
        RegistryError: Its file is invalid.
    """
    if name == OPTIMISM:
        return build_optimism(records, include_modified=include_modified)
    files = _files(registry.folders)
    if name not in files:
        raise UsageError(f"unknown table {name!r}", hint=did_you_mean(name, [*files, OPTIMISM]))
    published = _read(files[name])
    origin = "trained" if source == "ours" else "imported"
    ours = _Ours([r for r in records if r.origin == origin], registry, include_modified)
    head, label_below = ("ours", "this project, Δ") if source == "ours" else ("logs", "published logs, Δ")
    beside = published.ours == "columns"
    compared = any(published.columns.values())
    columns: list[str] = []
    for column, measure in published.columns.items():
        columns.append(column)
        if beside and measure:
            columns.append(head if measure in _OF_NETWORKS or measure == "T" else f"{head}, Δ")
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for label, row in published.rows.items():
        cells: list[Cell] = []
        below = [Cell(label_below)]
        for index, (column, measure) in enumerate(published.columns.items()):
            text = (label, *row.cells)[index]
            subject = row.subject(column)
            numbers = ours.numbers(subject, measure, text, row.epoch) if subject and measure else ()
            cells.append(Cell(text))
            if measure or (index and not compared):
                entries.append(Entry(label, column, text, numbers))
            if beside and measure:
                cells.append(Cell(numbers=numbers))
            if index:
                below.append(Cell(numbers=numbers))
        rows.append(tuple(cells))
        if not beside and row.of:
            rows.append(tuple(below))
    notes = tuple(ours.notes.items())
    return Table(name, published.caption, published.source, tuple(columns), tuple(rows), tuple(entries), notes)


class _Ours:
    """Finds our numbers, and gives each a letter and a note."""

    def __init__(self, records: Sequence[ResultRecord], registry: Registry, include_modified: bool) -> None:
        self.registry = registry
        self.records = [r for r in records if include_modified or not self._changes(r)]
        self.notes: dict[str, str] = {}

    def numbers(self, subject: str, measure: Measure, published: str, epoch: int | None) -> tuple[Number, ...]:
        """Our numbers of an experiment or a network, one for each recipe that has a run."""
        if measure in _OF_NETWORKS:
            text = self._of_network(subject, measure)
            return (Number(text, float(text) if text.isdecimal() else None),)
        protocol = "B" if measure == "accuracy B" else "A"
        candidates = [r for r in self.records if (r.experiment, r.protocol) == (subject, protocol)]
        by_recipe = [_best([r for r in candidates if r.recipe == recipe]) for recipe in RECIPES]
        numbers = (self._number(found, measure, published, epoch) for found in by_recipe if found)
        return tuple(number for number in numbers if number is not None)

    def _number(self, found: list[ResultRecord], measure: Measure, published: str, epoch: int | None) -> Number | None:
        values = [value for record in found if (value := _value(record, measure, epoch)) is not None]
        if not values:
            return None
        note = self._note(found)
        known = {text: mark for mark, text in self.notes.items()}
        mark = known.get(note) or _letters(len(self.notes))
        self.notes[mark] = note
        if measure == "T":
            return Number(str(found[0].T), float(found[0].T), None, tuple(found), mark, note)
        digits = 3 if measure.startswith("tau") else 2
        mean = statistics.fmean(values)
        spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
        difference = round(mean, digits) - float(published) if _is_number(published) else None
        return Number(f"{mean:.{digits}f}{spread}", mean, difference, tuple(found), mark, note)

    def _note(self, found: list[ResultRecord]) -> str:
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
            parts.append(f"imported, {logged} epochs logged, chosen: epoch {first.best_epoch}")
        if any(record.stopped_early for record in found):
            parts.append("stopped early")
        if (data := first.data) is not None and not data.complete:
            parts.append(f"SUBSET: {data.train + data.validation} training and {data.test} test samples")
        if data is not None and not data.verified:
            parts.append("source not verified")
        if changes := self._changes(first):
            parts.append(f"MODIFIED: {', '.join(changes)}")
        return "; ".join(parts)

    def _changes(self, record: ResultRecord) -> list[str]:
        """What makes a record another experiment than the registry's of its name."""
        changes = [text for text in record.overrides if is_modification(text)]
        if not changes and record.digest is not None and record.experiment in self.registry.experiments():
            now = self.registry.experiment(record.experiment, recipe=record.recipe).for_protocol(record.protocol)
            if now.spec.digest != record.digest:
                return ["the experiment was defined otherwise then"]
        return changes

    def _of_network(self, name: str, measure: Measure) -> str:
        structure = self.registry.network(name).structure
        if measure == "structure":
            return structure
        layers = parse_structure(structure)
        pools = sum(isinstance(layer, Pool) for layer in layers)
        if pools == 0:
            raise RegistryError(f"network {name} has no pooling, so that {measure} means nothing")
        counts = {
            "N_conv": sum(isinstance(layer, Conv) for layer in layers) // pools,
            "N_down": pools,
            "N_fc": sum(isinstance(layer, Linear) for layer in layers),
        }
        return str(counts[measure])


def _value(record: ResultRecord, measure: Measure, epoch: int | None) -> float | None:
    """A number of a run: accuracies in percent, τ in steps; None where it has none at that epoch."""
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
    """Of the runs of one cell those that count: complete data first, then more epochs, then the later; one a seed."""
    if not records:
        return []

    def worth(record: ResultRecord) -> tuple[bool, int, int, str]:
        data = record.data
        return data is None or data.complete, record.epochs, data.train if data else 0, record.finished

    best = max(records, key=worth)
    alike = {r.seed: r for r in sorted(records, key=lambda r: r.finished) if _settings(r) == _settings(best)}
    return [alike[seed] for seed in sorted(alike)]


def _settings(record: ResultRecord) -> tuple[object, ...]:
    return record.digest, record.epochs, record.data and (record.data.cache, record.data.complete)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+\.\d+|\d+", text) is not None


def _letters(index: int) -> str:
    letter = "abcdefghijklmnopqrstuvwxyz"[index % 26]
    return letter if index < 26 else f"{_letters(index // 26 - 1)}{letter}"


def _files(folders: Sequence[Path]) -> dict[str, Path]:
    """Every table's file by name; a later folder's replaces an earlier one's."""
    files = [
        path for folder in folders for name in TABLE_FOLDERS for path in sorted((folder / name).glob("table-*.yaml"))
    ]
    return {path.stem.removeprefix("table-"): path for path in files}


def check_tables(folders: Sequence[Path]) -> list[str]:
    """Returns what is wrong with the tables of some registry folders."""
    problems: list[str] = []
    for path in _files(folders).values():
        try:
            _read(path)
        except RegistryError as error:
            problems += error.problems
    return problems


def _read(path: Path) -> _Published:
    try:
        tree = read_tree(path, str(path))
        found = _Published.model_validate(tree.plain())
    except YamlError as error:
        raise RegistryError(str(error)) from None
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise RegistryError(join_problems(problems)) from None
    wrong = [label for label, row in found.rows.items() if len(row.cells) != len(found.columns) - 1]
    if wrong:
        raise RegistryError(
            f"{path}: expected {len(found.columns) - 1} cells in each row, not so in: {', '.join(wrong)}"
        )
    return found
