"""State dicts for SpikingJelly 2, and the code of the network that loads them.

A network that ``spikingjelly.activation_based.model.parametric_lif_net`` has gets the names of that class; any other
those of an ``nn.Sequential``, whose code is a part of the notes. Reading is :mod:`plifctl.exchange.state_dicts`.

SpikingJelly has no τ per channel or neuron, and its soft reset has the resting potential 0.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
from torch import Tensor, nn

from plifctl import files
from plifctl.config.structure import Linear, Vote, parse_structure
from plifctl.exchange.arrays import weights_of
from plifctl.exchange.formats import refuse
from plifctl.exchange.model import TrainedModel
from plifctl.snn.layers import BatchNorm, Conv, Dropout, Pool
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

_NETWORKS = {
    "MNISTNet": (1, "{c%dk3s1-BN-SN-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10", 7),
    "NMNISTNet": (2, "{c%dk3s1-BN-SN-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10", 8),
    "CIFAR10Net": (3, "{{c%dk3s1-BN-SN}*3-MPk2s2}*2-DP-FC2048-SN-DP-FC100-SN-APk10s10", 8),
    "CIFAR10DVSNet": (2, "{c%dk3s1-BN-SN-MPk2s2}*4-DP-FC512-SN-DP-FC100-SN-APk10s10", 8),
    "DVSGestureNet": (2, "{c%dk3s1-BN-SN-MPk2s2}*5-DP-FC512-SN-DP-FC110-SN-APk10s10", 4),
}
"""Networks of parametric_lif_net: channels of the input, structure, and side of the map before the first FC.

FashionMNISTNet is MNISTNet. Their fully connected layers have a bias, and their dropout is 0.5.
"""

_SURROGATES = {
    "arctan": ("ATan", 2.0),
    "sigmoid": ("Sigmoid", 1.0),
    "rectangular": ("Rect", 1.0),
    "triangular": ("PiecewiseQuadratic", 1.0),
}
"""SpikingJelly's surrogate, and its ``alpha`` for a width of 1; for other widths, alpha is divided by them."""


def write_state_dict(path: Path, trained: TrainedModel) -> list[str]:
    """Writes a state dict as SpikingJelly's networks load it; the last note is their code.

    Args:
        path: The file: safetensors by the ending of its name, else torch.
        trained: The network.

    Raises:
        UsageError: SpikingJelly has no such neurons.
    """
    network, spec = trained.network, trained.spec
    _check(network)
    name = files.temporary_of(path) or path.name
    owner = _class_of(network)
    modules = _modules(network)
    weights = _named(weights_of(trained), modules, "conv_fc." if owner is not None else "")
    notes = []
    if owner is not None and (zeros := _zero_biases(network, modules)):
        weights |= zeros
        notes.append(f"fully connected layers of {owner} have a bias; theirs is 0 here")
    if name.endswith(".safetensors"):
        from safetensors.torch import save

        path.write_bytes(save(weights, metadata={"format": "pt"}))
    else:
        content = io.BytesIO()
        torch.save(weights, content)
        path.write_bytes(content.getbuffer())
    images = "images of values from 0 to 1, the same at each step"
    kind = images if spec.dataset.kind == "images" else "event frames, counts"
    notes.append(f"its input x is [T, N, C, H, W] with T = {spec.T}: {kind}")
    listing = _listing(network, modules, owner, name, spec.normalisation)
    return [*notes, f"the network in SpikingJelly:\n\n{listing}"]


def _check(network: SpikingNetwork) -> None:
    """Raises UsageError if SpikingJelly has no such neurons."""
    neuron, problems = network.neuron, []
    if neuron.tau_per != "layer":
        problems.append(f"neuron.tau_per is {neuron.tau_per}; a ParametricLIFNode has one τ for the whole layer")
    if neuron.reset == "soft" and neuron.v_reset != 0:
        problems.append(f"neuron.v_reset is {neuron.v_reset} with a soft reset; there, its resting potential is 0")
    if problems:
        raise refuse("SpikingJelly", problems)


def _class_of(network: SpikingNetwork) -> str | None:
    """Returns the class of parametric_lif_net that a network is, with any number of channels; None if there is none."""
    convolutions = [layer for layer in network.layers.values() if isinstance(layer, Conv)]
    linear = next(layer for layer in network.layers.values() if isinstance(layer, nn.Linear))
    if not convolutions or network.network.dropout != 0.5 or len({_options(s) for s in _spiking(network)}) > 1:
        return None
    channels = convolutions[0].out_channels
    layers = [
        Linear(layer.features) if isinstance(layer, Linear) else layer
        for layer in parse_structure(network.network.structure)
    ]
    for name, (inputs, structure, side) in _NETWORKS.items():
        same = layers == list(parse_structure(structure.replace("%d", str(channels))))
        if same and network.input_shape[0] == inputs and linear.in_features == channels * side**2:
            return name
    return None


def _spiking(network: SpikingNetwork) -> list[SpikingLayer]:
    return list(network.spiking_layers().values())


def _modules(network: SpikingNetwork) -> list[tuple[str | None, str]]:
    """Returns the modules of SpikingJelly's network: the layer whose weights each has, and its code."""
    found: list[tuple[str | None, str]] = []
    flat = False
    for name, layer in network.layers.items():
        if isinstance(layer, nn.Linear) and not flat:
            found.append((None, "layer.Flatten()"))
            flat = True
        found.append((name, _code(layer)))
    vote = parse_structure(network.network.structure)[-1]
    assert isinstance(vote, Vote)
    return [*found, (None, f"layer.VotingLayer({vote.voters})")]


