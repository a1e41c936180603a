"""Layers that never fire, or fire at every step: they pass nothing on that depends on the input."""

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
        'layer sn0 never fires (firing rate 0): nothing of '
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
        answers = "; the last one among them, so every answer is class 0" if last in silent else ""
        found.append(
            f"{_layers(silent)} never fire{_s(silent)} (firing rate 0): nothing of the input passes "
            f"{_it(silent)}{answers}; try a shorter time constant (--set neuron.{name}={(1 + tau) / 2:g}), a lower "
            f"threshold (--set neuron.v_threshold={threshold - height / 2:g}), or {norm}"
        )
    if busy := [layer for layer, rate in rates.items() if rate == 1]:
        answers = "; the last one among them, so every answer is class 0" if last in busy else ""
        found.append(
            f"{_layers(busy)} fire{_s(busy)} at every step (firing rate 1): nothing of the input passes "
            f"{_it(busy)}{answers}; try a longer time constant (--set neuron.{name}={2 * tau:g}), a higher threshold "
            f"(--set neuron.v_threshold={threshold + height:g}), or {norm}"
        )
    return found


def _layers(names: Sequence[str]) -> str:
    return f"layer{'s' if len(names) > 1 else ''} {', '.join(names)}"


def _s(names: Sequence[str]) -> str:
    return "s" if len(names) == 1 else ""


def _it(names: Sequence[str]) -> str:
    return "it" if len(names) == 1 else "them"
