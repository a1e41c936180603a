"""What a network does for a sample, counted on real samples: operations of synapses and of neurons, and their energy.

| number | counted |
|---|---|
| dense | products of every weight and every input, zeros too |
| effective MACs | products of a weight and an input, both not 0, where inputs are numbers: images, frames, averages |
| effective ACs | the same where inputs are spikes: nothing is multiplied, weights are added up |
| membrane updates | potentials that a step changed, and all of the first step |

A layer before the first neuron sees the same image at every step and runs once, so it is counted once.

Source: NeuroBench's synaptic operations and membrane updates (Yik et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import charge, fire, reset
from plifctl.snn.layers import Conv, Dropout, Pool
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

PICOJOULES = {"MAC": 4.6, "AC": 0.9}
"""Of a 32-bit floating-point multiplication with addition, and of an addition alone, in 45 nm CMOS (Horowitz 2014)."""


@dataclass
class LayerOperations:
    """Operations of one layer, summed over samples.

    Attributes:
        name: As in the state dict.
        dense: Of synapses.
        effective_macs: Of synapses.
        effective_acs: Of synapses.
        updates: Of neurons.
    """

    name: str
    dense: float = 0.0
    effective_macs: float = 0.0
    effective_acs: float = 0.0
    updates: float = 0.0


@dataclass(frozen=True)
class Operations:
    """Operations of a network, for one sample: the mean over those that were counted.

    Attributes:
        samples: How many were counted.
        layers: Those that have synapses or neurons, in order.
    """

    samples: int
    layers: tuple[LayerOperations, ...]

    def total(self, name: str) -> float:
        """Returns the sum of one of the numbers over all layers."""
        return float(sum(getattr(layer, name) for layer in self.layers))

    @property
    def energy(self) -> float:
        """An estimate of the synapses' energy, joule: effective operations at :data:`PICOJOULES`, no memory traffic."""
        macs, acs = self.total("effective_macs"), self.total("effective_acs")
        return 1e-12 * (PICOJOULES["MAC"] * macs + PICOJOULES["AC"] * acs)

    @property
    def dense_energy(self) -> float:
        """The same if every product were calculated."""
        return 1e-12 * PICOJOULES["MAC"] * self.total("dense")


@torch.no_grad()
def count_operations(model: SpikingNetwork, batches: Iterable[Tensor], T: int) -> Operations:
    """Runs a network by its definition, in evaluation mode, and counts what it does.

    Args:
        model: The network; its mode is left as it was.
        batches: At least one sample; inputs as the network takes them.
        T: Time steps, for images.
    """
    was_training = model.training
    model.eval()
    found = {
        name: LayerOperations(name)
        for name, layer in model.layers.items()
        if isinstance(layer, Conv | nn.Linear | SpikingLayer)
    }
    samples = 0
    try:
        for batch in batches:
            samples += len(batch)
            _count(model, batch, T, found)
    finally:
        model.train(was_training)
    for layer in found.values():
        for name in ("dense", "effective_macs", "effective_acs", "updates"):
            setattr(layer, name, getattr(layer, name) / samples)
    return Operations(samples, tuple(found.values()))


def _count(model: SpikingNetwork, batch: Tensor, T: int, found: dict[str, LayerOperations]) -> None:
    x = batch[None] if batch.dim() == 4 else batch.transpose(0, 1)
    binary = False  # inputs are spikes
    for name, layer in model.layers.items():
        if isinstance(layer, Conv | nn.Linear):
            x = x.flatten(2) if isinstance(layer, nn.Linear) else x
            products = _products(layer, x != 0, layer.weight != 0)
            found[name].dense += len(x) * _products(layer, torch.ones_like(x[:1]), torch.ones_like(layer.weight))
            if binary:
                found[name].effective_acs += products
            else:
                found[name].effective_macs += products
            x = layer(x)
        elif isinstance(layer, SpikingLayer):
            x, updates = _fired(layer, x if len(x) > 1 or batch.dim() == 5 else x.expand(T, *x.shape[1:]))
            found[name].updates += updates
            binary = True
        elif not isinstance(layer, Dropout):
            x = layer(x)
            binary = binary and not (isinstance(layer, Pool) and layer.mode == "average")


def _products(layer: Conv | nn.Linear, x: Tensor, weight: Tensor) -> float:
    """How many products of an input ``[T, N, ...]`` and a weight that both count there are; 1: counts, 0: does not."""
    flat, weight = x.to(layer.weight).flatten(0, 1), weight.to(layer.weight)
    if isinstance(layer, nn.Linear):
        return float((flat.sum(0, dtype=torch.float64) * weight.sum(0, dtype=torch.float64)).sum())
    stride, padding = cast("tuple[int, int]", layer.stride), cast("tuple[int, int]", layer.padding)
    return float(F.conv2d(flat, weight, stride=stride, padding=padding).sum(dtype=torch.float64))


def _fired(layer: SpikingLayer, x: Tensor) -> tuple[Tensor, float]:
    """The spikes of ``[T, N, ...]``, and how many potentials were changed."""
    k, v_threshold, v_reset, soft, _, surrogate, width = layer.dynamics(x)
    v = torch.full_like(x[0], v_reset)
    updates, spikes = float(v.numel()), []
    for t, x_t in enumerate(x):
        h = charge(x_t, v, k, v_reset)
        spike = fire(h, v_threshold, surrogate, width)
        after = reset(h, spike, v_threshold, v_reset, soft=soft, detach=True)
        updates += float((after != v).sum()) if t else 0.0
        v = after
        spikes.append(spike)
    return torch.stack(spikes), updates
