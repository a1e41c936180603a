"""Clocks of recordings: counters that overflow are continued, recordings whose clock starts again are refused.

Events may be stored a little out of order, and are sorted. Where a time jumps back further, sorting would mix the
events before and after the jump. If the format says what happened (an overflow of its counter, a
reset event), the times are continued; else the time between the two parts is unknown, and the file is refused.
"""

from __future__ import annotations

import numpy as np

from plifctl.data.events import Decoded, Events
from plifctl.data.remarks import Remark
from plifctl.errors import DamagedFileError

MAX_STEP_BACK_US = 100_000
"""Largest step back in time that is taken for events stored out of order, µs; cameras buffer events for about 10 ms."""


def continue_overflows(t: np.ndarray, bits: int) -> tuple[np.ndarray, tuple[Remark, ...]]:
    """Returns the times of a counter of some bits, continued over its overflows, and a remark if there are any.

    A step back by more than half of the counter's range is an overflow. After one, a step forward by almost the
    whole range is an event from before it that was stored late.

    Args:
        t: Times in the order of the file, int64 ``[N]``, µs.
        bits: Width of the counter.

    Example:
        >>> continue_overflows(np.array([6, 7, 1, 7, 2]), 3)[0].tolist()
        [6, 7, 9, 7, 10]
    """
    steps, half = np.diff(t), 1 << (bits - 1)
    late = max(half, (1 << bits) - MAX_STEP_BACK_US)
    turns, turn = np.zeros(len(t), np.int64), 0
    for index in np.flatnonzero((steps < -half) | (steps > late)).tolist():
        change = 1 if steps[index] < 0 else -1 if turn else 0
        turn += change
        turns[index + 1] = change
    turns = np.cumsum(turns)
    if not turns.any():
        return t, ()
    return t + (turns << bits), (Remark("overflow", int(turns.max())),)


def sort_by_time(
    events: Events,
    where: str,
    *,
    dropped: int = 0,
    ascending: bool | None = None,
    clock_bits: int | None = None,
    remarks: tuple[Remark, ...] = (),
) -> Decoded:
    """Returns a decoder's result, its events sorted by t (stable), with a remark on those that go back in time.

    Args:
        events: The events in the order of the file.
        where: Name of the file, for messages.
        dropped: Number of events of the file that were left out.
        ascending: Whether the times ascend, where the decoder knows it.
        clock_bits: Width of the counter whose times are continued over its overflows; None: they are complete.
        remarks: Remarks of the decoder.

    Raises:
        DamagedFileError: A time is more than :data:`MAX_STEP_BACK_US` earlier than the one before.
    """
    if ascending:
        return Decoded(events, dropped, remarks)
    t, x, y, p = events.columns
    if clock_bits is not None:
        t, overflows = continue_overflows(t, clock_bits)
        events, remarks = Events(t, x, y, p), (*overflows, *remarks)
    steps = np.diff(t)
    backward = int((steps < 0).sum())
    if not backward:
        return Decoded(events, dropped, remarks)
    largest = int(-steps.min())
    if largest > MAX_STEP_BACK_US:
        at = int(steps.argmin())
        raise DamagedFileError(
            f"{where}: event {at + 1} of {len(t)} is at {t[at + 1]} µs, the one before at {t[at]} µs: the clock "
            f"started again, or recordings were joined; expected steps back of at most {MAX_STEP_BACK_US} µs",
            hint="split the file where the time jumps: each part is a recording of its own\n"
            "if the events are only stored in another order: sort them by time and save them again",
        )
    remarks = (*remarks, Remark("backward", backward, largest))
    return Decoded(events[np.argsort(t, kind="stable")], dropped, remarks)
