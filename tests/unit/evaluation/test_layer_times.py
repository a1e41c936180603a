"""Times of layers: which layers, inputs and batches are measured; no test asserts a time."""

import pytest
import torch
from torch import Tensor, nn

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.evaluation import layer_times
from plifctl.evaluation.layer_times import MAX_ROUNDS, measure_layer_times, times_unsupported_reason
from plifctl.snn.kernels import event_driven
from plifctl.snn.layers import Conv
from plifctl.snn.networks import SpikingNetwork

NEURON = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
STRUCTURE = "c64k3s1-BN-SN-MPk2s2-c64k3s1-BN-SN-APk2s2-DP-FC10-SN-APk5s5"


def network() -> SpikingNetwork:
    torch.manual_seed(3)
    spec = NetworkSpec(name="n", structure=STRUCTURE, dropout=0.5, batch_norm="per-step")
    model = SpikingNetwork(spec, NEURON, (2, 8, 8), 2)
    with torch.no_grad():
        for name, layer in model.layers.items():
            if isinstance(layer, Conv | nn.Linear):
                layer.weight.mul_(1.5 if name == "conv0" else 3.0)
    return model.eval()


def frames(samples: int = 6, T: int = 4) -> Tensor:
    return torch.poisson(torch.full((samples, T, 2, 8, 8), 1.0), torch.Generator().manual_seed(1))


def layers_computed_densely(model: SpikingNetwork, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Returns the layers for which the network itself takes torch's product."""
    called: list[nn.Module] = []
    dense = event_driven.dense

    def record(layer: Conv | nn.Linear, x: Tensor) -> Tensor:
        called.append(layer)
        return dense(layer, x)

    with monkeypatch.context() as patch:
        patch.setattr(event_driven, "dense", record)
        model(x)
    return {name for name, layer in model.layers.items() if layer in called}


@torch.no_grad()
def test_measure_layer_times_has_the_inputs_and_the_choice_of_each_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = network(), frames()
    shares: dict[str, float] = {}
    hooks = [
        layer.register_forward_pre_hook(
            lambda _, inputs, name=name: shares.update({name: float((inputs[0] != 0).float().mean())})
        )
        for name, layer in model.layers.items()
        if isinstance(layer, Conv | nn.Linear)
    ]
    model(x)
    for hook in hooks:  # a layer with hooks is dense
        hook.remove()
    found = measure_layer_times(model, [x], 4, seconds=60.0)
    assert {layer.name: layer.active_inputs for layer in found.layers} == pytest.approx(shares)
    assert [layer.name for layer in found.layers] == ["conv0", "conv1", "fc0"]
    dense = layers_computed_densely(model, x, monkeypatch)
    assert {layer.name for layer in found.layers if layer.chosen == "dense"} == dense == {"conv0", "fc0"}


def test_measure_layer_times_sums_the_faster_of_the_choice() -> None:
    found = measure_layer_times(network(), [frames()], 4, seconds=60.0)
    assert all(layer.dense > 0 and layer.event_driven > 0 for layer in found.layers)
    conv0, conv1, fc0 = found.layers
    assert found.dense == pytest.approx(conv0.dense + conv1.dense + fc0.dense)
    assert found.chosen == pytest.approx(conv0.dense + conv1.event_driven + fc0.dense)


def test_measure_layer_times_without_time_measures_one_sample() -> None:
    found = measure_layer_times(network(), list(frames().split(3)), 4, seconds=1e-9)
    assert (found.batch, found.samples) == (1, 1)


def test_measure_layer_times_repeats_batches_and_leaves_a_smaller_one_out(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    measure = layer_times._measure_batch

    def record(model: SpikingNetwork, batch: Tensor, T: int, *, event_driven_first: bool) -> dict[str, object]:
        sizes.append(len(batch))
        return measure(model, batch, T, event_driven_first=event_driven_first)  # type: ignore[return-value]

    monkeypatch.setattr(layer_times, "_measure_batch", record)
    found = measure_layer_times(network(), list(frames(8).split(3)), 4, seconds=600.0)
    assert sizes == [1, 1] + [3] * MAX_ROUNDS
    assert (found.batch, found.samples, found.threads) == (3, 6, torch.get_num_threads())


def test_measure_layer_times_of_images_runs_the_first_layer_once() -> None:
    model, images = network().train(), frames()[:, 0]
    conv0, conv1, _ = measure_layer_times(model, [images], 5, seconds=60.0).layers
    assert conv0.active_inputs == pytest.approx(float((images != 0).float().mean()))
    assert 0 < conv1.active_inputs < 1
    assert model.training


def test_times_unsupported_reason_is_given_for_gpus_and_half_precision() -> None:
    cpu = torch.device("cpu")
    assert times_unsupported_reason(cpu, "fp32") is times_unsupported_reason(cpu, "tf32") is None
    assert "meta" in str(times_unsupported_reason(torch.device("meta"), "fp32"))
    assert "bf16" in str(times_unsupported_reason(cpu, "bf16"))
