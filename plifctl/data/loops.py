"""Compiled loop that counts events. Imported only when events are counted, because numba takes a while to import."""

from __future__ import annotations

import numpy as np

from plifctl.jit import compiled


def warm_up() -> None:
    """Loads the loop that counts events, or compiles it, which takes a while; called while files are read."""
    x, y, p = np.empty(0, np.int16), np.empty(0, np.int16), np.empty(0, np.uint8)
    none = np.zeros(1, np.int64)
    count_events(x, y, p, none, none, 1, 1, np.zeros((1, 2), np.uint8))


@compiled()
def count_events(x, y, p, starts, stops, height, width, frames):  # type: ignore[no-untyped-def]
    """Adds events [starts[j], stops[j]) to ``frames[j]``, zeros ``[T, P·height·width]``; counts may overflow.

    The cells of a block of events are computed and checked in a loop without branches, then they are counted.

    Returns:
        The index of the first event outside the sensor, −1 if there is none; the sum of all counts, which is less than
        that of all slices if one has overflowed.
    """
    columns, rows, plane = np.uint32(width), np.uint32(height), np.uint32(height * width)
    polarities = np.uint32(frames.shape[1] // (height * width))
    cells = np.empty(1024, np.uint32)
    for j in range(len(frames)):
        frame = frames[j]
        for start in range(starts[j], stops[j], len(cells)):
            stop = min(start + len(cells), stops[j])
            xs, ys, ps = x[start:stop], y[start:stop], p[start:stop]
            outside = np.uint32(0)
            for i in range(stop - start):
                column, row = np.uint32(np.uint16(xs[i])), np.uint32(np.uint16(ys[i]))  # negative values become large
                polarity = np.uint32(ps[i])
                outside |= np.uint32((column >= columns) | (row >= rows) | (polarity >= polarities))
                cells[i] = polarity * plane + row * columns + column
            if outside:
                for i in range(start, stop):
                    if np.uint16(x[i]) >= columns or np.uint16(y[i]) >= rows or p[i] >= polarities:
                        return i, 0
            for i in range(stop - start):
                frame[cells[i]] += 1
    counted = np.int64(0)
    for j in range(len(frames)):
        frame = frames[j]
        for i in range(len(frame)):
            counted += np.int64(frame[i])
    return -1, counted
