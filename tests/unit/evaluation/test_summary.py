"""The summary of a network from its structure, against the network built from it."""

from math import prod

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from plifctl.config.experiment import ExperimentSpec
from plifctl.config.lookup import load_registry
from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.config.structure import layer_names, notation, parse_structure, structure_of
from plifctl.evaluation.step_cost import training_operations
from plifctl.evaluation.summary import LayerSummary, summarize_network, total_operations
from plifctl.snn.layers import Conv, Pool
from plifctl.snn.networks import SpikingNetwork

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)


def every_network() -> dict[str, ExperimentSpec]:
    """Returns one experiment for each network of the registry and each data set it is used with."""
    registry, found = load_registry(), {}
    for recipe in ("paper", "authors"):
        for name in registry.experiments():
            spec = registry.experiment(name, recipe=recipe).spec
            found[f"{spec.network.name} of {spec.dataset.name}"] = spec
    assert {spec.network.name for spec in found.values()} == set(registry.networks())
    return found


NETWORKS = every_network()


def macs(layer: nn.Module, before: tuple[int, ...]) -> int:
    """Returns the MACs as NeuroBench counts them: weights and inputs 1, outputs summed; for one pair of channels."""
    if isinstance(layer, Conv):
        ones = torch.ones(1, 1, *before[1:], dtype=torch.float64)
        kernel = torch.ones(1, 1, *layer.kernel_size, dtype=torch.float64)
        out = F.conv2d(ones, kernel, stride=layer.stride, padding=layer.padding)
        return int(out.sum()) * layer.in_channels * layer.out_channels
    assert isinstance(layer, nn.Linear)
    return layer.weight.numel()


def check_layer(summary: LayerSummary, layer: nn.Module, before: tuple[int, ...]) -> None:
    assert summary.parameters == sum(p.numel() for p in layer.parameters())
    if summary.kind == "MACs":
        assert summary.operations == macs(layer, before)
    elif isinstance(layer, Pool):
        assert summary.operations == prod(summary.shape) * (layer.kernel**2 - 1)
        assert summary.kind == ("comparisons" if layer.mode == "max" else "adds")
    elif summary.kind is not None:
        assert summary.operations == prod(before)


def check(network: NetworkSpec, neuron: NeuronSpec, shape: tuple[int, int, int], classes: int, *, static: bool) -> None:
    T = 3
    summary = summarize_network(network, neuron, shape, classes, T, static=static)
    with torch.device("meta"):
        model = SpikingNetwork(network, neuron, shape, classes, kernel="eager").eval()
        x = torch.zeros(1, *shape) if static else torch.zeros(1, T, *shape)
    assert [layer.name for layer in summary] == [*model.layers, "vote"]
    seen: dict[str, tuple[int, ...]] = {}

    def hook(name: str) -> None:
        def note(_module: nn.Module, _args: object, out: Tensor) -> None:
            seen[name] = tuple(out.shape)

        model.layers[name].register_forward_hook(note)

    for name in model.layers:
        hook(name)
    rates = model(x, T, observe=lambda name, spikes: seen.update({name: tuple(spikes.shape)}))
    assert {name for name in model.layers if name.startswith(("conv", "fc", "sn"))} <= seen.keys()
    before: tuple[int, ...] = shape
    for layer in summary[:-1]:
        check_layer(layer, model.layers[layer.name], before)
        if layer.name in seen:
            assert seen[layer.name][2:] == layer.shape, layer.name
            assert seen[layer.name][0] == layer.runs, layer.name
        before = layer.shape
    assert tuple(rates.shape[2:]) == summary[-1].shape
    assert sum(layer.parameters for layer in summary) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.long
