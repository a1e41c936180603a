"""What a cache holds, in numbers: events and slices, polarities, classes, pixel values. Read once, in blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from plifctl.cache import Cache

_BLOCK_BYTES = 2**22  # read at a time
_BINS = 24


@dataclass(frozen=True)
class Distribution:
    """How whole numbers are distributed.

    Attributes:
        n: How many values there are; of none, all the rest is 0.
        min: The least.
        q1: The lower quartile; quartiles and median lie between two values in proportion (numpy's default).
        median: The median.
        q3: The upper quartile.
        max: The largest.
        mean: The mean.
        edges: Bounds of the bins of a histogram, one more than there are bins.
        counts: How many values v are in each bin, edges[i] ≤ v < edges[i + 1].
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


@dataclass(frozen=True)
class EventStatistics:
    """Frames of events in numbers; frames that only fill up a shorter recording are left out everywhere.

    Attributes:
        per_sample: Events in a sample.
        per_slice: Events in a frame.
        duration_us: From a sample's first to its last event, µs.
        framed: Events in all frames.
        left_out: Events that were read and not framed: invalid, outside the sensor, or taken out by transforms.
        on_share: Share of ON events; None without events, or where polarities were merged.
        slices: Frames.
        empty_slices: Frames without events.
        empty_samples: Samples without events.
        nonzero_share: Share of pixels (of each polarity and frame) that saw an event.
        largest_count: Most events in one pixel of one frame.
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
    """Pixel values of one channel of one split, in units of 0…1.

    Attributes:
        mean: The mean.
        std: The standard deviation (of all pixels, not an estimate from a sample of them).
        min: The least.
        max: The largest.
    """

    mean: float
    std: float
    min: float
    max: float


@dataclass(frozen=True)
class Statistics:
    """A cache in numbers.

    Attributes:
        samples: Number of samples in each split, ``train`` and ``test``.
        classes: Number of samples of class 0, 1, … in each split.
        events: Of sets of events, else None.
        channels: Of sets of images, the channels of each split that has samples; else None.
    """

    samples: dict[str, int]
    classes: dict[str, tuple[int, ...]]
    events: EventStatistics | None
    channels: dict[str, tuple[Channel, ...]] | None

    def by_class(self, names: Sequence[str] = ()) -> list[tuple[str, int, int]]:
        """Returns of each class its number with its name, and how many samples train and test.

        Args:
            names: Names of the classes, where they are known; those without samples are listed, too.
        """
        train, test = (dict(enumerate(self.classes[split])) for split in ("train", "test"))
        named = dict(enumerate(names))
        return [
            (
                f"{label} {named[label]}" if named.get(label, str(label)) != str(label) else str(label),
                train.get(label, 0),
                test.get(label, 0),
            )
            for label in sorted({*train, *named})
        ]

    def to_json(self) -> dict[str, Any]:
        """Returns the same as JSON values."""
        return dataclasses.asdict(self)


def statistics_of(cache: Cache, progress: Callable[[int, int], None] = lambda done, total: None) -> Statistics:
    """Reads a cache and returns what it holds in numbers; memory does not grow with the number of samples' pixels.

    Args:
        cache: The cache.
        progress: Told how many samples are read, of how many.

    Raises:
        CorruptCacheError: A sample fails its checksum.
    """
    splits = {"train": ~cache.is_test, "test": cache.is_test}
    n_classes = int(cache.labels.max(initial=-1)) + 1
    images = len(cache.shape) == 4
    return Statistics(
        samples={name: int(rows.sum()) for name, rows in splits.items()},
        classes={
            name: tuple(np.bincount(cache.labels[rows], minlength=n_classes).tolist()) for name, rows in splits.items()
        },
        events=None if images else _events(cache, progress),
        channels=_channels(cache, progress) if images else None,
    )


def _blocks(cache: Cache, progress: Callable[[int, int], None]) -> Iterator[tuple[slice, np.ndarray]]:
    """Yields the samples of a few rows at a time, and which rows they are."""
    n = cache.shape[0]
    step = max(1, _BLOCK_BYTES * n // max(1, cache.nbytes))
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        yield rows, cache.read(np.arange(rows.start, rows.stop))
        progress(rows.stop, n)


def _events(cache: Cache, progress: Callable[[int, int], None]) -> EventStatistics:
    _, T, P, H, W = cache.shape
    columns = cache.counts
    filled = columns["n_frames"]
    wide = np.uint32 if H * W * np.iinfo(cache.dtype).max < 2**32 else np.uint64  # summing in 32 bits is twice as fast
    per_slice, per_sample, by_polarity = _Tally(), _Tally(), np.zeros(P, np.int64)
    nonzero = largest = 0
    for rows, frames in _blocks(cache, progress):
        n = len(frames)
        counts = frames.reshape(n * T * P, H * W).sum(1, dtype=wide).astype(np.int64).reshape(n, T, P)
        per_slice.add(counts.sum(2)[np.arange(T) < filled[rows, None]])
        per_sample.add(counts.sum((1, 2)))
        by_polarity += counts.sum((0, 1))
        nonzero += int(np.count_nonzero(frames))
        largest = max(largest, int(frames.max(initial=0)))
    framed, slices = int(by_polarity.sum()), int(filled.sum())
    return EventStatistics(
        per_sample=per_sample.distribution(),
        per_slice=per_slice.distribution(),
        duration_us=_Tally(columns["duration_us"]).distribution(),
        framed=framed,
        left_out=int((columns["n_raw"] - columns["n_events"]).sum()),
        on_share=int(by_polarity[1]) / framed if P == 2 and framed else None,
        slices=slices,
        empty_slices=per_slice.zeros,
        empty_samples=per_sample.zeros,
        nonzero_share=nonzero / (slices * P * H * W) if slices else 0.0,
        largest_count=largest,
    )


def _channels(cache: Cache, progress: Callable[[int, int], None]) -> dict[str, tuple[Channel, ...]]:
    C = cache.shape[1]
    pixels, sums, squares = (np.zeros((2, C), np.int64) for _ in range(3))  # of training and test; whole, so exact
    least, largest = np.full((2, C), 255), np.zeros((2, C), np.int64)
    for rows, images in _blocks(cache, progress):
        values = images.reshape(len(images), C, -1)
        square = np.multiply(values, values, dtype=np.uint16)  # 255² just fits
        for test, chosen in enumerate((~cache.is_test[rows], cache.is_test[rows])):
            if chosen.any():
                pixels[test] += int(chosen.sum()) * values.shape[2]
                sums[test] += values.sum(2, dtype=np.uint32)[chosen].sum(0, dtype=np.int64)
                squares[test] += square.sum(2, dtype=np.uint64)[chosen].sum(0, dtype=np.int64)
                least[test] = np.minimum(least[test], values.min(2)[chosen].min(0))
                largest[test] = np.maximum(largest[test], values.max(2)[chosen].max(0))
    means = sums / np.maximum(1, pixels)
    stds = np.sqrt(np.maximum(0, squares / np.maximum(1, pixels) - means**2))
    return {
        name: tuple(
            Channel(*(float(numbers[test, c]) / 255 for numbers in (means, stds, least, largest))) for c in range(C)
        )
        for test, name in enumerate(("train", "test"))
        if pixels[test].any()
    }


class _Tally:
    """How often each whole number was seen: as small as there are different ones."""

    def __init__(self, numbers: np.ndarray | None = None) -> None:
        self.values, self.counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        if numbers is not None:
            self.add(numbers)

    def add(self, numbers: np.ndarray) -> None:
        new, times = np.unique(numbers, return_counts=True)
        self.values, where = np.unique(np.concatenate([self.values, new]), return_inverse=True)
        counts = np.zeros(len(self.values), np.int64)
        np.add.at(counts, where, np.concatenate([self.counts, times]))
        self.counts = counts

    @property
    def zeros(self) -> int:
        return int(self.counts[self.values == 0].sum())

    def distribution(self) -> Distribution:
        n = int(self.counts.sum())
        if n == 0:
            return Distribution(0, 0, 0.0, 0.0, 0.0, 0, 0.0, (0, 1), (0,))
        least, largest = int(self.values[0]), int(self.values[-1])
        width = -(-(largest - least + 1) // _BINS)
        bins = (self.values - least) // width
        counts = np.zeros(int(bins[-1]) + 1, np.int64)
        np.add.at(counts, bins, self.counts)
        return Distribution(
            n=n,
            min=least,
            q1=self._quantile(1, 4),
            median=self._quantile(1, 2),
            q3=self._quantile(3, 4),
            max=largest,
            mean=int((self.values * self.counts).sum()) / n,
            edges=tuple(range(least, least + width * len(counts) + 1, width)),
            counts=tuple(counts.tolist()),
        )

    def _quantile(self, part: int, of: int) -> float:
        """Between the values of the two ranks around (n − 1)·part/of, in proportion."""
        ends = np.cumsum(self.counts)
        rank, rest = divmod((int(ends[-1]) - 1) * part, of)
        low, high = (int(self.values[np.searchsorted(ends, min(r, ends[-1] - 1), "right")]) for r in (rank, rank + 1))
        return low + (high - low) * rest / of
