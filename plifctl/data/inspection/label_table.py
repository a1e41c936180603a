"""Tables of labels: which column of a CSV file names the recordings, their classes, splits, groups and windows."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from plifctl.data.datasets.label_csv import number_in, read_lines, separator_of
from plifctl.data.datasets.names import MemberNames, without_ending
from plifctl.data.formats.columns import find_columns
from plifctl.data.inspection.layout import PERSON, PERSON_SHORT, SESSION, sort_names
from plifctl.data.split_names import split_of
from plifctl.errors import DamagedFileError

ColumnRole = Literal["recording", "label", "split", "group", "start", "end", "duration"]
"""What a column says; the keys of ``labels:`` in the YAML of a data set."""

MAX_TABLE_BYTES = 2**22
"""Larger files are no tables of labels."""

_MAX_CLASSES = 1000
_NUMBER = r"(?:[ _-]?(?:id|nr|no|num(?:ber)?|code|name)s?)?"
_ROLE_NAMES: dict[ColumnRole, str] = {
    "label": r"labels?|class(?:es|_?name|_?id)?|categor(?:y|ies)|target|gesture|action|digit|y",
    "split": r"split|set|subset|fold|partition|usage",
    "group": rf"(?:(?:{PERSON}|{PERSON_SHORT}|speaker|actor)s?|people){_NUMBER}",
    "start": r"(?:start|begin|onset|t_?start).*|from(?:_\w+)?|t_?0",
    "end": r"(?:end|stop|offset|t_?end).*|(?:to|until)(?:_\w+)?|t_?1",
    "duration": r"(?:duration|length|dur)(?:[ _-]?(?:ns|us|ms|s|sec(?:ond)?s?))?",
}
_OTHER_GROUPS = rf"(?:group|{SESSION})s?{_NUMBER}"
"""Names of columns that say what stays together if no column says who."""


@dataclass(frozen=True)
class FoundTable:
    """A table of labels.

    Attributes:
        name: Path of its file in the folder.
        columns: All its columns.
        roles: Column of each role that was found.
        n_rows: Number of its rows, without the header.
        n_missing: Number of rows that name no recording of the folder, or several.
        n_unlisted: Number of recordings that no row names.
        classes: Values of the column of labels.
        splits: Values of the column of splits.
        groups: Values of the column of groups, an empty one among them if a cell is empty.
        latest: A time that lies within a recording, for the unit: the largest end of a window; of windows with
            durations, which may reach beyond the recording, the largest start or the median duration. None: unknown.
        median_length: Median length of its windows; None if it has no starts or no ends.
        recording: The recording whose windows it lists, by the name of the file; empty if a column names recordings.
    """

    name: str
    columns: tuple[str, ...]
    roles: Mapping[ColumnRole, str]
    n_rows: int
    n_missing: int
    n_unlisted: int
    classes: tuple[str, ...]
    splits: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    latest: float | None = None
    median_length: float | None = None
    recording: str = ""


def find_label_table(name: str, text: str, recordings: Sequence[str]) -> FoundTable | None:
    r"""Returns what a CSV file says about recordings; None if no column names them.

    Args:
        name: Its path in the folder.
        text: Its content, the first line being the names of the columns.
        recordings: Paths of the recordings in the folder.

    Raises:
        DamagedFileError: A quote in it is not closed.

    Example:
        >>> table = find_label_table("labels.csv", "file,gesture\na.dat,wave\nb.dat,fist\n", ["a.dat", "b.dat"])
        >>> dict(table.roles), table.classes
        ({'recording': 'file', 'label': 'gesture'}, ('fist', 'wave'))
    """
    header, rows = _read_rows(text, name)
    if len(header) < 2 or not rows or _are_events(header):
        return None
    values = {column: [row[index] for row in rows] for index, column in enumerate(header)}
    members = MemberNames(recordings)
    found = {
        column: [named[0] for cell in cells if len(named := members.find(cell)) == 1]
        for column, cells in values.items()
    }
    column = max(found, key=lambda column: (len(found[column]), len(set(found[column]))))  # 1, 1, 2, 2: subjects
    hits = len(found[column])
    owner = "" if 2 * hits >= len(rows) else _owner(name, recordings)
    if 2 * hits < len(rows) and not owner:
        return None
    roles: dict[ColumnRole, str] = {} if owner else {"recording": column}
    separator = separator_of(text)
    _assign_roles(roles, values, separator)
    if owner and "label" not in roles:
        return None
    latest, lengths = _windows(roles, values, separator)
    return FoundTable(
        name=name,
        columns=tuple(header),
        roles=roles,
        n_rows=len(rows),
        n_missing=0 if owner else len(rows) - hits,
        n_unlisted=len(recordings) - (1 if owner else len(set(found[column]))),
        classes=tuple(sort_names(filter(None, values[roles["label"]]))) if "label" in roles else (),
        splits=tuple(sorted(set(values[roles["split"]]))) if "split" in roles else (),
        groups=tuple(sorted(set(values[roles["group"]]))) if "group" in roles else (),
        latest=latest,
        median_length=statistics.median(lengths) if lengths else None,
        recording=owner,
    )


def _owner(name: str, recordings: Sequence[str]) -> str:
    """Returns the recording that a table belongs to, in the same folder with a name that begins alike; else nothing."""
    stem = without_ending(name)
    owners = [one for one in recordings if stem.startswith(without_ending(one))]
    return max(owners, key=len, default="")


def _assign_roles(roles: dict[ColumnRole, str], values: Mapping[str, Sequence[str]], separator: str) -> None:
    """Adds the columns whose names and cells fit a role, each to one role."""
    for role, fits in _fits(separator).items():
        if role == "duration" and ("start" not in roles or "end" in roles):
            continue
        free = [column for column in values if column not in roles.values()]
        patterns = [_ROLE_NAMES[role], *([_OTHER_GROUPS] if role == "group" else [])]
        named = [one for name in patterns for one in free if re.fullmatch(name, one.strip(), re.IGNORECASE)]
        if found := next((column for column in named if fits(values[column])), None):
            roles[role] = found
    if "label" not in roles and (guess := _guess_label(values, roles)):
        roles["label"] = guess


def _windows(
    roles: Mapping[ColumnRole, str], values: Mapping[str, Sequence[str]], separator: str
) -> tuple[float | None, list[float]]:
    """Returns the latest time within a recording, and the lengths of the windows with a start, in the table's unit."""
    times = {role: [_number(cell, separator) for cell in values[column]] for role, column in roles.items()}
    starts = times.get("start", [])
    if "duration" in roles:
        pairs = zip(starts, times["duration"], strict=True)
        lengths = [length for start, length in pairs if start is not None and length is not None]
        latest = [start for start in starts if start is not None]
        return max([*latest, statistics.median(lengths)]) if lengths else None, lengths
    ends = times.get("end", [])
    pairs = zip(starts, ends, strict=False)  # without a column of starts there are none
    lengths = [end - start for start, end in pairs if start is not None and end is not None]
    return max((end for end in ends if end is not None), default=None), lengths


