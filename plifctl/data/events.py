"""The events of a recording, in columns: returned by every decoder, and counted into frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, overload

import numpy as np

from plifctl.config.choices import TimeUnit
from plifctl.data.remarks import Remark

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
"""An event: t in µs, column x, row y, polarity p (0 off, 1 on)."""


US_POWER: dict[TimeUnit, int] = {"ns": -3, "us": 0, "ms": 3, "s": 6}
"""Power of ten by which a time in a unit is multiplied to be in µs."""

LATEST_US = 2**62
"""Bound of the times of events, and of their labels, µs."""


class Events:
    """Events in columns: indexed like an array of dtype EVENT, and three times as fast to build.

    ``events["t"]`` is a column, ``events[i]`` an event as a tuple, ``events[slice or mask or indices]`` some events.

    Attributes:
        columns: The columns t, x, y and p, in this order.

    Args:
        t: Times, int64 ``[N]``, µs.
        x: Columns of the sensor, int16 ``[N]``.
        y: Rows of the sensor, int16 ``[N]``.
        p: Polarities, uint8 ``[N]``, 0 off, 1 on.

    Example:
        >>> events = Events.of(np.array([(10, 3, 4, 1), (20, 5, 6, 0)], EVENT))
        >>> events["x"].tolist(), events[1:].tolist()
        ([3, 5], [(20, 5, 6, 0)])
    """

    __slots__ = ("columns",)

    def __init__(self, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> None:
        self.columns = (t, x, y, p)

    @classmethod
    def empty(cls, n: int) -> Events:
        """Returns ``n`` uninitialised events, for a decoder to fill in."""
        return cls(np.empty(n, np.int64), np.empty(n, np.int16), np.empty(n, np.int16), np.empty(n, np.uint8))

    @classmethod
    def of(cls, events: Events | np.ndarray) -> Events:
        """Returns events, or a structured array with the fields t, x, y and p, as events in columns."""
        if isinstance(events, Events):
            return events
        return cls(*(np.ascontiguousarray(events[name], EVENT[name]) for name in EVENT.names or ()))

    @classmethod
    def from_columns(cls, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> Events:
        """Returns the events of four columns of any integer type."""
        columns = zip("txyp", (t, x, y, p), strict=True)
        return cls(*(np.ascontiguousarray(column, EVENT[name]) for name, column in columns))

    @classmethod
    def sorted_from(cls, t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> Events:
        """Returns the events of four columns of any integer type, sorted by t (stable)."""
        events = cls.from_columns(t, x, y, p)
        return events if (np.diff(events["t"]) >= 0).all() else events[np.argsort(events["t"], kind="stable")]

    def structured(self) -> np.ndarray:
        """Returns an array of dtype EVENT, the layout that other tools take."""
        array = np.empty(len(self), EVENT)
        for name, column in zip("txyp", self.columns, strict=True):
            array[name] = column
        return array

    def tolist(self) -> list[tuple[int, int, int, int]]:
        """Returns plain tuples (t, x, y, p)."""
        return list(self)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[tuple[int, int, int, int]]:
        return zip(*(column.tolist() for column in self.columns), strict=True)

    @overload
    def __getitem__(self, key: str) -> np.ndarray: ...
    @overload
    def __getitem__(self, key: int) -> tuple[int, int, int, int]: ...
    @overload
    def __getitem__(self, key: slice | np.ndarray) -> Events: ...
    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self.columns["txyp".index(key)]
        if isinstance(key, int):
            return tuple(int(column[key]) for column in self.columns)
        return Events(*(column[key] for column in self.columns))

    def __repr__(self) -> str:
        return f"<{len(self)} events>"


class Decoded(NamedTuple):
    """Result of a decoder for one file.

    Attributes:
        events: Its events, sorted by t.
        dropped: Number of events in the file that were left out: marked invalid, or another kind of sensor output.
        remarks: What the user should know about the recording.
    """

    events: Events
    dropped: int
    remarks: tuple[Remark, ...] = ()
