"""Convolutions of few input channels in training on the CPU: those of event frames and of images.

Their inputs need no gradient, and what is left costs little beside reading and writing the output: the loops compute
any rows of it alone, and the gradient of the weights from any rows of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from plifctl.snn.kernels import patch_loops as loops
from plifctl.snn.kernels.cpu import threads_of_torch
from plifctl.snn.kernels.event_driven import output_blocks, pad_outputs
from plifctl.snn.kernels.stage import NormCoefficients
from plifctl.snn.layers import Conv

MAX_PATCH = 64
"""Most inputs of an output pixel; the rows of weights, and their gradients, stay in a core's first cache."""

MIN_CHANNELS = 16
"""Fewest output channels: fewer do not fill the vectors."""

CHUNKS = 8
"""Parts that the images are divided into for the gradient of the weights, if there are as many."""


MAX_DENSITY = 0.5
"""Largest share of inputs that are not zero; with more, the dense convolution is faster."""


def pays(layer: Conv, x: Tensor) -> bool:
    """Returns whether the loops are used: in training, for few input channels whose gradient is not needed.

    Args:
        layer: The convolution.
        x: Its input, ``[T, N, C, H, W]``.
    """
    training = torch.is_grad_enabled() and layer.weight.requires_grad and not x.requires_grad
    small = layer.weight[0].numel() <= MAX_PATCH and layer.out_channels >= MIN_CHANNELS
    return training and small and int(x.count_nonzero()) <= MAX_DENSITY * x.numel()


def convolve(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    band: range,
    new: Callable[[Sequence[int]], Tensor] | None = None,
) -> Tensor:
    """Returns rows of a convolution, ``[M, rows, W', O]``.

    Args:
        maps: ``[M, H, W, C]``.
        weight: ``[O, C, K, K]``.
        bias: ``[O]``.
        stride: Stride.
        padding: Zeros around the input.
        band: The rows.
        new: Returns memory for the result, of a shape; O is padded to whole vectors.
    """
    images, _, width, _ = maps.shape
    outputs, _, kernel, _ = weight.shape
    rows = pad_outputs(weight.permute(3, 2, 1, 0).flatten(0, 2))
    padded_bias = rows.new_zeros(rows.shape[1])
    if bias is not None:
        padded_bias[:outputs] = bias
    shape = images, len(band), (width + 2 * padding - kernel) // stride + 1, rows.shape[1]
    out = rows.new_empty(shape) if new is None else new(shape)
    with threads_of_torch():
        loops.convolve(
            maps.numpy(), rows.numpy(), padded_bias.numpy(), kernel, stride, padding, band.start, output_blocks(rows),
            out.numpy(),
        )  # fmt: skip
    return out[..., :outputs]


def weight_gradient_sums(
    maps: Tensor, grad: Tensor, kernel: int, stride: int, padding: int, begin: int, steps: int
) -> np.ndarray:
    """Returns the products of patches and gradients, summed over rows of the output; parts of :func:`join_sums`.

    The sums of rows from a multiple of ``ROWS_OF_ITEM`` on are a part of those of all rows.

    Args:
        maps: ``[steps · N, H, W, C]``.
        grad: Gradient of the rows, ``[steps · N, rows, W', O]``.
        kernel: K.
        stride: Stride.
        padding: Zeros around the input.
        begin: The first row of the output that ``grad`` has.
        steps: Number of time steps.

    Returns:
        float64 ``[rows / ROWS_OF_ITEM, steps · parts, K · K · C, O]``.
    """
    images, rows, _, outputs = grad.shape
    samples = images // steps
    parts = min(samples, -(-CHUNKS // steps))
    sums = np.zeros((-(-rows // loops.ROWS_OF_ITEM), steps * parts, kernel * kernel * maps.shape[3], outputs))
    with threads_of_torch():
        loops.weight_gradient(maps.numpy(), grad.numpy(), kernel, stride, padding, begin, samples, parts, sums)
    return sums


def join_sums(sums: list[np.ndarray], steps: int) -> Tensor:
    """Returns the sums of all rows for each step, ``[steps, K · K · C, O]``."""
    total = torch.from_numpy(np.concatenate(sums).sum(0))
    return total.view(steps, -1, *total.shape[1:]).sum(1)


class GradientSums(NamedTuple):
    """The gradient of a convolution's output, of which only sums are known; float64.

    Attributes:
        products: Sums of the products of patches and the gradient of batch norm's output, ``[steps, K · K · C, O]``.
        total: Sum of that gradient, ``[steps or 1, O]``.
        coefficients: From it to the gradient of the convolution's output; None: they are the same.
    """

    products: Tensor
    total: Tensor
    coefficients: NormCoefficients | None


def weight_gradients(
    maps: Tensor,
    grads: GradientSums,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    size: Sequence[int],
) -> tuple[Tensor, Tensor]:
    """Returns the gradients of weight and bias.

    The gradient of the output is a·g + b·x + c, with the gradient g of batch norm's output, the output x itself, and
    a, b, c of each step and channel. Summed with the patches, x becomes the products of patches with each other, times
    the weights: neither x nor g is needed again after the sums for a, b and c are known.
    """
    outputs, channels, kernel, _ = weight.shape
    if grads.coefficients is None:
        by_weight, by_bias = grads.products.sum(0), grads.total.sum(0)
    else:
        steps = len(grads.products)
        products = np.zeros((len(maps), *[kernel * kernel * channels + 1] * 2))
        with threads_of_torch():
            loops.sum_patch_products(maps.numpy(), kernel, stride, padding, *size, products)
        pairs = torch.from_numpy(products).view(steps, -1, *products.shape[1:]).sum(1)
        rows = weight.permute(3, 2, 1, 0).flatten(0, 2)
        rows = torch.cat([rows, torch.zeros_like(rows[:1]) if bias is None else bias[None]]).double()
        by_grad, by_x, constant = (part[:, None] for part in grads.coefficients)
        of_output = by_x * (pairs @ rows) + constant * pairs[..., -1:]
        by_weight = (by_grad * grads.products + of_output[:, :-1]).sum(0)
        by_bias = (by_grad[:, 0] * grads.total).sum(0) + of_output[:, -1].sum(0)
    by_weight = by_weight.view(kernel, kernel, channels, outputs).permute(3, 2, 1, 0)
    return by_weight.to(weight.dtype), by_bias.to(weight.dtype)
