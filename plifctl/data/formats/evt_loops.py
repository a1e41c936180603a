"""Compiled loops over the words of Prophesee's EVT formats. Imported only when such a file is decoded.

Each loop keeps the state of the stream: the time, and in EVT 3.0 also row and column. An event whose state was not sent
yet, at the beginning of a stream, is incomplete: it is written with −1 instead, or not at all, and counted.

Arguments: the words; ``max_back``, the largest step back in time of events stored out of order, µs; the columns t, x, y
and p. They need room for an event a word in EVT 2.0, for those that :func:`count_evt21` counts in EVT 2.1, and for one
more than :func:`count_evt3` counts in EVT 3.0, where a word is written like an event, and overwritten if it is none.

Each loop returns where the complete events begin and end, and ``counts``, int64 ``[5]``: overflows of the clock,
incomplete events, triggers, words of an unknown type, and 1 if the times ascend.

Places in the columns are unsigned, because numba compares signed ones with 0 at each access.
"""

from __future__ import annotations

import numpy as np

from plifctl.data.formats.loops import is_ascending
from plifctl.jit import compiled, count_ones, inlined, lowest_one

OVERFLOWS, INCOMPLETE, TRIGGERS, UNKNOWN, ASCENDING = range(5)
"""Places in ``counts``."""

_TIME_HIGH, _TRIGGER = 8, 10
_KNOWN_2 = 1 << _TRIGGER | 1 << 14 | 1 << 15
_KNOWN_3 = _KNOWN_2 | 1 << 7
_SIMPLE_3 = 1 << 0 | 1 << 2 | 1 << 6
"""Types of words as bits: those besides events and times, which hold triggers, statistics and the vendor's data; and
in EVT 3.0 those that are decoded without branches."""

_BLOCK = 1024
"""Words of EVT 2.0 that are sorted out at a time, and of EVT 3.0 whose events are counted in 16 bits."""

_MAX_COLUMN = 4096
"""Where the column stops after too many vectors in a row: outside every sensor, whose columns have 11 bits."""


@compiled()
def decode_evt2(words, max_back, t, x, y, p):  # type: ignore[no-untyped-def]
    """EVT 2.0: decodes words, uint32 ``[n]``: those of a block that are events are collected, and decoded at once."""
    n, turns, counts = np.int64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base = np.int64(-1), np.int64(-1) << 6
    kept, bases = np.empty(_BLOCK, np.uint32), np.empty(_BLOCK, np.int64)
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        found = np.uint64(0)
        for i in range(len(block)):
            word = block[i]
            kind = word >> np.uint32(28)
            kept[found], bases[found] = word, base  # overwritten if it is no event
            found += np.uint64(kind < 2)
            if kind == _TIME_HIGH:
                time = np.int64(word & np.uint32(0x0FFFFFFF)) << 6
                if time < raw or turns:
                    turns = _count_turns(turns, raw, time, 34, max_back, counts)
                raw, base = time, time + (turns << 34)
            elif kind > 1:
                _count_other(kind, _KNOWN_2, counts)
        end = n + np.int64(found)
        _decode_events(kept[: end - n], bases, t[n:end], x[n:end], y[n:end], p[n:end])
        n = end
    return _finish(n, t, y, counts)


@inlined
def _decode_events(words, bases, t, x, y, p):  # type: ignore[no-untyped-def]
    for i in range(len(words)):
        word = words[i]
        t[i] = bases[i] | np.int64((word >> np.uint32(22)) & np.uint32(63))
        x[i] = (word >> np.uint32(11)) & np.uint32(2047)
        y[i] = word & np.uint32(2047)
        p[i] = word >> np.uint32(28)


