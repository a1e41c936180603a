"""A network from its spec: the layers of Table S1, applied to sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from plifctl.config import structure
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.snn.functional import vote
from plifctl.snn.kernels import Kernel, held_dropout, spiking_stage
from plifctl.snn.layers import BatchNorm, Conv, Dropout, Pool
from plifctl.snn.neurons import SpikingLayer

Observer = Callable[[str, Tensor], None]
"""Is handed the name of each spiking layer and its spikes ``[T, N, ...]``."""


class FiringRates:
    """Counts the spikes of each spiking layer, before pooling, over as many batches as it is handed to."""

    def __init__(self) -> None:
        self._spikes: dict[str, Tensor] = {}
        self._neurons: dict[str, int] = {}

    def add(self, name: str, count: Tensor, neurons: int) -> None:
        """Adds the ``count`` of spikes of a layer; ``neurons`` is how many there could have been."""
        self._spikes[name] = self._spikes[name] + count if name in self._spikes else count
        self._neurons[name] = self._neurons.get(name, 0) + neurons

    def counts(self) -> dict[str, tuple[float, int]]:
        """Returns of each layer the spikes, and how many there could have been."""
        return {name: (float(count), self._neurons[name]) for name, count in self._spikes.items()}


def rates_of(counts: Iterable[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Returns the spikes per neuron and step of each layer, 0…1, of what one process or several counted."""
    parts = list(counts)
    return {name: sum(part[name][0] for part in parts) / sum(part[name][1] for part in parts) for name in parts[0]}


class _Stage(NamedTuple):
    """Layers that are done in one: spiking neurons, batch norm before them, pooling after them."""

    name: str
    norm: BatchNorm | None
    spiking: SpikingLayer
    pool: Pool | None
    layers: int


def _stage_at(layers: list[tuple[str, nn.Module]], number: int, *, whole: bool) -> _Stage | None:
    """Returns the stage that begins at a layer, if one does; without the pooling where ``whole`` spikes are wanted."""
    norm = layers[number][1]
    at = number + isinstance(norm, BatchNorm)
    name, spiking = layers[at] if at < len(layers) else ("", None)
    if not isinstance(spiking, SpikingLayer):
        return None
    pool = layers[at + 1][1] if at + 1 < len(layers) else None
    inside = isinstance(pool, Pool) and pool.kernel == pool.stride and not whole
    return _Stage(
        name,
        norm if isinstance(norm, BatchNorm) else None,
        spiking,
        pool if isinstance(pool, Pool) and inside else None,
        at - number + 1 + inside,
    )


class SpikingNetwork(nn.Module):
    """The layers of a :class:`NetworkSpec` with one kind of neuron.

    Layers are named by kind and order (``conv0``, ``bn0``, ``sn0`` …), so that a state dict reads like the structure.

    Args:
        network: Structure, dropout probability, kind of batch norm.
        neuron: The neuron of every SN layer.
        input_shape: ``(C, H, W)`` of one frame or image.
        classes: Number of classes; the structure must end in as many votes.
        kernel: How the spiking layers scan over time.

    Raises:
        ValueError: The structure does not fit the input or the classes.
    """

    def __init__(
        self,
        network: NetworkSpec,
        neuron: NeuronSpec,
        input_shape: tuple[int, int, int],
        classes: int,
        kernel: Kernel = "auto",
    ) -> None:
        super().__init__()
        self.network, self.neuron = network, neuron
        self.input_shape, self.classes = input_shape, classes
        self.layers = nn.ModuleDict()
        self.voters = 1
        self.kernel: Kernel = kernel
        layers = structure.parse_structure(network.structure)
        shape: tuple[int, ...] = input_shape
        after = structure.shapes_after(layers, input_shape, classes)
        for name, layer, shape_after in zip(structure.layer_names(layers), layers, after, strict=True):
            module = self._module(layer, shape)
            if module is not None:
                self.layers[name] = module
            shape = shape_after

    def _module(self, layer: structure.Layer, shape: tuple[int, ...]) -> nn.Module | None:
        match layer:
            case structure.Conv(channels, size, stride, bias):
                return Conv(shape[0], channels, size, stride, bias=bias)
            case structure.Pool(mode, size, stride):
                return Pool(mode, size, stride)
            case structure.Linear(features):
                return nn.Linear(torch.Size(shape).numel(), features, bias=False)
            case structure.Vote(voters):
                self.voters = voters
                return None
            case structure.Plain("batch-norm"):
                return BatchNorm(shape[0], per_step=self.network.batch_norm == "per-step")
            case structure.Plain("spiking"):
                return SpikingLayer(self.neuron, shape)
            case _:
                return Dropout(self.network.dropout)

    def forward(
        self,
        x: Tensor,
        T: int | None = None,
        *,
        keys: Tensor | None = None,
        observe: Observer | None = None,
        firing: FiringRates | None = None,
    ) -> Tensor:
        """Runs the network from rest.

        Args:
            x: Event frames ``[N, T, C, H, W]``, or images ``[N, C, H, W]`` that are shown for ``T`` steps.
            T: Number of time steps, for images.
            keys: int64 ``[N]``, what each sample's dropout masks are drawn from; in training only.
            observe: Called with each spiking layer's name and spikes.
            firing: Is told how many spikes there were.

        Returns:
            The vote of each class at each step, ``[T, N, classes]``.
        """
        if x.dim() == 4:
            if T is None:
                raise ValueError("images need T, the number of time steps")
            x = x[None]  # the layers before the first neuron see one step, the same for every t
        else:
            x, T = x.transpose(0, 1), x.shape[1]
        if self.training and keys is None:
            raise ValueError("training needs keys, one a sample, to draw the dropout masks from")
        layers = list(self.layers.items())
        number = 0
        while number < len(layers):
            layer = layers[number][1]
            if isinstance(layer, Dropout):
                x = held_dropout(x, keys, number, layer.p, self.kernel) if self.training and keys is not None else x
            elif isinstance(layer, nn.Linear):
                x = layer(x.flatten(2))
            elif (stage := _stage_at(layers, number, whole=observe is not None)) is not None:
                spikes = spiking_stage(x, T, stage.spiking.dynamics(x), stage.norm, stage.pool, self.kernel)
                x = spikes.pooled
                if firing is not None:
                    firing.add(stage.name, spikes.fired, spikes.neurons)
                if observe is not None:
                    observe(stage.name, x)
                number += stage.layers - 1
            else:
                x = layer(x)
            number += 1
        return vote(x, self.voters)

    def spiking_layers(self) -> dict[str, SpikingLayer]:
        """Returns the spiking layers by name, in order."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, SpikingLayer)}

    def taus(self) -> list[float]:
        """Returns each spiking layer's time constant, in time steps."""
        return [layer.tau for layer in self.spiking_layers().values()]
