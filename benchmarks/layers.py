"""The products of one layer on given tensors, as functions to be timed: event-driven, and as torch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeGuard
from unittest import mock

import torch
from torch import Tensor, nn

from plifctl.snn.kernels import apply_synapses, event_driven, patches
from plifctl.snn.kernels.event_driven import to_maps
from plifctl.snn.layers import Conv


class Ways(NamedTuple):
    """Two functions that compute the same."""

    event_driven: Callable[[], Tensor]
    dense: Callable[[], Tensor]


def is_chosen(layer: Conv | nn.Linear, x: Tensor) -> bool:
    """Returns whether plifctl computes a layer event-driven; in training where gradients are enabled."""
    if _has_few_inputs(layer, x):
        return True
    with mock.patch.object(event_driven, "dense", wraps=event_driven.dense) as dense:
        apply_synapses(layer, x)
    return not dense.called


def _has_few_inputs(layer: Conv | nn.Linear, x: Tensor) -> TypeGuard[Conv]:
    return isinstance(layer, Conv) and patches.pays(layer, x)


def _geometry(layer: Conv) -> tuple[int, int, int]:
    return layer.kernel_size[0], layer.stride[0], int(layer.padding[0])


def forward(layer: Conv | nn.Linear, x: Tensor) -> Ways:
    """Returns functions that compute the output of ``x`` ``[T, N, ...]``; finding the active inputs is included.

    The first one is event-driven also where plifctl would compute the dense product.
    """
    if _has_few_inputs(layer, x):
        return Ways(lambda: _forward_of_patches(layer, x), lambda: event_driven.dense(layer, x))
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

    if _has_few_inputs(layer, x):
        maps, rows = to_maps(x), to_maps(grad)
        return Ways(lambda: _gradient_of_patches(layer, maps, rows, len(x)), gradient_of(outputs[1]))
    return Ways(*map(gradient_of, outputs))


def _forward_of_patches(layer: Conv, x: Tensor) -> Tensor:
    kernel, stride, padding = _geometry(layer)
    height = (x.shape[3] + 2 * padding - kernel) // stride + 1
    with torch.no_grad():
        y = patches.convolve(to_maps(x), layer.weight, layer.bias, stride, padding, range(height))
    return y.permute(0, 3, 1, 2).unflatten(0, x.shape[:2])


def _gradient_of_patches(layer: Conv, maps: Tensor, grad: Tensor, steps: int) -> Tensor:
    kernel, stride, padding = _geometry(layer)
    products = patches.join_sums([patches.weight_gradient_sums(maps, grad, kernel, stride, padding, 0, steps)], steps)
    sums = patches.GradientSums(products, products.new_zeros(1, layer.out_channels), None)
    weight = layer.weight.detach()
    return patches.weight_gradients(maps, sums, weight, None, stride, padding, (grad.shape[1], grad.shape[2]))[0]


def input_gradient(layer: Conv | nn.Linear, x: Tensor, grad: Tensor) -> Ways:
    """Returns functions that compute the gradient of ``x``, as an event-driven layer does and as torch does.

    Of a fully connected layer they are the same. Arguments as above.
    """
    values = x.detach().requires_grad_()
    weight = layer.weight
    required, weight.requires_grad = weight.requires_grad, False
    with torch.enable_grad():
        y = event_driven.dense(layer, values)
    weight.requires_grad = required

    def dense() -> Tensor:
        return torch.autograd.grad(y, values, grad, retain_graph=True)[0]

    if isinstance(layer, nn.Linear):
        return Ways(dense, dense)
    (_, stride, padding), size = _geometry(layer), (x.shape[3], x.shape[4])

    def ours() -> Tensor:
        maps = event_driven.input_gradient(to_maps(grad), weight.detach(), size, stride, padding)
        return maps.permute(0, 3, 1, 2).unflatten(0, x.shape[:2])

    return Ways(ours, dense)
