"""Layers that never fire, or fire at every step: their output does not depend on the input."""

from __future__ import annotations

from collections.abc import Mapping

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
    last = [*rates][-1]
    cases = (
        (0, "never fires", "never fire", "a shorter", (1 + tau) / 2, "a lower", threshold - height / 2),
        (1, "fires at every step", "fire at every step", "a longer", 2 * tau, "a higher", threshold + height),
    )
    found: list[str] = []
    for extreme, one, several, other_tau, tau_to_try, other_threshold, threshold_to_try in cases:
        layers = [layer for layer, rate in rates.items() if rate == extreme]
        if not layers:
            continue
        single = len(layers) == 1
        what = f"layer {layers[0]} {one}" if single else f"layers {', '.join(layers)} {several}"
        predictions = "; the last one among them, so every prediction is class 0" if last in layers else ""
        found.append(
            f"{what} (firing rate {extreme}): no information about the input passes {'it' if single else 'them'}"
            f"{predictions}; try {other_tau} time constant (--set neuron.{name}={tau_to_try:g}), {other_threshold} "
            f"threshold (--set neuron.v_threshold={threshold_to_try:g}), or {norm}"
        )
    return found
