"""Counts of operations against NeuroBench; make_neurobench.py writes the file."""

import json
from pathlib import Path

import pytest
import torch
from golden.drawing import OPERATIONS

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.evaluation.operations import count_operations
from plifctl.snn.networks import SpikingNetwork

GOLDEN = json.loads((Path(__file__).parent / "operations.json").read_text())["cases"]


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("batch", [1, 8])
def test_count_operations_equals_neurobench(name: str, batch: int) -> None:
    case = OPERATIONS[name]
    pool = "MP" if case.pooling == "max" else "AP"
    structure = f"c6k3s1-SN-{pool}k2s2-c5k3s1-SN-FC8-SN-APk1s1"
    neuron = NeuronSpec(kind="lif", tau=case.tau, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
    spec = NetworkSpec(name="counted", structure=structure, dropout=0.5, batch_norm="per-step")
    model = SpikingNetwork(spec, neuron, (2, 7, 5), 8).double()
    with torch.no_grad():
        for layer, values in case.weights().items():
            model.layers[layer].weight.copy_(torch.from_numpy(values))
    found = count_operations(model, torch.from_numpy(case.input()).split(batch), case.T)
    assert found.samples == case.samples
    assert model.training
    assert sorted(layer.name for layer in found.layers) == sorted(GOLDEN[name])
    for layer in found.layers:
        expected = GOLDEN[name][layer.name]
        if "updates" in expected:
            assert layer.updates == pytest.approx(expected["updates"])
            continue
        assert layer.dense == pytest.approx(expected["Dense"])
        assert layer.effective_macs == pytest.approx(expected["Effective_MACs"])
        assert layer.effective_acs == pytest.approx(expected["Effective_ACs"])
        assert 0 < layer.effective_macs + layer.effective_acs < layer.dense
