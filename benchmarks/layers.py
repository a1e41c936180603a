"""The products of one layer on given tensors, as functions to be timed: event-driven, and as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from plifctl.snn.kernels import event_driven
from plifctl.snn.layers import Conv


class Ways(NamedTuple):
    """Two functions that return the same tensor."""

    event_driven: Callable[[], Tensor]
    dense: Callable[[], Tensor]


def forward(layer: Conv | nn.Linear, x: Tensor) -> Ways:
    """Returns functions that compute the output of ``x [T, N, ...]``; finding the active inputs is included."""
    return Ways(lambda: event_driven.apply(layer, x, always=True), lambda: event_driven.dense(layer, x))


def weight_gradient(layer: Conv | nn.Linear, x: Tensor, grad: Tensor) -> Ways:
    """Returns functions that compute the gradient of the weights; the active inputs are known from forward.

    Args:
        layer: The layer.
        x: Its input, ``[M, C, H, W]`` channels-last or ``[M, F]``.
        grad: Gradient of its output, ``[M, O, H', W']`` or ``[M, O]``.
    """
    group = event_driven.channels_of_group(layer.weight)
    if isinstance(layer, nn.Linear):
        rows = x.numpy()
        active = event_driven.list_active(rows, event_driven.count_active(rows), 1, group)
        return Ways(
            lambda: event_driven.product_weight_gradient(active, grad, x.shape[1]),
            lambda: grad.t() @ x,
        )
    maps, by_row = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    rows = maps.flatten(2).flatten(0, 1).numpy()
    active = event_driven.list_active(rows, event_driven.count_active(rows), maps.shape[2], group)
    kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    return Ways(
        lambda: event_driven.convolution_weight_gradient(active, by_row, maps.shape, kernel, stride, padding),
        lambda: _convolution_backward(layer, x, grad, 1),
    )


def input_gradient(layer: Conv | nn.Linear, x: Tensor, grad: Tensor) -> Callable[[], Tensor]:
    """Returns a function that computes the gradient of ``x``, which is dense in both ways; arguments as above."""
    if isinstance(layer, nn.Linear):
        return lambda: grad @ layer.weight
    return lambda: _convolution_backward(layer, x, grad, 0)


def _convolution_backward(layer: Conv, x: Tensor, grad: Tensor, which: int) -> Tensor:
    mask = [which == 0, which == 1, False]
    stride, padding = list(layer.stride), [int(size) for size in layer.padding]
    found = torch.ops.aten.convolution_backward(
        grad, x, layer.weight, None, stride, padding, [1, 1], False, [0, 0], 1, mask
    )
    return cast("Tensor", found[which])
