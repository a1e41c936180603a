"""Compiled loops over the words of Prophesee's EVT formats. Imported only when such a file is decoded.

Each loop keeps the state of the stream: the time, and in EVT 3.0 also row and column. An event whose state was not sent
yet, at the beginning of a stream, is incomplete: it is counted and not written.

Arguments: the words; ``max_back``, the largest step back in time of events stored out of order, µs; the columns t, x, y
and p, with room for as many events as :func:`count_evt21` and :func:`count_evt3` return, in EVT 2.0 one for each word.
Each loop returns the number of events written, and ``counts``, int64 ``[5]``: overflows of the clock, incomplete
events, triggers, words of an unknown type, and 1 if the times ascend.
"""

from __future__ import annotations

import numpy as np

from plifctl.data.loops import is_ascending
from plifctl.jit import compiled, count_ones, inlined, lowest_one

OVERFLOWS, INCOMPLETE, TRIGGERS, UNKNOWN, ASCENDING = range(5)
"""Places in ``counts``."""

_TIME_HIGH, _TRIGGER = 8, 10
_KNOWN_2 = 1 << _TRIGGER | 1 << 14 | 1 << 15
_KNOWN_3 = _KNOWN_2 | 1 << 7
"""Types of words besides events and times, as bits; those that are no triggers hold statistics and vendor's data."""

_NO_TIME = -1
"""Before the first word with the high part of the time; stays negative with a low part."""

_MAX_COLUMN = 4096
"""Where the column stops after too many vectors in a row: outside every sensor, whose columns have 11 bits."""


@compiled()
def decode_evt2(words, max_back, t, x, y, p):  # type: ignore[no-untyped-def]
    """EVT 2.0: decodes words, uint32 ``[n]``. Every word is written as an event, and overwritten if it is none."""
    n, turns, counts = np.int64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base = np.int64(_NO_TIME), np.int64(_NO_TIME) << 6
    for i in range(len(words)):
        word = words[i]
        kind = word >> np.uint32(28)
        t[n] = base | np.int64((word >> np.uint32(22)) & np.uint32(63))
        x[n], y[n] = (word >> np.uint32(11)) & np.uint32(2047), word & np.uint32(2047)
        p[n] = kind
        n += np.int64((kind < 2) & (base >= 0))
        if kind == _TIME_HIGH:
            time = np.int64(word & np.uint32(0x0FFFFFFF)) << 6
            if time < raw or turns:
                turns = _count_turns(turns, raw, time, 34, max_back, counts)
            raw, base = time, time + (turns << 34)
        elif kind > 1:
            _count_other(kind, _KNOWN_2, counts)
        elif base < 0:
            counts[INCOMPLETE] += 1
    counts[ASCENDING] = is_ascending(t[:n])
    return n, counts


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
    n, turns, counts = np.int64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base = np.int64(_NO_TIME), np.int64(_NO_TIME) << 6
    for i in range(len(words) // 2):
        word, pixels = words[2 * i + head], words[2 * i + 1 - head]
        kind = word >> np.uint32(28)
        if kind < 2:
            if base < 0:
                counts[INCOMPLETE] += np.int64(count_ones(pixels))
                continue
            time = base | np.int64((word >> np.uint32(22)) & np.uint32(63))
            column, row = (word >> np.uint32(11)) & np.uint32(2047), word & np.uint32(2047)
            while pixels:
                t[n], x[n], y[n], p[n] = time, column + lowest_one(pixels), row, kind
                n += 1
                pixels &= pixels - np.uint32(1)
        elif kind == _TIME_HIGH:
            time = np.int64(word & np.uint32(0x0FFFFFFF)) << 6
            if time < raw or turns:
                turns = _count_turns(turns, raw, time, 34, max_back, counts)
            raw, base = time, time + (turns << 34)
        else:
            _count_other(kind, _KNOWN_2, counts)
    counts[ASCENDING] = is_ascending(t[:n])
    return n, counts


@compiled()
def count_evt3(words):  # type: ignore[no-untyped-def]
    """Returns the number of events of words of EVT 3.0, uint16; the loop has no branches, so that it is vectorised."""
    n = np.int64(0)
    for i in range(len(words)):
        kind = words[i] >> np.uint16(12)
        bits = np.uint16(0xFFF) if kind == 4 else np.uint16(0)
        bits = np.uint16(0xFF) if kind == 5 else bits
        n += count_ones(np.uint16(words[i] & bits)) + np.uint16(kind == 2)
    return n


@compiled()
def decode_evt3(words, max_back, t, x, y, p):  # type: ignore[no-untyped-def]
    """EVT 3.0: decodes words, uint16 ``[n]``, each of which sets a part of the state, or is an event or up to 12."""
    n, turns, counts = np.int64(0), np.int64(0), np.zeros(5, np.int64)
    raw, base, time = np.int64(_NO_TIME), np.int64(_NO_TIME) << 12, np.int64(_NO_TIME)
    row, column, polarity = np.int64(-1), np.int64(-1), np.int64(0)
    for i in range(len(words)):
        word = np.uint32(words[i])
        kind, value = word >> np.uint32(12), np.int64(word & np.uint32(0xFFF))
        if kind == 2:  # an event
            if (time | row) >= 0:
                t[n], x[n], y[n], p[n] = time, value & 2047, row, value >> 11
                n += 1
            else:
                counts[INCOMPLETE] += 1
        elif kind == 6:  # the low part of the time
            time = base + value
        elif kind == 0:
            row = value & 2047
        elif kind == 3:  # column and polarity of the vectors that follow
            column, polarity = value & 2047, value >> 11
        elif kind == 4 or kind == 5:  # a vector of 12 or 8 pixels
            width = np.int64(12) if kind == 4 else np.int64(8)
            pixels = np.uint32(value) & np.uint32((1 << width) - 1)
            if (time | row | column) >= 0:
                while pixels:
                    t[n], x[n], y[n], p[n] = time, column + np.int64(lowest_one(pixels)), row, polarity
                    n += 1
                    pixels &= pixels - np.uint32(1)
            else:
                counts[INCOMPLETE] += np.int64(count_ones(pixels))
            if column >= 0:
                column = min(column + width, np.int64(_MAX_COLUMN))
        elif kind == _TIME_HIGH:
            high = value << 12
            if high != raw:  # repeated for safety; a change sets the low part to 0, and the new one follows
                if high < raw or turns:
                    turns = _count_turns(turns, raw, high, 24, max_back, counts)
                raw, base = high, high + (turns << 24)
                time = base
        else:
            _count_other(kind, _KNOWN_3, counts)
    counts[ASCENDING] = is_ascending(t[:n])
    return n, counts


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
