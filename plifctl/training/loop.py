"""Training: epochs, the choice of the model kept, and a state that can be put down and taken up anywhere.

Protocol A trains on the whole training set, tests after each epoch and reports the maximum; it is optimistic.
Protocol B chooses the model on validation samples and tests it once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from plifctl.errors import CheckpointError, DivergedError, Interrupted, OutOfMemoryError, RunError
from plifctl.evaluation import Evaluation, evaluate
from plifctl.snn.functional import LOSSES, predict
from plifctl.snn.networks import SpikingNetwork
from plifctl.specs import ExperimentSpec, TrainSpec, frame_shape
from plifctl.splits import Split
from plifctl.training.data import Batch, Feeder


@dataclass(frozen=True)
class EpochRow:
    """One epoch's metrics: accuracies are fractions, rates spikes per neuron and step, τ in time steps."""

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    test_accuracy: float | None
    lr: float
    tau: list[float]
    firing_rate: list[float]
    seconds: float
    samples_per_second: float


class Recorder(Protocol):
    """Who is told of a training's progress. All methods are called in the training's thread."""

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """After each batch; ``part`` is ``train``, ``validate`` or ``test``."""

    def on_epoch(self, row: EpochRow) -> None:
        """After each epoch, evaluation included."""

    def save(self, name: Literal["last", "best"], state: dict[str, Any]) -> None:
        """Keeps a state: tensors and plain values only."""

    def load_best(self) -> dict[str, Any]:
        """Returns the state last saved as ``best``."""
        ...

    def stop_signal(self) -> int | None:
        """The signal that asks for a stop, or None."""
        ...


@dataclass
class Progress:
    """Where a training stands; ``epoch`` is the number of whole epochs done."""

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What a training came to; ``accuracy`` is the test accuracy that its protocol reports."""

    accuracy: float
    validation_accuracy: float | None
    best_epoch: int
    history: list[EpochRow]


def learning_rate(train: TrainSpec, epoch: int) -> float:
    """Returns the learning rate of an epoch, counted from 0.

    Source: supplement F; the published code steps ``CosineAnnealingLR(T_max=64)`` past 64 epochs.

    With a period of 64 the rate is 0 at epoch 64 and full again at 128.
    """
    position = epoch % train.cosine_period if train.schedule == "cosine-restarts" else epoch
    return train.lr * (1 + math.cos(math.pi * position / train.cosine_period)) / 2


def build_model(spec: ExperimentSpec, device: torch.device) -> SpikingNetwork:
    """Returns the experiment's network with weights drawn by its seed."""
    torch.manual_seed(spec.train.seed)
    shape = frame_shape(spec.dataset, spec.frames)
    return SpikingNetwork(spec.network, spec.neuron, shape, len(spec.dataset.classes)).to(device)


