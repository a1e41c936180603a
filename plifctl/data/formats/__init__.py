"""One decoder for each file format, bytes to events.

A file's header decides what it is, never its name. Events whose times run backwards are sorted by time; events of one
time keep their order. A file that is no whole file of its format is a DamagedFileError with the offset.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, overload

import numpy as np

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
"""An event: t in µs, column x, row y, polarity p (0 off, 1 on)."""


class Events:
    """Events in columns: indexed like an array of dtype EVENT, three times as fast to make.

    ``events["t"]`` is a column, ``events[i]`` an event as a tuple, ``events[slice or mask or indices]`` some events.

    Attributes:
        columns: The four, in this order.

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
        """Returns room for ``n`` events."""
        return cls(np.empty(n, np.int64), np.empty(n, np.int16), np.empty(n, np.int16), np.empty(n, np.uint8))

    @classmethod
    def of(cls, events: Events | np.ndarray) -> Events:
        """Returns events that may be a structured array, in columns."""
        if isinstance(events, Events):
            return events
        return cls(*(np.ascontiguousarray(events[name], EVENT[name]) for name in EVENT.names or ()))

    def structured(self) -> np.ndarray:
        """Returns an array of dtype EVENT, as other tools take it."""
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


DECODER_VERSION = 1
"""Part of every cache's key: raised when a decoder's output changes."""

_MAGIC = {
    b"#!AER-DAT1.0": "AEDAT 1.0",
    b"#!AER-DAT2.0": "AEDAT 2.0",
    b"#!AER-DAT3.1": "AEDAT 3.1",
    b"#!AER-DAT4.0": "AEDAT 4",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "numpy",
    **dict.fromkeys((b"% Data", b"% Date", b"% Version", b"% Height", b"% Width"), "Prophesee .dat"),
}


_MAGICS = tuple(_MAGIC)


class Decoded(NamedTuple):
    """What a file holds.

    Attributes:
        events: Sorted by t.
        dropped: Events of the file that were left out: marked invalid, or of another kind of sensor output.
    """

    events: Events
    dropped: int


def events_of(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> Events:
    """Returns events of four columns of any integer type, sorted by t; what has one time keeps its order."""
    columns = (np.ascontiguousarray(column, EVENT[name]) for name, column in zip("txyp", (t, x, y, p), strict=True))
    events = Events(*columns)
    return sorted_events(events, ascending=not bool((np.diff(events["t"]) < 0).any()))


def sorted_events(events: Events, *, ascending: bool) -> Events:
    """Returns ``events`` sorted by t, unless they are; what has one time keeps its order."""
    return events if ascending else events[np.argsort(events["t"], kind="stable")]


def format_of(data: bytes) -> str | None:
    """Returns the name of the format whose header a file has; None where it has none that is known."""
    if not data.startswith(_MAGICS):
        return None
    return next(name for magic, name in _MAGIC.items() if data.startswith(magic))


def recognised(data: bytes) -> str:
    """Returns what a file seems to be, for messages: a format's name, or its first bytes."""
    if name := format_of(data):
        return f"a file of format {name}"
    return f"a file that begins with {data[:12]!r}" if data else "an empty file"
