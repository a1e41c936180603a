"""Firing rates and gradients of each layer in the first training step, before any weight has changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from plifctl.config.experiment import ExperimentSpec
from plifctl.snn.losses import loss_function
from plifctl.snn.networks import SpikeCounter, firing_rates
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.batches import Batch
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


@dataclass(frozen=True)
class InitialStates:
    """The state of one network at several initial time constants.

    Attributes:
        title: Names the network beside others.
        about: Sentence on weights and samples.
        by_tau: The states by τ₀, in time steps; with learnable time constants.
    """

    title: str
    about: str
    by_tau: Mapping[float, InitialState]


def measure_initial_state(spec: ExperimentSpec, batch: Batch) -> InitialState:
    """Returns rates and gradients of one batch, in training mode: batch statistics, dropout.

    Args:
        spec: The experiment; its seed draws the weights.
        batch: The batch.
    """
    model = build_model(spec, batch.x.device).train()
    counter = SpikeCounter()
    votes = model(batch.x, spec.T, keys=batch.keys, counter=counter)
    loss_function(spec.train)(votes, batch.targets).backward()  # type: ignore[no-untyped-call]
    weights, taus = {}, {}
    for name, layer in model.layers.items():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear):
            weights[name] = _norm(layer.weight)
        elif isinstance(layer, SpikingLayer) and layer.a is not None:
            taus[name] = _norm(layer.a)
    return InitialState(firing_rates([counter.counts()]), weights, taus)


def _norm(parameter: torch.Tensor) -> float:
    assert parameter.grad is not None
    return float(parameter.grad.double().norm())
