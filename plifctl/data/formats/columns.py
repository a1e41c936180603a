"""Columns of events as people store them: named or in an order, times in any unit, polarities of any kind.

Arrays, text and HDF5 have columns t, x, y and p; they differ in how these are found. Names are recognised in any case,
with their usual synonyms. What a recording does not say, the data set's YAML does: :class:`ReadingSpec`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, get_args

import numpy as np

from plifctl.config.choices import Column, TimeUnit
from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import LATEST_US, US_POWER, Decoded, Events
from plifctl.data.formats.clocks import sort_by_time
from plifctl.errors import DamagedFileError, list_names

AS_USUAL = ReadingSpec()
"""Nothing is known about a recording but what it says."""

Name = Literal["t", "x", "y", "p"]

COLUMNS: tuple[Name, ...] = get_args(Name)

_SYNONYMS = {
    **dict.fromkeys(("t", "ts", "time", "times", "timestamp", "timestamps"), "t"),
    **dict.fromkeys(("x", "xs", "x_coordinate", "x_coordinates"), "x"),
    **dict.fromkeys(("y", "ys", "y_coordinate", "y_coordinates"), "y"),
    **dict.fromkeys(("p", "ps", "pol", "pols", "polarity", "polarities", "on"), "p"),
}
_MAX = {"t": LATEST_US, "x": 2**15 - 1, "y": 2**15 - 1, "p": 1}

SECONDS = "if t is in s, or in ms, state it in the data set's YAML: time_unit: s"
"""Hint for times with fractions whose unit is not stated."""

NEGATIVE = "times before 0 are not read: add a constant to the times of the recording, and of its labels"
"""Hint for negative times."""

_NAME_FIELDS = "name the columns in the data set's YAML: fields: {t: NAME, x: NAME, y: NAME, p: NAME}"
ADD_POLARITY = "an event has t, x, y and p: if there are no polarities, add a column p of one value, such as 1"
"""Hint for a recording with three columns."""


class UnstatedReadingError(DamagedFileError):
    """A recording does not say something that the data set's YAML has to state.

    Args:
        message: What is missing.
        hint: What to state.
        guess: What is most plausible; None if nothing is.
    """

    def __init__(self, message: str, *, hint: str, guess: ReadingSpec | None) -> None:
        super().__init__(message, hint=hint)
        self.guess = guess


def hint_on_names(names: Iterable[str]) -> str:
    """Returns the hint for a recording whose columns are not all found by their names: no polarity, or other names.

    Example:
        >>> hint_on_names(["t", "x", "y"])
        'an event has t, x, y and p: if there are no polarities, add a column p of one value, such as 1'
    """
    is_only_p_missing = {_SYNONYMS.get(name.lower()) for name in names} == {"t", "x", "y"}
    return ADD_POLARITY if is_only_p_missing else _NAME_FIELDS


def unstated_unit(message: str) -> UnstatedReadingError:
    """Returns the error for a time with a fraction whose unit is not stated."""
    return UnstatedReadingError(message, hint=SECONDS, guess=ReadingSpec(time_unit="s"))


def unstated_order(message: str, rows: np.ndarray, *, hint: str = "") -> UnstatedReadingError:
    """Returns the error for events without names, with the order of the columns that is the best guess.

    Args:
        message: What is missing.
        rows: The first rows, ``[n, columns]``.
        hint: What else to do.

    Example:
        >>> unstated_order("f: no header", np.array([(0.001, 7, 2, 0), (0.002, 3, 9, 1)])).hint
        "state the order of the columns in the data set's YAML, probably columns: [t, x, y, p] and time_unit: s"
    """
    guess, order = None, guess_order(rows)
    state = (
        "state the order of the columns in the data set's YAML, - for one that is not read, "
        "e.g. columns: [x, y, p, t]\nand the unit of t: time_unit: us, ms or s"
    )
    if rows.ndim == 2 and rows.shape[1] < len(COLUMNS):
        state = ADD_POLARITY
    elif order is not None:
        t = rows[:, order.index("t")]
        guess = ReadingSpec(columns=order, time_unit="s" if (t != np.floor(t)).any() else "us")
        state = (
            f"state the order of the columns in the data set's YAML, probably columns: [{', '.join(order)}] "
            f"and time_unit: {guess.time_unit}"
        )
    return UnstatedReadingError(message, hint=f"{state}\n{hint}".rstrip(), guess=guess)


def find_columns(names: Iterable[str], fields: Mapping[Name, str] | None, where: str) -> dict[str, str] | None:
    """Returns the name of each of the columns t, x, y and p; None unless all of them are found.

    Args:
        names: Names in the recording.
        fields: Names of columns that the data set's YAML states; the others are found by their usual names.
        where: Name of the recording, for messages.

    Raises:
        DamagedFileError: A stated name is missing, or a column has several usual names.

    Example:
        >>> find_columns(["Timestamp", "x", "y", "sign"], {"p": "sign"}, "f")
        {'t': 'Timestamp', 'x': 'x', 'y': 'y', 'p': 'sign'}
    """
    there = list(names)
    found: dict[str, str] = {}
    for column in COLUMNS:
        stated = (fields or {}).get(column)
        if stated is not None and stated not in there:
            raise DamagedFileError(
                f"{where}: no {stated!r}, expected as {column} by the data set's YAML; found {list_names(there, 8)}",
                hint="correct fields: in the data set's YAML",
            )
        usual = [name for name in there if _SYNONYMS.get(name.lower()) == column]
        if stated is None and len(usual) > 1:
            raise DamagedFileError(
                f"{where}: both {usual[0]} and {usual[1]} may be {column}",
                hint=f"state one of them in the data set's YAML: fields: {{{column}: {usual[0]}}}",
            )
        if name := stated or next(iter(usual), None):
            found[column] = name
    return found if len(found) == len(COLUMNS) else None


def to_events(columns: Mapping[str, np.ndarray], where: str, unit: TimeUnit | None) -> Decoded:
    """Returns events of four columns of any numbers, checked, t in µs and sorted; none is dropped.

    Polarities are 0 and 1, −1 and 1, or false and true. Times in other units are rounded to the nearest µs, of two
    equally near ones to the even. Fractions of µs are refused: they are probably times in another unit.

    Args:
        columns: The columns t, x, y and p, ``[N]`` each.
        where: Name of the recording, for messages.
        unit: Unit of t; None: µs.

    Raises:
        DamagedFileError: A value is impossible, or the clock jumps back.
    """
    _check_types(columns, where)
    checked = {**columns, "t": to_us(columns["t"], unit or "us"), "p": _to_binary(columns["p"])}
    for name in COLUMNS:
        column = checked[name]
        good = (column >= 0) & (column <= _MAX[name])  # also false for NaN
        if column.dtype.kind == "f":
            good &= column == np.floor(column)
        if not good.all():
            index = int(np.flatnonzero(~good)[0])
            message = (
                f"{where}: event {index} of {len(column)}: {name} is {column[index]}, "
                f"expected a whole number from 0 to {_MAX[name]}"
            )
            value = column[index]
            if name == "t" and unit is None and np.isfinite(value) and value != np.floor(value):
                raise unstated_unit(message)
            raise DamagedFileError(message, hint=NEGATIVE if name == "t" and value < 0 else "")
    return sort_by_time(Events.from_columns(*(checked[name] for name in COLUMNS)), where)


def _check_types(columns: Mapping[str, np.ndarray], where: str) -> None:
    """Raises DamagedFileError unless the columns are numbers, ``[N]`` each."""
    if other := [column.dtype for column in columns.values() if column.dtype.kind not in "biuf"]:
        raise DamagedFileError(f"{where}: an array of {other[0]}, expected numbers")
    shapes = {name: list(columns[name].shape) for name in COLUMNS}
    if any(shape != shapes["t"] or len(shape) != 1 for shape in shapes.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise DamagedFileError(f"{where}: arrays of shapes {found}, expected four of one length")


def to_us(t: np.ndarray, unit: TimeUnit) -> np.ndarray:
    """Returns times in µs, rounded to the nearest, of two equally near ones to the even; µs are returned as they are.

    Example:
        >>> to_us(np.array([499, 500, 501, 1500]), "ns").tolist(), to_us(np.array([0.0015]), "s").tolist()
        ([0, 0, 1, 2], [1500.0])
    """
    if unit == "us":
        return t
    if t.dtype.kind in "iu" and unit == "ns":
        us, rest = np.divmod(t.astype(np.uint64 if t.dtype.kind == "u" else np.int64), 1000)
        us += (rest > 500) | ((rest == 500) & (us % 2 == 1))
        return us
    with np.errstate(over="ignore", invalid="ignore"):
        if unit == "ns":
            return np.rint(t / np.float64(1000))
        factor: int = 10 ** US_POWER[unit]
        us = np.rint(t * np.float64(factor)) if t.dtype.kind == "f" else t.astype(np.float64) * factor
    if t.dtype.kind in "iu" and len(t) and us.max() < LATEST_US:
        us = t.astype(np.int64) * factor  # exact
    return us


def _to_binary(p: np.ndarray) -> np.ndarray:
    """Returns polarities of −1 and 1 as False and True; others as they are."""
    return p == 1 if (p == -1).any() and np.isin(p, (-1, 1)).all() else p


def guess_order(rows: np.ndarray) -> tuple[Column, ...] | None:
    """Returns the most plausible order of the columns of some rows ``[n, columns]``; None if none is.

    Times ascend, and reach further than coordinates or have fractions; polarities are −1, 0 or 1; x is before y.
    """
    if rows.dtype.kind not in "biuf" or len(rows) < 2 or not np.isfinite(rows).all():
        return None
    rows = rows.astype(np.float64)
    columns = range(rows.shape[1])
    binary = [k for k in columns if np.isin(rows[:, k], (-1, 0, 1)).all()]
    whole = [k for k in columns if (rows[:, k] == np.floor(rows[:, k])).all()]
    ascending = [k for k in columns if (np.diff(rows[:, k]) >= 0).all() and not (k in binary and k in whole)]
    ascending = [k for k in ascending if k not in whole] or ascending
    if not ascending:
        return None
    t = max(ascending, key=lambda k: float(np.ptp(rows[:, k])))
    p = next((k for k in reversed(binary) if k != t), None)
    places = [k for k in whole if k not in (t, p)]
    places = [k for k in places if k not in binary] if len(places) > 2 else places
    if p is None or len(places) < 2:
        return None
    order: dict[int, Column] = {**dict.fromkeys(columns, "-"), t: "t", p: "p", places[0]: "x", places[1]: "y"}
    return tuple(order[k] for k in columns)