class Trainer:
    """One training, from the first epoch or from a saved state.

    Args:
        spec: The experiment; its ``T`` is the one trained with.
        feeder: Its samples.
        split: Which of them serve for what; without validation samples it is protocol A.
        recorder: Is told of progress and keeps states.
        checkpoint_every: Save the state every so many steps too; 0: only after epochs and on signals.
    """

    def __init__(
        self, spec: ExperimentSpec, feeder: Feeder, split: Split, recorder: Recorder, *, checkpoint_every: int = 0
    ) -> None:
        self.spec, self.feeder, self.split, self.recorder = spec, feeder, split, recorder
        self.checkpoint_every = checkpoint_every
        self.model = build_model(spec, feeder.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=spec.train.lr, fused=True)
        self.progress = Progress()
        self.select_by = "validation" if len(split.validation) else "test"

    def state(self) -> dict[str, Any]:
        """Everything that decides how the training goes on: state dicts and plain values."""
        return {
            "digest": self.spec.digest,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state that :meth:`state` gave.

        Raises:
            CheckpointError: The state belongs to another network or experiment, or is none of a training.
        """
        load_weights(self.model, state)
        if state.get("digest") != self.spec.digest:
            raise CheckpointError(
                f"the checkpoint is of another experiment: {str(state.get('digest'))[:12]}, not {self.spec.digest[:12]}"
            )
        try:
            self.optimizer.load_state_dict(state["optimizer"])
            self.progress = Progress(**state["progress"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint holds no state to go on from: {error!r}") from error

    def run(self) -> Outcome:
        """Trains to the last epoch and reports by the protocol.

        Raises:
            Interrupted: A signal asked for it; the state is saved.
            DivergedError: A number is not finite any more.
            OutOfMemoryError: The device ran out of memory.
            RunError: Batch normalisation has a single value to normalise.
        """
        size = self.spec.train.batch_size
        try:
            while self.progress.epoch < self.spec.train.epochs:
                self._epoch()
            return self._outcome()
        except _Stop as stop:
            if self.progress.epoch < self.spec.train.epochs:  # else the last epoch saved it, and the model is the best
                self.recorder.save("last", self.state())
            where = f"after epoch {self.progress.epoch}, step {self.progress.step}"
            raise Interrupted(stop.signum, f"stopped {where}; the state is saved") from None
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            hint = f"try --set train.batch_size={max(1, size // 2)}"
            raise OutOfMemoryError(f"out of memory with batches of {size}: {error}", hint=hint) from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RunError(
                f"batches of {size}: batch normalisation has one value a channel to normalise",
                hint="--set train.batch_size=2 or more, or --set network.batch_norm=over-time",
            ) from error

    def _epoch(self) -> None:
        progress, started = self.progress, time.perf_counter()
        before = progress.seconds
        self._train_rest_of_epoch(started, before)
        found = self._evaluations()
        chosen = found[self.select_by]
        kept = self._is_best(chosen.accuracy)
        progress.seconds = before + time.perf_counter() - started
        row = EpochRow(
            epoch=progress.epoch + 1,
            loss=progress.loss_sum / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            validation_accuracy=found["validation"].accuracy if "validation" in found else None,
            test_accuracy=found["test"].accuracy if "test" in found else None,
            lr=learning_rate(self.spec.train, progress.epoch),
            tau=self._finite_taus(),
            firing_rate=list(chosen.firing_rate.values()),
            seconds=round(progress.seconds, 3),
            samples_per_second=round(progress.seen / progress.seconds, 1),
        )
        self.progress = Progress(
            epoch=row.epoch,
            best_epoch=row.epoch if kept else progress.best_epoch,
            best_accuracy=chosen.accuracy if kept else progress.best_accuracy,
            history=[*progress.history, asdict(row)],
        )
        if kept:
            self.recorder.save("best", {"digest": self.spec.digest, "model": self.model.state_dict()})
        self.recorder.on_epoch(row)
        self.recorder.save("last", self.state())

    def _train_rest_of_epoch(self, started: float, before: float) -> None:
        progress, rows = self.progress, self.split.train
        loss_of = LOSSES[self.spec.train.loss]
        steps = self.feeder.steps(rows)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.spec.train, progress.epoch)
        self.model.train()
        for batch in self.feeder.training(rows, progress.epoch, start=progress.step):
            rates = self.model(batch.x, self.spec.T, keys=batch.keys)
            loss = loss_of(rates, batch.labels)
            value = loss.item()
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value}")
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._check_gradients()
            self.optimizer.step()
            progress.loss_sum += value * len(batch.labels)
            progress.correct += int((predict(rates) == batch.labels).sum())
            progress.seen += len(batch.labels)
            progress.step += 1
            progress.seconds = before + time.perf_counter() - started
            self.recorder.on_step(progress.epoch + 1, progress.step, steps, value, "train")
            if self.checkpoint_every and progress.step % self.checkpoint_every == 0:
                self.recorder.save("last", self.state())
            self._heed_signals()

    def _check_gradients(self) -> None:
        # Spikes are 0 or 1 whatever the weights are, so the loss stays finite when they do not; gradients show it.
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        if not torch.nn.utils.get_total_norm(gradients).isfinite():
            broken = (n for n, p in self.model.named_parameters() if p.grad is not None and not p.grad.isfinite().all())
            raise self._diverged(f"the gradient of {next(broken, 'all layers together')} is not finite")

    def _finite_taus(self) -> list[float]:
        taus = self.model.taus()
        for name, tau in zip(self.model.spiking_layers(), taus, strict=True):
            if not math.isfinite(tau):
                raise self._diverged(f"τ of layer {name} is {tau}")
        return taus

    def _diverged(self, what: str) -> DivergedError:
        progress, lr = self.progress, learning_rate(self.spec.train, self.progress.epoch)
        return DivergedError(
            f"{what} in epoch {progress.epoch + 1}, after {progress.step} steps, at a learning rate of {lr:.3g}",
            hint=f"try a lower one, e.g. --set train.lr={self.spec.train.lr / 10:g}",
        )

    def _evaluations(self) -> dict[str, Evaluation]:
        validation, test, epoch = self.split.validation, self.split.test, self.progress.epoch + 1
        if self.select_by == "test":
            return {"test": self._evaluate(test, "test", epoch)}
        found = {"validation": self._evaluate(validation, "validate", epoch)}
        if self.spec.validation.test == "every-epoch":
            found["test"] = self._evaluate(test, "test", epoch)
        return found

    def _evaluate(self, rows: np.ndarray, part: str, epoch: int) -> Evaluation:
        as_training = part == "validate" and self.spec.validation.loader == "as-training"
        batches = self.feeder.training(rows, self.progress.epoch) if as_training else self.feeder.plain(rows)
        steps = self.feeder.steps(rows) if as_training else -(-len(rows) // self.spec.train.batch_size)
        return evaluate(self.model, self._watched(batches, steps, part, epoch), self.spec.T)

    def _watched(self, batches: Iterator[Batch], steps: int, part: str, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(batches, 1):
            self._heed_signals()
            yield batch.x, batch.labels
            self.recorder.on_step(epoch, step, steps, math.nan, part)

    def _heed_signals(self) -> None:
        signum = self.recorder.stop_signal()
        if signum is not None:
            raise _Stop(signum)

    def _is_best(self, accuracy: float) -> bool:
        best = self.progress.best_accuracy
        return accuracy > best or (accuracy == best and self.spec.train.ties == "latest")

    def _outcome(self) -> Outcome:
        history = [EpochRow(**row) for row in self.progress.history]
        best = self.progress.best_epoch
        row = history[best - 1]
        if row.test_accuracy is None:
            load_weights(self.model, self.recorder.load_best())
            accuracy = self._evaluate(self.split.test, "test", best).accuracy
        else:
            accuracy = row.test_accuracy
        return Outcome(accuracy, row.validation_accuracy, best, history)


class _Stop(Exception):
    def __init__(self, signum: int) -> None:
        self.signum = signum


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what ran out: of the CPU's, torch says so in words only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def load_weights(model: SpikingNetwork, state: dict[str, Any]) -> None:
    """Loads the weights of a saved state into ``model``.

    Raises:
        CheckpointError: They belong to another network; the message names the first difference.
    """
    weights = state.get("model")
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise CheckpointError("the checkpoint holds no weights")
    own, saved = _shapes(model.state_dict()), _shapes(weights)
    missing, foreign = sorted(own - saved), sorted(saved - own)
    if missing or foreign:
        raise CheckpointError(
            f"the checkpoint is of another network: it has {_first(foreign)}, wanted is {_first(missing)}",
            hint="evaluate a checkpoint with the experiment it was trained by",
        )
    model.load_state_dict(weights)


def _shapes(weights: dict[str, Tensor]) -> set[str]:
    return {f"{name} {list(weight.shape)}" for name, weight in weights.items()}


def _first(weights: list[str]) -> str:
    return weights[0] if weights else "nothing more"
