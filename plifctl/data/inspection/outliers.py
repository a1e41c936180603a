"""Recordings that differ from the others: empty, far longer or shorter, of another sensor."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from plifctl.data.inspection.facts import RecordingFacts

_FACTOR = 100
"""A recording this many times as long as the median, or as short, is probably in another unit: these are 1000 apart."""

_FEW = 3
"""A median of fewer recordings means nothing."""


class Outlier(NamedTuple):
    """A recording that differs from the others.

    Attributes:
        name: Its name.
        message: How it differs.
        hint: What to do about it.
    """

    name: str
    message: str
    hint: str = ""


def find_outliers(recordings: Sequence[RecordingFacts]) -> Iterator[Outlier]:
    """Yields the recordings without events, those of another duration, and those of another sensor.

    Args:
        recordings: The recordings that can be read, decoded or not.
    """
    durations = [one.duration_us for one in recordings if one.duration_us]
    median = statistics.median(durations) if len(durations) >= _FEW else None
    stated = Counter(one.summary.sensor for one in recordings if one.summary.sensor is not None)
    usual = stated.most_common(1)[0][0] if stated else None
    for one in recordings:
        if one.n_events == 0:
            yield Outlier(one.name, "no events", "record it again, or move it out of the folder")
        if median is not None and one.duration_us is not None and one.n_events:
            yield from _about_duration(one.name, one.duration_us, median)
        if usual is not None and one.summary.sensor not in (None, usual):
            width, height = one.summary.sensor or usual
            yield Outlier(
                one.name,
                f"of a sensor of {width} × {height}, most are of {usual[0]} × {usual[1]}",
                "recordings of one data set have one size: crop or scale them, or make two data sets",
            )


def _about_duration(name: str, duration_us: int, median: float) -> Iterator[Outlier]:
    hint = "if its times have another unit, save it in that of the others"
    if duration_us > _FACTOR * median:
        yield Outlier(name, f"{duration_us / 1e6:,.6g} s, {duration_us / median:,.0f} times the median", hint)
    elif duration_us * _FACTOR < median:
        share = f"1/{median / duration_us:,.0f} of the median" if duration_us else "all events have one time"
        yield Outlier(name, f"{duration_us / 1e6:,.6g} s, {share}", hint)
