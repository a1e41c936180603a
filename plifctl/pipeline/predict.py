"""Trained networks in use: loading them, and predictions for recordings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import torch
from torch import Tensor, nn

from plifctl import files, paths
from plifctl.config.choices import CheckpointName, Kernel
from plifctl.config.dataset import MAX_T, Framing
from plifctl.config.lookup import load_framing
from plifctl.data.events import EVENT, Events
from plifctl.data.formats.detect import decode_any
from plifctl.data.framer import count_filled, count_frames, decode_recording, select_events
from plifctl.data.remarks import describe_remarks
from plifctl.errors import DamagedFileError, RawDataError, UsageError
from plifctl.exchange.model import TrainedModel, find_model, load_trained
from plifctl.pipeline.device import choose_device, use_remembered_kernel
from plifctl.snn.functional import predict_over_time
from plifctl.snn.networks import NeuronState
from plifctl.training.optimizer import autocast

_log = logging.getLogger(__name__)

BATCH = 16
"""Samples that :meth:`Model.predict` runs at once."""


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
    def decided_after(self) -> int:
        """Number of steps, from 1, after which the prediction stays the same."""
        other = np.flatnonzero(self.over_time != self.label)
        return int(other[-1]) + 2 if len(other) else 1


Recording = str | Path | Events | np.ndarray | Tensor
"""A file; events; or frames ``[T, P, H, W]``, or an image ``[C, H, W]`` uint8."""


class Model(nn.Module):
    """A trained network in evaluation mode, with the framing and normalisation of its inputs.

    As a module it takes event frames ``[N, T, P, H, W]`` of counts, or normalised images
    ``[N, C, H, W]``, and returns votes ``[T, N, classes]``. :meth:`predict` takes recordings.

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
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """Returns the votes ``[T, N, classes]`` of event frames ``[N, T, P, H, W]`` or images ``[N, C, H, W]``."""
        votes: Tensor = self.network(x, self.T)
        return votes

    def step(self, frame: Tensor, state: NeuronState | None = None) -> tuple[Tensor, NeuronState]:
        """Runs one time step; the caller keeps the neurons' state.

        Args:
            frame: ``[N, P, H, W]``: the frames of one step, or images that are shown again at every step.
            state: State returned by the previous step; None at the first.

        Returns:
            Votes ``[N, classes]`` of this step, and the state for the next.
        """
        return self.network.step(frame, state)

    @overload
    def predict(self, recording: Recording) -> Prediction: ...
    @overload
    def predict(self, recording: list[Recording] | tuple[Recording, ...]) -> list[Prediction]: ...
    def predict(self, recording: Recording | list[Recording] | tuple[Recording, ...]) -> Prediction | list[Prediction]:
        """Classifies a recording, or several; framing, T, transforms and normalisation are those of the training.

        Args:
            recording: A file of any known event format, taken as one sample; events
                (:class:`~plifctl.data.events.Events` or a structured array with the fields t in µs, x, y, p); frames
                ``[T, P, H, W]`` of any T; an image ``[C, H, W]`` uint8, or float in 0…1. Or a list or tuple of these.

        Returns:
            A prediction, or a list of them in the same order.

        Raises:
            RawDataError: A file cannot be read or contains no events.
            UsageError: The input does not fit the network.
        """
        if isinstance(recording, list | tuple):
            return self._predict_all(recording)
        return self._predict_all([recording])[0]

    def _predict_all(self, recordings: Sequence[Recording]) -> list[Prediction]:
        found: list[Prediction] = []
        device = next(self.network.parameters()).device
        for start in range(0, len(recordings), BATCH):
            part = recordings[start : start + BATCH]
            samples = [self._to_input(recording) for recording in part]
            for group in _of_equal_shape(samples):
                batch = torch.stack([samples[index] for index in group]).to(device)
                with torch.no_grad(), autocast(self.spec.train, device):
                    votes = self(batch).float().cpu()
                found += [self._prediction(votes[:, place], part[index]) for place, index in enumerate(group)]
        return found

    def _prediction(self, rates: Tensor, recording: Recording) -> Prediction:
        over_time = predict_over_time(rates[:, None])[:, 0].numpy()
        total = rates.sum(0, dtype=torch.float64)
        label, votes = int(over_time[-1]), float(total.sum())
        share = float(total[label]) / votes if votes else 0.0
        source = str(recording) if isinstance(recording, str | Path) else type(recording).__name__
        return Prediction(label, self.classes[label], share, rates.numpy(), over_time, source)

    def _to_input(self, recording: Recording) -> Tensor:
        """Returns the network's input for one sample: frames ``[T, P, H, W]`` or a normalised image, float32."""
        if isinstance(recording, str | Path):
            path = Path(recording).expanduser()
            if self.spec.frames is None:
                raise UsageError(f"{path}: {self.spec.title} classifies images, not recordings of events")
            return self._frames(_decode_file(path, self.spec.framing), str(path))
        if isinstance(recording, Events) or (isinstance(recording, np.ndarray) and recording.dtype.names):
            return self._frames(_as_events(recording), "events")
        array = _as_tensor(recording)
        if array.dim() == 4 and self.spec.dataset.kind == "events":
            return self._check_shape(array, array.shape[1:])
        if array.dim() == 3 and self.spec.dataset.kind == "images":
            return self._normalise(self._check_shape(array, array.shape), array.dtype)
        wanted = "frames [T, P, H, W]" if self.spec.dataset.kind == "events" else "an image [C, H, W]"
        raise UsageError(f"{self.spec.title}: found an array of shape {list(array.shape)}, expected {wanted}")

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
        if self.spec.train.normalise != "per-set":
            return x
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.spec.dataset.mean, self.spec.dataset.std))
        return (x - mean) / std

    def _frames(self, events: Events, where: str) -> Tensor:
        framing = self.spec.framing
        if framing.frames is None:
            raise UsageError(f"{self.spec.title} classifies images, not events: {where}")
        selected = select_events(framing, events, Path(where).stem)
        if not len(selected):
            raise RawDataError(f"{where}: no events to frame", hint="is it a recording of this sensor, and not empty?")
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
        name: A run (path, id, part of an id, ``last``), or a ``.pt`` file.
        checkpoint: Checkpoint of a run to use.
        fold_bn: Fold batch norms into the convolutions before them.
        device: Torch device; None: a GPU where there is one.
        kernel: Kernel of the spiking layers.
        runs_dir: Runs directory; None: PLIFCTL_RUNS_DIR, or the default one.

    Raises:
        UsageError: There is no such run.
        CheckpointError: It has no checkpoint, or it is damaged.
    """
    path = find_model(str(Path(name).expanduser()), checkpoint, runs_dir or paths.runs_dir())
    place = choose_device(device, kernel)
    trained = load_trained(path, place, fold=fold_bn, kernel=kernel)
    use_remembered_kernel(trained.network, trained.spec, place)
    return Model(trained)


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


def _as_events(recording: Events | np.ndarray) -> Events:
    """Returns the user's events sorted by time.

    Raises:
        UsageError: They are not an array ``[N]`` of whole numbers t, x, y, p.
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
                wrong = np.flatnonzero(column.astype(EVENT[name]) != column)
            if len(wrong):
                expected = {"t": "whole µs", "p": "0 or 1"}.get(name, "a whole number from 0 to 32767")
                raise UsageError(
                    f"events: event {wrong[0]} of {len(column)}: {name} is {column[wrong[0]]}, expected {expected}"
                )
    return Events.sorted_from(*(recording[name] for name in "txyp"))


def _as_tensor(recording: Recording) -> Tensor:
    """Returns the user's numbers as a tensor of their type, which shares no memory with a numpy array.

    Raises:
        UsageError: They are no real numbers.
    """
    if isinstance(recording, np.ndarray) and recording.dtype.kind in "biuf":
        return torch.tensor(np.ascontiguousarray(recording, recording.dtype.newbyteorder("=")))
    if isinstance(recording, Tensor) and not recording.is_complex():
        return recording.detach()
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


def _decode_file(path: Path, framing: Framing | None) -> Events:
    if path.is_dir():
        raise RawDataError(f"{path}: a folder, expected the file of a recording")
    if not path.is_file():
        raise RawDataError(f"{path}: no such file", hint="name the file of a recording")
    with files.machine_errors(path):
        content = path.read_bytes()
    if framing is not None:
        decoded = decode_recording(framing, content, str(path))
    else:
        decoded = decode_any(content, where=str(path), axes="authors", invalid="drop")
    for note in describe_remarks((str(path), remark) for remark in decoded.remarks):
        _log.warning(note)
    return decoded.events
