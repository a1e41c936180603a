"""Trained networks in use: loading them, and predictions for recordings."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from torch import Tensor, nn

from plifctl import files, paths
from plifctl.config.choices import CheckpointName, Kernel
from plifctl.config.dataset import MAX_T, Framing
from plifctl.config.lookup import load_framing
from plifctl.data.events import EVENT, Events
from plifctl.data.formats.detect import READABLE, decode_any
from plifctl.data.formats.headers import format_of, guess_content, is_text
from plifctl.data.framer import count_filled, count_frames, decode_recording, keep_inside, select_events
from plifctl.data.remarks import Remark, describe_remarks, remarks_on_share
from plifctl.errors import DamagedFileError, OutOfMemoryError, RawDataError, UsageError, list_names
from plifctl.exchange.graphs import shapes_before
from plifctl.exchange.lookup import find_model
from plifctl.exchange.model import IN_MEMORY, TrainedModel, load_trained
from plifctl.pipeline.device import LESS_MEMORY_HINT, choose_device, use_remembered_kernel
from plifctl.snn.functional import predict_over_time
from plifctl.snn.kernels.forking import check_not_forked
from plifctl.snn.networks import NeuronState, SpikingNetwork, drawing_weights
from plifctl.training.optimizer import HALF_TYPES, autocast
from plifctl.training.process import out_of_memory_errors
from plifctl.training.trainer import load_weights

_log = logging.getLogger(__name__)

BATCH = 16
"""Samples that :meth:`Model.predict` runs at once."""

MAX_EMPTY_WINDOWS = 1_000_000
"""Windows that a recording may have even if it has fewer events; more of them would take hours without an answer."""


@dataclass(frozen=True)
class Prediction:
    """Prediction of a network for one sample.

    Attributes:
        label: Index of the class.
        name: Name of the class.
        share: The class's share of all votes, 0…1; 0 if no neuron fired.
        rates: Votes of each class at each step, ``[T, classes]``, 0…1.
        over_time: Predicted class if the network stopped after each step, ``[T]``.
        source: The file, or a description of the input.
    """

    label: int
    name: str
    share: float
    rates: np.ndarray
    over_time: np.ndarray
    source: str = ""

    @property
    def silent(self) -> bool:
        """Whether no output neuron fired: the label is then the lowest class by rule, and means nothing."""
        return not self.rates.any()

    @property
    def votes(self) -> np.ndarray:
        """Mean rate of each class over the steps, float64 ``[classes]``."""
        votes: np.ndarray = self.rates.mean(0, dtype=np.float64)
        return votes

    @property
    def decided_after(self) -> int:
        """Number of steps, from 1, after which the prediction stays the same."""
        other = np.flatnonzero(self.over_time != self.label)
        return int(other[-1]) + 2 if len(other) else 1


@dataclass(frozen=True)
class Window:
    """Prediction for a part of a recording.

    Attributes:
        start: Begin of the part, in seconds from the first event of the recording.
        end: Its end, exclusive; if the recording ends earlier, the time of its last event.
        prediction: The prediction; None if there are no events in the part.
    """

    start: float
    end: float
    prediction: Prediction | None


Recording = str | Path | Events | np.ndarray | Tensor
"""A file; events, as :meth:`Model.read_events` returns them; frames ``[T, P, H, W]``; an image ``[C, H, W]``, uint8."""

_Key = TypeVar("_Key")


class Model(nn.Module):
    """A trained network in evaluation mode, with the framing and normalisation of its inputs.

    As a module it takes event frames ``[N, T, P, H, W]`` of counts, or normalised images
    ``[N, C, H, W]``, and returns votes ``[T, N, classes]``. It can be trained as any module. :meth:`predict` takes
    recordings.

    Attributes:
        spec: The experiment it was trained by.
        T: Number of time steps.
        classes: Names of the classes, in the order of the outputs.
        input_shape: ``(P, H, W)`` of a frame, ``(C, H, W)`` of an image.
        trained: The trained network that the weights come from.
    """

    def __init__(self, trained: TrainedModel) -> None:
        super().__init__()
        self.trained, self.spec = trained, trained.spec
        self.network = trained.network
        self.T = trained.spec.T
        self.classes = tuple(trained.spec.dataset.classes)
        self.input_shape = trained.network.input_shape
        self._scaled = False  # whether it was logged that images are scaled
        shapes = shapes_before(trained)
        self._neurons = {name: shapes[name] for name in trained.network.spiking_layers()}
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the votes ``[T, N, classes]`` of event frames ``[N, T, P, H, W]`` or images ``[N, C, H, W]``.

        Products have the precision of a training in bf16 or fp16, or that of ``torch.autocast`` where it is on.
        ``model.network(x, model.T)`` computes in the type of the weights. TF32 is torch's setting of the process.

        Args:
            x: Numbers, which are moved to the device of the weights and converted to their type. Images are normalised,
                so they are float.

        Raises:
            UsageError: The input has another shape, images are whole numbers, or the weights are of half precision on a
                CPU.
        """
        wanted = ("N", *(("T",) if self.spec.dataset.kind == "events" else ()), *map(str, self.input_shape))
        if x.dim() != len(wanted) or tuple(x.shape[-3:]) != tuple(self.input_shape):
            raise UsageError(
                f"{self.spec.title}: found an input {list(x.shape)}, expected [{', '.join(wanted)}]",
                hint="one sample: x[None]",
            )
        if self.spec.dataset.kind == "images" and not x.is_floating_point():
            raise UsageError(
                f"{self.spec.title}: found images of {_dtype_name(x.dtype)}, expected normalised ones, which are float",
                hint="model.to_input(image) normalises an image; model.predict(image) classifies it",
            )
        x = self._as_weights(x)
        with self._precision(x.device):
            votes: Tensor = self.network(x, self.T)
        return votes

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        """Gives products the 16 bits of the training within the block, or leaves them that of the caller.

        TF32 is not set: its flags are those of the process, and the caller's backward pass is outside of the block.
        """
        dtype = HALF_TYPES.get(self.spec.train.precision)
        if dtype is None or torch.is_autocast_enabled(device.type):
            return nullcontext()
        return torch.autocast(device.type, dtype)

    def _as_weights(self, x: Tensor) -> Tensor:
        """Returns an input on the device and in the type of the weights."""
        weight = next(self.network.parameters())
        check_not_forked(weight.device)
        if weight.device.type == "cpu" and weight.dtype not in (torch.float32, torch.float64):
            raise UsageError(
                f"{self.spec.title}: found weights of {_dtype_name(weight.dtype)}, "
                "expected float32 or float64 on a CPU",
                hint="model.float()",
            )
        return x.to(weight.device, weight.dtype)

    def read_events(self, path: str | Path) -> Events:
        """Returns the events of a file as the network was trained with, x and y oriented, to predict parts of them.

        Raises:
            RawDataError: The file cannot be read.
            UsageError: The network classifies images.
        """
        found = self._read_events(path)
        assert found is not None  # of a file
        return found[0]

    def step(self, frame: Tensor, state: NeuronState | None = None) -> tuple[Tensor, NeuronState]:
        """Runs one time step; the caller keeps the neurons' state.

        Args:
            frame: ``[N, P, H, W]``: the frames of one step, or normalised images that are shown again at every step.
                They are moved to the device of the weights.
            state: State returned by the previous step, on the device of the weights; None at the first, when all
                neurons are at rest.

        Returns:
            Votes ``[N, classes]`` of this step, and the state for the next, on the device of the weights.

        Raises:
            UsageError: The frame is no float tensor of that shape, or has numbers that are not finite; the state is not
                that of such frames and these weights; or the network is in training mode.
        """
        self._refuse_training_mode("step")
        self._check_frame(frame)
        x = self._as_weights(frame)
        if state is not None:
            self._check_state(state, x)
        with self._precision(x.device):
            return self.network.step(x, state)

    def _refuse_training_mode(self, verb: str) -> None:
        """Raises UsageError in training mode: dropout would be drawn, and batch norm would change."""
        if self.network.training:
            raise UsageError(f"{verb}: the network is in training mode", hint="model.eval()")

    def _check_frame(self, frame: Tensor) -> None:
        if not isinstance(frame, Tensor):
            raise UsageError(f"step: found {type(frame).__name__}, expected a tensor", hint="torch.as_tensor(frame)")
        if not frame.is_floating_point() or tuple(frame.shape[1:]) != tuple(self.input_shape):
            found = f"{_dtype_name(frame.dtype)} {list(frame.shape)}"
            raise UsageError(
                f"step: found a frame {found}, expected float [N, {', '.join(map(str, self.input_shape))}]",
                hint="one event frame [P, H, W]: frame[None].float()",
            )
        if not frame.isfinite().all():
            raise UsageError("step: found numbers that are not finite in the frame")

    def _check_state(self, state: NeuronState, x: Tensor) -> None:
        """Raises UsageError unless a state is that of the neurons for an input ``x`` of the network."""
        hint = "rates, state = model.step(frame, state), beginning with state = None"
        if not isinstance(state, Mapping) or state.keys() != self._neurons.keys():
            found = f"that of {', '.join(state) or 'no layer'}" if isinstance(state, Mapping) else type(state).__name__
            raise UsageError(f"step: found the state {found}, expected that of {', '.join(self._neurons)}", hint=hint)
        dtype = torch.promote_types(x.dtype, torch.float32)  # potentials are never of half precision
        for name, potential in state.items():
            found = _describe(potential) if isinstance(potential, Tensor) else type(potential).__name__
            wanted = f"{_dtype_name(dtype)} {[len(x), *self._neurons[name]]} on {x.device}"
            if found != wanted:
                raise UsageError(f"step: the state of {name} is {found}, expected {wanted}", hint=hint)

    def snapshot(self) -> TrainedModel:
        """Returns a copy of the network with the weights that it has now, which no run or file has, to be exported.

        Raises:
            UsageError: It has other weights than its structure, such as the masks of pruning.
            CheckpointError: A weight is not finite.
        """
        network, weights = self.network, self.network.state_dict()
        with drawing_weights():  # which are replaced below
            copied = SpikingNetwork(network.network, network.neuron, network.input_shape, network.classes)
        if unknown := sorted(weights.keys() ^ copied.state_dict().keys()):
            raise UsageError(
                f"the network's weights are not those of its structure: {list_names(unknown, 3)}",
                hint="make pruning permanent (torch.nn.utils.prune.remove), and remove parametrizations",
            )
        load_weights(copied, {"model": weights})
        origin = f"{IN_MEMORY}{(self.trained.run or self.trained.path).name}"
        origin += f", {self.trained.origin}" if self.trained.origin else ""
        listed = self.trained.listed_test_samples()
        return replace(self.trained, path=Path("memory"), network=copied.eval(), origin=origin, test_samples=listed)

    @overload  # a text is one recording, and for mypy a sequence of texts, too
    def predict(self, recording: Recording, *, resize: bool = ...) -> Prediction: ...  # type: ignore[overload-overlap]
    @overload
    def predict(self, recording: Sequence[Recording], *, resize: bool = ...) -> list[Prediction]: ...
    def predict(
        self, recording: Recording | Sequence[Recording], *, resize: bool = False
    ) -> Prediction | list[Prediction]:
        """Classifies a recording, or several; framing, T, transforms and normalisation are those of the training.

        Random transforms of events are seeded by the name of the file without folder and ending, ``r0``; those of a
        cache by the id of the sample, ``fist/r0``. So they may differ between a file and its sample in a cache.

        Args:
            recording: A file of any known event format, taken as one sample, or of an image; events
                (:class:`~plifctl.data.events.Events` or a structured array with the fields t in µs, x, y, p); frames
                ``[T, P, H, W]`` of any T; an image ``[C, H, W]`` uint8, or float in 0…1. Or a list of these.
            resize: Scale the image of a file to the network's size, bilinear.

        Returns:
            A prediction, or a list of them in the same order.

        Raises:
            RawDataError: A file cannot be read or contains no events.
            UsageError: The input does not fit the network, or the network is in training mode.
            OutOfMemoryError: A recording alone needs more memory than the device has.
            RunError: On a CPU, in a process that was forked after a network had run.
        """
        several = isinstance(recording, Sequence) and not isinstance(recording, str | bytes)
        recordings: Sequence[Recording] = recording if several else [recording]  # type: ignore[assignment,list-item]
        found = self.classify((None, _name(one), self.to_input(one, resize=resize)) for one in recordings)
        predictions = [prediction for _, one in found if (prediction := _or_raise(one)) is not None]
        return predictions if several else predictions[0]

    def predict_windows(
        self, recording: str | Path | Events | np.ndarray, window: float, stride: float | None = None
    ) -> Iterator[Window]:
        """Classifies parts of a recording, each as a sample of its own.

        The recording is read once; frames are held of a few windows at a time.

        Args:
            recording: A file, or events, as for :meth:`predict`.
            window: Length of a part, seconds.
            stride: Time from the begin of a part to that of the next, seconds; None: the length of a part.

        Yields:
            Windows, the first one from the first event; the last one is the first that contains the last event.

        Raises:
            RawDataError: The file cannot be read or contains no events.
            UsageError: The network classifies images; a length is less than 1 µs; or there are more windows than
                events, and more than :data:`MAX_EMPTY_WINDOWS`.
            OutOfMemoryError: A window alone needs more memory than the device has.
        """
        stride = window if stride is None else stride
        if not (math.isfinite(window) and math.isfinite(stride)):
            raise UsageError(f"windows of {window} s every {stride} s, expected finite lengths")
        window_us, stride_us = round(1e6 * window), round(1e6 * stride)
        name = _name(recording)
        windows = ((part, name, x) for part, x in self.window_inputs(recording, window_us, stride_us))
        for part, found in self.classify(windows):
            yield Window(part[0] / 1e6, part[1] / 1e6, _or_raise(found))

    def classify(
        self, samples: Iterable[tuple[_Key, str, Tensor | None]]
    ) -> Iterator[tuple[_Key, Prediction | OutOfMemoryError | None]]:
        """Runs the network on samples, a few at a time; if they need too much memory together, one at a time.

        Args:
            samples: Each with whatever tells them apart, its file or description, and its input; None in place of an
                input without events.

        Yields:
            The predictions in the same order; an error in place of a sample that needs too much memory alone.

        Raises:
            UsageError: The network is in training mode: dropout would be drawn, and batch norm would change.
        """
        self._refuse_training_mode("predict")
        check_not_forked(next(self.network.parameters()).device)
        remaining = iter(samples)
        while part := list(islice(remaining, BATCH)):
            predictions = self._run([x for *_, x in part if x is not None])
            for key, source, x in part:
                found = None if x is None else next(predictions)
                if isinstance(found, OutOfMemoryError):
                    yield key, OutOfMemoryError(f"{source}: {found}", hint=found.hint)
                else:
                    yield key, found and replace(found, source=source)

    def _run(self, samples: Sequence[Tensor]) -> Iterator[Prediction | OutOfMemoryError]:
        for group in _of_equal_shape(samples):
            batch = [samples[index] for index in group]
            found = self._run_batch(batch)
            if isinstance(found[0], OutOfMemoryError) and len(batch) > 1:
                found = [one for x in batch for one in self._run_batch([x])]
            yield from found

    def _run_batch(self, samples: list[Tensor]) -> list[Prediction | OutOfMemoryError]:
        """Returns the predictions of samples of one shape; the error for each of them if memory ran out."""
        device = next(self.network.parameters()).device
        try:
            with out_of_memory_errors("out of memory", LESS_MEMORY_HINT), torch.no_grad():
                batch = torch.stack(samples).to(device)
                with autocast(self.spec.train, device):
                    votes = self(batch).float().cpu()
        except OutOfMemoryError as error:
            # without its traceback, which keeps the tensors
            return [OutOfMemoryError(str(error), hint=error.hint)] * len(samples)
        return [self._prediction(rates) for rates in votes.unbind(1)]

    def _prediction(self, rates: Tensor) -> Prediction:
        over_time = predict_over_time(rates[:, None])[:, 0].numpy()
        total = rates.sum(0, dtype=torch.float64)
        label, votes = int(over_time[-1]), float(total.sum())
        share = float(total[label]) / votes if votes else 0.0
        return Prediction(label, self.classes[label], share, rates.numpy(), over_time)

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

        See :meth:`predict_windows`.
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
            return _decode_file(path, self.spec.framing), str(path)
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
        x = image / largest
        if self.spec.normalisation is None:
            return x
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in self.spec.normalisation)
        return (x - mean) / std

    def _frames(self, events: Events, where: str, part: str = "") -> Tensor | None:
        """Returns the frames of events, float32 ``[T, P, H, W]``; None if there are no events to frame.

        Args:
            events: The events.
            where: Their file, whose name seeds random transforms.
            part: Which part of it, for messages.
        """
        framing = self.spec.framing
        selected = select_events(framing, events, Path(where).stem)
        if not len(selected):
            return None
        where += part
        try:
            frames = count_frames(framing, selected, self._time_steps(selected, where), dtype=np.uint32, where=where)
        except DamagedFileError as error:  # its hint is one for building caches
            _, height, width = framing.dataset.shape
            error.hint = f"{self.spec.title} takes recordings of {width}×{height} pixels"
            raise
        return torch.from_numpy(frames.astype(np.float32))

    def _time_steps(self, events: Events, where: str) -> int:
        """Returns T; if it is the longest sample that determines T, as many as the events fill, if these are more."""
        framing = self.spec.framing
        if framing.frames is None or framing.needs_T:
            return self.T
        steps = max(self.T, count_filled(framing, events))
        if steps > MAX_T:
            raise UsageError(
                f"{where}: fills {steps} slices of {framing.frames.duration_us} µs, expected at most {MAX_T}",
                hint="cut the recording into shorter ones",
            )
        return steps


