"""Label windows of a recording compared with its events: cut recordings, labels of another unit or clock."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from plifctl.config.choices import TimeUnit
from plifctl.data.events import US_POWER

Window = tuple[int, int]
"""Events with start ≤ t < end, µs."""

SHORTEST_US = 10_000
"""Windows that are all shorter than this may be in ms; gestures last seconds."""

_UNITS: tuple[TimeUnit, ...] = ("ms", "s", "us", "ns")
"""Units in which labels may be, the likeliest first."""


@dataclass(frozen=True)
class EventSpan:
    """Times of a recording's events, µs.

    Attributes:
        whole: Times of its first and last event; None without events.
        inside: Times of the first and last event in each window; None for a window without events.
    """

    whole: Window | None
    inside: tuple[Window | None, ...]

    @classmethod
    def of(cls, t: np.ndarray, cuts: Sequence[Sequence[int]]) -> EventSpan:
        """Returns the span of events.

        Args:
            t: Times of all events, int64 ``[N]``, ascending.
            cuts: First event of each window, and the event after its last.
        """

        def ends(first: int, last: int) -> Window | None:
            return (int(t[first]), int(t[last - 1])) if first < last else None

        return cls(ends(0, len(t)), tuple(ends(first, last) for first, last in cuts))


def describe_windows(recording: str, windows: Sequence[Window], span: EventSpan, stated: TimeUnit = "us") -> str | None:
    """Describes what is wrong with the windows of a recording; None if its events fill them.

    Args:
        recording: Its name.
        windows: At least one.
        span: The times of its events.
        stated: Unit that the labels were read in.
    """
    if span.whole is None:
        return f"{recording}: contains no events"
    first, last = span.whole
    low, high = min(start for start, _ in windows), max(end for _, end in windows)
    empty = [index for index, inside in enumerate(span.inside) if inside is None]
    where = f"its windows lie from {low:,} to {high:,}, its events from {first:,} to {last:,} µs"
    nothing = [f"{_named(empty)} contain{'s' if len(empty) == 1 else ''} no events"] if empty else []
    if (unit := _other_unit(windows, first, last, stated)) is not None:
        units = f"{unit} instead of {stated}".replace("us", "µs")
        return "; ".join([f"{recording}: the labels look like {units}: {where}", *nothing])
    if high <= first or low > last:
        cut = ", or the recording is cut short before its first window" if last < low < 10 * last else ""
        return "; ".join(
            [f"{recording}: the labels look like those of another clock or recording{cut}: {where}", *nothing]
        )
    problems = list(_missing_ends(windows, span, empty))
    quiet = [index for index in empty if windows[index][0] <= last and windows[index][1] > first]
    problems += [f"no events in {_named(quiet)} (its events lie from {first:,} to {last:,} µs)"] if quiet else []
    return f"{recording}: {'; '.join(problems)}" if problems else None


def _missing_ends(windows: Sequence[Window], span: EventSpan, empty: Sequence[int]) -> Iterator[str]:
    """Describes a recording that ends, or begins, inside its windows."""
    assert span.whole is not None
    first, last = span.whole
    after = [index for index in empty if windows[index][0] > last]
    ended = [i for i, (start, end) in enumerate(windows) if start <= last < end - _tolerance(i, windows, span)]
    if after or ended:
        parts = [f"{_named(after)} after it contain{'s' if len(after) == 1 else ''} no events"] if after else []
        parts += [f"{_named(ended)} only a part"] if ended else []
        end = max(end for _, end in windows)
        yield f"cut short: its last event is at {last:,} µs, its last window ends at {end:,} µs; {', '.join(parts)}"
    before = [index for index in empty if windows[index][1] <= first]
    begun = [i for i, (start, end) in enumerate(windows) if start + _tolerance(i, windows, span) < first < end]
    if before or begun:
        parts = [f"{_named(before)} before it contain{'s' if len(before) == 1 else ''} no events"] if before else []
        parts += [f"{_named(begun)} only a part"] if begun else []
        begin = min(start for start, _ in windows)
        yield (
            f"begins late: its first event is at {first:,} µs, its first window begins at {begin:,} µs; "
            f"{', '.join(parts)}"
        )


def _tolerance(index: int, windows: Sequence[Window], span: EventSpan) -> float:
    """Returns how far from an end of a window its events may stay, µs: several times as far as in the other windows."""
    start, end = windows[index]
    gaps = [
        float(gap)
        for other, (window, inside) in enumerate(zip(windows, span.inside, strict=True))
        if other != index and inside is not None
        for gap in (inside[0] - window[0], window[1] - inside[1])
    ]
    return max(4 * statistics.median(gaps), 0.01 * (end - start)) if gaps else 0.1 * (end - start)


def _other_unit(windows: Sequence[Window], first: int, last: int, stated: TimeUnit) -> TimeUnit | None:
    """Returns the unit in which the windows would lie within the recording, if it is not the stated one."""
    low, high = min(start for start, _ in windows), max(end for _, end in windows)
    longest = max(end - start for start, end in windows)
    if first <= low and high <= last and longest >= SHORTEST_US:
        return None
    for unit in _UNITS:
        if unit == stated:
            continue
        factor = 10.0 ** (US_POWER[unit] - US_POWER[stated])
        margin = factor * longest  # of one window: the recording may be cut as well
        # in the right unit the labels reach well into the recording
        within = low * factor >= first - margin and last / 4 < high * factor <= last + margin
        beyond = low > last or high > 100 * last  # a recording that is cut short keeps more than 1 %
        if within and (longest < SHORTEST_US if factor > 1 else beyond and longest * factor >= SHORTEST_US):
            return unit
    return None


def _named(indices: Sequence[int]) -> str:
    """Returns window numbers as in the ids of samples, neighbours joined.

    Example:
        >>> _named([0, 2, 3, 4])
        'windows 00, 02 to 04'
    """
    runs: list[list[int]] = []
    for index in indices:
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    texts = [f"{run[0]:02d}" if len(run) == 1 else f"{run[0]:02d} to {run[-1]:02d}" for run in runs]
    return f"window{'s' if len(indices) > 1 else ''} {', '.join(texts)}"
