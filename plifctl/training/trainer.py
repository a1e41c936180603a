"""Training: epochs, selection of the best model, and state that can be saved and restored at any step.

Protocol A trains on the complete training set, tests after each epoch and reports the maximum; that is optimistic.
Protocol B selects the model on validation samples and tests it once. Protocol C trains on all samples but the test
samples, and tests the last epoch.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plifctl.config.choices import HALF_PRECISIONS, Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.config.training import TrainSpec
from plifctl.errors import (
    CheckpointError,
    DivergedError,
    Interrupted,
    RunError,
    StoppedByCallback,
    UsageError,
)
from plifctl.evaluation.accuracy import Evaluation, as_class_indices, evaluate
from plifctl.snn.functional import predict
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikingNetwork, drawing_weights
from plifctl.training.batches import Batch, BatchLoader
from plifctl.training.cuda_graph import GraphedStep
from plifctl.training.device_sums import DeviceSums
from plifctl.training.fine_tuning import select_frozen
from plifctl.training.layer_metrics import LayerMetrics
from plifctl.training.nonfinite import find_nonfinite_layer
from plifctl.training.optimizer import Optimizer, autocast, float32_products, learning_rate
from plifctl.training.process import out_of_memory_errors
from plifctl.training.progress import EpochRow, Outcome, Progress, Recorder
from plifctl.training.splits import Split

_log = logging.getLogger(__name__)

COLLECT_EVERY = 16
"""Batches between two collections of losses and gradient norms from a GPU; each collects what the one before copied."""


def build_model(spec: ExperimentSpec, device: torch.device, kernel: Kernel = "auto") -> SpikingNetwork:
    """Returns the experiment's network with weights drawn from its seed, in float32.

    Torch's global generators and default type stay as they are.
    """
    shape = spec.framing.shape
    with drawing_weights(spec.train.seed), _making_float32():
        model = SpikingNetwork(spec.network, spec.neuron, shape, len(spec.dataset.classes), kernel, spec.train.memory)
    return model.to(device)


@contextmanager
def _making_float32() -> Iterator[None]:
    """Makes tensors float32 inside, whatever the default type of the program is."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def check_memory(train: TrainSpec, device: torch.device, kernel: Kernel) -> None:
    """Raises UsageError if ``train.memory`` is compact and a training cannot run with it."""
    reason = _compact_unsupported_reason(train, device, kernel)
    if train.memory == "compact" and reason is not None:
        raise UsageError(f"train.memory: compact {reason}", hint="--set train.memory=full")


def _compact_unsupported_reason(train: TrainSpec, device: torch.device, kernel: Kernel) -> str | None:
    if device.type != "cpu" or kernel not in ("auto", "fused"):
        return f"needs the fused kernel on a CPU; the kernel is {kernel}, the device {device}"
    if train.precision in HALF_PRECISIONS:
        return f"needs train.precision fp32, not {train.precision}"
    return None


