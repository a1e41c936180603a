"""Facts of recordings: what files state about themselves, what their events show, and what the user should know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from plifctl.config.dataset import ReadingSpec
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.columns import AS_USUAL
from plifctl.data.formats.headers import Size
from plifctl.data.formats.summary import NOTHING, Summary
from plifctl.data.frames import drop_outside
from plifctl.data.remarks import Remark, RemarkKind, remarks_on_duration

Topic = (
    Literal["unreadable", "no-header", "ending", "empty", "reading"]
    | Literal["sensor", "outside", "invalid", "all-invalid", "orientation", "polarity"]
    | RemarkKind
)
"""What a finding is about."""


FindingKind = Literal["problem", "assumed", "note"]


class Finding(NamedTuple):
    """Something about a recording or a folder that the user should know.

    Attributes:
        kind: ``problem``: something to decide or to repair; ``assumed``: what the files do not say; ``note``: what the
            decoder did.
        topic: What it is about, in one word; findings of several recordings with one topic are shown as one.
        message: What it is.
        hint: What to do about it; empty if nothing has to be done.
    """

    kind: FindingKind
    topic: Topic
    message: str
    hint: str = ""


@dataclass(frozen=True)
class EventFacts:
    """Facts that need every event.

    Attributes:
        n_events: Number of events.
        n_dropped: Number of events or words of the file that the decoder left out.
        first_us: Time of the first event, µs; None without events.
        last_us: Time of the last event, µs.
        n_on: Number of on events.
        x: Smallest and largest x; None without events.
        y: Smallest and largest y.
        n_outside: Number of events outside the sensor that the file states.
        n_duplicates: Number of events that equal an earlier one in time, place and polarity.
        remarks: Remarks of the decoder, and on the duration.
    """

    n_events: int
    n_dropped: int
    first_us: int | None
    last_us: int | None
    n_on: int
    x: tuple[int, int] | None
    y: tuple[int, int] | None
    n_outside: int
    n_duplicates: int
    remarks: tuple[Remark, ...]

    @classmethod
    def of(cls, decoded: Decoded, sensor: Size | None) -> EventFacts:
        """Returns the facts of decoded events.

        Args:
            decoded: Result of a decoder.
            sensor: Width and height that the file states.
        """
        events, n = decoded.events, len(decoded.events)
        t, x, y, p = events.columns
        first, last = (int(t[0]), int(t[-1])) if n else (None, None)
        inside = n if sensor is None else len(drop_outside(events, 2, sensor[1], sensor[0]))
        duration = last - first if first is not None and last is not None else 0
        return cls(
            n_events=n,
            n_dropped=decoded.dropped,
            first_us=first,
            last_us=last,
            n_on=int(np.count_nonzero(p)),
            x=(int(x.min()), int(x.max())) if n else None,
            y=(int(y.min()), int(y.max())) if n else None,
            n_outside=n - inside,
            n_duplicates=_count_duplicates(events),
            remarks=(*decoded.remarks, *remarks_on_duration(n, duration)),
        )

    @property
    def seen(self) -> Size | None:
        """The smallest width and height that contain all events; None without events."""
        return (self.x[1] + 1, self.y[1] + 1) if self.x is not None and self.y is not None else None


def _count_duplicates(events: Events) -> int:
    """Returns how many events equal an earlier one; only events of the same time, which are neighbours, can."""
    t, x, y, p = events.columns
    same = t[1:] == t[:-1]
    if not same.any():
        return 0
    tied = np.zeros(len(t), bool)
    tied[1:] = same
    tied[:-1] |= same
    place = x[tied].astype(np.int64) << 17 | y[tied].astype(np.int64) << 1 | p[tied]
    order = np.lexsort((place, t[tied]))
    times, places = t[tied][order], place[order]
    return int(np.count_nonzero((times[1:] == times[:-1]) & (places[1:] == places[:-1])))


RecordingKind = Literal["recording", "unread", "unreadable", "other"]
"""A recording; a file that has to be decoded to tell; one that should be a recording but cannot be read; another."""


@dataclass(frozen=True)
class RecordingFacts:
    """Facts of one file.

    Attributes:
        name: Its path in the folder or archive.
        nbytes: Its size.
        kind: Whether it is a recording.
        format: Its format by its header, or in words what it looks like; empty if it was not read.
        summary: What it states about itself.
        events: Facts of its events; None if it was not decoded.
        reading: What it does not say about itself, as the user states it, or guessed.
        findings: What the user should know about it, beginning with the error that its decoder raised.
    """

    name: str
    nbytes: int
    kind: RecordingKind
    format: str
    summary: Summary = NOTHING
    events: EventFacts | None = None
    reading: ReadingSpec = AS_USUAL
    findings: tuple[Finding, ...] = ()

    @property
    def n_events(self) -> int | None:
        """Number of events: counted, or stated by the file."""
        return self.events.n_events if self.events is not None else self.summary.n_events

    @property
    def span_us(self) -> tuple[int, int] | None:
        """Times of the first and the last event, µs; None if they are not known, or without events."""
        facts = self.events or self.summary
        return (facts.first_us, facts.last_us) if facts.first_us is not None and facts.last_us is not None else None

    @property
    def duration_us(self) -> int | None:
        """Time from the first event to the last, µs; None if it is not known, or without events."""
        return self.span_us[1] - self.span_us[0] if self.span_us is not None else None

    @property
    def seen(self) -> Size | None:
        """The smallest width and height that contain all events; None if they were not decoded, or without events."""
        return self.events.seen if self.events is not None else None

    @property
    def sensor(self) -> Size | None:
        """Width and height of the sensor, as the file states or its events show; None if neither is known."""
        return self.summary.sensor or self.seen
