"""Progress of a training: the row of an epoch, the state of the loop, and the interface of recorders."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from plifctl.config.choices import CheckpointName
from plifctl.errors import CheckpointError

TRAINING_VERSION = 5
"""Version of the numbers that training gives. It is raised by every change after which the same experiment, seed, torch
and device give other weights: 1 is that of 0.1.0; from 2 on, layers of which few inputs fire are event-driven; in 3,
the gradient of the first layer's weights is summed before batch norm's; in 4, gradients of the inputs of 3×3
convolutions take fewer products; in 5, convolutions of one channel are computed channels-last, and gradients of the
inputs of large fully connected layers in another order. Every session of epochs records it, and runs of different
versions have no common mean. It is not part of a digest: the experiment is the same."""


@dataclass(frozen=True)
class EpochRow:
    """Metrics of an epoch: accuracies are fractions, rates spikes per neuron and step, τ in time steps.

    Rows of earlier versions lack the fields that have a default; :mod:`plifctl.training.layer_metrics` collects those.

    Attributes:
        tau: Time constant of each spiking layer; the mean where it has several.
        firing_rate: Firing rate of each spiking layer, in the evaluation that selects the model; of an epoch that is
            not evaluated (protocol C), on some training samples.
        seconds: Duration of training and evaluation.
        cpu_seconds: Processor time of both, of all threads of the process, summed over ranks; None if a part of it is
            unknown.
        layers: Names of the spiking layers.
        a: Mean of each spiking layer's ``a`` (Eq. 6); None where τ is fixed.
        tau_quantiles: Minimum, quartiles and maximum of τ, of layers that have several.
        gradient_norm: Norm of each layer's gradient, the mean over the epoch's steps; None for neurons without
            learnable parameters, and for frozen layers.
        w_over_tau: Distribution of W_fc/τ of each fully connected layer that feeds neurons (Fig. S1), as
            :func:`~plifctl.training.layer_metrics.distribution` returns it.
        peak_rss_bytes: Largest resident memory of the process so far; None where the system does not count it.
        peak_gpu_bytes: Largest allocated memory of the GPU so far; None on the CPU.
    """

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
    layers: list[str] = field(default_factory=list)
    a: list[float | None] = field(default_factory=list)
    tau_quantiles: dict[str, list[float]] = field(default_factory=dict)
    gradient_norm: dict[str, float | None] = field(default_factory=dict)
    w_over_tau: dict[str, dict[str, Any]] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    peak_gpu_bytes: int | None = None
    cpu_seconds: float | None = None


class Recorder:
    """Receives the progress of a training, stores its states, and can stop it; called in the training's thread.

    All methods do nothing unless overridden. Who overrides :meth:`save` overrides :meth:`load_best`, too.
    """

    def on_step(self, epoch: int, step: int, steps: int, loss: float, part: str) -> None:
        """Called after each batch; ``part`` is ``train``, ``validate``, ``test`` or ``observe``."""

    def on_epoch(self, row: EpochRow) -> None:
        """Called after each epoch, evaluation included, before its states are saved."""

    def on_saved_epoch(self, row: EpochRow) -> bool | None:
        """Called once they are saved; False stops the training after the epoch, any other value does not."""
        return None

    def save(self, name: CheckpointName, state: dict[str, Any]) -> None:
        """Stores a state: tensors and plain values only."""

    def load_best(self) -> dict[str, Any]:
        """Returns the state last saved as ``best``.

        Raises:
            CheckpointError: There is none; this class stores nothing.
        """
        raise CheckpointError("no state was saved as best: this recorder stores nothing")

    def stop_signal(self) -> int | None:
        """Returns the number of the signal that asks the training to stop, or None; called after each step."""
        return None


@dataclass
class Progress:
    """Position of the training loop, and sums over its current epoch.

    Attributes:
        epoch: Number of completed epochs.
        step: Number of completed batches of the current epoch.
        loss_sum: Sum of the loss over samples.
        correct: Number of correct predictions.
        seen: Number of samples in both.
        seconds: Time spent on the epoch.
        cpu_seconds: Processor time spent on the epoch, summed over ranks; None if a part of it is unknown.
        best_epoch: Epoch of the best model, from 1; 0: none. Where the last epoch is reported, that one.
        best_accuracy: Its accuracy in the evaluation that selects the model.
        history: Rows of the completed epochs, as dictionaries.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seen: int = 0
    seconds: float = 0.0
    cpu_seconds: float | None = 0.0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    history: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Progress:
        """Returns the position of a checkpoint; early ones do not state the processor time of a begun epoch."""
        unknown = {"cpu_seconds": None} if state["step"] else {}
        return cls(**{**unknown, **state})

    @property
    def position(self) -> str:
        """The position in words, for messages.

        Example:
            >>> Progress(epoch=3).position, Progress(epoch=3, step=12).position
            ('after epoch 3', 'in epoch 4, after step 12')
        """
        return f"in epoch {self.epoch + 1}, after step {self.step}" if self.step else f"after epoch {self.epoch}"


@dataclass(frozen=True)
class Outcome:
    """Outcome of a completed training.

    Attributes:
        accuracy: Test accuracy that the protocol reports.
        validation_accuracy: Validation accuracy of the same model; None without validation samples.
        best_epoch: Its epoch, from 1.
        history: Rows of all epochs.
        stopped_early: ``train.early_stop`` ended the training before the last epoch.
        predictions: Predicted class of each test sample ``[N]``, in the order of the split; None: unknown.
    """

    accuracy: float
    validation_accuracy: float | None
    best_epoch: int
    history: list[EpochRow]
    stopped_early: bool
    predictions: np.ndarray | None = field(default=None, compare=False)
