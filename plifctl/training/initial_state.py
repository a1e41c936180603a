"""Firing rates and gradients of each layer in the first training step, before any weight has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikeCounter, firing_rates
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.trainer import build_model


@dataclass(frozen=True)
class InitialState:
    """What passes through the layers of a network with drawn weights, forward and backward; by name, in order.

    Attributes:
        firing_rates: Spikes per neuron and step of each spiking layer, 0…1.
        weight_gradients: Norm of ∂L/∂W of each convolution and fully connected layer.
        tau_gradients: Norm of ∂L/∂a of each spiking layer, where τ = 1 + exp(−a); empty for neurons with a fixed τ.
    """

    firing_rates: Mapping[str, float]
    weight_gradients: Mapping[str, float]
    tau_gradients: Mapping[str, float]


def measure_initial_state(spec: ExperimentSpec, x: Tensor, labels: Tensor) -> InitialState:
    """Returns rates and gradients of one batch, in training mode: batch statistics, dropout.

    Args:
        spec: The experiment; its seed draws the weights.
        x: Event frames ``[N, T, C, H, W]``, or images ``[N, C, H, W]``, as the network takes them.
        labels: int64 ``[N]``.
    """
    model = build_model(spec, x.device).train()
    counter = SpikeCounter()
    votes = model(x, spec.T, keys=torch.arange(len(x), device=x.device), counter=counter)
    targets = F.one_hot(labels, len(spec.dataset.classes)).to(votes.dtype)
    loss_function(spec.train)(votes, targets).backward()  # type: ignore[no-untyped-call]
    weights, taus = {}, {}
    for name, layer in model.layers.items():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            weights[name] = _norm(layer.weight)
        elif isinstance(layer, SpikingLayer) and layer.a is not None:
            taus[name] = _norm(layer.a)
    return InitialState(firing_rates([counter.counts()]), weights, taus)


def _norm(parameter: Tensor) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.double().norm())