class Trainer:
    """A training, from the first epoch or from a saved state.

    Args:
        spec: The experiment; it is trained with its ``T``.
        loader: The samples, and the ranks that share them.
        split: Rows for training, validation and test; without validation rows, the test selects the model.
        recorder: Receives progress and stores states.
        last_epoch: Report the last epoch, which alone is evaluated, on the test rows (protocol C).
        checkpoint_every: Save the state every so many steps as well; 0: after epochs and on signals only.
        kernel: Implementation of the spiking layers.
        graph: Record a step of a full batch as a CUDA graph; see
            :func:`~plifctl.training.optimizer.graph_unsupported_reason`.
        start: Weights to begin with, by name; the others are drawn. With several ranks those of the first one.

    Raises:
        UsageError: Unknown options of the optimizer or the schedule, ``train.memory`` is not supported, or
            ``train.freeze`` does not fit the network.
    """

    def __init__(
        self,
        spec: ExperimentSpec,
        loader: BatchLoader,
        split: Split,
        recorder: Recorder,
        *,
        last_epoch: bool = False,
        checkpoint_every: int = 0,
        kernel: Kernel = "auto",
        graph: bool = False,
        start: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.ranks = loader.ranks
        self.spec, self.loader, self.split, self.recorder = spec, loader, split, recorder
        self.checkpoint_every, self.last_epoch = checkpoint_every, last_epoch
        check_memory(spec.train, loader.device, kernel)
        self._may_be_compact = _compact_unsupported_reason(spec.train, loader.device, kernel) is None
        self.model = build_model(spec, loader.device, kernel)
        if start is not None:
            self.model.load_state_dict({**self.model.state_dict(), **start})
        self.ranks.broadcast_model(self.model)
        self.model.freeze(select_frozen(self.model, spec.train.freeze))
        self.optimizer = Optimizer(self.model, spec.train, loader.device, graph=graph)
        self.layer_metrics = LayerMetrics(self.model)
        self.progress = Progress()
        self.select_by = "validation" if len(split.validation) else "test"
        self.collect_late = loader.device.type == "cuda"
        self.collect_every = COLLECT_EVERY if self.collect_late else 1
        self._sums = DeviceSums(loader.device)
        self._cpu_counted = 0.0  # processor time of this process up to which the progress has it
        self._graphed_step = GraphedStep(self._full_step, loader.device) if graph else None

    def state(self) -> dict[str, Any]:
        """Returns everything that decides how the training continues: state dicts and plain values.

        Checkpoints have these keys since version 0.1.0.
        """
        return {
            "digest": self.spec.digest,
            "model": self.model.state_dict(),
            "optimisation": self.optimizer.state(),
            "progress": asdict(self.progress),
            "vitals": self.layer_metrics.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that :meth:`state` returned.

        Raises:
            CheckpointError: The state belongs to another network or experiment, or is not that of a training.
        """
        load_weights(self.model, state)
        if state.get("digest") != self.spec.digest:
            raise CheckpointError(
                "the checkpoint belongs to another experiment: "
                f"found {str(state.get('digest'))[:12]}, expected {self.spec.digest[:12]}"
            )
        self._check_seed(state)
        try:
            self.optimizer.restore(state["optimisation"])
            self.progress = Progress.from_state(state["progress"])
            self.layer_metrics.restore(state["vitals"])
        except Exception as error:  # torch raises many types on a state that does not fit
            raise CheckpointError(f"the checkpoint contains no training state to resume: {error!r}") from error

    def repair_best(self) -> None:
        """Makes the best checkpoint agree with the restored state; the first rank calls it before :meth:`run`.

        A process that was killed between the state of an epoch and its best checkpoint leaves the earlier best. The
        weights of that epoch are those of the state, from which the checkpoint is written again.

        Raises:
            CheckpointError: It belongs to another epoch, is missing or damaged, and its weights are not in the state.
        """
        progress = self.progress
        if not progress.best_epoch:
            return
        in_state = progress.best_epoch == progress.epoch and not progress.step
        try:
            if self._check_best(self.recorder.load_best()) or not in_state:
                return
        except CheckpointError:
            if not in_state:
                raise
        self._save_best()

    def run(self) -> Outcome:
        """Trains to the last epoch and reports by the protocol.

        Raises:
            Interrupted: A signal stopped the training; the state is saved.
            StoppedByCallback: The recorder's ``on_saved_epoch`` returned False; the state is saved.
            DivergedError: A number is not finite.
            OutOfMemoryError: The device ran out of memory.
            RunError: Batch normalisation has a single value to normalise.
        """
        size = self.spec.train.batch_size
        try:
            with (
                out_of_memory_errors(f"out of memory with batches of {size}", self._less_memory_hint()),
                float32_products(self.spec.train, self.loader.device),
            ):
                while self._should_continue():
                    self._run_epoch()
                return self._outcome()
        except _StopSignal as stop:
            # otherwise the last epoch has saved the state, and the model now has the weights of the best epoch
            if self._should_continue():
                self.recorder.save("last", self.state())
            self.ranks.barrier()  # torchrun kills the rank that saves when another one exits
            raise Interrupted(stop.signum, f"stopped {self.progress.position}; the state is saved") from None
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            rest = len(self.split.train) % size
            is_last = size > 1 and rest > 0 and not self.spec.train.drop_last
            batches = f"the last batch, of {rest}" if is_last else f"batches of {size}"
            first = "--set train.drop_last=true" if is_last else "--set train.batch_size=2 or more"
            raise RunError(
                f"{batches}: batch normalisation has one value per channel to normalise",
                hint=f"{first}, or --set network.batch_norm=over-time",
            ) from error

    def _less_memory_hint(self) -> str:
        train, size = self.spec.train, self.spec.train.batch_size
        compact = train.memory == "full" and self._may_be_compact
        first = "try --set train.memory=compact, which gives the same results; or " if compact else "try "
        if size == 1:
            others = "fewer time steps (--set T=…), a smaller network, or another device"
            return f"batches have one sample already: {first}{others}"
        accumulate = f"--set train.accumulate={2 * train.accumulate}"
        return f"{first}--set train.batch_size={size // 2}; {accumulate} keeps the size of the optimizer's steps"

    def _should_continue(self) -> bool:
        progress, patience = self.progress, self.spec.train.early_stop
        if patience is not None and progress.history:
            # from the first of equally good epochs on; train.ties may report the last of them
            accuracies = [row[f"{self.select_by}_accuracy"] for row in progress.history]
            if progress.epoch - accuracies.index(max(accuracies)) > patience:
                return False
        return progress.epoch < self.spec.train.epochs

    def _run_epoch(self) -> None:
        progress, started = self.progress, time.perf_counter()
        before, self._cpu_counted = progress.seconds, time.process_time()
        self._train_rest_of_epoch(started, before)
        evaluations = self._evaluate_epoch()
        selecting = evaluations.get(self.select_by)
        is_best = selecting is not None and self._is_best(selecting.accuracy)
        layer_metrics = self.layer_metrics.pop_row()
        progress.seconds = before + time.perf_counter() - started
        self._count_cpu_seconds()
        row = EpochRow(
            epoch=progress.epoch + 1,
            loss=progress.loss_sum / progress.seen,
            train_accuracy=progress.correct / progress.seen,
            validation_accuracy=evaluations["validation"].accuracy if "validation" in evaluations else None,
            test_accuracy=evaluations["test"].accuracy if "test" in evaluations else None,
            lr=learning_rate(self.spec.train, progress.epoch),
            tau=self._finite_taus(),
            firing_rate=[*next(iter(evaluations.values())).firing_rate.values()],
            seconds=round(progress.seconds, 3),
            cpu_seconds=None if progress.cpu_seconds is None else round(progress.cpu_seconds, 3),
            samples_per_second=round(progress.seen / progress.seconds, 1),
            **layer_metrics,
        )
        self.progress = Progress(
            epoch=row.epoch,
            best_epoch=row.epoch if is_best else progress.best_epoch,
            best_accuracy=selecting.accuracy if selecting is not None and is_best else progress.best_accuracy,
            history=[*progress.history, asdict(row)],
        )
        self.recorder.on_epoch(row)
        self.recorder.save("last", self.state())
        if is_best:  # last: until the row and the state are written, the history has the earlier best
            self._save_best(evaluations.get("test"))
        stop = self.recorder.on_saved_epoch(row) is False
        if self.ranks.any_true(stop) and self._should_continue():
            raise StoppedByCallback(f"stopped by on_epoch after epoch {row.epoch}; the state is saved")

    def _train_rest_of_epoch(self, started: float, before: float) -> None:
        progress, rows, every = self.progress, self.split.train, self.checkpoint_every
        steps, sums, shown_loss = self.loader.steps(rows), self._sums, math.nan
        self.optimizer.begin_epoch(progress.epoch)
        self.model.train()
        with closing(self.loader.training_batches(rows, progress.epoch, start=progress.step)) as batches:
            for batch in batches:
                begin, end = self._accumulation_around(progress.step)
                if self._graphed_step is not None and batch.global_size == self.spec.train.batch_size:
                    self.full_step(batch)
                else:
                    self._forward_backward(batch, self.loader.samples_in(rows, begin, end))
                    if progress.step + 1 == end:
                        self._optimizer_step()
                sums.count(batch.global_size)
                progress.step += 1
                if progress.step == end and (sums.batches >= self.collect_every or end == steps):
                    shown_loss = self._collect_metrics(wait=end == steps)
                progress.seconds = before + time.perf_counter() - started
                self.recorder.on_step(progress.epoch + 1, progress.step, steps, shown_loss, "train")
                if progress.step < end:
                    continue  # accumulated gradients are not part of the state
                signum, due = self._stop_signal(), every > 0 and progress.step // every > begin // every
                if due or signum is not None:
                    self._collect_metrics(wait=True)
                if due or signum is not None or end == steps:
                    self._count_cpu_seconds()
                if due:
                    self.recorder.save("last", self.state())
                if signum is not None:
                    raise _StopSignal(signum)

    def _count_cpu_seconds(self) -> None:
        """Adds the processor time since the last call to that of the epoch; all ranks call it at the same steps."""
        now, progress = time.process_time(), self.progress
        (spent,) = self.ranks.sum_values(now - self._cpu_counted)
        self._cpu_counted = now
        if progress.cpu_seconds is not None:
            progress.cpu_seconds += spent

    def _accumulation_around(self, batch: int) -> tuple[int, int]:
        """Returns the first batch, and the batch after the last, of the optimizer step that a batch belongs to."""
        size = self.spec.train.accumulate
        begin = batch - batch % size
        return begin, min(begin + size, self.loader.steps(self.split.train))

    def _forward_backward(self, batch: Batch, samples: int) -> None:
        """Adds a batch's contribution to the gradient of the mean loss of ``samples``, and to the sums of the epoch."""
        rates = self._rates(batch)
        loss = self.ranks.weighted_loss(loss_function(self.spec.train), rates, batch.targets, batch.global_size)
        self.optimizer.backward(loss * (batch.global_size / samples))
        self._sums.add(loss.detach() * batch.global_size, predict(rates.detach()) == batch.labels)

    def _rates(self, batch: Batch) -> Tensor:
        """Returns the output of the network for a batch of training samples, ``[T, N, classes]``."""
        with autocast(self.spec.train, self.loader.device):
            rates: Tensor = self.model(batch.x, self.spec.T, keys=batch.keys)
        return rates

    def full_step(self, batch: Batch, *, update: bool = True) -> None:
        """Does the step of one full batch, from samples to weights; with ``graph`` it is recorded and replayed.

        Args:
            batch: The batch.
            update: Whether the weights are updated; otherwise the gradient is accumulated.
        """
        if not update:
            self._forward_backward(batch, self.spec.train.batch_size)
            return
        step = self._graphed_step or self._full_step
        step(batch.x, batch.labels, batch.targets, batch.keys)

    def _full_step(self, x: Tensor, labels: Tensor, targets: Tensor, keys: Tensor) -> None:
        """Does the step of one full batch, from samples to weights; it only changes tensors, so it can be recorded."""
        size = self.spec.train.batch_size
        self._forward_backward(Batch(x, labels, targets, keys, size), size)
        self._optimizer_step()

    def _optimizer_step(self) -> None:
        self.ranks.sum_gradients(self.model.parameters())
        self.optimizer.unscale()
        self.optimizer.step(self.layer_metrics.add_gradients())

    def _collect_metrics(self, *, wait: bool) -> float:
        """Moves the device's sums into the progress, and returns the mean loss of the batches collected last.

        On a GPU a new copy is started, and the copies before it are collected, which have arrived by now; only with
        ``wait`` the new one too. Spikes are 0 or 1 for any weights, so the loss stays finite when they do not; the
        gradients show it.
        """
        progress, mean_loss = self.progress, math.nan
        self._sums.start_copy(progress.step, self.optimizer.failure())
        for part in self._sums.pop_ready(include_latest=wait or not self.collect_late):
            loss_sum, correct, failed = part.wait()
            loss_sum, correct = self.ranks.sum_values(loss_sum, correct)
            if failed is None and not math.isfinite(loss_sum):
                failed = 0
            if failed is not None:
                begin, end = self._accumulation_around(part.step - part.batches + failed * self.spec.train.accumulate)
                no_layer = f"the loss is {loss_sum / part.samples}, or the norm of all gradients together infinite"
                raise self._diverged_error(self._replay_failed_step(begin, end) or no_layer, end)
            progress.loss_sum += loss_sum
            progress.correct += int(correct)
            progress.seen += part.samples
            mean_loss = loss_sum / part.samples
        return mean_loss

    def _replay_failed_step(self, begin: int, end: int) -> str | None:
        """Runs the batches of a step again, with the weights before it, and describes the layer that is not finite."""

        def batches() -> Iterator[Batch]:
            with closing(self.loader.training_batches(self.split.train, self.progress.epoch, start=begin)) as found:
                yield from islice(found, end - begin)

        def replay_forward() -> None:
            for batch in batches():
                self._rates(batch)

        def replay_step() -> None:
            self.optimizer.zero_grad()
            for batch in batches():
                self._forward_backward(batch, self.loader.samples_in(self.split.train, begin, end))
            self.ranks.sum_gradients(self.model.parameters())

        return find_nonfinite_layer(self.model, replay_forward, replay_step)

    def _finite_taus(self) -> list[float]:
        taus = self.model.taus()
        for name, tau in zip(self.model.spiking_layers(), taus, strict=True):
            if not math.isfinite(tau):
                raise self._diverged_error(f"τ of layer {name} is {tau}", self.progress.step)
        return taus

    def _diverged_error(self, what: str, step: int) -> DivergedError:
        epoch = self.progress.epoch
        rate = learning_rate(self.spec.train, epoch)
        return DivergedError(
            f"epoch {epoch + 1}, step {step}, at a learning rate of {rate:.3g}: {what}",
            hint=f"try a lower learning rate, e.g. --set train.lr={self.spec.train.lr / 10:g}",
        )

    def _evaluate_epoch(self) -> dict[str, Evaluation]:
        validation, test, epoch = self.split.validation, self.split.test, self.progress.epoch + 1
        if self.last_epoch and epoch < self.spec.train.epochs:
            return {"observe": self._evaluate(self._observed_rows(), "observe", epoch)}
        if self.select_by == "test":
            return {"test": self._evaluate(test, "test", epoch)}
        evaluations = {"validation": self._evaluate(validation, "validate", epoch)}
        if self.spec.validation.test == "every-epoch":
            evaluations["test"] = self._evaluate(test, "test", epoch)
        return evaluations

    def _observed_rows(self) -> np.ndarray:
        """Returns some training rows, of all classes: a network that does not fire is seen before the last epoch."""
        by_class = self.split.train[np.argsort(self.loader.labels_of(self.split.train), kind="stable")]
        n, wanted = len(by_class), self.spec.train.observed_samples(len(by_class))
        return np.sort(by_class[np.linspace(0, n, wanted, endpoint=False, dtype=int)])

    def _evaluate(self, rows: np.ndarray, part: str, epoch: int) -> Evaluation:
        if part == "validate" and self.spec.validation.loader == "as-training":
            batches = self.loader.training_batches(rows, epoch - 1, cut_mix=False)
            steps = self.loader.steps(rows)
        else:
            batches = self.loader.evaluation_batches(rows)
            steps = self.spec.train.evaluation_steps(len(rows))
        with autocast(self.spec.train, self.loader.device):
            return evaluate(self.model, self._report_steps(batches, steps, part, epoch), self.spec.T, self.ranks.gather)

    def _report_steps(
        self, batches: Generator[Batch, None, None], steps: int, part: str, epoch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        with closing(batches):
            for step, batch in enumerate(batches, 1):
                if (signum := self._stop_signal()) is not None:
                    raise _StopSignal(signum)
                yield batch.x, batch.labels
                self.recorder.on_step(epoch, step, steps, math.nan, part)

    def _stop_signal(self) -> int | None:
        return self.ranks.any_signal(self.recorder.stop_signal())

    def _is_best(self, accuracy: float) -> bool:
        best = self.progress.best_accuracy
        return self.last_epoch or accuracy > best or (accuracy == best and self.spec.train.ties == "latest")

    def _save_best(self, tested: Evaluation | None = None) -> None:
        """Saves the weights as those of the best epoch, with its predictions where it was tested."""
        progress = self.progress
        stated: dict[str, Any] = {"epoch": progress.best_epoch, "accuracy": progress.best_accuracy}
        if tested is not None:
            stated["predictions"] = torch.from_numpy(self._class_indices(tested))
        self.recorder.save("best", {"digest": self.spec.digest, "model": self.model.state_dict(), **stated})

    def _check_best(self, saved: dict[str, Any]) -> bool:
        """Returns whether a best checkpoint states the best epoch of the history; False: it is of 0.1.0, states none.

        Raises:
            CheckpointError: It is that of another epoch or of another seed.
        """
        self._check_seed(saved)
        wanted = (self.progress.best_epoch, self.progress.best_accuracy)
        found = (saved.get("epoch"), saved.get("accuracy"))
        if found not in (wanted, (None, None)):
            raise CheckpointError(
                f"the best checkpoint is of epoch {found[0]} with accuracy {found[1]}, "
                f"but the best epoch of the history is {wanted[0]} with accuracy {wanted[1]}",
                hint="start a new run: omit --resume",
            )
        return found == wanted

    def _check_seed(self, saved: dict[str, Any]) -> None:
        """Raises CheckpointError for a checkpoint of another seed, which the digest of the experiment leaves out."""
        spec = saved.get("spec")
        found = self.spec.train.seed if spec is None else ExperimentSpec.model_validate_json(spec).train.seed
        if found != self.spec.train.seed:
            raise CheckpointError(
                f"the checkpoint belongs to a run of another seed: found {found}, expected {self.spec.train.seed}",
                hint="put the run's own checkpoints back, or start a new run: omit --resume",
            )

    def _outcome(self) -> Outcome:
        history = [EpochRow(**row) for row in self.progress.history]
        best = self.progress.best_epoch
        row = history[best - 1]
        saved = self.ranks.broadcast_from_first(self.recorder.load_best)
        states_epoch = self._check_best(saved)
        accuracy, predictions = row.test_accuracy, saved.get("predictions")
        if accuracy is None or predictions is None:
            load_weights(self.model, saved)
            if accuracy is None and not states_epoch:
                found = self._evaluate(self.split.validation, "validate", best).accuracy
                self._check_best({"epoch": best, "accuracy": found})
            tested = self._evaluate(self.split.test, "test", best)
            accuracy, predictions = self._reported(tested, row)
        else:
            predictions = predictions.numpy()
        stopped_early = len(history) < self.spec.train.epochs
        return Outcome(accuracy, row.validation_accuracy, best, history, stopped_early, predictions)

    def _reported(self, tested: Evaluation, row: EpochRow) -> tuple[float, np.ndarray | None]:
        """Returns the test accuracy of the best epoch, and the predictions that give it.

        Args:
            tested: The epoch's weights, tested now.
            row: The epoch's row. If it was tested then, that accuracy is reported. Another machine or version may
                predict a few other classes now, which do not give it.
        """
        then = row.test_accuracy
        if then is not None and then != tested.accuracy:
            _log.warning(
                "the predictions of epoch %d are not kept: its weights now give a test accuracy of %.6f, then %.6f",
                row.epoch,
                tested.accuracy,
                then,
            )
            return then, None
        return tested.accuracy, self._class_indices(tested)

    def _class_indices(self, tested: Evaluation) -> np.ndarray:
        return as_class_indices(tested.predictions, len(self.spec.dataset.classes))


class _StopSignal(Exception):
    def __init__(self, signum: int) -> None:
        self.signum = signum


def load_weights(model: SpikingNetwork, state: dict[str, Any]) -> None:
    """Loads the weights of a saved state into ``model``.

    Raises:
        CheckpointError: They belong to another network, or are not finite real numbers; the message names the first
            difference, or the tensor.
    """
    weights = state.get("model")
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise CheckpointError("the checkpoint contains no weights")
    expected, found = _shapes(model.state_dict()), _shapes(weights)
    missing, unexpected = sorted(expected - found), sorted(found - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"the checkpoint belongs to another network: found {_first(unexpected)}, expected {_first(missing)}",
            hint="evaluate a checkpoint with the experiment that it was trained with",
        )
    try:
        for name, expected_tensor in model.state_dict().items():
            if (problem := _unusable(weights[name], expected_tensor)) is not None:
                raise CheckpointError(
                    f"the weights cannot be used: {name} {problem}",
                    hint="use another checkpoint: --checkpoint last or best; or train the network again",
                )
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:  # e.g. of tensors without data, or of torch's other kinds
        reason = str(error).splitlines()[-1].strip()
        raise CheckpointError(f"the weights of the checkpoint cannot be loaded: {reason}") from error


def _unusable(found: Tensor, expected: Tensor) -> str | None:
    """Describes what makes a stored tensor unusable in place of the network's; None if nothing does."""
    if found.layout != torch.strided:
        return f"is stored as {found.layout}, expected a dense tensor"
    if found.is_floating_point() != expected.is_floating_point() or found.is_complex():
        return f"contains {found.dtype}, expected {expected.dtype}"
    if bad := int((~found.isfinite()).sum()):
        kind = "NaN" if found.isnan().any() else "infinite"
        return f"has {bad} of {found.numel()} values that are not finite ({kind})"
    return None


def _shapes(weights: dict[str, Tensor]) -> set[str]:
    return {f"{name} {list(weight.shape)}" for name, weight in weights.items()}


def _first(weights: list[str]) -> str:
    return weights[0] if weights else "nothing more"
