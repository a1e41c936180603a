"""Events as text: a line for each, its values separated by commas, semicolons, tabs or blanks.

The columns are named by a header, also one behind ``#`` or ``%`` as numpy and MATLAB write it, or their order is that
of ``columns`` of the data set. Without either, nothing is guessed: the error names the order that is most plausible.
Lines that begin with ``#`` or ``%`` are comments, and a first line of two numbers, the size of the sensor in rpg's
``events.txt``, is not an event. Times are in µs unless the data set states another unit; text is exact, so times in
seconds are as exact as written. Polarities are 0 and 1, −1 and 1, or ``false`` and ``true``. No event is dropped. Times
may repeat and run backwards, and are sorted; they must not be negative.

| text | line | keys |
|---|---|---|
| rpg's ``events.txt`` | ``0.003811 96 133 0`` | ``columns: [t, x, y, p]``, ``time_unit: s`` |
| Metavision's CSV | ``96,133,0,3811`` | ``columns: [x, y, p, t]`` |
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import US_POWER, Decoded
from plifctl.data.formats.columns import (
    AS_USUAL,
    COLUMNS,
    find_columns,
    hint_on_names,
    to_events,
    unstated_order,
    unstated_unit,
)
from plifctl.data.formats.headers import describe_content
from plifctl.errors import DamagedFileError, list_names

_GUESSED_LINES = 1000
"""Lines that the order of the columns is guessed from, for a hint."""

_SIZE = re.compile(r"@\d+$")
"""Size of the sensor behind a name in faery's header: ``t,x@240,y@180,on``."""

_NO_RECORDING = "if it is no recording: move it out of the folder"
_EXPECTED = {"t": "a whole number from 0", "x": "a whole number from 0 to 32767", "p": "0, 1 or -1"}
_EXPECTED["y"] = _EXPECTED["x"]


class _Beginning(NamedTuple):
    """What stands before the events.

    Attributes:
        names: Names of the columns in a header; None if there is none.
        start: Position of the first line of values.
        separator: ``,``, ``;`` or a blank, which stands for any number of blanks and tabs.
    """

    names: list[str] | None
    start: int
    separator: str


