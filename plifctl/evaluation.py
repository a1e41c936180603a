"""What a trained network does: accuracy, confusion, firing rate and τ of each layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plifctl.snn.functional import predict
from plifctl.snn.networks import FiringRates, SpikingNetwork, rates_of


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
def evaluate(
    model: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    T: int,
    gather: Callable[[Any], list[Any]] = lambda own: [own],
) -> Evaluation:
    """Runs the network on ``batches`` in evaluation mode and leaves its mode as it was.

    Args:
        model: The network.
        batches: At least one; inputs as the network takes them, and labels ``[N]``. One of a process may be empty.
        T: Time steps, for images.
        gather: Where several processes evaluate a share of each batch: returns what each of them hands to it, in the
            order of their shares. All of them get the answers to all samples.
    """
    firing = FiringRates()
    was_training = model.training
    model.eval()
    try:
        answers = [(predict(model(x, T, firing=firing)).cpu(), y.cpu()) for x, y in batches]
    finally:
        model.train(was_training)
    found = gather((answers, firing.counts()))
    in_order = [share for batch in zip(*(shares for shares, _ in found), strict=True) for share in batch]
    predictions, labels = (torch.cat(part).numpy() for part in zip(*in_order, strict=True))
    return Evaluation(predictions, labels, rates_of(counts for _, counts in found))
