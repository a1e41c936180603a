"""Which layer a number that is not finite comes from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from plifctl.snn.networks import SpikingNetwork


def find_nonfinite_layer(model: SpikingNetwork, again: Callable[[], object]) -> str | None:
    """Says where the first number is that is not finite: in weights, going forward, or going back; None: in no layer.

    Args:
        model: The network, with the weights that it had before the step that failed.
        again: Does that step once more, forward and backward.
    """
    for name, parameter in model.named_parameters():
        if not _finite(parameter):
            return f"{_layer(name)} has {_worst(parameter)} in its {_last(name)}"
    output = _first_output(model, again)
    if output is not None:
        return output
    for name, parameter in reversed(list(model.named_parameters())):  # backward comes from the last layer
        if parameter.grad is not None and not _finite(parameter.grad):
            return f"{_layer(name)} has {_worst(parameter.grad)} in the gradient of its {_last(name)}"
    return None


def _first_output(model: SpikingNetwork, again: Callable[[], object]) -> str | None:
    found: list[str] = []

    def look(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not _finite(output):
                found.append(f"{name} gives {_worst(output)}")

        return hook

    hooks = [layer.register_forward_hook(look(name)) for name, layer in model.layers.items()]
    try:
        again()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _worst(values: Tensor) -> str:
    return "NaN" if values.isnan().any() else "an infinite number"


def _layer(name: str) -> str:
    return name.removeprefix("layers.").rpartition(".")[0]


def _last(name: str) -> str:
    return name.rpartition(".")[2]