def decode_text(data: bytes, *, where: str, reading: ReadingSpec = AS_USUAL) -> Decoded:
    """Decodes the lines of a text.

    Args:
        data: The file.
        where: Its name, for messages.
        reading: Names of columns in a header, their order without one, and the unit of t, µs if not stated.

    Returns:
        The events, t in µs; none is dropped.

    Raises:
        DamagedFileError: The order of the columns is not known, a line has another number of values, or a value is no
            number or impossible.

    Source: the formats of rpg's event-camera data set (``events.txt``) and of ``metavision_file_to_csv``.
    """
    beginning = _read_beginning(data, reading)
    order = _order_of(beginning, data, where, reading)
    columns = _parse(data, beginning, order, where, reading)
    return to_events(columns, where, "us")


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, each with its position."""
    at = len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    while at < len(data):
        end = data.find(b"\n", at)
        end = len(data) if end < 0 else end
        if line := data[at:end].decode(errors="replace").strip():
            yield at, line
        at = end + 1


def _read_beginning(data: bytes, reading: ReadingSpec) -> _Beginning:
    """Returns the header, and where the values begin."""
    comment, names, size = "", None, None
    for at, line in _lines(data):
        if line[0] in "#%":
            comment = line
            continue
        separator = next((mark for mark in ";," if mark in line), " ")
        values = _split(line, separator)
        if names is None and not any(map(_is_number, values)):
            names = [_SIZE.sub("", name) for name in values]
            continue
        if names is None and size is None and len(values) == 2 and all(value.isdigit() for value in values):
            size = at
            continue
        return _Beginning(names or _names_in_comment(comment, len(values), reading), at, separator)
    if names is None and reading.columns is None:
        names = _names_in_comment(comment, len(COLUMNS), reading)
    return _Beginning(names, len(data) if size is None or names else size, " ")


def _split(line: str, separator: str) -> list[str]:
    return [value.strip().strip("\"'") for value in (line.split() if separator == " " else line.split(separator))]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _names_in_comment(comment: str, n_columns: int, reading: ReadingSpec) -> list[str] | None:
    """Returns the names in the last comment before the values, if it names every column; else None."""
    names = re.split(r"[\s,;]+", comment.strip("#%! \t,;"))
    stated = set((reading.fields or {}).values())
    is_header = len(names) == n_columns and stated <= set(names)
    return names if is_header and find_columns(names, reading.fields, "header") is not None else None


def _order_of(beginning: _Beginning, data: bytes, where: str, reading: ReadingSpec) -> Sequence[str]:
    """Returns for each column t, x, y, p, or ``-`` if it is not read.

    Raises:
        DamagedFileError: Neither a header nor the data set says it, or they contradict each other.
    """
    names, order = beginning.names, reading.columns
    found = None if names is None else find_columns(names, reading.fields if order is None else None, where)
    by_header = None if found is None or names is None else _order_by_name(names, found)
    if order is not None:
        if by_header is not None and list(order) != by_header:
            raise DamagedFileError(
                f"{where}: the header names the columns {', '.join(by_header)}, "
                f"the data set's YAML says {', '.join(order)}",
                hint="remove columns: from the data set's YAML: the header is read without it",
            )
        return order
    if by_header is not None:
        return by_header
    if names is not None:
        raise DamagedFileError(
            f"{where}: {describe_content(data)}, expected a recording of a known format; a text has a header with "
            f"t, x, y and p, found {list_names(names, 8)}",
            hint=f"{hint_on_names(names)}\n{_NO_RECORDING}",
        )
    raise unstated_order(
        f"{where}: {describe_content(data)}, without a header: the order of its columns is not known",
        _first_rows(data, beginning),
        hint=_NO_RECORDING,
    )


def _order_by_name(names: Sequence[str], found: dict[str, str]) -> list[str]:
    columns = {name: column for column, name in found.items()}
    return [columns.get(name, "-") for name in names]


def _first_rows(data: bytes, beginning: _Beginning) -> np.ndarray:
    """Returns the numbers of the first lines that have as many as the first, ``[n, columns]``."""
    rows: list[list[float]] = []
    for _, line in _lines(data[beginning.start :]):
        values = _split(line, beginning.separator)
        if line[0] in "#%" or not all(map(_is_number, values)) or (rows and len(values) != len(rows[0])):
            continue
        rows.append([float(value) for value in values])
        if len(rows) == _GUESSED_LINES:
            break
    return np.array(rows)


def _parse(
    data: bytes, beginning: _Beginning, order: Sequence[str], where: str, reading: ReadingSpec
) -> dict[str, np.ndarray]:
    """Returns the columns of all lines.

    Raises:
        DamagedFileError: A line has another number of values, or a value is no number or impossible.
    """
    from plifctl.data.formats.text_loops import parse_events

    # a line has a byte for each value that is read, and one behind every value; others may be empty
    shortest = len(COLUMNS) + len(order)
    most = min(data.count(b"\n", beginning.start) + 1, (len(data) - beginning.start + 1) // shortest + 1)
    columns = tuple(np.empty(most, dtype) for dtype in (np.int64, np.int16, np.int16, np.int8))
    unit = reading.time_unit or "us"
    names = np.array([COLUMNS.index(name) if name != "-" else -1 for name in order])
    lines = np.frombuffer(data, np.uint8)[beginning.start :]
    n, at, problem, column = parse_events(lines, ord(beginning.separator), names, US_POWER[unit], unit != "us", columns)
    if problem:
        raise _line_error(data, beginning.start + at, problem, order, column, where, reading)
    return {name: values[:n] for name, values in zip(COLUMNS, columns, strict=True)}


def _line_error(
    data: bytes, at: int, problem: int, order: Sequence[str], column: int, where: str, reading: ReadingSpec
) -> DamagedFileError:
    from plifctl.data.formats.text_loops import COUNT, NUMBER

    start, end = data.rfind(b"\n", 0, at) + 1, data.find(b"\n", at)
    line = data[start : len(data) if end < 0 else end].decode(errors="replace").strip()
    number = data.count(b"\n", 0, start) + 1
    place = f"{where}, line {number}: {line[:60]!r}"
    commas = re.search(r"[;\t]", line) and re.search(r"\d,\d", line)
    hint = "its numbers seem to have decimal commas, which are not read: write them with points" if commas else ""
    if problem == COUNT:
        n = column if column < len(order) else f"more than {column}"
        cut = "; the file is cut off" if end < 0 and column < len(order) else ""
        return DamagedFileError(f"{place}: {n} values, expected {len(order)}: {', '.join(order)}{cut}", hint=hint)
    name, value = order[column], re.split(r"[\s,;]", data[at : at + 40].decode(errors="replace"))[0]
    if problem == NUMBER:
        return DamagedFileError(f"{place}: {name} is {value!r}, expected a number", hint=hint)
    has_fraction = name == "t" and reading.time_unit is None and "." in value
    message = f"{place}: {name} is {value}, expected {_EXPECTED[name]}"
    return unstated_unit(message) if has_fraction else DamagedFileError(message)
