"""From one recording to its frames, as a framing defines: decode, select, transform, count."""

from __future__ import annotations

import numpy as np

from plifctl.config.dataset import Framing, ReadingSpec
from plifctl.config.transforms import Shape
from plifctl.data.events import Decoded, Events
from plifctl.data.formats.detect import decode_any
from plifctl.data.frames import Slices, count_slices, drop_outside, integrate_frames, slice_events
from plifctl.data.transforms import apply_transforms


def decode_recording(framing: Framing, data: bytes, where: str) -> Decoded:
    """Decodes a recording of any known format, with the framing's choices where the format has some.

    Args:
        framing: The framing of an event data set.
        data: The file.
        where: Its name, for messages.

    Raises:
        DamagedFileError: The file cannot be decoded.
        RawDataError: All its events are marked invalid.
    """
    frames = framing.event_frames
    decoded = decode_any(
        data,
        where=where,
        axes=frames.axes,
        invalid=frames.invalid_events or "drop",
        outside=frames.outside_events,
        reading=framing.dataset,
    )
    return decoded._replace(events=orient_events(decoded.events, framing.dataset, framing.dataset.shape))


def orient_events(events: Events, reading: ReadingSpec, shape: Shape) -> Events:
    """Returns the events with x and y exchanged, then mirrored, as the data set says.

    Events outside the sensor stay outside.

    Args:
        events: Events as the file has them.
        reading: What to do.
        shape: ``(P, H, W)``, as events are afterwards.
    """
    t, x, y, p = events.columns
    _, height, width = shape
    if reading.transpose:
        x, y = y, x
    if reading.flip_x:
        x = (width - 1 - x).astype(x.dtype)
    if reading.flip_y:
        y = (height - 1 - y).astype(y.dtype)
    return Events(t, x, y, p)


def keep_inside(framing: Framing, events: Events) -> Events:
    """Returns the events on the sensor if the framing drops those outside, else all events."""
    drops = framing.event_frames.outside_events == "drop"
    return drop_outside(events, *framing.dataset.shape) if drops else events


def select_events(framing: Framing, events: Events, sample_id: str) -> Events:
    """Returns the events that are framed: inside the sensor if others are dropped, transformed, in one of the slices.

    Args:
        framing: The framing of an event data set, with its T if it needs one.
        events: Events of one sample, sorted by t.
        sample_id: Seeds the random transforms, together with the framing's seed.
    """
    return select_inside(framing, keep_inside(framing, events), sample_id)


def select_inside(framing: Framing, events: Events, sample_id: str) -> Events:
    """Returns the events that :func:`select_events` returns, of those that :func:`keep_inside` has returned."""
    frames, sensor = framing.event_frames, framing.dataset.shape
    if frames.transforms:
        transformed = apply_transforms(
            events.structured(), frames.transforms, shape=sensor, seed=frames.transform_seed, sample_id=sample_id
        )
        events = Events.of(transformed)
    if frames.slicing == "duration-first":
        assert framing.T is not None
        events = events[: slice_sample(framing, events, framing.T).stops[-1]]
    return events


def slice_sample(framing: Framing, events: Events, T: int) -> Slices:
    """Returns the T slices of the events of a sample."""
    frames = framing.event_frames
    return slice_events(events["t"], T, frames.slicing, duration_us=frames.duration_us, overlap_us=frames.overlap_us)


def count_filled(framing: Framing, events: Events) -> int:
    """Returns how many slices of the framing's fixed duration the events of a sample fill, at least 1.

    See :func:`~plifctl.data.frames.count_slices`.
    """
    frames = framing.event_frames
    assert frames.duration_us is not None
    return count_slices(events["t"], frames.duration_us, frames.overlap_us)


def count_frames(
    framing: Framing,
    events: Events,
    T: int | None = None,
    *,
    dtype: type[np.unsignedinteger] = np.uint8,
    out: np.ndarray | None = None,
    where: str = "events",
) -> np.ndarray:
    """Counts the selected events of a sample into frames.

    Args:
        framing: The framing of an event data set.
        events: Events as :func:`select_events` returns them.
        T: Number of frames; None: the framing's, or with slices of a fixed duration as many as the events fill.
        dtype: Type of the counts.
        out: Array that the frames are written to; None: a new one.
        where: Name of the sample, for messages.

    Returns:
        Frames ``[T, P, H, W]``.

    Raises:
        CountOverflow: A count does not fit ``dtype``.
        DamagedFileError: An event lies outside the sensor, and such events are refused.
    """
    frames = framing.event_frames
    polarities, height, width = framing.shape
    return integrate_frames(
        events,
        T or framing.T or count_filled(framing, events),
        frames.slicing,
        height,
        width,
        polarities=polarities,
        duration_us=frames.duration_us,
        overlap_us=frames.overlap_us,
        dtype=dtype,
        out=out,
        where=where,
    )
