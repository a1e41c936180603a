"""A network from its spec: the layers of Table S1, applied to sequences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from plifctl import structure
from plifctl.snn.functional import hash_keys, vote
from plifctl.snn.kernels import Kernel
from plifctl.snn.layers import BatchNorm, Conv, Dropout, Pool
from plifctl.snn.neurons import Spiking
from plifctl.specs import NetworkSpec, NeuronSpec

Observer = Callable[[str, Tensor], None]
"""Is handed the name of each spiking layer and its spikes ``[T, N, ...]``."""


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
        self.layers = nn.ModuleDict()
        self.voters = 1
        layers = structure.parse_structure(network.structure)
        shape: tuple[int, ...] = input_shape
        for layer, after in zip(layers, structure.shapes_after(layers, input_shape, classes), strict=True):
            module, name = self._module(layer, network, neuron, shape, kernel)
            if module is not None:
                self.layers[f"{name}{sum(key.rstrip('0123456789') == name for key in self.layers)}"] = module
            shape = after

    def _module(
        self, layer: structure.Layer, network: NetworkSpec, neuron: NeuronSpec, shape: tuple[int, ...], kernel: Kernel
    ) -> tuple[nn.Module | None, str]:
        match layer:
            case structure.Conv(channels, size, stride):
                return Conv(shape[0], channels, size, stride), "conv"
            case structure.Pool(mode, size, stride):
                return Pool(mode, size, stride), "pool"
            case structure.Linear(features):
                return nn.Linear(torch.Size(shape).numel(), features, bias=False), "fc"
            case structure.Vote(voters):
                self.voters = voters
                return None, ""
            case structure.Plain("batch-norm"):
                return BatchNorm(shape[0], per_step=network.batch_norm == "per-step"), "bn"
            case structure.Plain("spiking"):
                return Spiking(neuron, kernel), "sn"
            case _:
                return Dropout(network.dropout), "dropout"

    def forward(
        self, x: Tensor, T: int | None = None, *, keys: Tensor | None = None, observe: Observer | None = None
    ) -> Tensor:
        """Runs the network from rest.

        Args:
            x: Event frames ``[N, T, C, H, W]``, or images ``[N, C, H, W]`` that are shown for ``T`` steps.
            T: Number of time steps, for images.
            keys: int64 ``[N]``, what each sample's dropout masks are drawn from; in training only.
            observe: Called with each spiking layer's name and spikes.

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
        for number, (name, layer) in enumerate(self.layers.items()):
            if isinstance(layer, Dropout):
                x = layer(x, hash_keys(keys, number)) if keys is not None else x
            elif isinstance(layer, nn.Linear):
                x = layer(x.flatten(2))
            elif isinstance(layer, Spiking):
                x = layer(x if len(x) == T else x.expand(T, *x.shape[1:]))
                if observe is not None:
                    observe(name, x)
            else:
                x = layer(x)
        return vote(x, self.voters)

    def spiking_layers(self) -> dict[str, Spiking]:
        """Returns the spiking layers by name, in order."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, Spiking)}

    def taus(self) -> list[float]:
        """Returns each spiking layer's time constant, in time steps."""
        return [layer.tau for layer in self.spiking_layers().values()]
