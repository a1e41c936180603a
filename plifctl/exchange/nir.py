"""Networks as graphs of the Neuromorphic Intermediate Representation (``.nir``).

NIR describes neurons by differential equations, which programs solve in steps of 0.1 ms.

| layer | nodes |
|---|---|
| convolution, fully connected | Conv2d, Linear or Affine; a Flatten node before the first fully connected layer |
| spiking neurons | LIF, τ in seconds; potentials are those above V_reset, so that leak and reset are 0 |
| neurons with several τ | LIF with r = τ/dt, and 1/τ in the weights before it, or in a Scale node |
| average pooling | AvgPool2d |
| max pooling of spikes | AvgPool2d, and a LIF node that fires if there is a spike in the window |
| normalisation of images, batch norm that was not folded | Conv2d of 1 × 1 |
| vote | Linear |

NIR fires above the threshold, plifctl also at it: the file has the next smaller number.

Source: J. E. Pedersen et al. 2024, Neuromorphic intermediate representation (Nature Communications).
"""

from __future__ import annotations

import io
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.errors import MachineError, missing_library
from plifctl.exchange.formats import refuse
from plifctl.exchange.graphs import (
    active_layers,
    channel_map,
    describe_input,
    metadata,
    normalisation,
    normalisation_notes,
    shapes_before,
)
from plifctl.exchange.model import TrainedModel
from plifctl.snn.functional import Dynamics
from plifctl.snn.layers import BatchNorm, Conv, Pool
from plifctl.snn.neurons import SpikingLayer

try:
    import nir
except ImportError as error:
    raise missing_library("nir") from error

DT = 1e-4
"""Duration of a step in seconds, the default of other programs."""

Shape = tuple[int, ...]
Nodes = Iterator[tuple[str, "nir.NIRNode"]]
"""Nodes in order, with their names."""


def write_nir(path: Path, trained: TrainedModel) -> list[str]:
    """Writes a ``.nir`` file, and reads it back.

    Args:
        path: The file.
        trained: The network, its batch norms folded where they can be.

    Returns:
        What a user of the file has to know, a sentence each.

    Raises:
        UsageError: NIR cannot describe the network.
        MachineError: The file cannot be written.
    """
    problems = list(_problems(trained))
    if problems:
        raise refuse("NIR", problems)
    nodes = dict(_nodes(trained))
    names = list(nodes)
    graph = nir.NIRGraph(nodes, list(pairwise(names)), metadata=metadata(trained))
    content = io.BytesIO()  # errors of the library's own file writing do not name a full disk
    nir.write(content, graph)
    path.write_bytes(content.getbuffer())
    if (place := _first_difference(graph.to_dict(), nir.read(path).to_dict())) is not None:
        raise MachineError(f"{path}: {place} read back is not what was written")
    return list(_notes(trained, nodes))


def _problems(trained: TrainedModel) -> Iterator[str]:
    """Yields what NIR cannot describe of a network."""
    spikes = False
    for name, layer in active_layers(trained):
        if isinstance(layer, SpikingLayer) and layer.spec.reset == "soft":
            yield f"{name}: a soft reset; NIR has hard ones only: export .onnx, or train with neuron.reset: hard"
        if isinstance(layer, SpikingLayer) and layer.a is not None and not layer.a.sigmoid().all():
            yield f"{name}: 1/τ is 0, expected above 0: export .onnx"
        maximum = isinstance(layer, Pool) and layer.mode == "max"
        if maximum and not spikes:
            yield (
                f"{name}: max pooling of other values than spikes; NIR has none:"
                " export .onnx, or train with network.pooling: average"
            )
        spikes = isinstance(layer, SpikingLayer) or (spikes and maximum)


def _nodes(trained: TrainedModel) -> Nodes:
    """Yields the nodes of the graph."""
    network, shapes = trained.network, shapes_before(trained)
    dtype = next(network.parameters()).dtype
    yield "input", nir.Input(np.array(network.input_shape))
    if (found := normalisation(trained.spec)) is not None:
        mean, std = (values.double() for values in found)
        yield "normalise", _channel_convolution(1 / std, -mean / std, network.input_shape, dtype)
    gain: Tensor | None = None
    layers = list(active_layers(trained))
    for (name, layer), (_, after) in zip(layers, [*layers[1:], ("", None)], strict=True):
        shape = shapes[name]
        if isinstance(layer, Conv | nn.Linear):
            gain = _gain_per_output(after)
            yield from _synapses(name, layer, shape, gain)
        elif isinstance(layer, SpikingLayer):
            yield from _spiking(name, layer.dynamics(torch.zeros((), dtype=dtype)), shape, scaled=gain is not None)
            gain = None
        elif isinstance(layer, Pool):
            yield from _pooling(name, layer, shape)
        elif isinstance(layer, BatchNorm):
            yield name, _channel_convolution(*channel_map(layer), shape, dtype)
    weight = torch.eye(network.classes, dtype=dtype).repeat_interleave(network.voters, 1) / network.voters
    yield "vote", nir.Linear(weight.numpy())
    yield "output", nir.Output(np.array([network.classes]))


