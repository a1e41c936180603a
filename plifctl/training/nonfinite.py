"""Finds the layer in which the first non-finite number appears."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from plifctl.snn.networks import SpikingNetwork, split_name


def find_nonfinite_layer(
    model: SpikingNetwork, replay_forward: Callable[[], object], replay_step: Callable[[], object]
) -> str | None:
    """Describes where the first non-finite number is: in a weight, in an output, or in a gradient.

    Args:
        model: The network, with the weights that it had before the step that failed.
        replay_forward: Runs the forward pass of that step again; also if it needs no gradients.
        replay_step: Runs that step again, forward and backward.

    Returns:
        The layer and its non-finite value; None if all numbers are finite.
    """
    for name, parameter in model.named_parameters():
        if not _is_finite(parameter):
            layer, own_name = split_name(name)
            return f"{layer} has {_kind(parameter)} in its {own_name}"
    output = _first_nonfinite_output(model, replay_forward)
    replay_step()  # on all ranks, whatever one of them found: they add up gradients
    if output is not None:
        return output
    for name, parameter in reversed(list(model.named_parameters())):  # the order of the backward pass
        if parameter.grad is not None and not _is_finite(parameter.grad):
            layer, own_name = split_name(name)
            return f"{layer} has {_kind(parameter.grad)} in the gradient of its {own_name}"
    return None


def _first_nonfinite_output(model: SpikingNetwork, replay_forward: Callable[[], object]) -> str | None:
    found: list[str] = []

    def output_hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def check(module: nn.Module, inputs: Any, output: Tensor) -> None:
            if not _is_finite(output):
                found.append(f"{name} gives {_kind(output)}")

        return check

    hooks = [layer.register_forward_hook(output_hook(name)) for name, layer in model.layers.items()]
    kernel = model.kernel
    if model.memory == "full":  # the definition needs more: there may be no memory for it where compact was chosen
        model.kernel = "eager"  # others compute batch norm and neurons in one piece, which calls no hooks
    try:
        with torch.no_grad():
            replay_forward()
    except torch.OutOfMemoryError:
        return None
    finally:
        model.kernel = kernel
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


def _is_finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _kind(values: Tensor) -> str:
    return "NaN" if values.isnan().any() else "an infinite number"
