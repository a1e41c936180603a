"""The products of one layer on given tensors, as functions to be timed: event-driven, and as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from unittest import mock

import torch
from torch import Tensor, nn

from plifctl.snn.kernels import apply_synapses, event_driven
from plifctl.snn.layers import Conv


class Ways(NamedTuple):
    """Two functions that compute the same."""

    event_driven: Callable[[], Tensor]
    dense: Callable[[], Tensor]


def is_chosen(layer: Conv | nn.Linear, x: Tensor) -> bool:
    """Returns whether plifctl computes a layer event-driven; in training where gradients are enabled."""
    with mock.patch.object(event_driven, "dense", wraps=event_driven.dense) as dense:
        apply_synapses(layer, x)
    return not dense.called


def forward(layer: Conv | nn.Linear, x: Tensor) -> Ways:
    """Returns functions that compute the output of ``x`` ``[T, N, ...]``; finding the active inputs is included.

    The first one is event-driven also where plifctl would compute the dense product.
    """
    if is_chosen(layer, x):
        return Ways(lambda: apply_synapses(layer, x), lambda: event_driven.dense(layer, x))
    return Ways(lambda: event_driven.apply(layer, x, always=True), lambda: event_driven.dense(layer, x))


def weight_gradient(layer: Conv | nn.Linear, x: Tensor, grad: Tensor) -> Ways:
    """Returns functions that compute the gradient of the weights after a forward pass, which is not included.

    Args:
        layer: The layer.
        x: Its input, ``[T, N, ...]``.
        grad: Gradient of its output.
    """
    with torch.enable_grad():
        outputs = [way() for way in forward(layer, x)]

    def gradient_of(y: Tensor) -> Callable[[], Tensor]:
        return lambda: torch.autograd.grad(y, layer.weight, grad, retain_graph=True)[0]

    return Ways(*map(gradient_of, outputs))


def input_gradient(layer: Conv | nn.Linear, x: Tensor, grad: Tensor) -> Callable[[], Tensor]:
    """Returns a function that computes the gradient of ``x``, which is dense in any case; arguments as above."""
    values = x.detach().requires_grad_()
    weight = layer.weight
    required, weight.requires_grad = weight.requires_grad, False
    with torch.enable_grad():
        y = event_driven.dense(layer, values)
    weight.requires_grad = required
    return lambda: torch.autograd.grad(y, values, grad, retain_graph=True)[0]