def _synapses(name: str, layer: Conv | nn.Linear, shape: Shape, gain: Tensor | None) -> Nodes:
    """Yields the nodes of a convolution or fully connected layer, whose outputs are multiplied by ``gain``."""
    weight = layer.weight.detach().cpu()
    bias = None if layer.bias is None else layer.bias.detach().cpu()
    if gain is not None:
        weight = (weight.double() * gain.view(-1, *(1 for _ in weight.shape[1:]))).to(weight.dtype)
        bias = None if bias is None else (bias.double() * gain).to(bias.dtype)
    array = weight.contiguous().numpy()
    if isinstance(layer, Conv):
        shift = weight.new_zeros(len(weight)) if bias is None else bias
        yield name, _convolution(array, shape, layer.stride[0], layer.kernel_size[0] // 2, shift.numpy())
        return
    if len(shape) > 1:
        # counted from the end: other programs disagree whether the batch is the first dimension
        yield f"{name}_flatten", nir.Flatten({"input": np.array(shape)}, start_dim=-len(shape), end_dim=-1)
    yield name, nir.Linear(array) if bias is None else nir.Affine(array, bias.numpy())


def _gain_per_output(neurons: nn.Module | None) -> Tensor | None:
    """Returns 1/τ of each output of the synapses before ``neurons``, float64; None if there is one τ, or too many."""
    if not isinstance(neurons, SpikingLayer) or neurons.a is None or not neurons.a.dim():
        return None
    k = neurons.a.detach().sigmoid().cpu().double()
    return k.flatten() if k.numel() == len(k) else None


def _spiking(name: str, dynamics: Dynamics, shape: Shape, *, scaled: bool) -> Nodes:
    """Yields the nodes of a spiking layer; ``scaled`` says that its inputs are multiplied by 1/τ already."""
    k = dynamics.k.detach().cpu()
    if k.dim() and not scaled:
        yield f"{name}_gain", nir.Scale(k.expand(shape).contiguous().numpy())
    threshold = (dynamics.v_threshold.detach().cpu() - dynamics.v_reset).numpy()
    below = np.nextafter(threshold, threshold.dtype.type(-np.inf))
    yield name, _neurons(shape, DT / k.double().numpy(), below, r=1 / k.numpy() if k.dim() else 1.0)


def _neurons(shape: Shape, tau: Any, threshold: Any, r: Any = 1.0) -> nir.LIF:
    """Returns neurons whose potential leaks to 0 and is reset to 0.

    Args:
        shape: Shape of the layer.
        tau: Time constant in seconds, a scalar or of a shape that broadcasts to ``shape``; the threshold and r as well.
        threshold: They fire above it.
        r: Factor of the input.
    """
    parameters = {"tau": tau, "r": r, "v_threshold": threshold, "v_leak": 0.0, "v_reset": 0.0}
    return nir.LIF(**{key: np.broadcast_to(value, shape).copy() for key, value in parameters.items()})


def _pooling(name: str, layer: Pool, shape: Shape) -> Nodes:
    """Yields the nodes of a pooling layer."""
    yield name, nir.AvgPool2d(*(np.full(2, number) for number in (layer.kernel, layer.stride, 0)))
    if layer.mode == "max":
        pooled = (shape[0], *((side - layer.kernel) // layer.stride + 1 for side in shape[1:]))
        # one spike in the window charges a neuron with τ = 2 dt to half of 1/kernel²; without one it stays at 0
        yield f"{name}_max", _neurons(pooled, 2 * DT, 0.25 / layer.kernel**2)


def _channel_convolution(scale: Tensor, shift: Tensor, shape: Shape, dtype: torch.dtype) -> nir.Conv2d:
    """Returns a convolution that multiplies each channel by ``scale`` ``[C]`` and adds ``shift`` ``[C]``."""
    weight = torch.diag(scale).to(dtype).cpu()[:, :, None, None]
    return _convolution(weight.numpy(), shape, 1, 0, shift.to(dtype).cpu().numpy())


def _convolution(weight: np.ndarray, shape: Shape, stride: int, padding: int, bias: np.ndarray) -> nir.Conv2d:
    return nir.Conv2d(shape[1:], weight, stride, padding, dilation=1, groups=1, bias=bias)


def _first_difference(written: Any, read: Any, place: str = "graph") -> str | None:
    """Returns the place of the first difference between the trees of two graphs; None if they are equal."""
    if isinstance(written, dict):
        if written.keys() != read.keys():
            return place
        found = (_first_difference(value, read[key], f"{place}.{key}") for key, value in written.items())
        return next((one for one in found if one is not None), None)
    return None if np.array_equal(written, read) else place


def _notes(trained: TrainedModel, nodes: Collection[str]) -> Iterator[str]:
    """Yields what a user of the file has to know, from the network and the names of the nodes."""
    neuron = trained.network.neuron
    yield f"input: {describe_input(trained)}"
    yield from normalisation_notes(trained)
    yield "output: the votes of a step; the class is that of the highest sum over the steps"
    yield "a step is 0.1 ms; NIR fires above thresholds: they are the next numbers below those of the network"
    yield "SpikingJelly: votes, state = net(x, state) at each step; without the state, each step begins at rest"
    yield "snnTorch: votes, _ = net(x) at each step, and snntorch.utils.reset(net) before each sample"
    if maxima := [name for name in nodes if name.endswith("_max")]:
        yield f"max pooling of spikes is average pooling, then neurons that fire at one spike: {', '.join(maxima)}"
    if neuron.v_reset:
        yield f"potentials are those above v_reset = {neuron.v_reset:g}: they begin at 0, and leak and reset are 0"
    if ones := [name for name, layer in trained.network.spiking_layers().items() if _reaches_one(layer)]:
        yield f"SpikingJelly does not read τ = 1, it expects more: {', '.join(ones)}"
    if gains := [name for name in nodes if name.endswith("_gain")]:
        yield f"neither SpikingJelly nor snnTorch reads neurons of several τ in a layer here: {', '.join(gains)}"
    elif neuron.kind == "plif" and neuron.tau_per != "layer":
        yield "SpikingJelly does not read layers of several τ; snnTorch does"


def _reaches_one(layer: SpikingLayer) -> bool:
    """Returns whether 1/τ of a layer, or of one of its neurons, has been rounded to 1."""
    return layer.a is not None and bool((layer.a.sigmoid() == 1).any())