@compiled()
def count_evt21(words, head):  # type: ignore[no-untyped-def]
    """Returns the number of events of EVT 2.1; for the arguments see :func:`decode_evt21`."""
    n = np.int64(0)
    for i in range(len(words) // 2):
        is_vector = words[2 * i + head] < np.uint32(2 << 28)
        n += np.int64(count_ones(words[2 * i + 1 - head])) if is_vector else np.int64(0)
    return n


@compiled()
def decode_evt21(words, head, max_back, t, x, y, p):  # type: ignore[no-untyped-def]
    """EVT 2.1: decodes words, uint32 ``[2n]``: a head as in EVT 2.0, and one bit for each of the 32 pixels from x on.

    The head is the first of two (``head`` is 0), or the second (1).
    """
    n, turns, counts = np.uint64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base = np.int64(-1), np.int64(-1) << 6
    for i in range(len(words) // 2):
        word, pixels = words[2 * i + head], words[2 * i + 1 - head]
        kind = word >> np.uint32(28)
        if kind < 2:
            time = base | np.int64((word >> np.uint32(22)) & np.uint32(63))
            column, row = (word >> np.uint32(11)) & np.uint32(2047), word & np.uint32(2047)
            while pixels:
                t[n], x[n], y[n], p[n] = time, column + lowest_one(pixels), row, kind
                n += np.uint64(1)
                pixels &= pixels - np.uint32(1)
        elif kind == _TIME_HIGH:
            time = np.int64(word & np.uint32(0x0FFFFFFF)) << 6
            if time < raw or turns:
                turns = _count_turns(turns, raw, time, 34, max_back, counts)
            raw, base = time, time + (turns << 34)
        else:
            _count_other(kind, _KNOWN_2, counts)
    return _finish(n, t, y, counts)


@compiled()
def count_evt3(words):  # type: ignore[no-untyped-def]
    """Returns the number of events of words of EVT 3.0, uint16; vectorised, since all numbers have 16 bits."""
    n = np.int64(0)
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        found = np.uint16(0)
        for i in range(len(block)):
            word = block[i]
            bits = np.uint16(word & np.uint16(0xFFF)) if word < np.uint16(0x5000) else np.uint16(word & np.uint16(0xFF))
            bits = bits if np.uint16(word & np.uint16(0xE000)) == np.uint16(0x4000) else np.uint16(0)
            bits = np.uint16(1) if np.uint16(word & np.uint16(0xF000)) == np.uint16(0x2000) else bits
            found = np.uint16(found + count_ones(bits))
        n += np.int64(found)
    return n


@compiled()
def decode_evt3(words, max_back, t, x, y, p):  # type: ignore[no-untyped-def]
    """EVT 3.0: decodes words, uint16 ``[n]``, each of which sets a part of the state, or is an event or up to 12."""
    n, turns, counts = np.uint64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base, time = np.int64(-1), np.int64(-1) << 12, np.int64(-1)
    row, column, polarity = np.int16(-1), np.int64(-1), np.uint8(0)
    i, size = np.uint64(0), np.uint64(len(words))
    while True:
        while i < size:
            word = np.uint32(words[i])
            kind, value = word >> np.uint32(12), word & np.uint32(0xFFF)
            if not (np.uint32(_SIMPLE_3) >> kind) & np.uint32(1):
                break
            time = base + np.int64(value) if kind == 6 else time
            row = np.int16(value & np.uint32(2047)) if kind == 0 else row
            t[n], y[n] = time, row  # overwritten if it is no event
            x[n], p[n] = value & np.uint32(2047), value >> np.uint32(11)
            n += np.uint64(kind == 2)
            i += np.uint64(1)
        if i == size:
            return _finish(n, t, y, counts)
        i += np.uint64(1)
        if kind == 3:  # column and polarity of the vectors that follow
            column, polarity = np.int64(value & np.uint32(2047)), np.uint8(value >> np.uint32(11))
        elif kind == 4 or kind == 5:  # a vector of 12 or 8 pixels
            width = np.int64(12) if kind == 4 else np.int64(8)
            pixels = value & np.uint32((1 << width) - 1)
            if column < 0:
                counts[INCOMPLETE] += np.int64(count_ones(pixels))
                continue
            while pixels:
                t[n], x[n], y[n], p[n] = time, column + np.int64(lowest_one(pixels)), row, polarity
                n += np.uint64(1)
                pixels &= pixels - np.uint32(1)
            column = min(column + width, np.int64(_MAX_COLUMN))
        elif kind == _TIME_HIGH:
            high = np.int64(value) << 12
            if high != raw:  # repeated for safety; a change sets the low part to 0, and the new one follows
                if high < raw or turns:
                    turns = _count_turns(turns, raw, high, 24, max_back, counts)
                raw, base = high, high + (turns << 24)
                time = base
        else:
            _count_other(kind, _KNOWN_3, counts)


@inlined
def _count_turns(turns, before, time, bits, max_back, counts):  # type: ignore[no-untyped-def]
    """Returns how often the clock has overflowed after a step from one time, µs, to another.

    The rule is that of :func:`~plifctl.data.formats.clocks.continue_overflows`.
    """
    step, half = time - before, np.int64(1) << (bits - 1)
    if step < -half:
        turns += 1
        counts[OVERFLOWS] = max(counts[OVERFLOWS], turns)
    elif step > max(half, (np.int64(1) << bits) - max_back) and turns > 0:
        turns -= 1
    return turns


@inlined
def _count_other(kind, known, counts):  # type: ignore[no-untyped-def]
    """Counts a word that is neither an event nor a part of the state."""
    counts[TRIGGERS] += np.int64(kind == _TRIGGER)
    counts[UNKNOWN] += np.int64((known >> np.int64(kind)) & 1 == 0)


@inlined
def _finish(n, t, y, counts):  # type: ignore[no-untyped-def]
    """Returns the result of a loop that has written ``n`` events: the incomplete ones are the first ones."""
    end, first = np.int64(n), np.int64(0)
    while first < end and (t[first] < 0 or y[first] < 0):
        first += 1
    counts[INCOMPLETE] += first
    counts[ASCENDING] = is_ascending(t[first:end])
    return first, end, counts
