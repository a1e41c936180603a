"""Reads tables of labels: CSV files with a line for each sample."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, Decimal
from typing import NamedTuple

from plifctl.config.choices import Split, TimeUnit
from plifctl.config.dataset import LabelTable
from plifctl.data.datasets.own import composed
from plifctl.data.events import LATEST_US, US_POWER
from plifctl.data.split_names import split_of
from plifctl.errors import DamagedFileError, RawDataError, did_you_mean, join_problems, list_names

_SEPARATORS = (",", ";", "\t")
_MAX_PROBLEMS = 10  # named in one message


class LabelLine(NamedTuple):
    """A line of a table of labels.

    Attributes:
        number: Its number, from 1.
        recording: Name of the recording, as written.
        label: The class.
        split: The split; ``train`` where the table has no such column.
        group: The group; empty where the table has no such column.
        start: First time of the sample, µs; None: from the beginning of the recording.
        end: Time after it, µs; None: to the end of the recording.
    """

    number: int
    recording: str
    label: int
    split: Split
    group: str
    start: int | None
    end: int | None


def read_lines(text: str, where: str, separator: str = ",") -> list[tuple[int, list[str]]]:
    """Returns the cells of each line that is not empty, with the number of the line; any line ends are read.

    Raises:
        DamagedFileError: The text is not CSV.
    """
    reader = csv.reader(text.splitlines(), delimiter=separator, strict=True)  # a stray quote would swallow lines
    found, begun = [], 1
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                found.append((reader.line_num, cells))
            begun = reader.line_num + 1
    except csv.Error as error:
        hint = 'save the table again as CSV; a quote begins a cell and ends it: "…"'
        raise DamagedFileError(f"{where}, line {begun}: {error}", hint=hint) from error
    return found


def separator_of(text: str) -> str:
    r"""Returns the character between the cells of a table, by its first line that is not empty.

    Example:
        >>> separator_of("a;b\n1,5;2,5\n")
        ';'
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(_SEPARATORS, key=first.count)


def number_in(cell: str, separator: str) -> Decimal:
    """Returns the number in a cell; its comma is decimal unless commas separate the cells.

    Raises:
        ArithmeticError: It is no number.

    Example:
        >>> number_in("1,5", ";")
        Decimal('1.5')
    """
    number = Decimal(cell if separator == "," else cell.replace(",", "."))
    if not number.is_finite():
        raise ArithmeticError(f"{cell} is not finite")
    return number


def read_label_table(text: str, where: str, table: LabelTable, classes: Sequence[str]) -> list[LabelLine]:
    """Returns the lines of a table of labels.

    Args:
        text: The content of the file.
        where: Its path, for messages.
        table: Its columns.
        classes: Names of the classes.

    Raises:
        RawDataError: A column is missing, or lines are not what they should be; names all of them, at most ten.
        DamagedFileError: The file is not CSV, or has no lines.
    """
    separator = separator_of(text)
    lines = read_lines(text, where, separator)
    if len(lines) < 2:
        raise DamagedFileError(f"{where}: no samples, expected a header and a line for each sample")
    (number, head), *rows = lines
    columns = _find_columns(head, table, f"{where}, line {number}")
    labels = {composed(name): label for label, name in enumerate(classes)}
    read = _LineReader(columns, len(head), labels, table.time_unit, separator)
    found, problems = [], Problems(where)
    for number, cells in rows:
        try:
            found.append(read.line(number, cells))
        except _LineError as error:
            problems.add(number, str(error), error.hint)
    problems.raise_if_any()
    return found


