"""Layers that never fire, or fire at every step: their output does not depend on the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plifctl.config.network import NetworkSpec, NeuronSpec


def describe_extreme_rates(rates: Mapping[str, float], network: NetworkSpec, neuron: NeuronSpec) -> list[str]:
    """Returns a warning for the layers without any spike, and one for those with a spike of every neuron at every step.

    Args:
        rates: Spikes per neuron and step, 0…1, of each spiking layer by name, in the order of the network.
        network: The network.
        neuron: Its neuron.

    Example:
        >>> neuron = NeuronSpec(
        ...     kind="lif", tau=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)
        >>> network = NetworkSpec(name="n", structure="FC20-SN-APk2s2", dropout=0, batch_norm="per-step")
        >>> describe_extreme_rates({"sn0": 0.2}, network, neuron)
        []
        >>> describe_extreme_rates({"sn0": 0.0}, network, neuron)[0][:50]
        'layer sn0 never fires (firing rate 0): no informat'
    """
    name, tau, threshold = ("tau_0" if neuron.kind == "plif" else "tau"), neuron.start_tau, neuron.v_threshold
    height = threshold - neuron.v_reset
    norm = (
        "normalised inputs (train.normalise), or more epochs: after few steps the running statistics of batch norm lag"
        if "BN" in network.structure
        else "batch norm before the neurons (BN in network.structure)"
    )
    found: list[str] = []
    last = [*rates][-1]
    if silent := [layer for layer, rate in rates.items() if rate == 0]:
        predictions = "; the last one among them, so every prediction is class 0" if last in silent else ""
        found.append(
            f"{_layers(silent)} never fire{_verb_ending(silent)} (firing rate 0): no information about the input "
            f"passes {_pronoun(silent)}{predictions}; try a shorter time constant "
            f"(--set neuron.{name}={(1 + tau) / 2:g}), a lower threshold (--set "
            f"neuron.v_threshold={threshold - height / 2:g}), or {norm}"
        )
    if busy := [layer for layer, rate in rates.items() if rate == 1]:
        predictions = "; the last one among them, so every prediction is class 0" if last in busy else ""
        found.append(
            f"{_layers(busy)} fire{_verb_ending(busy)} at every step (firing rate 1): no information about the input "
            f"passes {_pronoun(busy)}{predictions}; try a longer time constant "
            f"(--set neuron.{name}={2 * tau:g}), a higher threshold (--set "
            f"neuron.v_threshold={threshold + height:g}), or {norm}"
        )
    return found


def _layers(names: Sequence[str]) -> str:
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _verb_ending(names: Sequence[str]) -> str:
    return "s" if len(names) == 1 else ""


def _pronoun(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
