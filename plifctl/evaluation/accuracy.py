"""Evaluation of a network: predictions, accuracy, confusion, firing rates, recorded spikes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.snn.functional import predict, predict_over_time
from plifctl.snn.networks import SpikeCounter, SpikingNetwork, firing_rates


@dataclass(frozen=True)
class Evaluation:
    """Predictions of a network.

    Attributes:
        predictions: Predicted class of each sample, ``[N]``.
        labels: True class of each sample, ``[N]``.
        firing_rate: Spikes per neuron and step, 0…1, of each spiking layer by name.
        over_time: Predicted class after each step if the network stopped there, ``[T, N]``; None: not computed.
        votes: Mean rate of each class over the steps, ``[N, classes]``, 0…1; None: not computed.
    """

    predictions: np.ndarray
    labels: np.ndarray
    firing_rate: dict[str, float]
    over_time: np.ndarray | None = None
    votes: np.ndarray | None = None

    @property
    def accuracy(self) -> float:
        """Fraction of correct predictions."""
        return float((self.predictions == self.labels).mean())

    def confusion(self, classes: int) -> np.ndarray:
        """Returns counts ``[classes, classes]``: true class in rows, predicted class in columns."""
        flat = self.labels * classes + self.predictions
        return np.bincount(flat, minlength=classes**2).reshape(classes, classes)


def as_class_indices(values: np.ndarray, classes: int) -> np.ndarray:
    """Returns indices of classes in the smallest type that has room for all: uint8, or uint16 above 256 classes."""
    return values.astype(np.min_scalar_type(classes - 1))


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Sets evaluation mode within the block, and restores the mode after it."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def evaluate(
    model: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    T: int,
    gather: Callable[[Any], list[Any]] = lambda value: [value],
    *,
    over_time: bool = False,
) -> Evaluation:
    """Runs the network on ``batches`` in evaluation mode.

    Args:
        model: The network; its mode is restored.
        batches: At least one: inputs of the network, and labels ``[N]``; the shard of a rank may be empty.
        T: Time steps, for images.
        gather: Collective operation of several ranks that evaluate a shard of each batch: returns the values of all
            ranks in order. Every rank gets the predictions for all samples.
        over_time: Predict after each step as well, and keep the votes; with a single rank only.
    """

    def read_out(rates: Tensor) -> tuple[Tensor, ...]:
        """Predictions ``[..., N]``, and with ``over_time`` votes ``[classes, N]``."""
        return (predict_over_time(rates), rates.mean(0, dtype=torch.float64).T) if over_time else (predict(rates),)

    counter = SpikeCounter()
    with evaluation_mode(model):
        # results stay on the device until the end: no batch waits for the one before
        results = [(y, *read_out(model(x, T, counter=counter))) for x, y in batches]
    ranks = gather(([tuple(part.cpu() for part in result) for result in results], counter.counts()))
    in_order = [shard for batch in zip(*(shards for shards, _ in ranks), strict=True) for shard in batch]
    labels, predictions, *votes = (torch.cat(part, -1).numpy() for part in zip(*in_order, strict=True))
    rates = firing_rates(counts for _, counts in ranks)
    if over_time:
        return Evaluation(predictions[-1], labels, rates, predictions, votes[0].T)
    return Evaluation(predictions, labels, rates)


@torch.no_grad()
def record_spikes(
    model: SpikingNetwork, batches: Iterable[Tensor], T: int, layers: Collection[str] | None = None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Runs the network in evaluation mode and records its spikes.

    Args:
        model: The network; its mode is restored.
        batches: At least one; inputs of the network.
        T: Time steps, for images.
        layers: Spiking layers to record; None: all.

    Returns:
        The votes ``[N, T, classes]``, and the spikes of each layer before pooling, bool ``[N, T, ...]``.
    """
    votes: list[np.ndarray] = []
    recorded: dict[str, list[np.ndarray]] = {}

    def record(name: str, spikes: Tensor) -> None:
        if layers is None or name in layers:
            recorded.setdefault(name, []).append((spikes != 0).transpose(0, 1).cpu().numpy())

    with evaluation_mode(model):
        for x in batches:
            votes.append(model(x, T, observe=record).transpose(0, 1).float().cpu().numpy())
    return np.concatenate(votes), {name: np.concatenate(parts) for name, parts in recorded.items()}
