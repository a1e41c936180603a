"""Every experiment of the registry builds the network of Table S1: shapes and parameters, worked out by hand."""

from collections import Counter
from typing import NamedTuple

import pytest
import torch

from plifctl.config.choices import Recipe
from plifctl.config.lookup import load_registry
from plifctl.config.structure import parse_structure
from plifctl.snn.networks import SpikingNetwork

VARIANTS = {"plif": 2.0, "plif-tau16": 16.0, "lif": 2.0, "lif-tau16": 16.0, "plif-avgpool": 2.0}


class Expected(NamedTuple):
    """Of one data set: spikes of one sample at one step in each spiking layer, T, and what there is to learn but τ."""

    T: int
    shapes: list[tuple[int, ...]]
    weights: int
    pools: int
    dropouts: int = 2


FASHION = Expected(
    8,
    [(128, 28, 28), (128, 14, 14), (2048,), (100,)],
    # conv 9·1·128, 9·128·128; BN 2·2·128; FC 128·7·7 to 2048, 2048 to 100
    1_152 + 147_456 + 512 + 12_845_056 + 204_800,
    pools=2,
)
NMNIST = Expected(
    10,
    [(128, 34, 34), (128, 17, 17), (2048,), (100,)],
    # conv 9·2·128, 9·128·128; BN 2·2·128; FC 128·8·8 to 2048, 2048 to 100
    2_304 + 147_456 + 512 + 16_777_216 + 204_800,
    pools=2,
)
CIFAR10 = Expected(
    8,
    [*[(256, 32, 32)] * 3, *[(256, 16, 16)] * 3, (2048,), (100,)],
    # conv 9·3·256, five of 9·256·256; BN 6·2·256; FC 256·8·8 to 2048, 2048 to 100
    6_912 + 5 * 589_824 + 3_072 + 33_554_432 + 204_800,
    pools=2,
)
DVS = Expected(
    20,
    [(128, 128, 128), (128, 64, 64), (128, 32, 32), (128, 16, 16), (512,), (100,)],
    # conv 9·2·128, three of 9·128·128; BN 4·2·128; FC 128·8·8 to 512, 512 to 100
    2_304 + 3 * 147_456 + 1_024 + 4_194_304 + 51_200,
    pools=4,
)
DVS_AUTHORS = DVS._replace(
    shapes=[*DVS.shapes[:4], (2048,), (100,)],
    # FC 128·8·8 to 2048, 2048 to 100
    weights=2_304 + 3 * 147_456 + 1_024 + 16_777_216 + 204_800,
)
GESTURE = Expected(
    20,
    [(128, 128, 128), (128, 64, 64), (128, 32, 32), (128, 16, 16), (128, 8, 8), (512,), (110,)],
    # conv 9·2·128, four of 9·128·128; BN 5·2·128; FC 128·4·4 to 512, 512 to 110
    2_304 + 4 * 147_456 + 1_280 + 1_048_576 + 56_320,
    pools=5,
)
EXPECTED: dict[Recipe, dict[str, Expected]] = {
    "paper": {
        "mnist": FASHION,
        "fashion-mnist": FASHION,
        "nmnist": NMNIST,
        "cifar10": CIFAR10,
        "cifar10dvs": DVS,
        "gesture": GESTURE,
    },
}
EXPECTED["authors"] = EXPECTED["paper"] | {"cifar10": CIFAR10._replace(dropouts=1), "cifar10dvs": DVS_AUTHORS}


@pytest.mark.parametrize("recipe", EXPECTED)
@pytest.mark.parametrize("dataset", EXPECTED["paper"])
@pytest.mark.long
def test_networks(dataset: str, recipe: Recipe) -> None:
    registry = load_registry()
    expected = EXPECTED[recipe][dataset]
    for variant, tau in VARIANTS.items():
        spec = registry.experiment(f"{dataset}-{variant}", recipe=recipe).spec
        assert spec.T == expected.T
        with torch.device("meta"):  # shapes without numbers
            network = SpikingNetwork(spec.network, spec.neuron, spec.dataset.shape, len(spec.dataset.classes)).eval()
            shape = (3, *spec.dataset.shape) if spec.dataset.kind == "images" else (3, 2, *spec.dataset.shape)
            shapes: list[tuple[int, ...]] = []
            votes = network(torch.empty(shape), 2, observe=lambda _, x, shapes=shapes: shapes.append(tuple(x.shape)))
        assert shapes == [(2, 3, *own) for own in expected.shapes]
        assert votes.shape == (2, 3, 11 if dataset == "gesture" else 10)
        learnt = len(expected.shapes) if variant.startswith("plif") else 0  # one a for each layer
        assert sum(parameter.numel() for parameter in network.parameters()) == expected.weights + learnt
        kinds = Counter(name.rstrip("0123456789") for name in network.layers)
        assert (kinds["pool"], kinds["dropout"]) == (expected.pools, expected.dropouts)
        modes = {
            str(layer).partition("(")[2].partition(",")[0] for key, layer in network.layers.items() if "pool" in key
        }
        assert modes == {"average" if variant == "plif-avgpool" else "max"}
        assert spec.neuron.start_tau == tau


@pytest.mark.parametrize(
    ("structure", "position"),
    [("{c8k3s1}*0", 8), ("{c8k3s1-BN-SN}*0-FC110-SN-APk10s10", 14), ("{{c8k3s1}*000-SN}*2-FC110-SN-APk10s10", 9)],
)
def test_structure_with_a_count_of_zero_names_its_position(structure: str, position: int) -> None:
    with pytest.raises(ValueError, match=rf"^position {position}: '}}\*0.* a count of at least 1 is expected"):
        parse_structure(structure)


def test_nothing_of_the_registry_is_left_out() -> None:
    named = {f"{dataset}-{variant}" for dataset in EXPECTED["paper"] for variant in VARIANTS}
    assert set(load_registry().experiments()) == named | {"demo", "order"}
