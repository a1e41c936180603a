"""Transforms of events before they are framed: tonic's, by the names that registry files use.

tonic takes seconds to import and is imported when it is needed. Its loops over events or pixels in Python are replaced
by faster ones here, and tests compare the two. tonic draws random numbers from numpy's global generator: it is seeded
for each sample and transform, under a lock, and restored afterwards.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType

import numpy as np

from plifctl.config.transforms import (
    Crop,
    Denoise,
    Downsample,
    DropEvents,
    DropPixels,
    HotPixels,
    MergePolarities,
    RandomCrop,
    Refractory,
    Shape,
    TimeJitter,
    TransformSpec,
)
from plifctl.data.events import EVENT, Events
from plifctl.data.frames import check_inside
from plifctl.errors import DamagedFileError, MachineError

TRANSFORMS_VERSION = 1
"""Part of the key of a cache with transforms; raised when their output changes."""

LATEST_EXACT_US = 2**52
"""Latest time that is accepted, about 140 years: beyond it tonic's floating-point times are not exact to the µs."""

_GENERATOR_LOCK = threading.Lock()


def transforms_version(transforms: Sequence[TransformSpec]) -> str | None:
    """Returns the versions of the code that transforms events, for the key of a cache; None without transforms.

    Raises:
        MachineError: tonic is not installed.
    """
    if not transforms:
        return None
    try:
        return f"{TRANSFORMS_VERSION}, tonic {metadata.version('tonic')}"
    except metadata.PackageNotFoundError as error:
        raise _no_tonic(error) from None


def apply_transforms(
    events: np.ndarray, transforms: Sequence[TransformSpec], *, shape: Shape, seed: int | None, sample_id: str
) -> np.ndarray:
    """Applies transforms to the events of a sample, one after the other.

    Args:
        events: Events of dtype EVENT, sorted by t; not changed.
        transforms: The transforms, in order.
        shape: Shape ``(P, H, W)`` of the sensor.
        seed: Seed of the random transforms, each of which draws from (seed, sample_id, index in the list); None if
            there are none.
        sample_id: Id of the sample, also for messages.

    Returns:
        Events of dtype EVENT, sorted by t (stable), within the shape that
        :func:`plifctl.config.dataset.frame_shape` returns.

    Raises:
        DamagedFileError: An event lies outside the sensor, or its time is later than :data:`LATEST_EXACT_US`.
        MachineError: tonic is not installed.
    """
    if not transforms:
        return events
    # a crop would hide events outside, and a negative index would mean another pixel
    check_inside(Events.of(events), *shape, sample_id)
    _check_times(events["t"], sample_id)
    for index, transform in enumerate(transforms):
        if len(events):  # tonic's functions fail on an empty array
            changed = _apply(events, transform, shape, f"{seed}\0{index}\0{sample_id}")
            events = Events.sorted_from(*(changed[name] for name in EVENT.names or ())).structured()
        shape = transform.shape_after(shape)
    return events


def _apply(events: np.ndarray, transform: TransformSpec, shape: Shape, stream: str) -> np.ndarray:
    """Applies one transform; ``stream`` names its stream of random numbers."""
    polarities, height, width = shape
    size = (width, height, polarities)
    match transform:
        case Denoise() | Refractory() | HotPixels() | DropPixels():
            kept: np.ndarray = events[_keep_mask(events, transform, width, height, stream)]
            return kept
        case DropEvents(p=p):
            change = _tonic().transforms.DropEvent(p=p)
        case Crop(height=rows, width=columns):
            change = _tonic().transforms.CenterCrop(sensor_size=size, size=(columns, rows))
        case RandomCrop(height=rows, width=columns):
            change = _tonic().transforms.RandomCrop(sensor_size=size, target_size=(columns, rows))
        case Downsample(factor=factor):
            change = _tonic().transforms.Downsample(spatial_factor=factor)
        case MergePolarities():
            change = _tonic().transforms.MergePolarities()
        case TimeJitter(std_us=std):
            change = _tonic().transforms.TimeJitter(std=std, clip_negative=False, sort_timestamps=False)
    if not transform.random:
        return np.asarray(change(events))
    with _seeded_generator(stream):
        return np.asarray(change(events))


def _keep_mask(
    events: np.ndarray, transform: Denoise | Refractory | HotPixels | DropPixels, width: int, height: int, stream: str
) -> np.ndarray:
    """Returns the mask of events that a transform keeps, bool ``[N]``."""
    from plifctl.data import filters

    t, x, y = (events[name].astype(np.int64) for name in ("t", "x", "y"))
    match transform:
        case Denoise(filter_time_us=time):
            kept = filters.denoise_mask(t, x, y, time)
        case Refractory(period_us=time):
            kept = filters.refractory_mask(t, x, y, time)
        case HotPixels(max_rate_hz=rate):
            hot = np.zeros((width, height), bool)
            hot[tuple(_tonic().functional.identify_hot_pixel(events, rate).T)] = True
            kept = ~hot[x, y]
        case DropPixels(p=p):
            with _seeded_generator(stream):
                dropped = np.random.rand(width, height) < p
            kept = ~dropped[x, y]
    return np.asarray(kept)


@contextmanager
def _seeded_generator(stream: str) -> Iterator[None]:
    """Seeds numpy's global generator for one thread at a time, and restores it."""
    words = np.frombuffer(hashlib.sha256(stream.encode("utf-8", "surrogateescape")).digest(), "<u4")
    with _GENERATOR_LOCK:
        before = np.random.get_state()
        try:
            np.random.seed(words)
            yield
        finally:
            np.random.set_state(before)


def _check_times(t: np.ndarray, where: str) -> None:
    """Refuses times that tonic's functions, which compute with 64-bit floats, would round."""
    if (wrong := np.flatnonzero((t < -LATEST_EXACT_US) | (t > LATEST_EXACT_US))).size:
        raise DamagedFileError(f"{where}: event {wrong[0]} of {len(t)} is at {t[wrong[0]]} µs, later than 140 years")


def _tonic() -> ModuleType:
    try:
        import tonic
        import tonic.functional
        import tonic.transforms
    except ImportError as error:
        raise _no_tonic(error) from error
    return tonic  # type: ignore[no-any-return]


def _no_tonic(error: ImportError) -> MachineError:
    return MachineError(f"frames.transforms needs tonic, which cannot be imported: {error}", hint="pip install tonic")
