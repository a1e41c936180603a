"""Data sets whose samples are labelled windows of longer recordings."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

from plifctl.config.choices import TimeUnit
from plifctl.data.datasets.base import DecodedSample, EventCounts, EventDataset, Sample
from plifctl.data.datasets.label_windows import SHORTEST_US, EventSpan, describe_windows
from plifctl.data.events import LATEST_US, Decoded, Events
from plifctl.errors import list_names

_MAX_DESCRIBED = 10
"""Recordings whose problem is described in a note of its own."""


class LabelWindow(NamedTuple):
    """A sample and its window in a recording: events with start ≤ t < end, µs.

    Attributes:
        sample: The sample.
        start: Its first time; None: from the beginning of the recording.
        end: The time after it; None: to the end of the recording.
    """

    sample: Sample
    start: int | None
    end: int | None

    @property
    def is_whole(self) -> bool:
        """Whether it is the whole recording."""
        return self.start is None and self.end is None

    @property
    def bounds(self) -> tuple[int, int]:
        """Times between which all events lie, of an open window those of any recording."""
        return -LATEST_US if self.start is None else self.start, LATEST_US if self.end is None else self.end

    def within(self, span: EventSpan) -> tuple[int, int]:
        """Returns start and end, of an open window those of the events."""
        first, last = span.whole or (0, 0)
        return first if self.start is None else self.start, last + 1 if self.end is None else self.end


class WindowedDataset(EventDataset):
    """Recordings, each with one or more windows, which may overlap."""

    @property
    def label_unit(self) -> TimeUnit:
        """Unit of the windows in the raw data, for messages."""
        return "us"

    @property
    @abstractmethod
    def _windows(self) -> Mapping[str, Sequence[LabelWindow]]:
        """The windows of each recording."""

    @property
    def _used_recordings(self) -> Collection[str]:
        """The recordings whose windows are samples."""
        return self._windows.keys()

    @abstractmethod
    def _decode(self, data: bytes, where: str) -> Decoded:
        """Decodes a recording."""

    @abstractmethod
    def _decode_all(self, data: bytes, where: str) -> Events:
        """Returns the events of a recording with those that the framing leaves out because they are marked invalid."""

    def _samples(self) -> list[Sample]:
        self._spans: dict[str, EventSpan] = {}  # the times of the events of each recording that was decoded
        return [window.sample for recording in self._used_recordings for window in self._windows[recording]]

    def source_digest(self, row: int) -> bytes:
        return self._source_digests[self.samples[row].id]

    @cached_property
    def _source_digests(self) -> dict[str, bytes]:
        members = self.surveys["recordings"].members
        return {
            sample.id: hashlib.sha256(f"{members[recording]}\0{start}\0{end}".encode()).digest()
            for recording, windows in self._windows.items()
            for sample, start, end in windows
        }

    def rows_of(self, part: str, member: str) -> Sequence[int]:
        if member not in self._used_recordings:
            return ()
        return [self.rows[window.sample.id] for window in self._windows[member]]

    def decode(self, member: str, data: bytes) -> list[DecodedSample]:
        where, windows = self._path_of(member), self._windows[member]
        events, dropped, remarks = self._decode(data, where)
        bounds = np.array([window.bounds for window in windows], np.int64)
        cuts = np.searchsorted(events["t"], bounds).tolist()
        self._spans[member] = EventSpan.of(events["t"], cuts)
        if all(window.is_whole for window in windows):
            n_raw = [len(events) + dropped] * len(windows)
        else:
            every = self._decode_all(data, where) if dropped else events
            n_raw = np.diff(np.searchsorted(every["t"], bounds))[:, 0].tolist()
        return [
            DecodedSample(self.rows[window.sample.id], events[first:last], count, () if index else remarks)
            for index, (window, (first, last), count) in enumerate(zip(windows, cuts, n_raw, strict=True))
        ]

    def _notes_on_recordings(self, counts: EventCounts) -> Iterator[str]:
        suspects = [member for member in sorted(self._used_recordings) if self._is_suspect(member, counts)]
        if unknown := set(suspects) - set(self._spans):  # framed by a build that was interrupted
            for recording in self.recordings():
                if recording.name in unknown:
                    self.decode(recording.name, recording.load())
        found: dict[str, str] = {}
        for member in suspects:
            span = self._spans[member]
            windows = [window.within(span) for window in self._windows[member]]
            if (problem := describe_windows(member, windows, span, self.label_unit)) is not None:
                found[member] = problem
        yield from list(found.values())[:_MAX_DESCRIBED]
        if more := list(found)[_MAX_DESCRIBED:]:
            yield f"the same kind of problem in {len(more)} more recordings: {list_names(more)}"

    def _is_suspect(self, member: str, counts: EventCounts) -> bool:
        """Returns whether the events of a recording may not fill its windows: cheap, and true of more than those."""
        windows = [window for window in self._windows[member] if not window.is_whole]
        if any(counts.n_events[self.rows[window.sample.id]] == 0 for window in windows):
            return True
        lengths = {sample.id: end - start for sample, start, end in windows if start is not None and end is not None}
        if lengths and max(lengths.values()) < SHORTEST_US:
            return True
        return any(counts.duration_us[self.rows[name]] < 0.99 * length for name, length in lengths.items())
