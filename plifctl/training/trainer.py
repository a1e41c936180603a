"""Training: epochs, the choice of the model kept, and a state that can be put down and taken up anywhere.

Protocol A trains on the whole training set, tests after each epoch and reports the maximum; it is optimistic.
Protocol B chooses the model on validation samples and tests it once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plifctl.config.dataset import frame_shape
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.training import TrainSpec
from plifctl.errors import CheckpointError, DivergedError, Interrupted, OutOfMemoryError, RunError
from plifctl.evaluation.accuracy import Evaluation, evaluate
from plifctl.snn.functional import predict
from plifctl.snn.kernels import Kernel
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.cuda_graph import Recorded
from plifctl.training.device_sums import Sums
from plifctl.training.layer_metrics import LayerMetrics
from plifctl.training.process import is_out_of_memory
from plifctl.training.nonfinite import find_nonfinite_layer
from plifctl.training.optimizer import Optimizer, autocast, learning_rate
from plifctl.training.progress import EpochRow, Outcome, Progress, Recorder
from plifctl.training.splits import Split

LOOK_EVERY = 16
"""Batches after which a GPU is asked for losses and gradients, and those that it was asked for before are looked at."""


def build_model(spec: ExperimentSpec, device: torch.device, kernel: Kernel = "auto") -> SpikingNetwork:
    """Returns the experiment's network with weights drawn from its seed; torch's global generators stay as they are."""
    shape = frame_shape(spec.dataset, spec.frames)
    with torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        torch.default_generator.manual_seed(spec.train.seed)
        model = SpikingNetwork(spec.network, spec.neuron, shape, len(spec.dataset.classes), kernel)
    return model.to(device)


class Trainer:
    """One training, from the first epoch or from a saved state.

    Args:
        spec: The experiment; its ``T`` is the one trained with.
        feeder: Its samples, and the processes that share them.
        split: Which of them serve for what; without validation samples it is protocol A.
        recorder: Is told of progress and keeps states.
        checkpoint_every: Save the state every so many steps too; 0: only after epochs and on signals.
        kernel: Of the spiking layers.
        graph: Record a step of a full batch as a CUDA graph; see
            :func:`~plifctl.training.optimizer.graph_unsupported_reason`.

    Raises:
        UsageError: Options that the optimiser or the schedule does not have.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        feeder: BatchLoader,
        split: Split,
        recorder: Recorder,
        *,
        checkpoint_every: int = 0,
        kernel: Kernel = "auto",
        graph: bool = False,
    ) -> None:
        self.ranks = feeder.ranks
        self.spec, self.feeder, self.split, self.recorder = spec, feeder, split, recorder
        self.checkpoint_every = checkpoint_every
        self.model = build_model(spec, feeder.device, kernel)
        self.ranks.broadcast_model(self.model)
        self.optimisation = Optimizer(self.model, spec.train, feeder.device, graph=graph)
        self._recorded = Recorded(self._whole_step, feeder.device) if graph else None
        self._sums = Sums(feeder.device)
        self.look_late = feeder.device.type == "cuda"
        self.look_every = LOOK_EVERY if self.look_late else 1
        self.vitals = LayerMetrics(self.model)
        self.progress = Progress()
        self.select_by = "validation" if len(split.validation) else "test"

    def state(self) -> dict[str, Any]:
        """Everything that decides how the training goes on: state dicts and plain values."""
        return {
            "digest": self.spec.digest,
            "model": self.model.state_dict(),
            "optimisation": self.optimisation.state(),
            "progress": asdict(self.progress),
            "vitals": self.vitals.state(),
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
            self.optimisation.restore(state["optimisation"])
            self.progress = Progress(**state["progress"])
            self.vitals.restore(state["vitals"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"the checkpoint contains no training state to resume: {error!r}") from error

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
            while self._should_continue():
                self._epoch()
            return self._outcome()
        except _Stop as stop:
            if self._should_continue():  # else the last epoch saved it, and the model is the best
                self.recorder.save("last", self.state())
            self.ranks.barrier()  # whoever leaves earlier makes torchrun end the one that saves
            where = f"after epoch {self.progress.epoch}, step {self.progress.step}"
            raise Interrupted(stop.signum, f"stopped {where}; the state is saved") from None
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            said = f"out of memory with batches of {size}: {error}"
            raise OutOfMemoryError(said, hint=_smaller(self.spec.train)) from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise RunError(
                f"batches of {size}: batch normalisation has one value a channel to normalise",
                hint="--set train.batch_size=2 or more, or --set network.batch_norm=over-time",
            ) from error

    def _should_continue(self) -> bool:
        progress, patience = self.progress, self.spec.train.early_stop
        patient = patience is None or progress.epoch - progress.best_epoch < patience
        return progress.epoch < self.spec.train.epochs and patient

    def _epoch(self) -> None:
        progress, started = self.progress, time.perf_counter()
        before = progress.seconds
        self._train_rest_of_epoch(started, before)
        found = self._evaluations()
        chosen = found[self.select_by]
        kept = self._is_best(chosen.accuracy)
        vitals = self.vitals.row()
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
            **vitals,
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
        progress, rows, every = self.progress, self.split.train, self.checkpoint_every
        steps, sums, shown = self.feeder.steps(rows), self._sums, math.nan
        self.optimisation.begin_epoch(progress.epoch)
        self.model.train()
        with closing(self.feeder.training(rows, progress.epoch, start=progress.step)) as batches:
            for batch in batches:
                begin, end = self._step_around(progress.step)
                if self._recorded is not None and batch.whole == self.spec.train.batch_size:
                    self._recorded(batch.x, batch.labels, batch.targets, batch.keys)
                else:
                    self._backward(batch, self.feeder.samples_in(rows, begin, end))
                    if progress.step + 1 == end:
                        self._optimise()
                sums.count(batch.whole)
                progress.step += 1
                if progress.step == end and (sums.batches >= self.look_every or end == steps):
                    shown = self._look(all_of_them=end == steps)
                progress.seconds = before + time.perf_counter() - started
                self.recorder.on_step(progress.epoch + 1, progress.step, steps, shown, "train")
                if progress.step < end:
                    continue  # gradients that wait for others are in no state
                signum, due = self._stop_signal(), every > 0 and progress.step // every > begin // every
                if due or signum is not None:
                    self._look(all_of_them=True)
                if due:
                    self.recorder.save("last", self.state())
                if signum is not None:
                    raise _Stop(signum)

    def _step_around(self, batch: int) -> tuple[int, int]:
        """The batches that make one step of the optimiser together with this one: the first, and the next's first."""
        size = self.spec.train.accumulate
        begin = batch - batch % size
        return begin, min(begin + size, self.feeder.steps(self.split.train))

    def _backward(self, batch: Batch, samples: int) -> None:
        """Adds a batch's part to the gradient of the mean loss of ``samples``, and to what the epoch is told by."""
        train = self.spec.train
        with autocast(train, self.feeder.device):
            rates = self.model(batch.x, self.spec.T, keys=batch.keys)
        loss = self.ranks.weighted(loss_function(train), rates, batch.targets, batch.whole)
        self.optimisation.backward(loss * (batch.whole / samples))
        self._sums.add(loss.detach() * batch.whole, predict(rates.detach()) == batch.labels)

    def _whole_step(self, x: Tensor, labels: Tensor, targets: Tensor, keys: Tensor) -> None:
        """A step of one whole batch, from samples to weights; changes tensors only, so it can be recorded."""
        size = self.spec.train.batch_size
        self._backward(Batch(x, labels, targets, keys, size), size)
        self._optimise()

    def _optimise(self) -> None:
        self.ranks.sum_gradients(self.model.parameters())
        self.optimisation.unscale()
        self.optimisation.step(self.vitals.add_gradients())

    def _look(self, *, all_of_them: bool) -> float:
        """Moves what was summed up into the progress, and returns the mean loss of the batches looked at last.

        A GPU is asked, and what it was asked before is looked at, which has come by now; it is waited for only where
        ``all_of_them`` are wanted. Spikes are 0 or 1 whatever the weights are, so the loss stays finite when they do
        not; gradients show it.
        """
        progress, shown = self.progress, math.nan
        self._sums.ask(progress.step, self.optimisation.failure())
        for part in self._sums.take(latest=all_of_them or not self.look_late):
            loss_sum, correct, failed = part.told()
            loss_sum, correct = self.ranks.sums(loss_sum, correct)
            if failed is None and not math.isfinite(loss_sum):
                failed = 0
            if failed is not None:
                begin, end = self._step_around(part.step - part.batches + failed * self.spec.train.accumulate)
                alone = f"the loss is {loss_sum / part.seen}, or the norm of all gradients together infinite"
                raise self._diverged(self._replay_failed_step(begin, end) or alone, end)
            progress.loss_sum += loss_sum
            progress.correct += int(correct)
            progress.seen += part.seen
            shown = loss_sum / part.seen
        return shown

    def _replay_failed_step(self, begin: int, end: int) -> str | None:
        """Runs the batches of a step once more, with the weights it had, and says which layer broke."""

        def again() -> None:
            self.optimisation.forget_gradients()
            batches = self.feeder.training(self.split.train, self.progress.epoch, start=begin)
            with closing(batches):
                for batch in islice(batches, end - begin):
                    self._backward(batch, self.feeder.samples_in(self.split.train, begin, end))
            self.ranks.sum_gradients(self.model.parameters())

        return find_nonfinite_layer(self.model, again)

    def _finite_taus(self) -> list[float]:
        taus = self.model.taus()
        for name, tau in zip(self.model.spiking_layers(), taus, strict=True):
            if not math.isfinite(tau):
                raise self._diverged(f"τ of layer {name} is {tau}", self.progress.step)
        return taus

    def _diverged(self, what: str, step: int) -> DivergedError:
        epoch = self.progress.epoch
        rate = learning_rate(self.spec.train, epoch)
        return DivergedError(
            f"epoch {epoch + 1}, step {step}, at a learning rate of {rate:.3g}: {what}",
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
        batches = (
            self.feeder.training(rows, self.progress.epoch, mixed=False) if as_training else self.feeder.plain(rows)
        )
        steps = self.feeder.steps(rows) if as_training else -(-len(rows) // self.spec.train.batch_size)
        with autocast(self.spec.train, self.feeder.device):
            return evaluate(self.model, self._watched(batches, steps, part, epoch), self.spec.T, self.ranks.gather)

    def _watched(
        self, batches: Generator[Batch, None, None], steps: int, part: str, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        with closing(batches):
            for step, batch in enumerate(batches, 1):
                if (signum := self._stop_signal()) is not None:
                    raise _Stop(signum)
                yield batch.x, batch.labels
                self.recorder.on_step(epoch, step, steps, math.nan, part)

    def _stop_signal(self) -> int | None:
        return self.ranks.any_signal(self.recorder.stop_signal())

    def _is_best(self, accuracy: float) -> bool:
        best = self.progress.best_accuracy
        return accuracy > best or (accuracy == best and self.spec.train.ties == "latest")

    def _outcome(self) -> Outcome:
        history = [EpochRow(**row) for row in self.progress.history]
        best = self.progress.best_epoch
        row = history[best - 1]
        if row.test_accuracy is None:
            load_weights(self.model, self.ranks.broadcast_from_first(self.recorder.load_best))
            accuracy = self._evaluate(self.split.test, "test", best).accuracy
        else:
            accuracy = row.test_accuracy
        return Outcome(accuracy, row.validation_accuracy, best, history, len(history) < self.spec.train.epochs)


class _Stop(Exception):
    def __init__(self, signum: int) -> None:
        self.signum = signum


def _smaller(train: TrainSpec) -> str:
    """What to try with less memory."""
    size = train.batch_size
    if size == 1:
        return "it is one sample at a time already: fewer time steps (--set T=…), a smaller network, another device"
    accumulate = f"--set train.accumulate={2 * train.accumulate}"
    return f"try --set train.batch_size={size // 2}; with {accumulate} the steps stay as large"


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
