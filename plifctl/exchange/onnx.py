"""Networks as ONNX graphs (``.onnx``), for onnxruntime and converters to other programs.

| input | value |
|---|---|
| frames | event frames of counts, float32 ``[batch, T, P, H, W]`` |
| image | an image of values 0…1, float32 ``[batch, C, H, W]``; the graph normalises it, and shows it at each step |

The output ``votes`` is that of the network, float32 ``[T, batch, classes]``. Each layer is one node with its name.
Neurons are a Scan over time, so that the size of the file does not depend on T. ``metadata_props`` has the keys of
:func:`plifctl.exchange.graphs.metadata`.

The graph is built node by node: torch's exporter repeats the nodes of a step T times, and takes as many times as long.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plifctl import paths
from plifctl.errors import RunError, first_line, missing_library
from plifctl.exchange.formats import refuse
from plifctl.exchange.graphs import (
    active_layers,
    describe_input,
    metadata,
    normalisation,
    normalisation_notes,
    normalise,
    shapes_before,
    takes_images,
)
from plifctl.exchange.model import TrainedModel
from plifctl.snn.functional import charge, reset, vote
from plifctl.snn.kernels import apply_synapses
from plifctl.snn.layers import BatchNorm, Conv, Pool
from plifctl.snn.neurons import SpikingLayer
from plifctl.units import format_bytes

try:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper
except ImportError as error:
    raise missing_library(error.name or "onnx", "onnx", "onnxruntime") from error

_log = logging.getLogger(__name__)

OPSET, IR_VERSION = 17, 8
"""Versions of the operators and of the file: those of 2022, which other programs read as well."""

MAX_BYTES = 2_000_000_000
"""Largest size of a file; ONNX keeps more weights in other files."""

TOLERANCE = 1e-5
"""Largest distance of a potential from the threshold at which a spike may differ, for inputs of neurons up to 1."""


def write_onnx(path: Path, trained: TrainedModel) -> list[str]:
    """Writes an ``.onnx`` file, after onnxruntime computed what the network does.

    Args:
        path: The file.
        trained: The network; batch norms may be folded or not.

    Returns:
        What a user of the file has to know, a sentence each.

    Raises:
        UsageError: The weights are too large for one file.
        RunError: Votes of onnxruntime differ from those of the network.
    """
    nbytes = 4 * sum(weight.numel() for weight in trained.network.state_dict().values())
    if nbytes > MAX_BYTES:
        largest = format_bytes(MAX_BYTES)
        raise refuse("ONNX", [f"weights of {format_bytes(nbytes)}, expected at most {largest} in a file"])
    model = _Builder(trained).build()
    onnx.checker.check_model(model, full_check=True)
    _log.info("comparing onnxruntime with the network on random inputs")
    for samples, rate in ((1, 0.3), (2, 3.0)):
        _check(trained, model, samples, rate)
    path.write_bytes(model.SerializeToString())
    dims = ", ".join(["batch", *map(str, _sample_shape(trained))])
    return [
        f"input {_input_name(trained)}: {describe_input(trained)}; float32 [{dims}]",
        *normalisation_notes(trained),
        f"output votes: float32 [{trained.spec.T}, batch, {trained.network.classes}];"
        " the class is that of the highest sum over the steps",
    ]


class _Builder:
    """Builds the graph of a network, layer by layer."""

    def __init__(self, trained: TrainedModel) -> None:
        self.trained, self.T = trained, trained.spec.T
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def build(self) -> onnx.ModelProto:
        """Returns the model."""
        network, shapes = self.trained.network, shapes_before(self.trained)
        x, steps = self._inputs()
        for name, layer in active_layers(self.trained):
            match layer:
                case Conv():
                    x = self._convolution(name, layer, x)
                case nn.Linear():
                    x = self._linear(name, layer, x, flatten=len(shapes[name]) > 1)
                case BatchNorm():
                    x = self._batch_norm(name, layer, x)
                case Pool():
                    operator = "MaxPool" if layer.mode == "max" else "AveragePool"
                    x = self._add(operator, name, x, kernel_shape=2 * [layer.kernel], strides=2 * [layer.stride])
                case SpikingLayer():
                    x = self._spiking(name, layer, x, steps, shapes[name])
                    steps = self.T
        x = self._reshape("voters", x, [self.T, -1, network.classes, network.voters])
        self._add("ReduceMean", "votes", x, axes=[3], keepdims=0)
        graph = helper.make_graph(
            self.nodes,
            self.trained.spec.name,
            [_value(_input_name(self.trained), ["batch", *_sample_shape(self.trained)])],
            [_value("votes", [self.T, "batch", network.classes])],
            self.constants,
        )
        model = helper.make_model(
            graph,
            ir_version=IR_VERSION,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="plifctl",
            producer_version=paths.code_version(),
        )
        helper.set_model_props(model, metadata(self.trained))
        return model

    def _inputs(self) -> tuple[str, int]:
        """Returns the input of the first layer, ``[steps · N, C, H, W]``, and its number of steps."""
        if not takes_images(self.trained):
            by_step = self._add("Transpose", "steps", "frames", perm=[1, 0, 2, 3, 4])
            return self._reshape("input", by_step, [-1, *self.trained.network.input_shape]), self.T
        x = "image"
        if (found := normalisation(self.trained.spec)) is not None:
            mean, std = (values.view(-1, 1, 1) for values in found)
            x = self._add("Sub", "centred", x, self._constant("mean", mean))
            x = self._add("Div", "normalised", x, self._constant("std", std))
        return x, 1

    def _convolution(self, name: str, layer: Conv, x: str) -> str:
        padding = layer.kernel_size[0] // 2
        return self._add(
            "Conv",
            name,
            x,
            *self._parameters(name, layer),
            kernel_shape=list(layer.kernel_size),
            strides=list(layer.stride),
            pads=4 * [padding],
        )

    def _linear(self, name: str, layer: nn.Linear, x: str, *, flatten: bool) -> str:
        if flatten:
            x = self._add("Flatten", f"{name}.input", x, axis=1)
        return self._add("Gemm", name, x, *self._parameters(name, layer), transB=1)

    def _batch_norm(self, name: str, layer: BatchNorm, x: str) -> str:
        keys = ("weight", "bias", "running_mean", "running_var")
        parameters = [self._constant(f"{name}.{key}", getattr(layer, key)) for key in keys]
        return self._add("BatchNormalization", name, x, *parameters, epsilon=layer.eps)

    def _spiking(self, name: str, layer: SpikingLayer, x: str, steps: int, shape: Sequence[int]) -> str:
        """Adds neurons; returns their spikes ``[T · N, ...]``."""
        dynamics = layer.dynamics(torch.zeros(()))
        k = self._constant(f"{name}.k", dynamics.k)
        threshold = self._constant(f"{name}.v_threshold", dynamics.v_threshold)
        v_reset = self._constant(f"{name}.v_reset", torch.tensor(dynamics.v_reset))
        x = self._reshape(f"{name}.input", x, [steps, -1, *shape])
        if steps < self.T:
            each = self._constant(f"{name}.steps", torch.tensor([self.T, *(1 for _ in (0, *shape))]))
            x = self._add("Expand", f"{name}.each_step", x, each)
        rest = helper.make_tensor("v", TensorProto.FLOAT, [1], [dynamics.v_reset])
        size = self._add("Shape", f"{name}.size", x, start=1)
        v = self._add("ConstantOfShape", f"{name}.rest", size, value=rest)
        step = _step(f"{name}.step", k, threshold, v_reset, shape, soft=dynamics.soft)
        self.nodes.append(helper.make_node("Scan", [v, x], [f"{name}.last", name], name, body=step, num_scan_inputs=1))
        return self._reshape(f"{name}.output", name, [-1, *shape])

    def _parameters(self, name: str, layer: Conv | nn.Linear) -> list[str]:
        parameters = {"weight": layer.weight, "bias": layer.bias}
        return [self._constant(f"{name}.{key}", value) for key, value in parameters.items() if value is not None]

    def _reshape(self, name: str, x: str, dims: list[int]) -> str:
        return self._add("Reshape", name, x, self._constant(f"{name}.shape", torch.tensor(dims)))

    def _constant(self, name: str, value: Tensor) -> str:
        value = value.detach().cpu()
        array = (value.float() if value.is_floating_point() else value).contiguous().numpy()
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def _add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Adds a node; returns its output, which has the name of the node."""
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        return name


