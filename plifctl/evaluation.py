"""What a trained network does: accuracy, confusion, firing rate and τ of each layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plifctl.snn.functional import predict
from plifctl.snn.networks import SpikingNetwork


@dataclass(frozen=True)
class Evaluation:
    """The answers of a network.

    Attributes:
        predictions: Class index of each sample ``[N]``.
        labels: The right ones ``[N]``.
        firing_rate: Of each spiking layer by name: spikes per neuron and step, 0…1.
    """

    predictions: np.ndarray
    labels: np.ndarray
    firing_rate: dict[str, float]

    @property
    def accuracy(self) -> float:
        """Fraction of right answers."""
        return float((self.predictions == self.labels).mean())

    def confusion(self, classes: int) -> np.ndarray:
        """Counts ``[classes, classes]``: row the right class, column the answer."""
        flat = self.labels * classes + self.predictions
        return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


@torch.no_grad()
def evaluate(model: SpikingNetwork, batches: Iterable[tuple[Tensor, Tensor]], T: int) -> Evaluation:
    """Runs the network on ``batches`` in evaluation mode and leaves its mode as it was.

    Args:
        model: The network.
        batches: At least one; inputs as the network takes them, and labels ``[N]``.
        T: Time steps, for images.
    """
    spikes: dict[str, Tensor] = {}
    neurons: dict[str, int] = {}

    def observe(name: str, s: Tensor) -> None:
        spikes[name] = spikes.get(name, torch.zeros((), dtype=torch.float64, device=s.device)) + s.sum(
            dtype=torch.float64
        )
        neurons[name] = neurons.get(name, 0) + s.numel()

    was_training = model.training
    model.eval()
    try:
        answers = [(predict(model(x, T, observe=observe)).cpu(), y.cpu()) for x, y in batches]
    finally:
        model.train(was_training)
    predictions, labels = (torch.cat(part).numpy() for part in zip(*answers, strict=True))
    return Evaluation(predictions, labels, {name: float(s) / neurons[name] for name, s in spikes.items()})
