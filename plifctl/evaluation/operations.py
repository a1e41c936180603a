"""Operations of a network on real samples: of synapses and of neurons, and an estimate of their energy.

| number | counted |
|---|---|
| dense | products of every weight and every input, zeros included |
| effective MACs | products of non-zero weight and input, where inputs are numbers: all that is not a spike |
| effective ACs | the same where inputs are spikes: weights are added, nothing is multiplied |
| membrane updates | potentials that a step changed, and all potentials of the first step |

A layer before the first neuron gets the same image at every step and runs once, so it is counted once.

Source: NeuroBench's synaptic operations and membrane updates (Yik et al. 2025).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.evaluation.accuracy import evaluation_mode
from plifctl.snn.kernels import spiking_step
from plifctl.snn.layers import Conv, Dropout, Pool
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

PICOJOULES = {"MAC": 4.6, "AC": 0.9}
"""Energy of a 32-bit floating-point multiply-accumulate and of an addition, in 45 nm CMOS (Horowitz 2014)."""

ENERGY_ASSUMPTIONS = (
    f"{PICOJOULES['MAC']} pJ per MAC, {PICOJOULES['AC']} pJ per AC (32-bit floating point, 45 nm CMOS, Horowitz 2014); "
    "effective operations of synapses only, neither neurons nor memory"
)
"""Assumptions of :attr:`Operations.energy` in words."""


@dataclass
class LayerOperations:
    """Operations of one layer.

    Attributes:
        name: Name in the state dict.
        dense: Dense MACs of its synapses.
        effective_macs: Effective MACs of its synapses.
        effective_acs: Effective ACs of its synapses.
        updates: Membrane updates of its neurons.
    """

    name: str
    dense: float = 0.0
    effective_macs: float = 0.0
    effective_acs: float = 0.0
    updates: float = 0.0


@dataclass(frozen=True)
class Operations:
    """Operations of a network per sample, the mean over several samples.

    Attributes:
        samples: Number of samples.
        layers: Layers that have synapses or neurons, in order.
    """

    samples: int
    layers: tuple[LayerOperations, ...]

    @property
    def total(self) -> LayerOperations:
        """The sum over all layers, named ``total``."""
        return LayerOperations(
            "total",
            sum(layer.dense for layer in self.layers),
            sum(layer.effective_macs for layer in self.layers),
            sum(layer.effective_acs for layer in self.layers),
            sum(layer.updates for layer in self.layers),
        )

    @property
    def energy(self) -> float:
        """Estimated energy of the synapses, joule: effective operations at :data:`PICOJOULES`, no memory access."""
        total = self.total
        return 1e-12 * (PICOJOULES["MAC"] * total.effective_macs + PICOJOULES["AC"] * total.effective_acs)

    @property
    def dense_energy(self) -> float:
        """The same if every product were computed."""
        return 1e-12 * PICOJOULES["MAC"] * self.total.dense


@torch.no_grad()
def count_operations(model: SpikingNetwork, batches: Iterable[Tensor], T: int) -> Operations:
    """Runs a network by its definition, in evaluation mode, and counts its operations.

    Args:
        model: The network; its mode is restored.
        batches: At least one sample; inputs of the network.
        T: Time steps, for images.
    """
    counts = {
        name: LayerOperations(name)
        for name, layer in model.layers.items()
        if isinstance(layer, Conv | nn.Linear | SpikingLayer)
    }
    samples = 0
    with evaluation_mode(model):
        for batch in batches:
            samples += len(batch)
            _count_batch(model, batch, T, counts)
    for layer in counts.values():
        for name in ("dense", "effective_macs", "effective_acs", "updates"):
            setattr(layer, name, getattr(layer, name) / samples)
    return Operations(samples, tuple(counts.values()))


def _count_batch(model: SpikingNetwork, batch: Tensor, T: int, counts: dict[str, LayerOperations]) -> None:
    x = batch[None] if batch.dim() == 4 else batch.transpose(0, 1)
    binary = False  # inputs are spikes
    for name, layer in model.layers.items():
        if isinstance(layer, Conv | nn.Linear):
            x = x.flatten(2) if isinstance(layer, nn.Linear) else x
            products = _products(layer, x != 0, layer.weight != 0)
            counts[name].dense += len(x) * _products(layer, torch.ones_like(x[:1]), torch.ones_like(layer.weight))
            if binary:
                counts[name].effective_acs += products
            else:
                counts[name].effective_macs += products
            x, binary = layer(x), False
        elif isinstance(layer, SpikingLayer):
            x, updates = _scan_with_updates(layer, x if len(x) > 1 or batch.dim() == 5 else x.expand(T, *x.shape[1:]))
            counts[name].updates += updates
            binary = True
        elif not isinstance(layer, Dropout):
            x = layer(x)
            binary = binary and isinstance(layer, Pool) and layer.mode == "max"


def _products(layer: Conv | nn.Linear, x: Tensor, weight: Tensor) -> float:
    """Returns the number of products of an input ``[T, N, ...]`` and a weight that are both 1; they are 0 or 1."""
    flat, weight = x.to(layer.weight).flatten(0, 1), weight.to(layer.weight)
    if isinstance(layer, nn.Linear):
        return float((flat.sum(0, dtype=torch.float64) * weight.sum(0, dtype=torch.float64)).sum())
    stride, padding = cast("tuple[int, int]", layer.stride), cast("tuple[int, int]", layer.padding)
    with torch.autocast(x.device.type, enabled=False):  # half precision counts to 256 only
        return float(F.conv2d(flat, weight, stride=stride, padding=padding).sum(dtype=torch.float64))


def _scan_with_updates(layer: SpikingLayer, x: Tensor) -> tuple[Tensor, float]:
    """Returns the spikes of inputs ``[T, N, ...]``, and the number of potentials changed."""
    dynamics = layer.dynamics(x)
    v: Tensor | None = None
    updates, spikes = 0.0, []
    for x_t in x:
        spike, v_after = spiking_step(x_t, v, dynamics)
        updates += float(v_after.numel() if v is None else (v_after != v).sum())
        v = v_after
        spikes.append(spike)
    return torch.stack(spikes), updates
