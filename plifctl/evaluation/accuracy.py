"""What a trained network does: accuracy, confusion, firing rate and τ of each layer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from plifctl.snn.functional import predict, predict_over_time
from plifctl.snn.networks import FiringRates, SpikingNetwork, rates_of


@dataclass(frozen=True)
class Latency:
    """After how many steps, from 1, the answers are right.

    Attributes:
        first: The first step with a right answer, of samples that ever have one.
        settled: The step from which on the answer is right to the end, of samples whose last answer is.
        never: Samples without a right answer at any step.
        wrong: Samples whose last answer is wrong.
    """

    first: np.ndarray
    settled: np.ndarray
    never: int
    wrong: int


@dataclass(frozen=True)
class Evaluation:
    """The answers of a network.

    Attributes:
        predictions: Class index of each sample ``[N]``.
        labels: The right ones ``[N]``.
        firing_rate: Of each spiking layer by name: spikes per neuron and step, 0…1.
        over_time: What the answers would be if the network stopped after each step ``[T, N]``; None: not asked.
    """

    predictions: np.ndarray
    labels: np.ndarray
    firing_rate: dict[str, float]
    over_time: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """Fraction of right answers."""
        return float((self.predictions == self.labels).mean())

    def confusion(self, classes: int) -> np.ndarray:
        """Counts ``[classes, classes]``: row the right class, column the answer."""
        flat = self.labels * classes + self.predictions
        return np.bincount(flat, minlength=classes**2).reshape(classes, classes)

    def latency(self) -> Latency:
        """How soon the answers are right; :attr:`over_time` must be there."""
        assert self.over_time is not None
        right = self.over_time == self.labels
        steps = len(right)
        ever = right.any(0)
        # from the last wrong step on, counted from behind
        settled = steps - np.where(right.all(0), steps, np.argmin(right[::-1], 0)) + 1
        return Latency(right.argmax(0)[ever] + 1, settled[right[-1]], int((~ever).sum()), int((~right[-1]).sum()))


@torch.no_grad()
def evaluate(
    model: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    T: int,
    gather: Callable[[Any], list[Any]] = lambda own: [own],
    *,
    over_time: bool = False,
) -> Evaluation:
    """Runs the network on ``batches`` in evaluation mode and leaves its mode as it was.

    Args:
        model: The network.
        batches: At least one; inputs as the network takes them, and labels ``[N]``. One of a process may be empty.
        T: Time steps, for images.
        gather: Where several processes evaluate a share of each batch: returns what each of them hands to it, in the
            order of their shares. All of them get the answers to all samples.
        over_time: Also of each step; by one process alone.
    """
    answer = predict_over_time if over_time else predict
    firing = FiringRates()
    was_training = model.training
    model.eval()
    try:
        answers = [(answer(model(x, T, firing=firing)), y) for x, y in batches]  # no batch waits for the one before
    finally:
        model.train(was_training)
    found = gather(([(a.cpu(), y.cpu()) for a, y in answers], firing.counts()))
    in_order = [share for batch in zip(*(shares for shares, _ in found), strict=True) for share in batch]
    predictions, labels = (torch.cat(part, -1).numpy() for part in zip(*in_order, strict=True))
    rates = rates_of(counts for _, counts in found)
    if over_time:
        return Evaluation(predictions[-1], labels, rates, predictions)
    return Evaluation(predictions, labels, rates)


@torch.no_grad()
def record_spikes(
    model: SpikingNetwork, batches: Iterable[Tensor], T: int, layers: Collection[str] | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Runs the network in evaluation mode and keeps which neurons fired.

    Args:
        model: The network; its mode is left as it was.
        batches: At least one; inputs as the network takes them.
        T: Time steps, for images.
        layers: Spiking layers to keep; None: all.

    Returns:
        The votes ``[N, T, classes]``, and of each layer its spikes before pooling, bool ``[N, T, ...]``.
    """
    votes: list[np.ndarray] = []
    spikes: dict[str, list[np.ndarray]] = {}

    def keep(name: str, fired: Tensor) -> None:
        if layers is None or name in layers:
            spikes.setdefault(name, []).append((fired != 0).transpose(0, 1).cpu().numpy())

    was_training = model.training
    model.eval()
    try:
        for x in batches:
            votes.append(model(x, T, observe=keep).transpose(0, 1).float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(votes), {name: np.concatenate(parts) for name, parts in spikes.items()}