def _number(cell: str, separator: str) -> float | None:
    """Returns the number in a cell; None if it contains none."""
    return next(iter(_numbers([cell], separator)), None)


def _are_events(header: Sequence[str]) -> bool:
    """Returns whether columns are those of events: a recording that cannot be read, and no table of labels."""
    try:
        return find_columns(header, None, "") is not None
    except DamagedFileError:  # several that may be one of them
        return True


def _read_rows(text: str, name: str) -> tuple[list[str], list[list[str]]]:
    """Returns the header and the rows of a CSV file that have as many cells; nothing if it is empty."""
    lines = read_lines(text, name, separator_of(text))
    header, *rows = (cells for _, cells in lines) if lines else [[]]
    if len(set(header)) < len(header):
        return [], []
    return header, [[cell.strip() for cell in row] for row in rows if len(row) == len(header)]


def _numbers(cells: Sequence[str], separator: str) -> list[float]:
    """Returns the numbers in a column, some of whose cells may be empty; nothing if other cells are none."""
    try:
        return [float(number_in(cell, separator)) for cell in cells if cell]
    except ArithmeticError:
        return []


def _are_classes(cells: Sequence[str]) -> bool:
    return 1 < len(set(cells) - {""}) <= min(_MAX_CLASSES, len(cells))


def _fits(separator: str) -> dict[ColumnRole, Callable[[Sequence[str]], bool]]:
    """Returns what the cells of a column must be for its role, in the order in which columns are assigned."""
    return {
        "split": lambda cells: all(split_of(cell) for cell in cells),
        "start": lambda cells: bool(_numbers(cells, separator)),
        "end": lambda cells: bool(_numbers(cells, separator)),
        # cells that are no numbers are errors when they are read; without the column, samples would have no end
        "duration": lambda cells: any((_number(cell, separator) or 0) > 0 for cell in cells),
        "group": any,
        "label": _are_classes,
    }


def _guess_label(others: Mapping[str, Sequence[str]], roles: Mapping[ColumnRole, str]) -> str | None:
    """Returns the column that may be the label though its name does not say so: that with the fewest classes."""
    free = {column: cells for column, cells in others.items() if column not in roles.values()}
    classes = {column: len(set(cells) - {""}) for column, cells in free.items()}
    repeated = {column: count for column, count in classes.items() if 2 * count <= len(free[column])}
    fitting = {column: count for column, count in repeated.items() if 1 < count <= _MAX_CLASSES}
    return min(fitting, key=lambda column: fitting[column]) if fitting else None
