"""Writes neurons.npz and networks.npz: results of SpikingJelly's neurons and layers in float64.

    make golden        # SpikingJelly in .bench-venv; overwrites the files in tests/golden

Networks are built as in the authors' code: every layer is called at each time step, batch norm included; for images the
first convolution and batch norm are called once, outside the loop. The masks of dropout are drawn like the inputs,
instead of by SpikingJelly. Nothing of plifctl is used but the names of its layers.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from golden.drawing import NETWORKS, NEURONS, Network, Neurons, digest, sampled
from spikingjelly.activation_based import neuron, surrogate
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent
Values = dict[str, np.ndarray]

SURROGATES: dict[str, Callable[[float], nn.Module]] = {
    "arctan": lambda width: surrogate.ATan(alpha=2.0 / width),
    "sigmoid": lambda width: surrogate.Sigmoid(alpha=1.0 / width),
    "triangular": lambda width: surrogate.PiecewiseQuadratic(alpha=1.0 / width),
    "rectangular": lambda width: surrogate.Rect(alpha=1.0 / width),
}


def node(case: Neurons | Network) -> nn.Module:
    """Returns SpikingJelly's neuron of a case, in single-step mode."""
    options = {
        "decay_input": True,
        "v_threshold": case.v_threshold if isinstance(case, Neurons) else 1.0,
        "v_reset": case.v_reset,
        "surrogate_function": SURROGATES[case.surrogate](case.width),
        "detach_reset": case.detach_reset,
        "step_mode": "s",
    }
    if case.kind == "plif":
        return neuron.ParametricLIFNode(init_tau=case.tau, **options)
    return neuron.LIFNode(tau=case.tau, **options)


def check_rates(name: str, spikes: dict[str, Tensor]) -> None:
    """Checks that each layer fires, but not always; otherwise the comparison would be void."""
    rates = {layer: round(fired.mean().item(), 2) for layer, fired in spikes.items()}
    print(f"{name}: firing rates {rates}")
    if not all(0.02 < rate < 0.9 for rate in rates.values()):
        raise SystemExit("a layer never fires, or always: draw other values")


def neuron_values(case: Neurons) -> Values:
    """Returns spikes, the last potential, and gradients of input and w."""
    x = torch.from_numpy(case.input()).requires_grad_()
    layer = node(case)
    spikes = torch.stack([layer(x_t) for x_t in x])
    check_rates(case.name, {"neurons": spikes})
    (spikes * torch.from_numpy(case.upstream())).sum().backward()
    assert x.grad is not None
    found = {
        "spikes": np.packbits(spikes.detach().numpy() != 0),
        "v": sampled(layer.v.detach().numpy(), 50),
        "grad_x": sampled(x.grad.numpy(), 150),
    }
    if case.kind == "plif":
        found["grad_w"] = layer.w.grad.numpy()
    return found


