"""Inputs of a trained network: files, events, frames and images of a user, framed and normalised as in training."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from plifctl import files, paths
from plifctl.config.dataset import MAX_T, Framing
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_framing
from plifctl.data.events import EVENT, Events
from plifctl.data.formats.detect import READABLE, decode_any
from plifctl.data.formats.headers import format_of, guess_content, is_text
from plifctl.data.framer import count_filled, count_frames, decode_recording, keep_inside, select_inside
from plifctl.data.frames import check_inside
from plifctl.data.remarks import Remark, describe_remarks, remarks_on_share
from plifctl.errors import DamagedFileError, RawDataError, UsageError
from plifctl.exchange.graphs import normalise

_log = logging.getLogger(__name__)

_FRAMES_OPTION = re.compile(r"--set frames\.(\w+)=")

MAX_EMPTY_WINDOWS = 1_000_000
"""Windows that a recording may have even if it has fewer events; more of them would take hours without an answer."""

Recording = str | Path | Events | np.ndarray | Tensor
"""A file; events, as :func:`read_events` returns them; frames ``[T, P, H, W]``; an image ``[C, H, W]``, uint8."""


class InputReader:
    """Turns recordings and arrays into inputs of a network, as those that it was trained with.

    Attributes:
        spec: The experiment that the network was trained by.
        input_shape: ``(P, H, W)`` of a frame, ``(C, H, W)`` of an image.
    """

    def __init__(self, spec: ExperimentSpec, input_shape: tuple[int, int, int]) -> None:
        self.spec, self.input_shape = spec, input_shape
        self._scaled = False  # whether it was logged that images are scaled

    def read_events(self, path: str | Path) -> Events:
        """Returns the events of a file, x and y oriented.

        Raises:
            RawDataError: The file cannot be read.
            UsageError: The network classifies images.
        """
        found = self._read_events(path)
        assert found is not None  # of a file
        return found[0]

    def to_input(self, recording: Recording, *, resize: bool = False) -> Tensor:
        """Returns the network's input for one sample: frames ``[T, P, H, W]`` or a normalised image, float32.

        Raises:
            RawDataError: A file cannot be read or contains no events.
            UsageError: The input does not fit the network.
        """
        if isinstance(recording, str | Path) and self.spec.frames is None:
            return self._read_image(paths.expand(recording), resize)
        if (found := self._read_events(recording)) is not None:
            events, where = found
            if (frames := self._frames(events, where)) is not None:
                return frames
            raise _no_events(where)
        array = _as_tensor(recording)
        if array.dim() == 4 and self.spec.dataset.kind == "events":
            return self._check_shape(array, array.shape[1:])
        if array.dim() == 3 and self.spec.dataset.kind == "images":
            return self._normalise(self._check_shape(array, array.shape), array.dtype)
        wanted = "frames [T, P, H, W]" if self.spec.dataset.kind == "events" else "an image [C, H, W]"
        raise UsageError(f"{self.spec.title}: found an array of shape {list(array.shape)}, expected {wanted}")

    def window_inputs(
        self, recording: str | Path | Events | np.ndarray, window_us: int, stride_us: int
    ) -> Iterator[tuple[tuple[int, int], Tensor | None]]:
        """Yields begin and end of each window in µs from the first event, and its frames; None without events.

        See :meth:`plifctl.pipeline.predict.Model.predict_windows`.
        """
        if min(window_us, stride_us) < 1:
            raise UsageError(f"windows of {window_us} µs every {stride_us} µs, expected at least 1 µs")
        if (found := self._read_events(recording)) is None:
            raise UsageError(f"found {type(recording).__name__}, expected a file or events to take windows of")
        events, where = found
        if not len(events):
            raise _no_events(where)
        t = events["t"]
        first, span = int(t[0]), int(t[-1] - t[0])
        _check_count(t, 1 + min(span, max(0, span - window_us + stride_us)) // stride_us, where)
        for start in range(0, span + 1, stride_us):
            end = start + window_us
            within = slice(*np.searchsorted(t, (first + start, first + end)))
            yield (start, min(end, span)), self._frames(events[within], where, f", window from {start / 1e6:g} s")
            if end > span:
                return

    def _read_events(self, recording: Recording) -> tuple[Events, str] | None:
        """Returns the events of a file, or those that were given, and their name; None for other arrays."""
        if isinstance(recording, str | Path):
            path = paths.expand(recording)
            if self.spec.frames is None:
                raise UsageError(f"{path}: {self.spec.title} classifies images, not recordings of events")
            try:
                return _decode_file(path, self.spec.framing), str(path)
            except RawDataError as error:
                error.hint = self._hint_without_options(error.hint)
                raise
        if isinstance(recording, Events) or (isinstance(recording, np.ndarray) and recording.dtype.names):
            if self.spec.frames is None:
                raise UsageError(f"{self.spec.title} classifies images, not events")
            events = _as_events(recording)
            _warn("events", _remarks_on_outside(self.spec.framing, events))
            return events, "events"
        return None

    def _read_image(self, path: Path, resize: bool) -> Tensor:
        from plifctl.data.formats.images import read_image  # Pillow, which events do not need

        _check_file(path)
        found = read_image(path, self.input_shape, resize=resize)
        _, height, width = self.input_shape
        if found.size != (width, height) and not self._scaled:
            self._scaled = True
            _log.info(
                f"images are scaled to {width}×{height} pixels (bilinear); {path} has {found.size[0]}×{found.size[1]}"
            )
        image = torch.from_numpy(found.pixels)
        return self._normalise(image.float(), image.dtype)

    def _check_shape(self, array: Tensor, shape: torch.Size) -> Tensor:
        if tuple(shape) != tuple(self.input_shape):
            found, wanted = ("×".join(map(str, one)) for one in (shape, self.input_shape))
            raise UsageError(f"{self.spec.title}: found {found}, the network takes {wanted}")
        if not array.numel():
            raise UsageError(f"{self.spec.title}: found no frames")
        numbers = array.to(torch.float32)
        if not numbers.isfinite().all():
            raise UsageError(f"{self.spec.title}: found numbers that are not finite")
        return numbers

    def _normalise(self, image: Tensor, dtype: torch.dtype) -> Tensor:
        largest = 1 if dtype.is_floating_point or dtype == torch.bool else 255
        low, high = image.min().item(), image.max().item()
        if low < 0 or high > largest:
            raise UsageError(
                f"{self.spec.title}: found an image of {dtype} from {low:g} to {high:g}, expected 0 to {largest}",
                hint="give images as uint8, or as float from 0 to 1",
            )
        return normalise(self.spec, image / largest)

    def _frames(self, events: Events, where: str, part: str = "") -> Tensor | None:
        """Returns the frames of events, float32 ``[T, P, H, W]``; None if there are no events to frame.

        Args:
            events: The events.
            where: Their file, whose name seeds random transforms.
            part: Which part of it, for messages.
        """
        framing, sample = self.spec.framing, Path(where).stem
        where += part
        inside = keep_inside(framing, events)
        try:
            check_inside(inside, *framing.dataset.shape, where)  # transforms would name the sample only
        except DamagedFileError as error:  # its hint is one for building caches
            error.hint = self._size_hint
            raise
        selected = select_inside(framing, inside, sample)
        if not len(selected):
            return None
        frames = count_frames(framing, selected, self._time_steps(selected, where), dtype=np.uint32, where=where)
        return torch.from_numpy(frames.astype(np.float32))

    @property
    def _size_hint(self) -> str:
        _, height, width = self.spec.dataset.shape
        return f"{self.spec.title} takes recordings of {width}×{height} pixels"

    def _hint_without_options(self, hint: str) -> str:
        """Returns a hint without options for building caches: a trained network frames as it was trained."""
        lines = hint.splitlines()
        keys = [found[1] for line in lines if (found := _FRAMES_OPTION.search(line)) is not None]
        if not keys:
            return hint
        frames, title = self.spec.framing.event_frames, self.spec.title
        instead = [
            self._size_hint
            if key == "outside_events"
            else f"{title} was trained with frames.{key}={getattr(frames, key)}, and reads no others"
            for key in keys
        ]
        return "\n".join([*(line for line in lines if not _FRAMES_OPTION.search(line)), *instead])

    def _time_steps(self, events: Events, where: str) -> int:
        """Returns T; if it is the longest sample that determines T, as many as the events fill, if these are more."""
        framing = self.spec.framing
        if framing.frames is None or framing.needs_T:
            return self.spec.T
        steps = max(self.spec.T, count_filled(framing, events))
        if steps > MAX_T:
            raise UsageError(
                f"{where}: fills {steps} slices of {framing.frames.duration_us} µs, expected at most {MAX_T}",
                hint="cut the recording into shorter ones",
            )
        return steps


def _no_events(where: str) -> RawDataError:
    return RawDataError(f"{where}: no events to frame", hint="is it a recording of this sensor, and not empty?")


def _check_count(t: np.ndarray, windows: int, where: str) -> None:
    """Raises UsageError if a recording has more windows than events, and very many: a single time may be wrong.

    Args:
        t: Times of its events, µs, ascending.
        windows: Number of windows.
        where: Its name.
    """
    if windows <= max(MAX_EMPTY_WINDOWS, len(t)):
        return
    gaps, many = np.diff(t), f"{where}: {windows:,} windows of {len(t):,} events"
    after = int(gaps.argmax())
    if 2 * gaps[after] < t[-1] - t[0]:  # no single time makes the recording long
        raise UsageError(f"{many} in {(t[-1] - t[0]) / 1e6:,.6g} s", hint="choose longer windows, or a longer stride")
    raise UsageError(
        f"{many}: in order of time, {gaps[after] / 1e6:,.0f} s lie between event {after} and event {after + 1} "
        "(from 0)",
        hint="if the time of one of the two is wrong, leave that event out; if all times are too large, state their "
        "unit in the data set's YAML (time_unit:); else choose a longer stride",
    )


def _as_events(recording: Events | np.ndarray) -> Events:
    """Returns the user's events sorted by time.

    Raises:
        UsageError: They are not an array ``[N]`` of whole numbers t, x, y, p, or a polarity is neither 0 nor 1.
    """
    if not isinstance(recording, Events):
        names = recording.dtype.names or ()
        if missing := [name for name in "txyp" if name not in names]:
            raise UsageError(f"events: found the fields {', '.join(names)}; missing: {', '.join(missing)}")
        if recording.ndim != 1:
            raise UsageError(f"events: found an array of shape {list(recording.shape)}, expected [N]")
    for name in "txyp":
        column = recording[name]
        with np.errstate(invalid="ignore"):  # NaN becomes another number
            is_wrong = column.astype(EVENT[name]) != column
        if name == "p":
            is_wrong |= column > 1
        if is_wrong.any():
            first = int(is_wrong.argmax())
            expected = {"t": "whole µs", "p": "0 or 1"}.get(name, "a whole number from 0 to 32767")
            raise UsageError(f"events: event {first} of {len(column)}: {name} is {column[first]}, expected {expected}")
    return Events.sorted_from(*(recording[name] for name in "txyp"))


def _as_tensor(recording: Recording) -> Tensor:
    """Returns the user's numbers as a tensor of their type, which shares no memory with a numpy array.

    Raises:
        UsageError: They are no real numbers.
    """
    if isinstance(recording, np.ndarray) and recording.dtype.kind in "biuf":
        return torch.tensor(np.ascontiguousarray(recording, recording.dtype.newbyteorder("=")))
    if isinstance(recording, Tensor) and not recording.is_complex():
        return recording.detach().cpu()
    kind = f" of {recording.dtype}" if isinstance(recording, np.ndarray | Tensor) else ""
    raise UsageError(
        f"found {type(recording).__name__}{kind}, expected a file, events, or an array of frames or of an image",
        hint="several recordings: a list of them",
    )


def read_events(path: Path, dataset: str | None = None) -> Events:
    """Returns the events of a recording, with the choices of a data set for formats that have some.

    Raises:
        RawDataError: The file cannot be read.
        UsageError: Unknown data set, or one of images.
    """
    framing = load_framing(dataset) if dataset is not None else None
    if framing is not None and framing.frames is None:
        raise UsageError(f"{framing.dataset.title} is a data set of images, not of events")
    return _decode_file(path, framing)


def _check_file(path: Path) -> None:
    with files.machine_errors(path):
        if path.is_dir():
            raise RawDataError(f"{path}: a folder, expected a file")
        if not path.is_file():
            raise RawDataError(f"{path}: {'not a regular file' if path.exists() else 'no such file'}")


def _decode_file(path: Path, framing: Framing | None) -> Events:
    _check_file(path)
    with files.machine_errors(path):
        content = path.read_bytes()
    if format_of(content) is None and not is_text(content) and (looks := guess_content(content)) is not None:
        raise DamagedFileError(f"{path}: {looks}, expected a recording of a known format: {READABLE}")
    if framing is not None:
        decoded = decode_recording(framing, content, str(path))
    else:
        decoded = decode_any(content, where=str(path), invalid="drop")
    outside = () if framing is None else _remarks_on_outside(framing, decoded.events, decoded.dropped)
    _warn(str(path), (*decoded.remarks, *outside))
    return decoded.events


def _remarks_on_outside(framing: Framing, events: Events, dropped: int = 0) -> Iterator[Remark]:
    """Yields a remark if many events are not framed, as they are outside the sensor or were ``dropped`` before."""
    return remarks_on_share(len(keep_inside(framing, events)), len(events) + dropped)


def _warn(where: str, remarks: Iterable[Remark]) -> None:
    for note in describe_remarks((where, remark) for remark in remarks):
        _log.warning(note)
