"""Warnings on layers that never fire, or fire at every step."""

import pytest

from plifctl.config.network import NetworkSpec, NeuronSpec
from plifctl.evaluation.extreme_rates import describe_extreme_rates

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
LIF = NeuronSpec(kind="lif", tau=16.0, v_threshold=1.0, v_reset=-1.0, surrogate="arctan", detach_reset=True)


def network(structure: str) -> NetworkSpec:
    return NetworkSpec(name="n", structure=structure, dropout=0.0, batch_norm="per-step")


PLAIN, NORMED = network("FC20-SN-FC20-SN-APk2s2"), network("c8k3s1-BN-SN-FC20-SN-APk2s2")


@pytest.mark.parametrize("rate", [1e-9, 0.2, 1 - 1e-9])
def test_describe_extreme_rates_of_any_other_rate_finds_nothing(rate: float) -> None:
    assert describe_extreme_rates({"sn0": rate, "sn1": 0.5}, PLAIN, PLIF) == []


def test_describe_extreme_rates_of_a_silent_layer_names_it_and_what_to_try() -> None:
    assert describe_extreme_rates({"sn0": 0.0, "sn1": 0.5}, PLAIN, PLIF) == [
        "layer sn0 never fires (firing rate 0): no information about the input passes it; try a shorter time constant "
        "(--set neuron.tau_0=1.5), a lower threshold (--set neuron.v_threshold=0.5), "
        "or batch norm before the neurons (BN in network.structure)"
    ]


def test_describe_extreme_rates_of_layers_that_always_fire_names_them_and_the_answer() -> None:
    assert describe_extreme_rates({"sn0": 1.0, "sn1": 1.0}, NORMED, LIF) == [
        "layers sn0, sn1 fire at every step (firing rate 1): no information about the input passes them; the last one "
        "among them, so every prediction is class 0; try a longer time constant (--set neuron.tau=32), a higher "
        "threshold (--set neuron.v_threshold=3), or normalised inputs (train.normalise), "
        "or more epochs: after few steps the running statistics of batch norm lag"
    ]


def test_describe_extreme_rates_of_both_kinds_gives_two_warnings() -> None:
    found = describe_extreme_rates({"sn0": 1.0, "sn1": 0.0}, NORMED, PLIF)
    assert [text.split(" (")[0] for text in found] == ["layer sn1 never fires", "layer sn0 fires at every step"]
