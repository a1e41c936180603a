"""Frames from events: Eq. S1 and its variants."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from plifctl.config.choices import Slicing
from plifctl.data.events import Events
from plifctl.data.remarks import MAX_LEFT_OUT
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


class Slices(NamedTuple):
    """The slices of a sample: slice j is events starts[j] to stops[j]; slices may be empty, and may overlap.

    Attributes:
        starts: Index of the first event of each slice, int64 ``[T]``.
        stops: Index after its last event, int64 ``[T]``.
    """

    starts: np.ndarray
    stops: np.ndarray

    @property
    def total(self) -> int:
        """Sum of the numbers of events in the slices: what the frames sum to."""
        return int((self.stops - self.starts).sum())


def slice_events(
    t: np.ndarray, T: int, slicing: Slicing, *, duration_us: int | None = None, overlap_us: int = 0
) -> Slices:
    """Returns the T slices of a sample.

    Args:
        t: Times of the N events, int64 µs, ascending.
        T: Number of slices.
        slicing: ``number``: slice j begins at event ⌊N·j/T⌋. ``number-remainder``: at ⌊N/T⌋·j, and the last slice
            contains the rest. ``time``: slice j contains (t − t_first)·T // (t_last − t_first) = j; the last one also
            t_last. Events that all have one time are in slice 0. ``duration``, ``duration-first``: slice j begins
            (duration_us − overlap_us)·j after t_first, and ends duration_us later, exclusively. In ``duration`` T must
            be at least :func:`count_slices`; in ``duration-first`` later events are in no slice.
        duration_us: Length of a slice, µs; of ``duration`` and ``duration-first``.
        overlap_us: Time that a slice shares with the one before, less than ``duration_us``.

    Source: Eq. S1; ``number-remainder`` is the rule of the authors' code.

    Example:
        >>> [bounds.tolist() for bounds in slice_events(np.arange(10), 3, "number")]
        [[0, 3, 6], [3, 6, 10]]
        >>> [bounds.tolist() for bounds in slice_events(np.arange(10), 3, "duration", duration_us=5, overlap_us=2)]
        [[0, 3, 6], [5, 8, 10]]
    """
    n = len(t)
    if slicing in ("duration", "duration-first"):
        assert duration_us is not None
        found = _slice_by_duration(t, T, duration_us, overlap_us)
        assert slicing == "duration-first" or found.stops[-1] == n, f"{T} slices of {duration_us} µs are too few"
        return found
    j = np.arange(T + 1, dtype=np.int64)
    if slicing == "number":
        edges = n * j // T
    elif slicing == "number-remainder":
        edges = n // T * j
    else:
        span = int(t[-1] - t[0]) if n else 0
        # slice j begins at t_first + ⌈span·j/T⌉; by quotient and remainder, since span·j may exceed 63 bits
        quotient, remainder = divmod(span, T)
        edges = np.searchsorted(t, t[0] + quotient * j - (-remainder * j // T)) if span else np.where(j > 0, n, 0)
    edges[T] = n
    edges = edges.astype(np.int64)
    return Slices(edges[:-1], edges[1:])


def _slice_by_duration(t: np.ndarray, T: int, duration_us: int, overlap_us: int) -> Slices:
    if not len(t):
        return Slices(np.zeros(T, np.int64), np.zeros(T, np.int64))
    beyond = int(t[-1] - t[0]) + 1  # times beyond the last event are this one, so that nothing exceeds 63 bits
    duration, step = min(duration_us, beyond), min(duration_us - overlap_us, beyond)
    begin = np.minimum(np.minimum(np.arange(T, dtype=np.int64), beyond // step + 1) * step, beyond)
    end = begin + np.minimum(duration, beyond - begin)
    return Slices(*(np.searchsorted(t, t[0] + times).astype(np.int64) for times in (begin, end)))


def count_slices(t: np.ndarray, duration_us: int, overlap_us: int = 0) -> int:
    """Returns how many slices of a fixed duration begin no later than the last event; later ones are empty.

    Args:
        t: Times of the events, int64 µs, ascending.
        duration_us: Length of a slice, µs.
        overlap_us: Time that a slice shares with the one before, µs.

    Example:
        >>> [count_slices(np.array([0, t_last]), 10) for t_last in (9, 10)], count_slices(np.array([0, 9]), 10, 6)
        ([1, 2], 3)
    """
    return int(t[-1] - t[0]) // (duration_us - overlap_us) + 1 if len(t) else 1


def integrate_frames(
    events: Events | np.ndarray,
    T: int,
    slicing: Slicing,
    height: int,
    width: int,
    *,
    polarities: int = 2,
    duration_us: int | None = None,
    overlap_us: int = 0,
    dtype: type[np.unsignedinteger] = np.uint8,
    out: np.ndarray | None = None,
    where: str = "events",
) -> np.ndarray:
    """Counts events in each pixel, polarity and slice.

    Args:
        events: Sorted by t.
        T: Number of frames.
        slicing: See :func:`slice_events`.
        height: Rows of the sensor.
        width: Columns of the sensor.
        polarities: 2, or 1 where polarities were merged.
        duration_us: See :func:`slice_events`.
        overlap_us: See :func:`slice_events`.
        dtype: Type of the counts.
        out: Array that the frames are written to; reusing memory is faster than allocating it. None: a new one.
        where: Name of the recording, for messages.

    Returns:
        Frames ``[T, polarities, height, width]``, channel 0 off, 1 on; they sum to :attr:`Slices.total`.

    Raises:
        CountOverflow: A count does not fit ``dtype``.
        DamagedFileError: An event lies outside the sensor.

    Source: Eq. S1.
    """
    from plifctl.data.loops import count_events

    events = Events.of(events)
    t, x, y, p = events.columns
    slices = slice_events(t, T, slicing, duration_us=duration_us, overlap_us=overlap_us)
    if out is None:
        out = np.zeros((T, polarities, height, width), dtype)
    else:
        out.fill(0)
    frames = out.reshape(T, -1)
    outside, counted = count_events(x, y, p, *slices, height, width, frames)
    if outside >= 0:
        check_inside(events, polarities, height, width, where)
    if counted != slices.total:  # a count overflowed
        larger = np.zeros(frames.shape, np.uint64)
        count_events(x, y, p, *slices, height, width, larger)
        if larger.max() <= np.iinfo(dtype).max:
            raise AssertionError(f"{where}: frames do not sum to the events in the slices")
        raise CountOverflow(int(larger.max()))
    return out


def hint_to_drop(count: int, total: int) -> str:
    """Returns the hint how to leave ``count`` of ``total`` events out, if they are few; else an empty text."""
    if count > MAX_LEFT_OUT * total:
        return ""
    return "to leave such events out and count them: add --set frames.outside_events=drop"


def check_inside(events: Events, polarities: int, height: int, width: int, where: str) -> None:
    """Raises DamagedFileError for events outside the sensor: names the first, how many there are, and a remedy."""
    _, x, y, p = events.columns
    outside = np.flatnonzero(~_is_inside(events, polarities, height, width))
    if len(outside):
        first, count = outside[0], len(outside)
        raise DamagedFileError(
            f"{where}: event {first} of {len(x)} is at x={x[first]}, y={y[first]}, polarity {p[first]}, "
            f"outside the sensor of {width}×{height}, as are {count} in all",
            hint=hint_to_drop(count, len(x))
            or f"compare the size of the sensor, shape: in the YAML: x reaches {x.max()} and y {y.max()}",
        )


def drop_outside(events: Events, polarities: int, height: int, width: int) -> Events:
    """Returns the events on the sensor, without those outside."""
    return events[_is_inside(events, polarities, height, width)]


def _is_inside(events: Events, polarities: int, height: int, width: int) -> np.ndarray:
    x, y = events["x"], events["y"]
    inside: np.ndarray = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (events["p"] < polarities)
    return inside