class Net(nn.Module):
    """The layers of a case, with plifctl's names."""

    def __init__(self, case: Network) -> None:
        super().__init__()
        self.case = case
        n_conv, n_down = case.blocks
        layers: dict[str, nn.Module] = {}
        channels, height, width = case.input_shape
        for number in range(n_conv * n_down):
            layers[f"conv{number}"] = nn.Conv2d(channels, case.channels, kernel_size=3, padding=1, bias=False)
            layers[f"bn{number}"] = nn.BatchNorm2d(case.channels)
            layers[f"sn{number}"] = node(case)
            channels = case.channels
            if (number + 1) % n_conv == 0:
                pool = nn.MaxPool2d if case.pool == "max" else nn.AvgPool2d
                layers[f"pool{number // n_conv}"] = pool(2, 2)
                height, width = height // 2, width // 2
        features = channels * height * width
        for number, outputs in enumerate((case.hidden, 10 * case.classes)):
            if number < case.dropouts:
                layers[f"dropout{number}"] = nn.Identity()
            layers[f"fc{number}"] = nn.Linear(features, outputs, bias=False)
            layers[f"sn{n_conv * n_down + number}"] = node(case)
            features = outputs
        self.layers = nn.ModuleDict(layers)
        self.boost = nn.AvgPool1d(10, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns votes ``[T, N, classes]`` and the spikes of each layer ``[T, N, ...]``."""
        steps = list(self.layers.items())
        if self.case.static:
            x = self.layers["bn0"](self.layers["conv0"](x))
            steps = steps[2:]
        votes: list[Tensor] = []
        spikes: dict[str, list[Tensor]] = {}
        for t in range(self.case.T):
            y = x if self.case.static else x[:, t]
            for name, layer in steps:
                if name.startswith("fc"):
                    y = layer(y.flatten(1))
                elif name.startswith("dropout"):
                    if self.training:
                        y = y * torch.from_numpy(self.case.mask(int(name[-1]), y[0].numel())).view(y.shape)
                else:
                    y = layer(y)
                if name.startswith("sn"):
                    spikes.setdefault(name, []).append(y.detach())
            votes.append(self.boost(y.unsqueeze(1)).squeeze(1))
        return torch.stack(votes), {name: torch.stack(found) for name, found in spikes.items()}


def network_values(case: Network) -> Values:
    """Returns votes, spikes, loss, running statistics and gradients in training, and the first three in evaluation."""
    found: Values = {}
    for mode in ("train", "eval"):
        net = Net(case).train(mode == "train")
        own = {name.removeprefix("layers."): tensor for name, tensor in net.state_dict(keep_vars=True).items()}
        named = {name.replace(".w", ".a") if name.endswith(".w") else name: tensor for name, tensor in own.items()}
        named = {name: tensor for name, tensor in named.items() if not name.endswith("num_batches_tracked")}
        drawn = case.draw({name: tuple(tensor.shape) for name, tensor in named.items()})
        with torch.no_grad():
            for name, tensor in named.items():
                tensor.copy_(torch.from_numpy(np.asarray(drawn[name])))
        votes, spikes = net(torch.from_numpy(case.input()))
        target = F.one_hot(torch.from_numpy(case.labels()), case.classes).to(votes)
        loss = F.mse_loss(votes.mean(0), target)
        if case.loss == "mse-per-step":
            loss = torch.stack([F.mse_loss(vote, target) for vote in votes]).mean()
        found |= {
            f"{mode}/votes": (votes.detach() * 10).round().to(torch.uint8).numpy(),
            f"{mode}/loss": loss.detach().numpy(),
        }
        for name, fired in spikes.items():
            found[f"{mode}/spikes/{name}"] = fired.flatten(1).sum(1).long().numpy()
            found[f"{mode}/sha256/{name}"] = digest(fired.numpy())
        check_rates(f"{case.name}, {mode}", spikes)
        if mode == "train":
            loss.backward()
            for name, tensor in named.items():
                if tensor.grad is not None:
                    found[f"grad/{name}"] = sampled(tensor.grad.numpy(), 12)
                    found[f"norm/{name}"] = tensor.grad.norm().numpy()
                elif "running" in name:
                    found[f"running/{name}"] = sampled(tensor.numpy(), 12)
    return found


def write(path: Path, values: dict[str, Values]) -> None:
    """Writes the values of all cases, and the versions of the packages."""
    packages = {name: version(name) for name in ("spikingjelly", "torch", "numpy")}
    flat = {f"{case}/{name}": value for case, results in values.items() for name, value in results.items()}
    np.savez_compressed(path, versions=np.array(json.dumps(packages | {"python": platform.python_version()})), **flat)
    print(f"{path.name}: {len(values)} cases, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)  # time constants too
    write(HERE / "neurons.npz", {name: neuron_values(case) for name, case in NEURONS.items()})
    write(HERE / "networks.npz", {name: network_values(case) for name, case in NETWORKS.items()})
