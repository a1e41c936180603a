"""Tables of the paper, with results of runs beside the reported numbers.

A file of ``registry/tables`` has the numbers as reported, and the experiment or network of each. Without a run a cell
is empty, and every number has a note on the runs behind it (:mod:`~plifctl.report.results`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from plifctl.config.base import Spec
from plifctl.config.choices import (
    CLAIMS_TABLE,
    CONVERGENCE_TABLE,
    FAST_TABLE,
    OTHER_TABLES,
    RUNS_TABLE,
    SELECTION_TABLE,
    SIGNIFICANCE_TABLE,
    SPEED_TABLE,
    Protocol,
    ResultSource,
)
from plifctl.config.identity import TABLE_FOLDERS
from plifctl.config.registry import Registry
from plifctl.config.yaml_tree import read_tree
from plifctl.errors import RegistryError, UsageError, did_you_mean, join_problems
from plifctl.report.claims import build_claims_table
from plifctl.report.convergence import build_convergence_table
from plifctl.report.fast import build_fast_table
from plifctl.report.results import ACCURACIES, OF_NETWORKS, SOURCE_WORDS, Measure, Results, network_texts
from plifctl.report.runs_table import build_runs_table
from plifctl.report.selection import build_selection_table
from plifctl.report.significance import build_significance_table
from plifctl.report.speed import build_speed_table
from plifctl.report.table import Cell, Entry, Number, Table, describe_left_out
from plifctl.runs import ResultRecord

_log = logging.getLogger(__name__)


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
    epoch: int | None = Field(default=None, ge=1)
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


@dataclass(frozen=True)
class TableOptions:
    """What a table is filled with.

    Attributes:
        source: Whose runs fill it.
        include_modified: Use runs with overrides as well.
        epochs: Count only the first epochs of every run, those of the authors too; None: all.
        runs: Names of the runs of the runs directory that count, e.g. those of a sweep; None: all.
    """

    source: ResultSource = "mine"
    include_modified: bool = False
    epochs: int | None = None
    runs: frozenset[str] | None = None


def fill_table(
    name: str,
    records: Sequence[ResultRecord],
    registry: Registry,
    options: TableOptions | None = None,
    runs_dir: Path | None = None,
) -> Table:
    """Returns a table with the numbers that were reported and those from runs.

    Args:
        name: One of the paper's tables, another one of a registry folder, or one that has no file, as ``selection``.
        records: Result records of finished runs of all sources.
        registry: Defines the tables, and the experiments of the runs.
        options: Whose runs fill the table, and which of them; ``selection`` has the runs of all sources.
        runs_dir: Runs directory, for the stored predictions of runs; None: there are none.

    Raises:
        UsageError: There is no such table.
        RegistryError: Its file is invalid.
    """
    options = options or TableOptions()
    if options.runs is not None:
        records = [record for record in records if record.origin != "trained" or record.run in options.runs]
    content = _Content(records, registry, options, runs_dir)
    if (kind := _KINDS.get(name)) is not None:
        if options.epochs is not None and not kind.can_cut:
            raise UsageError(f"table {name} has all epochs of every run", hint="leave out --epochs")
        return kind.build(content)
    files = _files(registry.folders)
    if name not in files:
        raise UsageError(f"unknown table {name!r}", hint=did_you_mean(name, [*files, *OTHER_TABLES]))
    return _build_reported_table(name, files[name], content)


@dataclass(frozen=True)
class _Content:
    """What :func:`fill_table` fills a table with."""

    records: Sequence[ResultRecord]
    registry: Registry
    options: TableOptions
    runs_dir: Path | None

    def results(self, source: ResultSource | None = None) -> Results:
        """Returns what finds the runs of a source; None: of the one in the options."""
        options = self.options
        return Results(
            self.records,
            self.registry,
            source or options.source,
            include_modified=options.include_modified,
            epochs=options.epochs,
        )

    def not_in_paper(self) -> set[str]:
        """Returns the experiments of the records whose accuracy only the authors' logs have."""
        known = {record.experiment for record in self.records} & set(self.registry.experiments())
        reported = {name: self.registry.experiment(name).spec.reported for name in known}
        return {name for name, accuracy in reported.items() if accuracy is not None and not accuracy.in_paper}


def _build_reported_table(name: str, path: Path, content: _Content) -> Table:
    """Returns the table of a file, with the numbers that were reported and those from runs."""
    results, options = content.results(), content.options
    reported, words = _read(path, content.registry), SOURCE_WORDS[options.source]
    rows: list[tuple[Cell, ...]] = []
    entries: list[Entry] = []
    for label, row in reported.rows.items():
        numbers = [
            results.numbers(subject, measure, text, row.epoch) if measure and (subject := row.subject(column)) else ()
            for (column, measure), text in zip(reported.columns.items(), (label, *row.cells), strict=True)
        ]
        rows += _cells(reported, label, row, numbers, f"{words.row}, Δ")
        entries += _entries(reported, label, row, numbers)
    return Table(
        name,
        _caption(reported, options),
        reported.source,
        _heads(reported, words.result),
        tuple(rows),
        tuple(entries),
        results.notes,
        (
            *_unknown_experiments(path, reported, content.registry, {record.experiment for record in content.records}),
            *_warn_of_epochs(entries, options),
            *describe_left_out(results.left_out),
        ),
    )


