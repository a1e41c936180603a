"""Firing rates and gradients of the first training step."""

import pytest
import torch

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_experiment
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.batches import Batch
from plifctl.training.initial_state import measure_initial_state
from plifctl.training.trainer import build_model

STRUCTURE = "c8k3s4-BN-SN-MPk4s4-DP-FC110-SN-APk10s10"


def spec(**neuron: object) -> ExperimentSpec:
    changes = {f"neuron.{key}": value for key, value in neuron.items()}
    return load_experiment("demo", {"network.structure": STRUCTURE, "T": 3, **changes}).spec


@pytest.fixture(scope="module")
def batch() -> Batch:
    x = 2 * torch.rand(4, 3, 2, 128, 128, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 5, 10])
    return Batch(x, labels, torch.eye(11)[labels], torch.arange(4), 4)


def test_measure_initial_state_is_that_of_the_network(batch: Batch) -> None:
    found = measure_initial_state(spec(tau_0=1.5), batch)
    model: SpikingNetwork = build_model(spec(tau_0=1.5), torch.device("cpu"), "eager").train()
    seen: dict[str, float] = {}
    votes = model(
        batch.x, keys=batch.keys, observe=lambda name, spikes: seen.update({name: float(spikes.detach().mean())})
    )
    torch.stack([(step - batch.targets).square().mean() for step in votes]).mean().backward()
    assert dict(found.firing_rates) == pytest.approx(seen)
    assert list(found.weight_gradients) == ["conv0", "fc0"]
    for name, layer in model.layers.items():
        if name in found.weight_gradients:
            assert found.weight_gradients[name] == pytest.approx(float(layer.weight.grad.norm()), rel=1e-4)
        if name in found.tau_gradients:
            assert found.tau_gradients[name] == pytest.approx(float(layer.a.grad.abs()), rel=1e-4)


def test_measure_initial_state_of_lif_equals_plif_but_for_tau(batch: Batch) -> None:
    plif = measure_initial_state(spec(tau_0=2.0), batch)
    lif = measure_initial_state(spec(kind="lif", tau=2.0, tau_0=None), batch)
    assert dict(lif.firing_rates) == pytest.approx(dict(plif.firing_rates))
    assert dict(lif.weight_gradients) == pytest.approx(dict(plif.weight_gradients), rel=1e-4)
    assert (list(plif.tau_gradients), list(lif.tau_gradients)) == (["sn0", "sn1"], [])


def test_measure_initial_state_with_a_long_tau_is_silent(batch: Batch) -> None:
    found = measure_initial_state(spec(tau_0=1000.0), batch)
    assert set(found.firing_rates.values()) == {0.0}
    assert found.weight_gradients["fc0"] == 0.0
