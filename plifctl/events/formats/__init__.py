"""One decoder for each file format, bytes to structured arrays.

A file's header decides what it is, never its name. Events whose times run backwards are sorted by time; events of one
time keep their order. A file that is no whole file of its format is a DamagedFileError with the offset.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

EVENT = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
"""An event: t in µs, column x, row y, polarity p (0 off, 1 on)."""

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
}


class Decoded(NamedTuple):
    """What a file holds.

    Attributes:
        events: dtype EVENT, sorted by t.
        dropped: Events of the file that were left out: marked invalid, or of another kind of sensor output.
    """

    events: np.ndarray
    dropped: int


def events_of(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Returns an EVENT array of four columns, sorted by t; what has one time keeps its order."""
    events = np.empty(len(t), EVENT)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    if len(t) > 1 and bool((np.diff(events["t"]) < 0).any()):
        events = events[np.argsort(events["t"], kind="stable")]
    return events


def format_of(data: bytes) -> str | None:
    """Returns the name of the format whose header a file has; None where it has none that is known."""
    return next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)


def recognised(data: bytes) -> str:
    """Returns what a file seems to be, for messages: a format's name, or its first bytes."""
    if name := format_of(data):
        return f"a file of format {name}"
    return f"a file that begins with {data[:12]!r}" if data else "an empty file"