class Problems:
    """Problems of a table, collected so that all are named at once.

    Args:
        where: Path of the table.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._found: list[tuple[str, str]] = []

    def add(self, number: int, problem: str, hint: str) -> None:
        """Adds a problem of a line."""
        self._found.append((f"{self._where}, line {number}: {problem}", hint))

    def raise_if_any(self) -> None:
        """Raises RawDataError if there are any; the hint is that of the first."""
        if self._found:
            named = [problem for problem, _ in self._found[:_MAX_PROBLEMS]]
            more = len(self._found) - len(named)
            raise RawDataError(
                join_problems([*named, *([f"and {more:,} more"] if more else [])]), hint=self._found[0][1]
            )


class _LineError(ValueError):
    """A line cannot be read."""

    def __init__(self, message: str, hint: str = "correct the table") -> None:
        super().__init__(message)
        self.hint = hint


def _find_columns(head: Sequence[str], table: LabelTable, where: str) -> dict[str, int]:
    """Returns the place of each column that is needed: recording, label, split, group and times."""
    names = [composed(cell.strip()) for cell in head]
    columns = {}
    for key in ("recording", "label", "split", "group", "start", "end", "duration"):
        name = getattr(table, key)
        if name is None:
            continue
        if (count := names.count(composed(name.strip()))) != 1:
            problem = "no column" if count == 0 else f"{count} columns"
            raise RawDataError(
                f"{where}: {problem} {name!r} (labels.{key}); found the columns {list_names(names, 30)}",
                hint=f"correct labels: {key}: in the data set's YAML, or the first line of the table",
            )
        columns[key] = names.index(composed(name.strip()))
    return columns


class _LineReader:
    """Reads the lines of a table.

    Args:
        columns: Place of each column.
        n_columns: Number of columns of the header.
        labels: The class of each name.
        unit: Unit of the times.
        separator: Character between cells.
    """

    def __init__(
        self, columns: Mapping[str, int], n_columns: int, labels: Mapping[str, int], unit: TimeUnit, separator: str
    ) -> None:
        self._columns, self._n_columns, self._labels = columns, n_columns, labels
        self._unit, self._separator = unit, separator

    def line(self, number: int, cells: Sequence[str]) -> LabelLine:
        """Returns a line.

        Raises:
            _LineError: A cell is not what it should be.
        """
        if len(cells) <= max(self._columns.values()) or any(cell.strip() for cell in cells[self._n_columns :]):
            raise _LineError(
                f"{len(cells)} cells, the header has {self._n_columns}",
                f"write all {self._n_columns} cells, also empty ones; a cell that contains {self._separator!r} needs "
                'quotes: "…"',
            )
        values = {key: cells[at].strip() for key, at in self._columns.items()}
        if any("\ufffd" in value for value in values.values()):
            raise _LineError("characters that are not UTF-8", "save the table as UTF-8 (in Excel: CSV UTF-8)")
        if not values["recording"]:
            raise _LineError("no recording is named")
        start, end = self._window(values)
        split = self._split(values["split"]) if "split" in values else "train"
        return LabelLine(
            number, values["recording"], self._label(values["label"]), split, values.get("group", ""), start, end
        )

    def _label(self, name: str) -> int:
        if not name:
            raise _LineError("no class is named", "write the class, or remove the line")
        label = self._labels.get(composed(name))
        if label is None:
            raise _LineError(
                f"class {name!r}, expected a class of the data set's YAML", did_you_mean(name, self._labels)
            )
        return label

    def _split(self, name: str) -> Split:
        split = split_of(name)
        if split is None:
            raise _LineError(f"split {name!r}, expected train, validation or test")
        return split

    def _window(self, values: Mapping[str, str]) -> tuple[int | None, int | None]:
        """Returns start and end, µs, rounded up: whole times t are at or after one if and only if at or after both."""
        start, end, duration = (self._time(values.get(key, "")) for key in ("start", "end", "duration"))
        if duration is not None:
            if start is None:
                raise _LineError(f"lasts {values['duration']}, but has no start")
            end = start + duration
            if end > LATEST_US:
                raise _LineError(f"lasts {values['duration']}, expected an end of at most {LATEST_US} us")
        first, last = (None if time is None else int(time.to_integral_value(ROUND_CEILING)) for time in (start, end))
        if first is not None and last is not None and last <= first:
            if duration is not None:
                problem = f"lasts {values['duration']}, expected a time above 0"
                raise _LineError(f"{problem} (without labels.duration, samples last to the end of the recording)")
            raise _LineError(f"ends at {values['end']}, expected a time after its start, {values['start']}")
        return first, last

    def _time(self, text: str) -> Decimal | None:
        """Returns a time, µs."""
        if not text:
            return None
        try:
            value = number_in(text, self._separator) * Decimal(10) ** US_POWER[self._unit]
        except ArithmeticError:
            raise _LineError(f"time {text!r}, expected a number of {self._unit}") from None
        if abs(value) > LATEST_US:
            raise _LineError(f"time {text!r}, expected a number of {self._unit}, at most {LATEST_US} us")
        return value
