"""What is done to events before they are framed: tonic's transforms, by the names that a registry file gives them.

tonic, which takes seconds to import, is imported when it has something to do. Where it would loop in Python, over
events or pixels, the same is done here faster, and tests compare the two. What is drawn at random comes from numpy's
one global generator, as tonic wants it: seeded for each sample and transform, under a lock, and put back afterwards.
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
from plifctl.errors import DamagedFileError, MachineError

TRANSFORMS_VERSION = 1
"""Part of the key of a cache with transforms: raised when what they give changes."""

LATEST_US = 2**52
"""The latest time accepted, in about 140 years: beyond it tonic's floating point no longer tells µs apart."""

_GLOBAL_GENERATOR = threading.Lock()


def transforms_version(transforms: Sequence[TransformSpec]) -> str | None:
    """Returns what a cache's key has to say of the code that transforms events; None without transforms.

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
    """Returns what the transforms, one after the other, make of a sample's events.

    Args:
        events: dtype EVENT, sorted by t; left as they are.
        transforms: In order.
        shape: ``(P, H, W)`` of the sensor.
        seed: Of the random ones, each of which draws from (seed, sample_id, place in the list); None without any.
        sample_id: The sample's name, in messages too.

    Returns:
        dtype EVENT, sorted by t; what has one time keeps its order. They lie within what
        :func:`plifctl.config.dataset.frame_shape` gives.

    Raises:
        DamagedFileError: An event lies outside the sensor, or its time beyond :data:`LATEST_US`.
        MachineError: tonic is not installed.
    """
    if not transforms:
        return events
    _refuse_outside(events, shape, sample_id)
    for place, transform in enumerate(transforms):
        if len(events):  # tonic's functions take no empty array
            changed = _applied(events, transform, shape, f"{seed}\0{place}\0{sample_id}")
            events = Events.sorted_from(*(changed[name] for name in EVENT.names or ())).structured()
        shape = transform.shape_after(shape)
    return events


def _applied(events: np.ndarray, transform: TransformSpec, shape: Shape, draw: str) -> np.ndarray:
    """Returns what one transform makes of some events; ``draw`` names the random numbers."""
    polarities, height, width = shape
    size = (width, height, polarities)
    match transform:
        case Denoise() | Refractory() | HotPixels() | DropPixels():
            kept: np.ndarray = events[_kept(events, transform, width, height, draw)]
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
    with _seeded(draw):
        return np.asarray(change(events))


def _kept(
    events: np.ndarray, transform: Denoise | Refractory | HotPixels | DropPixels, width: int, height: int, draw: str
) -> np.ndarray:
    """Returns which events stay, bool ``[N]``."""
    from plifctl.data import filters

    t, x, y = (events[name].astype(np.int64) for name in ("t", "x", "y"))
    match transform:
        case Denoise(filter_time_us=time):
            kept = filters.kept_by_denoise(t, x, y, time)
        case Refractory(period_us=time):
            kept = filters.kept_by_refractory(t, x, y, time)
        case HotPixels(max_rate_hz=rate):
            hot = np.zeros((width, height), bool)
            hot[tuple(_tonic().functional.identify_hot_pixel(events, rate).T)] = True
            kept = ~hot[x, y]
        case DropPixels(p=p):
            with _seeded(draw):
                dropped = np.random.rand(width, height) < p
            kept = ~dropped[x, y]
    return np.asarray(kept)


@contextmanager
def _seeded(draw: str) -> Iterator[None]:
    """Lends numpy's global generator, seeded, to one thread at a time."""
    words = np.frombuffer(hashlib.sha256(draw.encode("utf-8", "surrogateescape")).digest(), "<u4")
    with _GLOBAL_GENERATOR:
        before = np.random.get_state()
        try:
            np.random.seed(words)
            yield
        finally:
            np.random.set_state(before)


def _refuse_outside(events: np.ndarray, shape: Shape, where: str) -> None:
    """A crop would hide events that no such sensor can have sent, and an index below 0 would be another pixel's."""
    t, x, y, p = (events[name] for name in EVENT.names or ())
    polarities, height, width = shape
    wrong = (x < 0) | (x >= width) | (y < 0) | (y >= height) | (p >= polarities) | (t < -LATEST_US) | (t > LATEST_US)
    if wrong.any():
        i = int(np.argmax(wrong))
        raise DamagedFileError(
            f"{where}: event {i} of {len(events)} is at x={x[i]}, y={y[i]}, polarity {p[i]}, {t[i]} µs, "
            f"outside the sensor of {width}×{height} or later than 140 years"
        )


def _tonic() -> ModuleType:
    try:
        import tonic
        import tonic.functional
        import tonic.transforms
    except ImportError as error:
        raise _no_tonic(error) from error
    return tonic  # type: ignore[no-any-return]


def _no_tonic(error: ImportError) -> MachineError:
    return MachineError(f"frames.transforms needs tonic, which cannot be used: {error}", hint="pip install tonic")