def _build_claims(content: _Content) -> Table:
    source, authors = content.options.source, content.results("authors")
    ours = None if source == "authors" else content.results()
    table = build_claims_table(authors, ours, source, content.runs_dir)
    return _finish(table, content.options, *filter(None, (authors, ours)))


def _build_selection(content: _Content) -> Table:
    """Returns the table of the runs of all sources; of chosen runs, of these alone."""
    options = content.options
    return build_selection_table(
        [record for record in content.records if options.runs is None or record.origin == "trained"],
        content.results().changes,
        include_modified=options.include_modified,
        not_in_paper=content.not_in_paper(),
    )


def _build_significance(content: _Content) -> Table:
    results = content.results()
    return _with_notes(build_significance_table(results, content.runs_dir), content.options, results)


def _build_speed(content: _Content) -> Table:
    results = content.results()
    return _with_notes(build_speed_table(results), content.options, results)


def _build_convergence(content: _Content) -> Table:
    results = content.results()
    return _with_notes(build_convergence_table(results), content.options, results)


def _build_fast(content: _Content) -> Table:
    results = content.results()
    return _with_notes(build_fast_table(results), content.options, results)


def _build_runs(content: _Content) -> Table:
    return build_runs_table(content.records, content.results().changes, content.options.source, content.not_in_paper())


@dataclass(frozen=True)
class _Kind:
    """A table that has no file.

    Attributes:
        build: Returns it.
        filled_by_runs: It has cells for the results of runs of one source.
        can_cut: It can count the first epochs of runs alone.
    """

    build: Callable[[_Content], Table]
    filled_by_runs: bool = True
    can_cut: bool = True


_KINDS = {
    CLAIMS_TABLE: _Kind(_build_claims),
    SELECTION_TABLE: _Kind(_build_selection, filled_by_runs=False, can_cut=False),
    SIGNIFICANCE_TABLE: _Kind(_build_significance),
    SPEED_TABLE: _Kind(_build_speed),
    CONVERGENCE_TABLE: _Kind(_build_convergence),
    FAST_TABLE: _Kind(_build_fast, can_cut=False),
    RUNS_TABLE: _Kind(_build_runs, filled_by_runs=False, can_cut=False),
}


def _with_notes(table: Table, options: TableOptions, results: Results) -> Table:
    """Returns a finished table with the notes of its runs."""
    return replace(_finish(table, options, results), notes=results.notes)


def _finish(table: Table, options: TableOptions, *counted: Results) -> Table:
    """Returns a table with the epochs in its caption, and the runs of every source that are left out."""
    left_out = {run: why for results in counted for run, why in results.left_out.items()}
    return replace(
        table,
        caption=table.caption + _first_epochs(options),
        warnings=(*table.warnings, *describe_left_out(left_out)),
    )


def _caption(reported: _ReportedTable, options: TableOptions) -> str:
    caption = reported.caption
    if "accuracy A" in reported.columns.values():
        caption += "; results of protocol A are maxima over test epochs"
    return caption + (_first_epochs(options) if _measures_runs(reported) else "")


def _first_epochs(options: TableOptions) -> str:
    if options.epochs is None:
        return ""
    return f", of the first {'epoch' if options.epochs == 1 else f'{options.epochs} epochs'}"


def _measures_runs(reported: _ReportedTable) -> bool:
    return any(measure and measure not in OF_NETWORKS for measure in reported.columns.values())


def is_filled_by_runs(name: str, registry: Registry) -> bool:
    """Returns whether a table has cells for the results of runs of one source."""
    if (kind := _KINDS.get(name)) is not None:
        return kind.filled_by_runs
    files = _files(registry.folders)
    return name in files and _measures_runs(_read(files[name], registry))


