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

from plifctl.errors import CheckpointError, DivergedError, Interrupted, OutOfMemoryError
from plifctl.evaluation import Evaluation, evaluate
from plifctl.snn.functional import LOSSES, predict
from plifctl.snn.networks import SpikingNetwork
from plifctl.specs import ExperimentSpec, TrainSpec
from plifctl.training.data import Batch, Feeder


@dataclass(frozen=True)
class Rows:
    """Rows of the cache for each purpose; ``validation`` is empty in protocol A."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


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

    Example: with a period of 64 the rate is 0 at epoch 64 and full again at 128.
    """
    position = epoch % train.cosine_period if train.schedule == "cosine-restarts" else epoch
    return train.lr * (1 + math.cos(math.pi * position / train.cosine_period)) / 2


def build_model(spec: ExperimentSpec, device: torch.device) -> SpikingNetwork:
    """Returns the experiment's network with weights drawn by its seed."""
    torch.manual_seed(spec.train.seed)
    return SpikingNetwork(spec.network, spec.neuron, spec.dataset.shape, len(spec.dataset.classes)).to(device)


class Trainer:
    """One training, from the first epoch or from a saved state.

    Args:
        spec: The experiment; its ``T`` is the one trained with.
        feeder: Its samples.
        rows: Which of them serve for what.
        recorder: Is told of progress and keeps states.
        checkpoint_every: Save the state every so many steps too; 0: only after epochs and on signals.
    """

    def __init__(
        self, spec: ExperimentSpec, feeder: Feeder, rows: Rows, recorder: Recorder, *, checkpoint_every: int = 0
    ) -> None:
        self.spec, self.feeder, self.rows, self.recorder = spec, feeder, rows, recorder
        self.checkpoint_every = checkpoint_every
        self.model = build_model(spec, feeder.device)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=spec.train.lr, fused=True)
        self.progress = Progress()
        self.select_by = "validation" if len(rows.validation) else "test"

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
            CheckpointError: The state belongs to another network.
        """
        load_weights(self.model, state)
        self.optimizer.load_state_dict(state["optimizer"])
        self.progress = Progress(**state["progress"])

    def run(self) -> Outcome:
        """Trains to the last epoch and reports by the protocol.

        Raises:
            Interrupted: A signal asked for it; the state is saved.
            DivergedError: The loss is not finite.
            OutOfMemoryError: The device ran out of memory.
        """
        try:
            while self.progress.epoch < self.spec.train.epochs:
                self._epoch()
        except _Stop as stop:
            self.recorder.save("last", self.state())
            where = f"epoch {self.progress.epoch + 1}, step {self.progress.step}"
            raise Interrupted(stop.signum, f"stopped in {where}; the state is saved") from None
        except torch.OutOfMemoryError as error:
            size = self.spec.train.batch_size
            hint = f"try --set train.batch_size={max(1, size // 2)}"
            raise OutOfMemoryError(f"out of memory with batches of {size}: {error}", hint=hint) from error
        return self._outcome()

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
            tau=self.model.taus(),
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
        progress, rows = self.progress, self.rows.train
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
                raise DivergedError(
                    f"the loss is {value} in epoch {progress.epoch + 1}, step {progress.step + 1}",
                    hint="try a lower rate, e.g. --set train.lr=1e-4",
                )
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
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

    def _evaluations(self) -> dict[str, Evaluation]:
        validation, test = self.rows.validation, self.rows.test
        if self.select_by == "test":
            return {"test": self._evaluate(test, "test")}
        found = {"validation": self._evaluate(validation, "validate")}
        if self.spec.validation.test == "every-epoch":
            found["test"] = self._evaluate(test, "test")
        return found

    def _evaluate(self, rows: np.ndarray, part: str) -> Evaluation:
        as_training = part == "validate" and self.spec.validation.loader == "as-training"
        batches = self.feeder.training(rows, self.progress.epoch) if as_training else self.feeder.plain(rows)
        steps = self.feeder.steps(rows) if as_training else -(-len(rows) // self.spec.train.batch_size)
        return evaluate(self.model, self._watched(batches, steps, part), self.spec.T)

    def _watched(self, batches: Iterator[Batch], steps: int, part: str) -> Iterator[Batch]:
        for step, batch in enumerate(batches, 1):
            self._heed_signals()
            yield batch
            self.recorder.on_step(self.progress.epoch + 1, step, steps, math.nan, part)

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
            accuracy = self._evaluate(self.rows.test, "test").accuracy
        else:
            accuracy = row.test_accuracy
        return Outcome(accuracy, row.validation_accuracy, best, history)


class _Stop(Exception):
    def __init__(self, signum: int) -> None:
        self.signum = signum


def load_weights(model: SpikingNetwork, state: dict[str, Any]) -> None:
    """Loads the weights of a saved state into ``model``.

    Raises:
        CheckpointError: They belong to another network; the message names the first difference.
    """
    own, saved = _shapes(model.state_dict()), _shapes(state["model"])
    missing, foreign = sorted(own - saved), sorted(saved - own)
    if missing or foreign:
        raise CheckpointError(
            f"the checkpoint is of another network: it has {_first(foreign)}, wanted is {_first(missing)}",
            hint="evaluate a checkpoint with the experiment it was trained by",
        )
    model.load_state_dict(state["model"])


def _shapes(weights: dict[str, Tensor]) -> set[str]:
    return {f"{name} {list(weight.shape)}" for name, weight in weights.items()}


def _first(weights: list[str]) -> str:
    return weights[0] if weights else "nothing more"
