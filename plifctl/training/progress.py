"""What is told, and kept, of a training's progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class EpochRow:
    """One epoch's metrics: accuracies are fractions, rates spikes per neuron and step, τ in time steps.

    Rows of earlier versions lack the fields that have a default. :mod:`plifctl.training.layer_metrics` gathers these.

    Attributes:
        tau: Of each spiking layer; the mean where it has several.
        firing_rate: Of each spiking layer, in the evaluation that chooses the model.
        seconds: Training and evaluation.
        layers: The spiking layers' names.
        a: The mean of each spiking layer's ``a`` (Eq. 6); None where τ is fixed.
        tau_quantiles: Minimum, quartiles and maximum of τ, of layers that have several.
        gradient_norm: The mean over the epoch's steps of the norm of each layer's gradient; None of neurons that
            learn nothing.
        w_over_tau: The distribution of W_fc/τ of each fully connected layer that feeds neurons (Fig. S1), as
            :func:`~plifctl.training.layer_metrics.distribution` gives it.
        peak_rss_bytes: The most memory that the process has held so far.
        peak_gpu_bytes: The same of the GPU's memory; None on the CPU.
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
    """What a training came to; ``accuracy`` is the test accuracy that its protocol reports.

    ``stopped_early``: by ``train.early_stop``, before the last epoch.
    """

    accuracy: float
    validation_accuracy: float | None
    best_epoch: int
    history: list[EpochRow]
    stopped_early: bool