def load_model(
    name: str | Path,
    *,
    checkpoint: CheckpointName = "best",
    fold_bn: bool = False,
    device: str | None = None,
    kernel: Kernel = "auto",
    runs_dir: Path | None = None,
) -> Model:
    """Returns the trained network of a run, a checkpoint, or an exported file.

    Args:
        name: A run (path, id, part of an id, ``last``), an exported file or folder, or ``zoo:NAME``.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them.
        device: Torch device; None: a GPU where there is one.
        kernel: Kernel of the spiking layers.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run.
        CheckpointError: It has no checkpoint, or it is damaged.
    """
    path = find_model(paths.lookup_name(name), checkpoint, runs_dir or paths.runs_dir())
    place = choose_device(device, kernel)
    trained = load_trained(path, place, fold=fold_bn, kernel=kernel)
    use_remembered_kernel(trained.network, trained.spec, place)
    return Model(trained)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _describe(x: Tensor) -> str:
    """Returns type, shape and device of a tensor."""
    return f"{_dtype_name(x.dtype)} {list(x.shape)} on {x.device}"


def _or_raise(found: Prediction | OutOfMemoryError | None) -> Prediction | None:
    if isinstance(found, OutOfMemoryError):
        raise found
    return found


def _name(recording: Recording) -> str:
    return str(recording) if isinstance(recording, str | Path) else type(recording).__name__


def _no_events(where: str) -> RawDataError:
    return RawDataError(f"{where}: no events to frame", hint="is it a recording of this sensor, and not empty?")


def _of_equal_shape(samples: Sequence[Tensor]) -> Iterable[list[int]]:
    """Yields neighbouring samples that can be stacked, as indices: slices of a fixed duration may differ in number."""
    group: list[int] = []
    for index, sample in enumerate(samples):
        if group and sample.shape != samples[group[-1]].shape:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


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
