"""Remarks on recordings that were changed while they were read; summarised as notes of the cache.

A decoder, a data set or the framing makes a :class:`Remark` on one recording. A cache collects those of all its samples
and :func:`describe_remarks` returns one sentence for each kind, which the cache keeps among its notes. The note on
samples without events is :func:`empty_note`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from plifctl.config.choices import SPLIT_WORDS, SPLITS, Split
from plifctl.errors import list_names

RemarkKind = Literal[
    "overflow", "reset", "backward", "sources", "unit", "left-out", "long", "short", "triggers", "images", "unknown"
]
"""What a remark is about; each has a sentence in :data:`_SENTENCES`."""

_SENTENCES: dict[RemarkKind, str] = {
    "overflow": "the clock overflowed {count} time{s}, in {recordings}; the times were continued",
    "reset": "the clock was reset {count} time{s} during {recordings}; the times were continued",
    "unit": "times of .npy matrices were read as ms, since the data set's YAML has no time_unit: {recordings}, up to "
    "{largest} ms long",
    "left-out": "more than a tenth left out: {count} event{s}, up to {largest} % of a recording, in {recordings}; "
    "they lie outside the sensor, are marked invalid, or precede the first time of the recording",
    "long": "too long: {recordings}, up to {largest} s; probably the times are in a smaller unit (time_unit:)",
    "short": "too short: {recordings}, less than 1 ms; probably the times are in a larger unit (time_unit:)",
    "sources": "more than one source of events: only the first with events was read, {count} left out, in "
    "{recordings}; to read another, state its number in the data set's YAML (source:)",
    "triggers": "external triggers were left out: {count}, in {recordings}",
    "images": "words of images and of the motion sensor were left out: {count}, in {recordings}",
    "unknown": "words of an unknown type were left out: {count}, in {recordings}; the file may be damaged",
    "backward": "times go back: {count} event{s} earlier than the one before, by up to {largest} µs, "
    "in {recordings}; they were sorted by time",
}


class Remark(NamedTuple):
    """Something in a recording that the user should know.

    Attributes:
        kind: What it is about.
        occurrences: Number of occurrences in the recording; a note has the sum over all recordings.
        largest: Its largest size, in the unit of the sentence; a note has the maximum over all recordings.
    """

    kind: RemarkKind
    occurrences: int = 1
    largest: int = 0


MAX_LEFT_OUT = 0.1
"""Largest share of a recording's events that may be left out without a note; more suggests another camera."""


def remarks_on_share(kept: int, of: int) -> Iterator[Remark]:
    """Yields a remark if more than a tenth of the events of a sample was left out.

    Args:
        kept: Number of its events that are framed.
        of: Number of events in its recording.
    """
    if (left_out := of - kept) > MAX_LEFT_OUT * of:
        yield Remark("left-out", left_out, 100 * left_out // of)


def describe_remarks(found: Iterable[tuple[str, Remark]]) -> list[str]:
    """Returns one sentence for each kind of remark.

    Args:
        found: The remarks, each with the id of its sample, in any order.

    Example:
        >>> describe_remarks([("b", Remark("backward", 1, 40)), ("a", Remark("backward", 2, 7))])[0][:73]
        'times go back: 3 events earlier than the one before, by up to 40 µs, in b'
    """
    by_kind: dict[RemarkKind, list[tuple[str, Remark]]] = {}
    for sample, remark in found:
        by_kind.setdefault(remark.kind, []).append((sample, remark))
    notes = []
    for kind, sentence in _SENTENCES.items():
        if remarks := by_kind.get(kind):
            name, worst = max(sorted(remarks), key=lambda one: (one[1].largest, one[1].occurrences))
            more = len(remarks) - 1
            others = f" and {more} more recording{'s' if more > 1 else ''}" if more else ""
            count = sum(remark.occurrences for _, remark in remarks)
            notes.append(
                sentence.format(
                    count=count, s="" if count == 1 else "s", largest=worst.largest, recordings=name + others
                )
            )
    return notes


_LONGEST_US = 3_600_000_000
_SHORTEST_US, _MANY_EVENTS = 1000, 10
"""Recordings that last longer, or are shorter though they have many events, are probably read in a wrong unit."""


def remarks_on_duration(n_events: int, duration_us: int) -> Iterator[Remark]:
    """Yields a remark if a recording's duration is implausible."""
    if duration_us > _LONGEST_US:
        yield Remark("long", largest=duration_us // 1_000_000)
    if duration_us < _SHORTEST_US and n_events >= _MANY_EVENTS:
        yield Remark("short")


EMPTY = "empty: "
"""Beginning of the note on samples without events."""


def empty_note(
    sample_ids: Sequence[str], splits: Sequence[Split], n_raw: np.ndarray, n_events: np.ndarray
) -> str | None:
    """Returns the note on the samples without events; None if every sample has some.

    Args:
        sample_ids: Id of each sample.
        splits: Official split of each; of a data set without splits they are not counted.
        n_raw: Number of its events in the file, int64 ``[N]``.
        n_events: Number of events framed, int64 ``[N]``.

    Example:
        >>> empty_note(["a/0", "a/1"], ["train", "test"], np.array([7, 0]), np.array([7, 0]))
        'empty: 1 of 2 samples has a label but no events (0 training, 1 test): a/1'
    """
    rows = np.flatnonzero(n_events == 0).tolist()
    if not len(rows):
        return None
    empty, left_out = [splits[row] for row in rows], int((n_raw[rows] > 0).sum())
    counts = [f"{empty.count(split)} {SPLIT_WORDS[split]}" for split in SPLITS if split in splits]
    counted = f" ({', '.join(counts)})" if len(counts) > 1 else ""
    has = "has" if len(rows) == 1 else "have"
    because = f"; of {left_out} every event was left out (invalid, outside, or by transforms)" if left_out else ""
    return (
        f"{EMPTY}{len(rows)} of {len(n_events)} samples {has} a label but no events"
        f"{counted}{because}: {list_names([sample_ids[row] for row in rows])}"
    )
