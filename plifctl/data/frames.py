"""Frames from events: Eq. S1 and its variants."""

from __future__ import annotations

import numpy as np

from plifctl.config.choices import Slicing
from plifctl.data.events import Events
from plifctl.errors import DamagedFileError

INTEGRATOR_VERSION = 1
"""Part of every cache's key: raised when the frames change."""


class CountOverflow(ValueError):
    """More events in a pixel than the type of the frames can count.

    Args:
        count: The largest count.
    """

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} events in one pixel of one frame")
        self.count = count


def slice_edges(t: np.ndarray, T: int, slicing: Slicing, *, duration_us: int | None = None) -> np.ndarray:
    """Returns the edges of the T slices of a sample.

    Args:
        t: Times of the N events, int64 µs, ascending.
        T: Number of slices.
        slicing: ``number``: edge j is ⌊N·j/T⌋. ``number-remainder``: ⌊N/T⌋·j, and the last slice contains the rest.
            ``time``: slice j contains (t − t_first)·T // (t_last − t_first) = j; the last one also t_last.
            Events that all have one time are in slice 0. ``duration``: slice j contains
            (t − t_first) // duration_us = j; T must be at least :func:`count_slices`.
        duration_us: Length of a slice, µs; of ``duration`` only.

    Returns:
        Edges int64 ``[T + 1]``: slice j is events edges[j] to edges[j + 1]; slices may be empty.

    Source: Eq. S1; ``number-remainder`` is the rule of the authors' code.

    Example:
        >>> slice_edges(np.arange(10), 3, "number").tolist()
        [0, 3, 6, 10]
    """
    n = len(t)
    j = np.arange(T + 1, dtype=np.int64)
    if slicing == "number":
        return n * j // T
    if slicing == "number-remainder":
        edges = n // T * j
    elif slicing == "duration":
        assert duration_us is not None
        edges = np.searchsorted(t, t[0] + duration_us * j) if n else j * 0
        assert edges[T] == n, f"{T} slices of {duration_us} µs do not contain all events"
    else:
        span = int(t[-1] - t[0]) if n else 0
        # slice j begins at t_first + ⌈span·j/T⌉; by quotient and remainder, since span·j may exceed 63 bits
        quotient, remainder = divmod(span, T)
        edges = np.searchsorted(t, t[0] + quotient * j - (-remainder * j // T)) if span else np.where(j > 0, n, 0)
    edges[T] = n
    return edges.astype(np.int64)


def count_slices(t: np.ndarray, duration_us: int) -> int:
    """Returns how many slices of ``duration_us`` the events fill, whose times ``t`` (int64 µs) ascend; at least 1."""
    return int(t[-1] - t[0]) // duration_us + 1 if len(t) else 1


def integrate_frames(
    events: Events | np.ndarray,
    T: int,
    slicing: Slicing,
    height: int,
    width: int,
    *,
    polarities: int = 2,
    duration_us: int | None = None,
    dtype: type[np.unsignedinteger] = np.uint8,
    out: np.ndarray | None = None,
    where: str = "events",
) -> np.ndarray:
    """Counts events in each pixel, polarity and slice.

    Args:
        events: Sorted by t.
        T: Number of frames.
        slicing: See :func:`slice_edges`.
        height: Rows of the sensor.
        width: Columns of the sensor.
        polarities: 2, or 1 where polarities were merged.
        duration_us: See :func:`slice_edges`.
        dtype: Type of the counts.
        out: Array that the frames are written to; reusing memory is faster than allocating it. None: a new one.
        where: Name of the recording, for messages.

    Returns:
        Frames ``[T, polarities, height, width]``, channel 0 off, 1 on; they sum to the number of events.

    Raises:
        CountOverflow: A count does not fit ``dtype``.
        DamagedFileError: An event lies outside the sensor.

    Source: Eq. S1.
    """
    from plifctl.data.loops import count_events

    events = Events.of(events)
    t, x, y, p = events.columns
    edges = slice_edges(t, T, slicing, duration_us=duration_us)
    if out is None:
        out = np.zeros((T, polarities, height, width), dtype)
    else:
        out.fill(0)
    frames = out.reshape(T, -1)
    outside, counted = count_events(x, y, p, edges, height, width, frames)
    if outside >= 0:
        count = len(t) - len(drop_outside(events, polarities, height, width))
        raise DamagedFileError(
            f"{where}: event {outside} of {len(t)} is at x={x[outside]}, y={y[outside]}, polarity {p[outside]}, "
            f"outside the sensor of {width}×{height}, as are {count} in all",
            hint=hint_to_drop(count, len(t))
            or f"compare the size of the sensor, shape: in the YAML: x reaches {x.max()} and y {y.max()}",
        )
    if counted != len(t):  # a count overflowed
        larger = np.zeros(frames.shape, np.uint64)
        count_events(x, y, p, edges, height, width, larger)
        if larger.max() <= np.iinfo(dtype).max:
            raise AssertionError(f"{where}: frames do not sum to the number of events")
        raise CountOverflow(int(larger.max()))
    return out


MAX_LEFT_OUT = 0.1
"""Largest share of a recording's events that may be left out without a note; more suggests another camera."""


def hint_to_drop(count: int, total: int) -> str:
    """Returns the hint how to leave ``count`` of ``total`` events out, if they are few; else an empty text."""
    if count > MAX_LEFT_OUT * total:
        return ""
    return "to leave such events out and count them: add --set frames.outside_events=drop"


def drop_outside(events: Events, polarities: int, height: int, width: int) -> Events:
    """Returns the events on the sensor, without those outside."""
    x, y = events["x"], events["y"]
    return events[(x >= 0) & (x < width) & (y >= 0) & (y < height) & (events["p"] < polarities)]
