"""A network from its spec: the layers of Table S1, applied to sequences."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from plifctl.config import structure
from plifctl.config.choices import Kernel, Memory
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.errors import UsageError, did_you_mean
from plifctl.snn.functional import vote
from plifctl.snn.kernels import Kept, apply_synapses, held_dropout, spiking_stage, spiking_step
from plifctl.snn.kernels.forking import check_not_forked
from plifctl.snn.keyed_random import hash_keys
from plifctl.snn.layers import BatchNorm, Conv, Dropout, Linear, Pool
from plifctl.snn.neurons import SpikingLayer
from plifctl.snn.pool_ties import draw_max_pool

Observer = Callable[[str, Tensor], None]
"""Called with the name of each spiking layer and its spikes ``[T, N, ...]``."""

NeuronState = dict[str, Tensor]
"""Membrane potential of each spiking layer by name, ``[N, ...]``."""


LAYERS = "layers."
"""How the names of all tensors in a state dict begin."""


def split_name(tensor: str) -> tuple[str, str]:
    """Returns the layer of a tensor and its name within it, from its name in a state dict.

    Example:
        >>> split_name("layers.conv0.weight")
        ('conv0', 'weight')
    """
    layer, _, name = tensor.removeprefix(LAYERS).rpartition(".")
    return layer, name


class SpikeCounter:
    """Counts the spikes of each spiking layer, before pooling, over any number of batches."""

    def __init__(self) -> None:
        self._spikes: dict[str, Tensor] = {}
        self._neuron_steps: dict[str, int] = {}

    def add(self, name: str, spike_count: Tensor, neuron_steps: int) -> None:
        """Adds the spikes of a layer; ``neuron_steps`` is their largest possible number."""
        self._spikes[name] = self._spikes[name] + spike_count if name in self._spikes else spike_count
        self._neuron_steps[name] = self._neuron_steps.get(name, 0) + neuron_steps

    def counts(self) -> dict[str, tuple[float, int]]:
        """Returns the number of spikes of each layer, and the largest number possible."""
        return {name: (float(count), self._neuron_steps[name]) for name, count in self._spikes.items()}


def firing_rates(counts: Iterable[dict[str, tuple[float, int]]]) -> dict[str, float]:
    """Returns the spikes per neuron and step of each layer, 0…1, from the counts of one or several processes."""
    parts = list(counts)
    return {name: sum(part[name][0] for part in parts) / sum(part[name][1] for part in parts) for name in parts[0]}


class Stage(NamedTuple):
    """Layers that are computed together: synapses, batch norm, spiking neurons, pooling.

    Attributes:
        name: Name of the spiking layer.
        synapses: Convolution or fully connected layer before it.
        norm: Batch norm between them.
        spiking: The spiking layer.
        pool: Pooling after it.
        layers: Number of layers in the stage.
    """

    name: str
    synapses: Conv | nn.Linear | None
    norm: BatchNorm | None
    spiking: SpikingLayer
    pool: Pool | None
    layers: int


def stage_at(layers: list[tuple[str, nn.Module]], index: int, *, with_pooling: bool) -> Stage | None:
    """Returns the stage that begins with a layer; None where none does.

    Args:
        layers: All layers of a network, with their names.
        index: The layer.
        with_pooling: Make pooling in windows that do not overlap a part of the stage.
    """
    ahead = iter([*layers[index:], ("", None)])
    name, layer = next(ahead)
    synapses = norm = pool = None
    if isinstance(layer, Conv | nn.Linear):
        synapses, (name, layer) = layer, next(ahead)
    if isinstance(layer, BatchNorm):
        norm, (name, layer) = layer, next(ahead)
    if not isinstance(layer, SpikingLayer):
        return None
    _, after = next(ahead)
    if isinstance(after, Pool) and after.kernel == after.stride and with_pooling:
        pool = after
    size = 1 + sum(part is not None for part in (synapses, norm, pool))
    return Stage(name, synapses, norm, layer, pool, size)


def spike_max_pooling_at(layers: list[tuple[str, nn.Module]], index: int) -> Pool | None:
    """Returns a layer of a network if it is max pooling of the spikes of the layer before it."""
    layer = layers[index][1]
    follows_spikes = index > 0 and isinstance(layers[index - 1][1], SpikingLayer)
    return layer if isinstance(layer, Pool) and layer.mode == "max" and follows_spikes else None


def choose_kept(outputs: Mapping[str, int]) -> dict[str, Kept]:
    """Returns what each convolution keeps for the gradients, so that a step needs little memory and time.

    The backward pass of a layer needs its output and as much for the gradient. An output is kept, and not computed
    again, if the backward passes of the layers after it, which run while it is kept, then need no more than the
    largest one. The first layer is computed again: with few input channels, that is cheap.

    Args:
        outputs: Size of the output of each convolution, by name, in order.
    """
    names, sizes = list(outputs), list(outputs.values())
    largest, total = 2 * max(sizes[1:], default=0), 0
    kept: dict[str, Kept] = {}
    for index, (name, size) in enumerate(zip(names, sizes, strict=True)):
        after = 2 * max(sizes[index + 1 :], default=0)
        if index and total + size + after <= largest:
            kept[name] = "input and output"
            total += size
        else:
            kept[name] = "input"
    return kept


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    """Applies a layer that is not computed together with others to a sequence.

    Raises:
        UsageError: The layer is a batch norm of torch, which takes the dimensions of a sequence for others.
    """
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and not isinstance(layer, BatchNorm):
        raise UsageError(
            f"found a layer torch.nn.{type(layer).__name__}, expected plifctl's batch norm, which already takes the "
            "statistics of all processes",
            hint="omit convert_sync_batchnorm",
        )
    applied: Tensor = layer(x)
    return applied


_LARGEST_KEY = torch.iinfo(torch.int64).max

_GENERATOR_LOCK = threading.Lock()


@contextmanager
def drawing_weights(seed: int | None = None) -> Iterator[None]:
    """Keeps torch's global generator, which all threads share and layers draw their weights from, as it is.

    One thread at a time is inside.

    Args:
        seed: Seed of the weights that are drawn inside; None: they do not matter.
    """
    with _GENERATOR_LOCK, torch.random.fork_rng(devices=[]):  # weights are drawn on the CPU
        if seed is not None:
            torch.default_generator.manual_seed(seed)
        yield


class SpikingNetwork(nn.Module):
    """The layers of a :class:`NetworkSpec` with one kind of neuron.

    Layers are named by kind and order (``conv0``, ``bn0``, ``sn0`` …), so that a state dict reads like the structure.

    Args:
        network: Structure, dropout probability, kind of batch norm.
        neuron: The neuron of every SN layer.
        input_shape: ``(C, H, W)`` of one frame or image.
        classes: Number of classes; the structure must end in as many votes.
        kernel: Implementation of the spiking layers.
        memory: ``compact``: keep the inputs of convolutions for the gradients, and compute their outputs again; fused
            kernel only. Results are the same.

    Attributes:
        gpu_kernel: What the kernel ``auto`` means for inputs on a GPU.

    Raises:
        ValueError: The structure does not fit the input or the classes.
    """

    gpu_kernel: Kernel = "eager"

    def __init__(
        self,
        network: NetworkSpec,
        neuron: NeuronSpec,
        input_shape: tuple[int, int, int],
        classes: int,
        kernel: Kernel = "auto",
        memory: Memory = "full",
    ) -> None:
        super().__init__()
        self.network, self.neuron = network, neuron
        self.input_shape, self.classes = input_shape, classes
        self.layers = nn.ModuleDict()
        self.voters = 1
        self.kernel: Kernel = kernel
        self.memory: Memory = memory
        layers = structure.parse_structure(network.structure)
        shape: tuple[int, ...] = input_shape
        shapes_after = structure.shapes_after(layers, input_shape, classes)
        outputs: dict[str, int] = {}
        for name, layer, shape_after in zip(structure.layer_names(layers), layers, shapes_after, strict=True):
            module = self._build_module(layer, shape)
            if module is not None:
                self.layers[name] = module
            if isinstance(module, Conv):
                outputs[name] = math.prod(shape_after)
            shape = shape_after
        self._kept = choose_kept(outputs) if memory == "compact" else {}
        self._frozen_norms: tuple[BatchNorm, ...] = ()

    def _build_module(self, layer: structure.Layer, shape: tuple[int, ...]) -> nn.Module | None:
        match layer:
            case structure.Conv(channels, size, stride, bias):
                return Conv(shape[0], channels, size, stride, bias=bias)
            case structure.Pool(mode, size, stride):
                return Pool(mode, size, stride)
            case structure.Linear(features, bias):
                return Linear(torch.Size(shape).numel(), features, bias=bias)
            case structure.Vote(voters):
                self.voters = voters
                return None
            case structure.Plain("batch-norm"):
                return BatchNorm(shape[0], per_step=self.network.batch_norm == "per-step")
            case structure.Plain("spiking"):
                return SpikingLayer(self.neuron, shape)
            case _:
                return Dropout(self.network.dropout)

    def _kernel_for(self, x: Tensor) -> Kernel:
        return self.gpu_kernel if self.kernel == "auto" and x.device.type == "cuda" else self.kernel

    def freeze(self, names: Collection[str]) -> None:
        """Freezes parameters: they get no gradient. A batch norm frozen as a whole keeps its running statistics.

        Args:
            names: Names of the parameters, as in the state dict.

        Raises:
            ValueError: There is no parameter of a name.
        """
        parameters = dict(self.named_parameters())
        if unknown := sorted(set(names) - parameters.keys()):
            raise ValueError(f"no parameter {unknown[0]}; {did_you_mean(unknown[0], parameters)}")
        for name, parameter in parameters.items():
            parameter.requires_grad_(name not in names)
        norms = (layer for layer in self.layers.values() if isinstance(layer, BatchNorm))
        self._frozen_norms = tuple(norm for norm in norms if not any(p.requires_grad for p in norm.parameters()))
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        for norm in self._frozen_norms:
            norm.eval()
        return self

    def forward(
        self,
        x: Tensor,
        T: int | None = None,
        *,
        keys: Tensor | None = None,
        observe: Observer | None = None,
        counter: SpikeCounter | None = None,
    ) -> Tensor:
        """Runs the network, all neurons starting at rest.

        Args:
            x: Event frames ``[N, T, C, H, W]``, or images ``[N, C, H, W]`` that are shown for ``T`` steps.
            T: Number of time steps, for images.
            keys: int64 ``[N]``, from which each sample's dropout masks, and the ties of max pooling, are drawn; in
                training None draws them from torch's generator.
            observe: Called with each spiking layer's name and spikes, before pooling.
            counter: Counts the spikes of each layer.

        Returns:
            The vote of each class at each step, ``[T, N, classes]``.

        Raises:
            UsageError: A batch norm was replaced by one of torch.
            RunError: On a CPU, in a process that was forked after a network had run.
        """
        check_not_forked(x.device)
        if x.dim() == 4:
            if T is None:
                raise ValueError("images need T, the number of time steps")
            x = x[None]  # the layers before the first neuron run once: their input is the same at every step
        else:
            x, T = x.transpose(0, 1), x.shape[1]
        if self.training and keys is None:
            keys = torch.randint(_LARGEST_KEY, x.shape[1:2], device=x.device)
        draw_ties = self.training and self.network.pool_ties != "first" and torch.is_grad_enabled()
        layers, kernel = list(self.layers.items()), self._kernel_for(x)
        index = 0
        while index < len(layers):
            layer = layers[index][1]
            if isinstance(layer, Dropout):
                x = held_dropout(x, keys, index, layer.p, kernel) if self.training and keys is not None else x
            elif keys is not None and draw_ties and (pool := spike_max_pooling_at(layers, index)) is not None:
                x = draw_max_pool(x, hash_keys(keys, index), pool.kernel, pool.stride, self.network.pool_ties)
            elif (stage := stage_at(layers, index, with_pooling=observe is None and not draw_ties)) is not None:
                dynamics = stage.spiking.dynamics(x)
                keep = self._kept.get(layers[index][0], "all")
                output = spiking_stage(x, T, dynamics, stage.norm, stage.pool, kernel, stage.synapses, keep)
                x = output.pooled
                if counter is not None:
                    counter.add(stage.name, output.spike_count, output.neuron_steps)
                if observe is not None:
                    observe(stage.name, x)
                index += stage.layers - 1
            elif isinstance(layer, Conv | nn.Linear):
                x = apply_synapses(layer, x, kernel)
            else:
                x = _apply(layer, x)
            index += 1
        return vote(x, self.voters)

    def step(self, frame: Tensor, state: NeuronState | None = None) -> tuple[Tensor, NeuronState]:
        """Runs one time step; the caller keeps the state of the neurons.

        Steps over the frames of a sequence give the votes that :meth:`forward` gives for all of them, in float32 up to
        rounding at the threshold. The network must be in evaluation mode.

        Args:
            frame: One event frame or image per sample, ``[N, C, H, W]``.
            state: State returned by the previous step; None: all neurons are at rest.

        Returns:
            The vote of each class at this step, ``[N, classes]``, and the state after it; ``state`` is not changed.

        Raises:
            RuntimeError: The network is in training mode.
            UsageError: A batch norm was replaced by one of torch.

        Example:
            >>> structure = "c4k3s1-BN-SN-FC20-SN-APk10s10"
            >>> spec = NetworkSpec(name="s", structure=structure, dropout=0.0, batch_norm="per-step")
            >>> lif = NeuronSpec(
            ...     kind="lif", tau=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True
            ... )
            >>> model, state = SpikingNetwork(spec, lif, (1, 8, 8), classes=2).eval(), None
            >>> for frame in torch.rand(5, 1, 1, 8, 8):
            ...     rates, state = model.step(frame, state)
            >>> rates.shape, list(state)
            (torch.Size([1, 2]), ['sn0', 'sn1'])
        """
        if self.training:
            raise RuntimeError("step() needs evaluation mode: call eval() first")
        x, new_state, kernel = frame[None], {}, self._kernel_for(frame)
        for name, layer in self.layers.items():
            if isinstance(layer, SpikingLayer):
                previous = None if state is None else state[name]
                spikes, new_state[name] = spiking_step(x[0], previous, layer.dynamics(x))
                x = spikes[None]
            elif isinstance(layer, Conv | nn.Linear):
                x = apply_synapses(layer, x, kernel)
            elif not isinstance(layer, Dropout):
                x = _apply(layer, x)
        return vote(x[0], self.voters), new_state

    def spiking_layers(self) -> dict[str, SpikingLayer]:
        """Returns the spiking layers by name, in order."""
        return {name: layer for name, layer in self.layers.items() if isinstance(layer, SpikingLayer)}

    def taus(self) -> list[float]:
        """Returns each spiking layer's time constant, in time steps."""
        return [layer.tau for layer in self.spiking_layers().values()]