def _code(layer: nn.Module) -> str:
    match layer:
        case Conv():
            inputs, outputs, kernel = layer.in_channels, layer.out_channels, layer.kernel_size[0]
            rest = f"stride={layer.stride[0]}, padding={layer.padding[0]}, bias={layer.bias is not None}"
            return f"layer.Conv2d({inputs}, {outputs}, {kernel}, {rest})"
        case BatchNorm():
            return f"layer.BatchNorm2d({layer.num_features})"
        case nn.Linear():
            return f"layer.Linear({layer.in_features}, {layer.out_features}, bias={layer.bias is not None})"
        case Pool():
            return f"layer.{'MaxPool2d' if layer.mode == 'max' else 'AvgPool2d'}({layer.kernel}, {layer.stride})"
        case Dropout():
            return f"layer.Dropout({layer.p})"
        case SpikingLayer():
            kind, tau = _neuron(layer)
            return f"{kind}({tau}, {_options(layer)})"
        case _:
            raise TypeError(f"{layer} has no counterpart in SpikingJelly")


def _neuron(layer: SpikingLayer) -> tuple[str, str]:
    """Returns the class of a layer's neurons, and its time constant."""
    if layer.spec.kind == "plif":
        return "neuron.ParametricLIFNode", f"init_tau={float(layer.spec.start_tau)}"
    return "neuron.LIFNode", f"tau={float(layer.spec.start_tau)}"


def _options(layer: SpikingLayer) -> str:
    """Returns the other arguments of a layer's neurons; learnt thresholds and widths as they are now."""
    spec = layer.spec
    threshold = spec.v_threshold if layer.v_threshold is None else layer.v_threshold.item()
    width = spec.surrogate_width if layer.log_width is None else layer.log_width.exp().item()
    name, alpha = _SURROGATES[spec.surrogate]
    v_reset = None if spec.reset == "soft" else spec.v_reset
    return (
        f"v_threshold={threshold}, v_reset={v_reset}, surrogate_function=surrogate.{name}(alpha={alpha / width}), "
        f"detach_reset={spec.detach_reset}"
    )


def _named(weights: dict[str, Tensor], modules: list[tuple[str | None, str]], prefix: str) -> dict[str, Tensor]:
    """Returns weights by the names of SpikingJelly's modules; learnt thresholds and widths are in their code."""
    numbers = {name: number for number, (name, _) in enumerate(modules) if name is not None}
    named: dict[str, Tensor] = {}
    for name, weight in weights.items():
        _, layer, parameter = name.split(".")
        if parameter not in ("v_threshold", "log_width"):
            named[f"{prefix}{numbers[layer]}.{'w' if parameter == 'a' else parameter}"] = weight
    return named


def _zero_biases(network: SpikingNetwork, modules: list[tuple[str | None, str]]) -> dict[str, Tensor]:
    """Returns a bias of 0 for each fully connected layer that has none, in the names of parametric_lif_net."""
    zeros: dict[str, Tensor] = {}
    for number, (name, _) in enumerate(modules):
        layer = network.layers[name] if name is not None else None
        if isinstance(layer, nn.Linear) and layer.bias is None:
            zeros[f"conv_fc.{number}.bias"] = torch.zeros(layer.out_features)
    return zeros


def _listing(
    network: SpikingNetwork,
    modules: list[tuple[str | None, str]],
    owner: str | None,
    file: str,
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> str:
    """Returns Python code that builds a network, loads the file, and computes the votes of a batch.

    Args:
        network: The network.
        modules: Modules of SpikingJelly's network.
        owner: Its class, or None.
        file: Name of the file.
        normalisation: Mean and standard deviation of each channel of images; None: they are used as they are.
    """
    imports = "functional, neuron, surrogate" if owner is not None else "functional, layer, neuron, surrogate"
    lines = ["import torch", f"from spikingjelly.activation_based import {imports}"]
    if owner is not None:
        (kind, tau), options = _neuron(_spiking(network)[0]), _options(_spiking(network)[0])
        channels = next(layer for layer in network.layers.values() if isinstance(layer, Conv)).out_channels
        lines += [
            "from spikingjelly.activation_based.model import parametric_lif_net",
            "",
            f"net = parametric_lif_net.{owner}(",
            f"    {channels}, {kind}, {tau}, {options}",
            ")",
        ]
    else:
        lines += ["", "net = torch.nn.Sequential(", *(f"    {code}," for _, code in modules), ")"]
    weights = f'torch.load("{file}", weights_only=True)'
    if file.endswith(".safetensors"):
        lines.insert(0, "import safetensors.torch")
        weights = f'safetensors.torch.load_file("{file}")'
    normalise = []
    if normalisation is not None:
        mean, std = (f"torch.tensor({list(values)}).view(-1, 1, 1)" for values in normalisation)
        normalise = [f"x = (x - {mean}) / {std}  # of values from 0 to 1"]
    return "\n".join(
        [
            *lines,
            f"net.load_state_dict({weights})",
            'functional.set_step_mode(net, "m")',
            "net.eval()",
            *normalise,
            "rates = net(x)  # [T, N, classes], of x [T, N, C, H, W]",
            "functional.reset_net(net)  # before the next batch",
        ]
    )
