"""Events to frames: Eq. S1 and its variants."""

from __future__ import annotations

from typing import Literal

import numpy as np

from plifctl.errors import DamagedFileError

INTEGRATOR_VERSION = 1
"""Part of every cache's key: raised when the frames change."""

Slicing = Literal["number", "number-remainder", "time"]


class CountOverflow(ValueError):
    """More events in a pixel than the frames' type holds.

    Args:
        count: The largest count.
    """

    def __init__(self, count: int) -> None:
        super().__init__(f"{count} events in one pixel of one frame")
        self.count = count


def slice_edges(t: np.ndarray, T: int, slicing: Slicing) -> np.ndarray:
    """Returns where the T slices begin and end.

    Args:
        t: Times of the N events, int64 µs, ascending.
        T: Number of slices.
        slicing: ``number``: edge j is ⌊N·j/T⌋. ``number-remainder``: ⌊N/T⌋·j, the last slice takes the rest.
            ``time``: slice j holds (t − t_first)·T // (t_last − t_first) = j; the last holds t_last too.
            Events of one single time are all in slice 0.

    Returns:
        Edges int64 ``[T + 1]``: slice j is events edges[j] to edges[j + 1]; slices may be empty.

    Source: Eq. S1; ``number-remainder`` is the published code's rule.

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
    else:
        span = int(t[-1] - t[0]) if n else 0
        # slice j begins at t_first + ⌈span·j/T⌉; whole and rest apart, as span·j may exceed 63 bits
        whole, rest = divmod(span, T)
        edges = np.searchsorted(t, t[0] + whole * j - (-rest * j // T)) if span else np.where(j > 0, n, 0)
    edges[T] = n
    return edges.astype(np.int64)


def integrate_frames(
    events: np.ndarray,
    T: int,
    slicing: Slicing,
    height: int,
    width: int,
    *,
    dtype: type[np.unsignedinteger] = np.uint8,
    where: str = "events",
) -> np.ndarray:
    """Counts events in each pixel, polarity and slice.

    Args:
        events: dtype EVENT, sorted by t.
        T: Number of frames.
        slicing: See :func:`slice_edges`.
        height: Rows of the sensor.
        width: Columns of the sensor.
        dtype: Of the counts.
        where: Name of the recording, for messages.

    Returns:
        Frames ``[T, 2, height, width]``, channel 0 off, 1 on; they sum to the number of events.

    Raises:
        CountOverflow: A count does not fit ``dtype``.
        DamagedFileError: An event lies outside the sensor.

    Source: Eq. S1.
    """
    x, y = events["x"], events["y"]
    outside = np.flatnonzero((x < 0) | (x >= width) | (y < 0) | (y >= height) | (events["p"] > 1))
    if len(outside):
        index = int(outside[0])
        raise DamagedFileError(
            f"{where}: event {index} of {len(events)} is at x={x[index]}, y={y[index]}, polarity {events['p'][index]}, "
            f"outside the sensor of {width}×{height}"
        )
    cells = 2 * height * width
    cell = (events["p"].astype(np.int64) * height + y) * width + x
    edges = slice_edges(events["t"], T, slicing)
    frames = np.empty((T, cells), dtype)
    for j in range(T):
        counts = np.bincount(cell[edges[j] : edges[j + 1]], minlength=cells)
        largest = int(counts.max(initial=0))
        if largest > np.iinfo(dtype).max:
            raise CountOverflow(largest)
        frames[j] = counts
    return frames.reshape(T, 2, height, width)
