"""Samples as records of a journal: framed, counted and compressed, in threads."""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Iterator, Sequence

import numpy as np

from plifctl.cache.chunks import encode
from plifctl.cache.journal import Record
from plifctl.config.choices import Compression
from plifctl.config.dataset import MAX_T, Framing
from plifctl.data.datasets.base import EventDataset, RecordingFile
from plifctl.data.events import Events
from plifctl.data.framer import count_filled, count_frames, keep_inside, select_events, select_inside, slice_sample
from plifctl.data.remarks import Remark, remarks_on_duration, remarks_on_share
from plifctl.data.thread_map import ordered_map
from plifctl.errors import RawDataError

_log = logging.getLogger(__name__)


class SampleFramer:
    """Turns samples into records. Its methods may be called in several threads at once.

    Args:
        framing: How events are framed.
        T: Number of frames of each sample; None for images.
        dtype: Type of the counts.
        compression: Compression of the samples.
    """

    def __init__(
        self, framing: Framing, T: int | None, dtype: type[np.unsignedinteger], compression: Compression
    ) -> None:
        self.dtype = dtype
        self._framing, self._T, self._compression = framing, T, compression
        self._local = threading.local()

    def frame(
        self, sample_id: str, source_digest: bytes, read: Events, n_raw: int, remarks: Sequence[Remark] = ()
    ) -> Record:
        """Returns the record of an event sample.

        Args:
            sample_id: Id of the sample.
            source_digest: Digest of the raw data that it is framed from.
            read: Its events as decoded.
            n_raw: Number of its events in the file.
            remarks: Remarks on its recording.

        Raises:
            CountOverflow: A count does not fit the type.
            DamagedFileError: An event lies outside the sensor, and such events are refused.
        """
        inside = keep_inside(self._framing, read)
        events = select_inside(self._framing, inside, sample_id)
        if not hasattr(self._local, "buffer"):
            self._local.buffer = np.empty((self._T, *self._framing.shape), self.dtype)
        frames = self._local.buffer
        count_frames(self._framing, events, self._T, dtype=self.dtype, out=frames, where=sample_id)
        record = self._record(sample_id, source_digest, frames, (n_raw, *self._count(events)))
        return record._replace(remarks=(*remarks, *_remarks_on(inside, n_raw)))

    def _count(self, events: Events) -> tuple[int, int, int, int]:
        """Returns the numbers of events and of frames without padding, the duration in µs, and what the frames sum to.

        The sum is that of the slices, not of the frames, so that it can be compared with them.
        """
        frames = self._framing.event_frames
        assert self._T is not None
        t = events["t"]
        n_frames = self._T
        if frames.has_duration:
            n_frames = min(self._T, count_filled(self._framing, events))
        n_counted = slice_sample(self._framing, events, self._T).total if frames.overlap_us else len(t)
        return len(t), n_frames, int(t[-1] - t[0]) if len(t) else 0, n_counted

    def pack_image(self, sample_id: str, source_digest: bytes, image: np.ndarray) -> Record:
        """Returns the record of an image, uint8 ``[C, H, W]``."""
        return self._record(sample_id, source_digest, np.ascontiguousarray(image), (0,) * 5)

    def _record(
        self, sample_id: str, source_digest: bytes, sample: np.ndarray, counts: tuple[int, int, int, int, int]
    ) -> Record:
        digest = hashlib.sha256(sample.data).digest()
        return Record(sample_id, source_digest, *counts, digest, encode(sample, self._compression))


def _remarks_on(events: Events, n_raw: int) -> Iterator[Remark]:
    """Yields what is implausible about a sample: the share of its events that was left out, or its duration."""
    yield from remarks_on_share(len(events), n_raw)
    duration = int(events["t"][-1] - events["t"][0]) if len(events) else 0
    yield from remarks_on_duration(len(events), duration)


def slices_of_longest_sample(raw: EventDataset, workers: int) -> int:
    """Returns how many slices of the framing's fixed duration the longest sample fills; decodes all recordings.

    Raises:
        RawDataError: There are more than :data:`~plifctl.config.dataset.MAX_T`.
    """
    framing = raw.framing

    def slices(recording: RecordingFile) -> list[tuple[int, int]]:
        samples = raw.decode(recording.name, recording.load())
        selected = ((select_events(framing, one.events, raw.samples[one.row].id), one.row) for one in samples)
        return [(count_filled(framing, events), row) for events, row in selected]

    _log.info("looking for the longest of %d samples", len(raw.samples))
    longest, row = max(max(found) for found in ordered_map(slices, raw.recordings(), workers))
    if longest > MAX_T:
        us = framing.event_frames.duration_us
        raise RawDataError(
            f"{raw.samples[row].id}: {longest} slices of {us} µs, expected at most {MAX_T}",
            hint="choose a longer frames.duration_us, or the first slices only: frames.slicing=duration-first\n"
            "if the recording is not that long: state the unit of its times in the data set's YAML, e.g. time_unit: us",
        )
    return longest


def warm_up() -> None:
    """Loads the compiled loops, or compiles them, so that the first sample does not have to wait."""
    from plifctl.cache.fletcher32 import fletcher32
    from plifctl.data.loops import warm_up as warm_up_events

    warm_up_events()
    fletcher32(np.empty(0, np.uint8))
