"""Writes operations.json: the operations that NeuroBench counts on small networks.

    make golden        # NeuroBench and snnTorch in .bench-venv

The networks consist of torch's layers, called at each time step, and an snnTorch neuron that implements Eq. 3 to 5;
NeuroBench's hooks and metrics count. Nothing of plifctl is used but the names of its layers.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import snntorch
import torch
from golden.drawing import OPERATIONS, Counted
from neurobench.hooks.layer import LayerHook
from neurobench.hooks.neuron import NeuronHook
from neurobench.metrics.workload import MembraneUpdates, SynapticOperations
from torch import Tensor, nn

HERE = Path(__file__).parent


class Neuron(snntorch.SpikingNeuron):
    """LIF with hard reset to 0, V_th = 1."""

    def __init__(self, tau: float) -> None:
        super().__init__(init_hidden=False)
        self.tau = tau
        self.mem = torch.zeros(())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.mem + (x - self.mem) / self.tau
        spikes = (h >= 1).to(x)
        self.mem = h * (1 - spikes)
        return spikes, self.mem


def counts(case: Counted) -> dict[str, dict[str, float]]:
    """Returns the counts of NeuroBench for each layer and one sample."""
    weights = {name: torch.from_numpy(value) for name, value in case.weights().items()}
    conv0 = nn.Conv2d(2, 6, 3, padding=1, bias=False)
    conv1 = nn.Conv2d(6, 5, 3, padding=1, bias=False)
    fc0 = nn.Linear(5 * 3 * 2, 8, bias=False)
    synapses = {"conv0": conv0, "conv1": conv1, "fc0": fc0}
    for name, layer in synapses.items():
        layer.weight.data = weights[name]
    neurons = {f"sn{index}": Neuron(case.tau) for index in range(3)}
    pool = nn.MaxPool2d(2) if case.pooling == "max" else nn.AvgPool2d(2)
    hooks = {**{n: LayerHook(layer) for n, layer in synapses.items()}, **{n: NeuronHook(s) for n, s in neurons.items()}}
    x = torch.from_numpy(case.input())
    with torch.no_grad():
        for neuron, shape in zip(neurons.values(), ((6, 7, 5), (5, 3, 2), (8,)), strict=True):
            neuron.mem = torch.zeros(len(x), *shape, dtype=x.dtype)
        for frame in x.unbind(1):
            y = pool(neurons["sn0"](conv0(frame))[0])
            y = neurons["sn1"](conv1(y))[0]
            neurons["sn2"](fc0(y.flatten(1)))
    data = (x, torch.zeros(len(x)))
    found: dict[str, dict[str, float]] = {}
    for name in synapses:
        metric = SynapticOperations()
        found[name] = metric(SimpleNamespace(connection_hooks=[hooks[name]]), None, data)
    for name in neurons:
        found[name] = {"updates": MembraneUpdates()(SimpleNamespace(activation_hooks=[hooks[name]]), None, data)}
    return found


if __name__ == "__main__":
    tree = {
        "made by": {package: version(package) for package in ("neurobench", "snntorch", "torch")},
        "cases": {name: counts(case) for name, case in OPERATIONS.items()},
    }
    (HERE / "operations.json").write_text(json.dumps(tree, indent=1) + "\n")
    print(json.dumps(tree, indent=1))
