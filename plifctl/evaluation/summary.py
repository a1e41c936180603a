"""Summary of a network from its structure alone: shapes, parameters and operations of each layer. No torch.

Operations are those of evaluation, for one sample at one time step, by kind:

| kind | layers | counted |
|---|---|---|
| MACs | convolutions, fully connected layers | dense: zeros count, padding and bias do not |
| updates | spiking layers | one per neuron: charge, fire and reset together |
| multiply-adds | batch norm | one per value: scale and shift |
| comparisons | max pooling | k² − 1 per output value |
| adds | average pooling and the vote | n − 1 per mean of n |

Source: dense MACs as NeuroBench's synaptic operations count them: all weights and inputs 1, outputs summed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.structure import (
    Conv,
    Layer,
    Linear,
    Plain,
    Pool,
    Vote,
    layer_names,
    notation,
    parse_structure,
    shapes_after,
)

Kind = Literal["MACs", "updates", "multiply-adds", "comparisons", "adds"]


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """Summary of one layer.

    Attributes:
        name: Name in the state dict; ``vote`` has no entry there.
        notation: Notation in the structure, e.g. ``c128k3s1``.
        description: The same in words.
        shape: Output shape of one sample at one time step.
        parameters: Number of learnable values.
        operations: Number of operations for one sample at one time step.
        kind: Kind of these operations; None where there are none.
        runs: Number of times that the layer runs for one sample: T, or 1 where its input is the same at each step.
    """

    name: str
    notation: str
    description: str
    shape: tuple[int, ...]
    parameters: int
    operations: int
    kind: Kind | None
    runs: int


def summarize_experiment(spec: ExperimentSpec) -> list[LayerSummary]:
    """Returns a summary of each layer of an experiment's network, with its input, classes and T."""
    static, classes = spec.dataset.kind == "images", len(spec.dataset.classes)
    return summarize_network(spec.network, spec.neuron, spec.framing.shape, classes, spec.T, static=static)


def summarize_network(
    network: NetworkSpec, neuron: NeuronSpec, shape: tuple[int, int, int], classes: int, T: int, *, static: bool
) -> list[LayerSummary]:
    """Returns a summary of each layer of a network.

    Args:
        network: The network.
        neuron: The neuron of every SN layer.
        shape: ``(C, H, W)`` of the input.
        classes: Number of classes.
        T: Number of time steps.
        static: The input is an image, the same at each step: the layers before the first neuron run once.

    Raises:
        ValueError: The structure does not fit the input or the classes.
    """
    layers = parse_structure(network.structure)
    summaries: list[LayerSummary] = []
    before: tuple[int, ...] = shape
    once = static
    for name, layer, after in zip(layer_names(layers), layers, shapes_after(layers, shape, classes), strict=True):
        once = once and layer != Plain("spiking")
        operations, kind = _operations(layer, before, after)
        summaries.append(
            LayerSummary(
                name=name,
                notation=notation(layer),
                description=_describe(layer, neuron),
                shape=after,
                parameters=_parameters(layer, neuron, before),
                operations=operations,
                kind=kind,
                runs=1 if once else T,
            )
        )
        before = after
    return summaries


def total_operations(layers: Iterable[LayerSummary]) -> dict[Kind, tuple[int, int]]:
    """Returns the operations of each kind in all layers: for one time step, and for a sample."""
    sums: dict[Kind, tuple[int, int]] = {}
    for layer in layers:
        if layer.kind is not None:
            step, sample = sums.get(layer.kind, (0, 0))
            sums[layer.kind] = step + layer.operations, sample + layer.operations * layer.runs
    return sums


def _describe(layer: Layer, neuron: NeuronSpec) -> str:
    match layer:
        case Conv(_, kernel, stride, bias):
            return f"convolution {kernel}×{kernel}" + f", stride {stride}" * (stride > 1) + ", bias" * bias
        case Pool(mode, kernel, stride):
            return f"{mode} pooling {kernel}×{kernel}" + f", stride {stride}" * (stride != kernel)
        case Linear(_, bias):
            return "fully connected" + ", bias" * bias
        case Vote(voters):
            return f"vote of {voters} per class"
        case Plain("spiking"):
            return f"{neuron.kind.upper()} neurons" + f", τ per {neuron.tau_per}" * (neuron.tau_per != "layer")
        case Plain(kind):
            return kind.replace("-", " ")


def _parameters(layer: Layer, neuron: NeuronSpec, before: tuple[int, ...]) -> int:
    match layer:
        case Conv(channels, kernel, _, bias):
            return channels * (before[0] * kernel**2 + bias)
        case Linear(features, bias):
            return (prod(before) + bias) * features
        case Plain("batch-norm"):
            return 2 * before[0]  # γ and β; the running statistics are not learnt
        case Plain("spiking"):
            # for a fully connected layer before[0] is the number of features
            own = {"layer": 1, "channel": before[0], "neuron": prod(before)}[neuron.tau_per]
            return own * (neuron.kind == "plif") + neuron.learn_threshold + neuron.learn_surrogate_width
        case _:
            return 0


def _operations(layer: Layer, before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, Kind | None]:
    match layer:
        case Conv(channels, kernel, stride, _):
            taps = [_taps(size, kernel, stride) for size in before[1:]]
            return channels * before[0] * prod(taps), "MACs"
        case Linear(features, _):
            return prod(before) * features, "MACs"
        case Plain("spiking"):
            return prod(after), "updates"
        case Plain("batch-norm"):
            return prod(after), "multiply-adds"
        case Pool(mode, kernel, _):
            return prod(after) * (kernel**2 - 1), "comparisons" if mode == "max" else "adds"
        case Vote(voters):
            return prod(after) * (voters - 1), "adds"
        case _:
            return 0, None  # dropout does nothing in evaluation


def _taps(size: int, kernel: int, stride: int) -> int:
    """Returns the number of products of a convolution along one axis at all positions, without the padding.

    Example:
        >>> _taps(4, 3, 1)  # 2 + 3 + 3 + 2
        10
    """
    padding = kernel // 2
    starts = range(-padding, size + padding - kernel + 1, stride)
    return sum(min(start + kernel, size) - max(start, 0) for start in starts)