def _step(name: str, k: str, threshold: str, v_reset: str, shape: Sequence[int], *, soft: bool) -> onnx.GraphProto:
    """Returns the graph of one time step, of potential and input to the next potential and spikes (Eq. 2–6).

    Args:
        name: Its name.
        k: Name of the constant 1/τ.
        threshold: Name of the constant V_th.
        v_reset: Name of the constant V_reset.
        shape: Shape of the layer.
        soft: Subtract the threshold after a spike.
    """
    nodes = [
        helper.make_node("Sub", ["v", v_reset], ["above_reset"]),
        helper.make_node("Sub", ["x", "above_reset"], ["drive"]),
        helper.make_node("Mul", [k, "drive"], ["change"]),
        helper.make_node("Add", ["v", "change"], ["h"]),
        helper.make_node("GreaterOrEqual", ["h", threshold], ["fires"]),
        helper.make_node("Cast", ["fires"], ["spikes"], to=TensorProto.FLOAT),
    ]
    if soft:
        nodes.append(helper.make_node("Mul", [threshold, "spikes"], ["spent"]))
        nodes.append(helper.make_node("Sub", ["h", "spent"], ["next_v"]))
    else:
        nodes.append(helper.make_node("Where", ["fires", v_reset, "h"], ["next_v"]))
    v, x, next_v, spikes = (_value(one, ["batch", *shape]) for one in ("v", "x", "next_v", "spikes"))
    return helper.make_graph(nodes, name, [v, x], [next_v, spikes])


