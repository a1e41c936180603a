"""Statistics of a cache: events and frames, polarities, classes, pixel values.

A cache is read once, in blocks of samples. Kept in memory are one number for each frame and one for each sample; the
summary itself is numpy's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from plifctl.config.choices import SPLITS, Split

if TYPE_CHECKING:
    from plifctl.cache import Cache

_BLOCK_BYTES = 2**22  # bytes of samples read at a time
_MAX_BINS = 24


@dataclass(frozen=True)
class Distribution:
    """Distribution of integers.

    Attributes:
        n: Number of values; without values, all other fields are 0.
        min: Minimum.
        q1: First quartile; quartiles and median are interpolated linearly (numpy's default).
        median: Median.
        q3: Third quartile.
        max: Maximum.
        mean: Mean.
        edges: Bin edges of a histogram, one more than there are bins.
        counts: Number of values v in each bin, edges[i] ≤ v < edges[i + 1].
    """

    n: int
    min: int
    q1: float
    median: float
    q3: float
    max: int
    mean: float
    edges: tuple[int, ...]
    counts: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> Distribution:
        """Returns the distribution of an integer array; its bins are equally wide and at most 24.

        Example:
            >>> Distribution.of(np.array([3, 1, 1, 7])).counts
            (2, 0, 1, 0, 0, 0, 1)
        """
        if not values.size:
            return cls(0, 0, 0.0, 0.0, 0.0, 0, 0.0, (0, 1), (0,))
        values = values.astype(np.int64)
        low, high = int(values.min()), int(values.max())
        width = (high - low) // _MAX_BINS + 1
        counts = np.bincount((values - low) // width)
        q1, median, q3 = np.quantile(values, [0.25, 0.5, 0.75]).tolist()
        return cls(
            n=values.size,
            min=low,
            q1=q1,
            median=median,
            q3=q3,
            max=high,
            mean=int(values.sum()) / values.size,
            edges=tuple(range(low, low + width * len(counts) + 1, width)),
            counts=tuple(counts.tolist()),
        )


@dataclass(frozen=True)
class EventStatistics:
    """Statistics of event frames; frames that pad a shorter recording are not counted.

    Attributes:
        per_sample: Events in a sample.
        per_slice: Events in a frame.
        duration_us: Time from the first to the last event of a sample, µs.
        framed: Events in frames; one in several overlapping slices counts once.
        left_out: Events read but not framed: invalid, outside the sensor, removed by transforms, or after the slices.
        on_share: Fraction of ON events; None without events, or where polarities were merged.
        slices: Number of frames.
        empty_slices: Number of frames without events.
        empty_samples: Number of samples without events.
        nonzero_share: Fraction of pixels (of each polarity and frame) with at least one event.
        largest_count: Maximum number of events in one pixel of one frame.
    """

    per_sample: Distribution
    per_slice: Distribution
    duration_us: Distribution
    framed: int
    left_out: int
    on_share: float | None
    slices: int
    empty_slices: int
    empty_samples: int
    nonzero_share: float
    largest_count: int


@dataclass(frozen=True)
class Channel:
    """Pixel statistics of one channel of one split; pixel values are scaled to [0, 1].

    Attributes:
        mean: Mean.
        std: Standard deviation over all pixels.
        min: Minimum.
        max: Maximum.
    """

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Statistics:
    """Statistics of a cache.

    Attributes:
        samples: Number of samples in each split: ``train``, ``validation`` if there are any, and ``test``.
        classes: Number of samples of class 0, 1, … in each split.
        events: For event data sets, else None.
        channels: For image data sets, the channels of each split that has samples; else None.
    """

    samples: dict[Split, int]
    classes: dict[Split, tuple[int, ...]]
    events: EventStatistics | None
    channels: dict[str, tuple[Channel, ...]] | None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that have samples; ``train`` if there are none at all."""
        return tuple(split for split, count in self.samples.items() if count) or ("train",)

    def by_class(self, names: Sequence[str] = ()) -> list[tuple[str, tuple[int, ...]]]:
        """Returns number and name of each class, and its samples in each of the :attr:`splits`.

        Args:
            names: Class names, if known; named classes without samples are listed, too.
        """
        counts = list(zip(*(self.classes[split] for split in self.splits), strict=True))
        counts += [(0,) * len(self.splits)] * (len(names) - len(counts))
        labels = [str(i) if i >= len(names) or names[i] == str(i) else f"{i} {names[i]}" for i in range(len(counts))]
        return list(zip(labels, counts, strict=True))

    def to_json(self) -> dict[str, Any]:
        """Returns the statistics as JSON values."""
        return dataclasses.asdict(self)


def compute_statistics(cache: Cache, progress: Callable[[int, int], None] = lambda done, total: None) -> Statistics:
    """Reads a cache and returns its statistics; memory grows with the number of frames, not of pixels.

    Args:
        cache: The cache.
        progress: Called with the number of samples read and their total.

    Raises:
        CorruptCacheError: A sample fails its checksum.
    """
    splits = np.array(cache.splits)
    rows_of = {split: splits == split for split in SPLITS if split != "validation" or split in splits}
    n_classes = int(cache.labels.max(initial=-1)) + 1
    images = len(cache.shape) == 4
    return Statistics(
        samples={split: int(rows.sum()) for split, rows in rows_of.items()},
        classes={
            split: tuple(np.bincount(cache.labels[rows], minlength=n_classes).tolist())
            for split, rows in rows_of.items()
        },
        events=None if images else _event_statistics(cache, progress),
        channels=_channel_statistics(cache, progress) if images else None,
    )


def _read_blocks(cache: Cache, progress: Callable[[int, int], None]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the samples in blocks, each with its rows."""
    for block in cache.blocks(_BLOCK_BYTES):
        yield block.rows, block.samples
        progress(block.rows.stop, cache.shape[0])


def _event_statistics(cache: Cache, progress: Callable[[int, int], None]) -> EventStatistics:
    N, T, P, H, W = cache.shape
    columns = cache.counts
    wide = np.uint32 if H * W * np.iinfo(cache.dtype).max < 2**32 else np.uint64  # summing in 32 bits is twice as fast
    per_frame, by_polarity = np.zeros((N, T), np.int64), np.zeros(P, np.int64)
    nonzero = largest = 0
    for rows, frames in _read_blocks(cache, progress):
        counts = frames.reshape(-1, H * W).sum(1, dtype=wide).reshape(-1, T, P)
        per_frame[rows] = counts.sum(2, dtype=np.int64)
        by_polarity += counts.sum((0, 1), dtype=np.int64)
        nonzero += int(np.count_nonzero(frames))
        largest = max(largest, int(frames.max(initial=0)))
    n_events = columns["n_events"]
    per_real_frame = per_frame[np.arange(T) < columns["n_frames"][:, None]]
    counted, n_frames = int(by_polarity.sum()), len(per_real_frame)
    return EventStatistics(
        per_sample=Distribution.of(n_events),
        per_slice=Distribution.of(per_real_frame),
        duration_us=Distribution.of(columns["duration_us"]),
        framed=int(n_events.sum()),
        left_out=int((columns["n_raw"] - n_events).sum()),
        on_share=int(by_polarity[1]) / counted if P == 2 and counted else None,
        slices=n_frames,
        empty_slices=int((per_real_frame == 0).sum()),
        empty_samples=int((n_events == 0).sum()),
        nonzero_share=nonzero / (n_frames * P * H * W) if n_frames else 0.0,
        largest_count=largest,
    )


def _channel_statistics(cache: Cache, progress: Callable[[int, int], None]) -> dict[str, tuple[Channel, ...]]:
    """Returns the channels of each split, from histograms of its 256 pixel values: exact, whatever the block size."""
    C = cache.shape[1]
    histograms = np.zeros((2, C, 256), np.int64)  # counts of training and test images
    for rows, images in _read_blocks(cache, progress):
        for test in (0, 1):
            chosen = images[cache.is_test[rows] == bool(test)]
            histograms[test] += [np.bincount(chosen[:, c].ravel(), minlength=256) for c in range(C)]
    return {
        name: tuple(map(_describe_channel, histograms[test]))
        for test, name in enumerate(("train", "test"))
        if histograms[test].any()
    }


def _describe_channel(histogram: np.ndarray) -> Channel:
    """Returns the statistics of a histogram of pixel values; sums are integers, so only the last steps round."""
    values, seen, n = np.arange(256), np.flatnonzero(histogram), histogram.sum()
    mean = (values @ histogram) / n
    std = np.sqrt(np.maximum(0, (values**2 @ histogram) / n - mean**2))
    return Channel(*(float(value) / 255 for value in (mean, std, seen[0], seen[-1])))