def _warn_of_epochs(entries: Sequence[Entry], options: TableOptions) -> list[str]:
    """Returns a warning for each column whose numbers are of different numbers of epochs.

    Those of ``fast`` are compared with each other only: each is marked as another training than the rest.
    """
    by_column: dict[tuple[str, bool], set[int]] = {}
    validated: set[tuple[str, bool]] = set()  # columns with a run that cannot be cut, of protocol B or C
    for name, number in ((entry.column, number) for entry in entries for number in entry.numbers):
        if number.epochs is not None:
            column = name, "fast" in number.flags
            by_column.setdefault(column, set()).add(number.epochs)
            validated |= {column} if number.records[0].protocol != "A" else set()
    different = {column: sorted(epochs) for column, epochs in by_column.items() if len(epochs) > 1}
    if not different:
        return []
    columns = "; ".join(f"{column}: {', '.join(map(str, epochs))}" for (column, _), epochs in different.items())
    fewest = min(min(epochs) for epochs in different.values())
    can_cut = options.epochs is None and not validated.intersection(different)
    cut = f"; --epochs {fewest} counts the same epochs of every row" if can_cut else ""
    return [f"NOT COMPARABLE, trained for different numbers of epochs ({columns}){cut}"]


def _heads(reported: _ReportedTable, head: str) -> tuple[str, ...]:
    heads: list[str] = []
    for column, measure in reported.columns.items():
        heads.append(column)
        if measure and reported.ours == "columns":
            heads.append("registry" if measure in OF_NETWORKS else head if measure == "T" else f"{head}, Δ")
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
        Entry(label, column, text, found, *_experiment_of(row, column, measure))
        for index, ((column, measure), text, found) in enumerate(cells)
        if measure or (index and not compared)
    ]


def _experiment_of(row: _Row, column: str, measure: Measure | None) -> tuple[str | None, Protocol | None]:
    """Returns the experiment and protocol whose accuracy a cell is."""
    protocol = ACCURACIES.get(measure) if measure is not None else None
    return (None, None) if protocol is None else (row.subject(column), protocol)


def _files(folders: Sequence[Path]) -> dict[str, Path]:
    """Returns the file of each table by name; files in later folders replace those in earlier ones."""
    files = [
        path for folder in folders for name in TABLE_FOLDERS for path in sorted((folder / name).glob("table-*.yaml"))
    ]
    return {path.stem.removeprefix("table-"): path for path in files}


def check_tables(registry: Registry) -> list[str]:
    """Returns the problems of the tables of a registry; warns of experiments that it does not have."""
    problems: list[str] = []
    for path in _files(registry.folders).values():
        try:
            for warning in _unknown_experiments(path, _read(path, registry), registry):
                _log.warning(warning)
        except RegistryError as error:
            problems += error.problems
    return problems


def _read(path: Path, registry: Registry) -> _ReportedTable:
    try:
        found = _ReportedTable.model_validate(read_tree(path).plain())
    except ValidationError as error:
        problems = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise RegistryError(join_problems(problems)) from None
    if problems := list(_problems(path, found, registry)):
        raise RegistryError(join_problems(problems))
    return found


def _problems(path: Path, table: _ReportedTable, registry: Registry) -> Iterator[str]:
    """Yields what is wrong in the rows of a table."""
    for label, row in table.rows.items():
        place = f"{path}: rows.{label}"
        if len(row.cells) != len(table.columns) - 1:
            yield f"{place}: expected {len(table.columns) - 1} cells, found {len(row.cells)}"
        for key, columns in (("of", row.of if isinstance(row.of, dict) else ()), ("bold", row.bold)):
            unknown = (column for column in columns if column not in table.columns)
            yield from (f"{place}, {key}: unknown column {one}; {did_you_mean(one, table.columns)}" for one in unknown)
        for column, measure in table.columns.items():
            subject = row.subject(column)
            if measure and subject and (problem := _problem_of_cell(row, subject, measure, registry)):
                yield f"{place}, column {column}: {problem}"


def _problem_of_cell(row: _Row, subject: str, measure: Measure, registry: Registry) -> str:
    """Returns why there is no number: an epoch too many or too few, or no such network; empty: there may be one."""
    if measure in OF_NETWORKS:
        try:
            network_texts(registry, subject, measure)
        except RegistryError as error:
            return str(error)
    elif measure in ACCURACIES:
        if row.epoch is not None:
            hint = "leave out epoch, or use the measure test accuracy"
            return f"{measure} is of a whole training, found epoch {row.epoch}; {hint}"
    elif measure != "T" and row.epoch is None:
        return f"{measure} belongs to one epoch, found none; add epoch: 1 to the row"
    return ""


def _unknown_experiments(
    path: Path, table: _ReportedTable, registry: Registry, trained: Collection[str] = ()
) -> list[str]:
    """Returns a warning for each experiment of a table that has neither an entry in the registry nor runs.

    It is no error: a table may be about an experiment in a file of one's own.
    """
    known = {*registry.experiments(), *trained}
    return [
        f"{path}: rows.{label}, column {column}: experiment {subject} is not in the registry; "
        f"if it is not one of a file of your own, {did_you_mean(subject, registry.experiments())}"
        for label, row in table.rows.items()
        for column, measure in table.columns.items()
        if measure and measure not in OF_NETWORKS and (subject := row.subject(column)) and subject not in known
    ]