def test_summary_every_network_of_the_registry_matches_it(name: str) -> None:
    spec = NETWORKS[name]
    static = spec.dataset.kind == "images"
    check(spec.network, spec.neuron, spec.framing.shape, len(spec.dataset.classes), static=static)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tau_per": "channel"},
        {"tau_per": "neuron", "learn_threshold": True},
        {"learn_threshold": True, "learn_surrogate_width": True},
        {"kind": "lif", "tau_0": None, "tau": 2.0, "learn_surrogate_width": True},
    ],
)
@pytest.mark.parametrize("static", [True, False])
@pytest.mark.long
def test_summary_learnable_neurons_and_odd_sizes_match_the_network(changes: dict[str, object], static: bool) -> None:
    neuron = NeuronSpec.model_validate({**PLIF.model_dump(), **changes})
    structure = "BN-c3k5s2b-BN-BN-SN-APk3s2-c4k2s1-SN-MPk2s1-DP-FC12b-SN-FC20-SN-APk10s10"
    network = NetworkSpec(name="odd", structure=structure, dropout=0.1, batch_norm="over-time")
    check(network, neuron, (2, 17, 14), 2, static=static)


def test_total_operations_are_hand_computed() -> None:
    network = NetworkSpec(name="s", structure="c2k3s1-SN-MPk2s2-FC20-SN-APk10s10", dropout=0.0, batch_norm="per-step")
    summary = summarize_network(network, PLIF, (1, 4, 4), 2, 5, static=True)
    # 3 × 3 around each of 4 × 4 pixels without padding: (2 + 3 + 3 + 2)² products, for 2 channels
    assert total_operations(summary) == {
        "MACs": (200 + 8 * 20, 200 + 5 * 8 * 20),
        "updates": (32 + 20, 5 * (32 + 20)),
        "comparisons": (3 * 8, 5 * 3 * 8),
        "adds": (9 * 2, 5 * 9 * 2),
    }
    assert [layer.runs for layer in summary] == [1, 5, 5, 5, 5, 5]


def test_structure_of_every_network_roundtrips() -> None:
    for spec in NETWORKS.values():
        layers = parse_structure(spec.network.structure)
        assert parse_structure(structure_of(layers)) == layers
        assert len(set(layer_names(layers))) == len(layers)
    text = "c3k5s2b-BN-SN-APk3s2-DP-FC30b-SN-FC20-SN-APk10s10"
    assert [notation(layer) for layer in parse_structure(text)] == text.split("-")


def test_training_operations_of_a_small_network_are_those_counted_by_hand() -> None:
    spec = load_registry().experiment("mnist-plif").spec
    network = spec.network.model_copy(update={"structure": "c2k1s1-SN-MPk4s4-FC30-SN-FC100-SN-APk10s10"})
    spec = spec.model_copy(update={"network": network, "T": 3})
    spec = spec.model_copy(update={"train": spec.train.model_copy(update={"batch_size": 4, "drop_last": True})})
    conv, first, second = 2 * 28 * 28, 2 * 7 * 7 * 30, 30 * 100  # multiply-adds at one step
    forward = conv + 3 * (first + second)  # the image is the same at each step: it is convolved once
    step = forward + (conv + 3 * (first + second)) + 3 * (first + second)  # weights; inputs of all but the first
    counts = {"train": 10, "validation": 6, "test": 5}
    # two whole batches; every epoch is tested
    assert training_operations(spec, "A", 3, **(counts | {"validation": 0})) == 3 * 2 * (8 * step + 5 * forward)
    # C counts the firing rates of the first two epochs on the training samples, which are fewer than 8 batches
    observed = 2 * 10 * forward
    whole = 2 * (3 * 8 * step + observed + 5 * forward)
    assert training_operations(spec, "C", 3, **(counts | {"validation": 0})) == whole
    assert spec.validation.test == "once"
    assert training_operations(spec, "B", 3, **counts) == 3 * 2 * (8 * step + 6 * forward)
    shuffled = spec.validation.model_copy(update={"loader": "as-training", "test": "every-epoch"})
    spec = spec.model_copy(update={"validation": shuffled})
    assert training_operations(spec, "B", 3, **counts) == 3 * 2 * (8 * step + (4 + 5) * forward)