def _input_name(trained: TrainedModel) -> str:
    return "image" if takes_images(trained) else "frames"


def _sample_shape(trained: TrainedModel) -> tuple[int, ...]:
    """Returns the shape of the input without the batch."""
    return trained.network.input_shape if takes_images(trained) else (trained.spec.T, *trained.network.input_shape)


def _value(name: str, dims: Sequence[int | str] | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, dims)


def _check(trained: TrainedModel, model: onnx.ModelProto, samples: int, rate: float) -> None:
    """Compares onnxruntime with the network on random inputs, layer by layer.

    Each layer of the network gets the spikes that onnxruntime computed for the layer before it, and each step of its
    neurons those of the step before. So every spike is compared by itself, and one that differs by rounding does not
    change the others.

    Args:
        trained: The network.
        model: Its graph.
        samples: Number of samples.
        rate: Mean of the counts in event frames.

    Raises:
        RunError: Spikes differ, whose potential is not at the threshold, or votes do.
    """
    generator = torch.Generator().manual_seed(samples)
    shape = (samples, *_sample_shape(trained))
    x = torch.rand(shape, generator=generator)
    x = x if takes_images(trained) else torch.poisson(torch.full(shape, rate), generator)
    names = list(trained.network.spiking_layers())
    found = dict(zip(["votes", *names], _run(model, {_input_name(trained): x.numpy()}, names), strict=True))
    spikes = {name: torch.from_numpy(values) for name, values in found.items()}
    distance, layer = max(_differences(trained, x, spikes), default=(0.0, ""))
    if distance > TOLERANCE:
        raise RunError(
            f"onnxruntime {onnxruntime.__version__} computes another {layer} than the network:"
            f" difference {distance:.2g}, expected at most {TOLERANCE:g}",
            hint="try another version of onnxruntime; please report this, with the output of plifctl doctor",
        )


def _run(model: onnx.ModelProto, inputs: dict[str, np.ndarray], spikes: Sequence[str]) -> list[np.ndarray]:
    """Returns votes, and the spikes of layers, of onnxruntime."""
    complete = onnx.ModelProto()
    complete.CopyFrom(model)
    complete.graph.output.extend(_value(name) for name in spikes)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        session = onnxruntime.InferenceSession(
            complete.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        outputs: list[np.ndarray] = session.run(None, inputs)
    except Exception as error:  # onnxruntime's own types are not public
        raise RunError(
            f"onnxruntime {onnxruntime.__version__} cannot run the graph, so nothing was written: {first_line(error)}",
            hint="try another version of onnxruntime: pip install -U onnxruntime",
        ) from error
    return outputs


@torch.no_grad()
def _differences(trained: TrainedModel, x: Tensor, found: dict[str, Tensor]) -> Iterator[tuple[float, str]]:
    """Yields where onnxruntime differs: the distance of a potential from the threshold, or of votes; and the layer.

    Args:
        trained: The network.
        x: Event frames or images.
        found: Spikes of each spiking layer ``[T, N, ...]``, and ``votes``.
    """
    potentials: dict[str, Tensor] = {}
    x = normalise(trained.spec, x)
    for t in range(trained.spec.T):
        y = x if takes_images(trained) else x[:, t]
        for name, layer in active_layers(trained):
            if isinstance(layer, SpikingLayer):
                k, v_threshold, v_reset, soft, *_ = layer.dynamics(y)
                h = charge(y, potentials.get(name, torch.full_like(y, v_reset)), k, v_reset)
                spikes = found[name][t]
                differs = (h >= v_threshold) != (spikes == 1)
                if differs.any():
                    yield float((h - v_threshold)[differs].abs().max() / y.abs().max().clamp_min(1)), name
                potentials[name] = reset(h, spikes, v_threshold, v_reset, soft=soft, detach=True)
                y = spikes
            elif isinstance(layer, Conv | nn.Linear):
                y = apply_synapses(layer, y[None], trained.network.kernel)[0]
            else:
                y = layer(y[None])[0]
        yield float((vote(y, trained.network.voters) - found["votes"][t]).abs().max()), "votes"
