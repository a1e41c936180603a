"""Per-layer metrics: distributions, gradient norms and time constants against their definitions."""

import copy
import itertools
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from plifctl.config.lookup import load_registry
from plifctl.runs import RunRecorder, create_run
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.layer_metrics import EDGES, QUANTILES, TAU_QUANTILES, LayerMetrics, distribution
from plifctl.training.progress import EpochRow, Progress


def network(**neuron: Any) -> SpikingNetwork:
    spec = load_registry().experiment("mnist-plif").spec
    structure = "c3k3s1-BN-SN-MPk4s4-DP-FC6-SN-FC20-SN-APk10s10"
    torch.manual_seed(0)
    neuron_spec = spec.neuron.model_copy(update=neuron)
    return SpikingNetwork(spec.network.model_copy(update={"structure": structure}), neuron_spec, (1, 8, 8), 2)


def backward(model: SpikingNetwork, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    model.zero_grad()
    x = 3 * torch.rand(4, 1, 8, 8, generator=generator)
    model(x, 2, keys=torch.arange(4)).sum().backward()


@pytest.mark.parametrize("n", [1, 2, 999])
def test_distribution_of_any_size_equals_numpy(n: int) -> None:
    values = np.concatenate([np.random.default_rng(0).normal(0, 0.4, n), EDGES[:: n or 1]]).astype(np.float32)
    found = distribution(torch.from_numpy(values))
    edges = np.array([-np.inf, *EDGES, np.inf], np.float32)
    assert found["counts"] == [int(((values >= a) & (values < b)).sum()) for a, b in itertools.pairwise(edges)]
    assert sum(found["counts"]) == len(values)
    assert found["quantiles"] == pytest.approx(np.quantile(values.astype(np.float64), QUANTILES).tolist())
    assert (found["mean"], found["std"]) == pytest.approx((values.mean(), values.std()), abs=1e-6)


def test_edges_are_symmetric_and_ascending() -> None:
    assert list(EDGES) == sorted(set(EDGES))
    assert [-edge for edge in reversed(EDGES)] == list(EDGES)


@pytest.mark.parametrize("tau_per", ["layer", "channel", "neuron"])
def test_pop_row_learnt_taus_gives_weights_over_tau_and_quantiles(tau_per: str) -> None:
    model = network(tau_per=tau_per)
    with torch.no_grad():
        for layer in model.spiking_layers().values():
            assert layer.a is not None
            layer.a.add_(torch.rand(layer.a.shape))
    row = LayerMetrics(model).pop_row()
    assert list(row["w_over_tau"]) == ["fc0", "fc1"]
    sn1, fc0 = model.spiking_layers()["sn1"], model.layers["fc0"]
    assert sn1.a is not None
    tau = 1 + torch.exp(-sn1.a.detach())
    assert isinstance(fc0.weight, torch.Tensor)
    expected = distribution(fc0.weight.detach() / tau.reshape(-1, 1))
    assert row["w_over_tau"]["fc0"]["quantiles"] == pytest.approx(expected["quantiles"], rel=1e-5)
    assert row["a"][1] == pytest.approx(float(sn1.a.detach().mean()))
    if tau_per == "layer":
        assert row["tau_quantiles"] == {}
    else:
        quantiles = np.quantile(tau.double().flatten().numpy(), TAU_QUANTILES).tolist()
        assert row["tau_quantiles"]["sn1"] == pytest.approx(quantiles, rel=1e-5)


def test_gradient_norms_restored_state_gives_the_same_means() -> None:
    model = network()
    whole, first = LayerMetrics(model), LayerMetrics(model)
    expected_norms: dict[str, list[float]] = {}
    for seed in range(3):
        backward(model, seed)
        whole.add_gradients()
        if seed < 2:
            first.add_gradients()
        for name, layer in model.layers.items():
            squares = [p.grad.double().square().sum() for p in layer.parameters() if p.grad is not None]
            if squares:
                expected_norms.setdefault(name, []).append(float(sum(squares)) ** 0.5)
    second = LayerMetrics(model)
    second.restore(json.loads(json.dumps(first.state())))
    second.add_gradients()
    found = whole.pop_row()["gradient_norm"]
    assert found == second.pop_row()["gradient_norm"]
    assert found == {name: pytest.approx(np.mean(norms), rel=1e-6) for name, norms in expected_norms.items()}
    assert set(found) == {"conv0", "bn0", "sn0", "fc0", "sn1", "fc1", "sn2"}
    assert whole.state() == LayerMetrics(model).state()  # the next epoch starts at zero


def test_add_gradients_nan_gives_nonfinite_norm() -> None:
    model = network()
    backward(model, 0)
    metrics = LayerMetrics(model)
    assert metrics.add_gradients().isfinite().all()
    weight = model.layers["fc0"].weight
    assert isinstance(weight, torch.Tensor)
    assert weight.grad is not None
    weight.grad[0, 0] = float("nan")
    assert not metrics.add_gradients().isfinite().all()


def test_pop_row_fixed_tau_has_no_gradient_norm() -> None:
    model = network(kind="lif", tau_0=None, tau=2.0)
    backward(model, 0)
    metrics = LayerMetrics(model)
    metrics.add_gradients()
    row = metrics.pop_row()
    assert row["a"] == [None, None, None]
    assert row["gradient_norm"]["sn1"] is None
    assert row["gradient_norm"]["fc0"] > 0
    assert row["w_over_tau"]["fc0"]["counts"]


def test_epoch_row_of_earlier_version_has_defaults() -> None:
    old: dict[str, Any] = {"epoch": 1, "loss": 0.1, "train_accuracy": 0.5, "validation_accuracy": None}
    old |= {"test_accuracy": 0.5, "lr": 1e-3, "tau": [2.0], "firing_rate": [0.1]}
    old |= {"seconds": 1.0, "samples_per_second": 9.0}
    assert EpochRow(**Progress(history=[old]).history[0]).gradient_norm == {}


def test_add_gradients_infinite_is_not_counted() -> None:
    model = network()
    metrics, expected = LayerMetrics(model), LayerMetrics(model)
    for seed in (0, 1, 2):
        backward(model, seed)
        if seed == 1:
            model.layers["fc0"].weight.grad[0, 0] = float("inf")  # type: ignore[index, union-attr]
            assert not metrics.add_gradients().isfinite()
        else:
            assert metrics.add_gradients() == expected.add_gradients()
    assert metrics.pop_row()["gradient_norm"] == expected.pop_row()["gradient_norm"]
    assert set(metrics.pop_row()["gradient_norm"].values()) == {None}  # a new epoch without steps


def test_tensorboard_of_a_row_has_its_metrics(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    resolved = load_registry().experiment("demo")
    run = create_run(tmp_path, resolved, "A", cache={"content_digest": "c"}, split={}, environment={})
    model = network(tau_per="channel")
    backward(model, 0)
    metrics = LayerMetrics(model)
    metrics.add_gradients()
    row = EpochRow(1, 0.1, 0.5, None, 0.5, 1e-3, model.taus(), [0.1] * 3, 1.0, 9.0, **metrics.pop_row())
    recorder = RunRecorder(run, resolved.spec)
    with recorder.live():
        recorder.begin(resolved, 0)
        recorder.on_epoch(copy.deepcopy(row))
    assert run.metrics() == [asdict(row)]
    board = EventAccumulator(str(run.path))
    board.Reload()
    tags = board.Tags()
    assert {"tau/sn0", "a/sn0", "tau_min/sn1", "gradient_norm/fc0", "firing_rate/sn2", "loss"} <= set(tags["scalars"])
    (event,) = board.Histograms("w_over_tau/fc0")
    assert event.histogram_value.num == 6 * 12
    assert sum(event.histogram_value.bucket) == 6 * 12
