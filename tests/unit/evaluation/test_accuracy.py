"""Evaluation: predictions over time, recorded spikes, operations."""

import numpy as np
import pytest
import torch

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.evaluation.accuracy import evaluate, record_spikes
from plifctl.evaluation.operations import PICOJOULES, count_operations
from plifctl.evaluation.summary import summarize_network
from plifctl.snn.functional import predict, predict_over_time
from plifctl.snn.networks import SpikingNetwork

NEURON = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)


def network(structure: str = "c4k3s1-BN-SN-MPk2s2-FC10-SN-APk5s5", **options: object) -> SpikingNetwork:
    torch.manual_seed(3)
    spec = NetworkSpec(name="n", structure=structure, dropout=0.5, batch_norm="per-step")
    model = SpikingNetwork(spec, NEURON, (2, 6, 4), 2, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    return model


def frames(samples: int = 7, T: int = 5) -> torch.Tensor:
    return torch.randint(0, 4, (samples, T, 2, 6, 4), generator=torch.Generator().manual_seed(1)).float()


def test_evaluate_over_time_equals_evaluations_of_fewer_steps() -> None:
    rates = torch.randint(0, 11, (6, 40, 10), generator=torch.Generator().manual_seed(0)) / 10
    found = predict_over_time(rates)
    for t in range(6):
        assert torch.equal(found[t], predict(rates[: t + 1]))
    model, x = network(), frames()
    labels = torch.arange(7) % 2
    batches = [(x[:3], labels[:3]), (x[3:], labels[3:])]
    last, over_time = evaluate(model, batches, 5), evaluate(model, batches, 5, over_time=True)
    assert over_time.over_time is not None
    assert last.over_time is None
    np.testing.assert_array_equal(last.predictions, over_time.predictions)
    np.testing.assert_array_equal(over_time.over_time[-1], last.predictions)
    with torch.no_grad():
        np.testing.assert_allclose(over_time.votes, model.eval()(x, 5).mean(0).numpy(), rtol=1e-6)
    for t in range(1, 6):
        stopped = evaluate(model, [(x[:, :t], labels)], t)
        np.testing.assert_array_equal(over_time.over_time[t - 1], stopped.predictions)


@pytest.mark.parametrize("kernel", ["eager", "fused"])
def test_record_spikes_any_kernel_equals_definition(kernel: str) -> None:
    model, x = network(kernel=kernel), frames()
    model.train()
    votes, spikes = record_spikes(model, [x[:2], x[2:]], 5)
    assert model.training
    definition = network(kernel="eager").eval()
    seen: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        expected = definition(x, observe=seen.__setitem__)
    np.testing.assert_allclose(votes, expected.transpose(0, 1).numpy())
    assert list(spikes) == ["sn0", "sn1"]
    for name, fired in seen.items():
        assert 0 < fired.mean() < 1
        np.testing.assert_array_equal(spikes[name], fired.transpose(0, 1).numpy() == 1)
    assert list(record_spikes(model, [x], 5, ["sn1"])[1]) == ["sn1"]


def test_count_operations_of_an_image_counts_layers_that_run_once() -> None:
    model = network("c4k3s1-BN-SN-MPk2s2-c3k3s1-SN-FC10-SN-APk5s5")
    images = frames()[:, 0] + 1.0
    found = {layer.name: layer for layer in count_operations(model, [images], 5).layers}
    spec = NetworkSpec(
        name="n", structure="c4k3s1-BN-SN-MPk2s2-c3k3s1-SN-FC10-SN-APk5s5", dropout=0.5, batch_norm="per-step"
    )
    for layer in summarize_network(spec, NEURON, (2, 6, 4), 2, 5, static=True):
        if layer.kind == "MACs":
            assert found[layer.name].dense == layer.operations * layer.runs
    assert found["conv0"].effective_macs == found["conv0"].dense  # no pixel and no weight is 0
    assert found["conv0"].effective_acs == found["conv1"].effective_macs == 0


@pytest.mark.parametrize("between", ["BN-", "APk1s1-", "c4k3s1-", "MPk1s1-BN-"])
def test_count_operations_after_layers_without_neurons_counts_macs(between: str) -> None:
    model = network(f"c4k3s1-SN-{between}c3k3s1-SN-FC10-SN-APk5s5")
    found = {layer.name: layer for layer in count_operations(model, [frames()], 5).layers}
    last = [layer for name, layer in found.items() if name.startswith("conv")][-1]
    assert last.effective_macs > 0
    assert last.effective_acs == 0
    assert found["fc0"].effective_macs == 0


def test_energy_is_that_of_the_assumptions() -> None:
    found = count_operations(network(), frames().split(3), 5)
    macs, acs = found.total.effective_macs, found.total.effective_acs
    assert macs > 0
    assert acs > 0
    assert found.energy == pytest.approx(1e-12 * (4.6 * macs + 0.9 * acs))
    assert found.dense_energy == pytest.approx(1e-12 * PICOJOULES["MAC"] * found.total.dense)
