"""Convolutions of few input channels in training on the CPU: those of event frames and of images.

Their inputs need no gradient, and what is left costs little beside reading and writing the output: the loops compute
any rows of it alone, and the gradient of the weights from any rows of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plifctl.snn.kernels import patch_loops as loops
from plifctl.snn.kernels.cpu import threads_of_torch
from plifctl.snn.kernels.event_driven import output_blocks, pad_outputs, to_maps
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


def convolution(x: Tensor, layer: Conv) -> Tensor:
    """Applies a convolution to a sequence ``[T, N, C, H, W]``; see :class:`~plifctl.snn.layers.Conv`."""
    y: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        to_maps(x), layer.weight, layer.bias, layer.stride[0], int(layer.padding[0])
    )
    return y.view(*x.shape[:2], *y.shape[1:])


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


def weight_gradient_sums(maps: Tensor, grad: Tensor, kernel: int, stride: int, padding: int, begin: int) -> np.ndarray:
    """Returns what rows of the output contribute to the gradient of the weights.

    The sums of rows from a multiple of ``ROWS_OF_ITEM`` on are a part of those of all rows.

    Args:
        maps: ``[M, H, W, C]``.
        grad: Gradient of the rows, ``[M, rows, W', O]``.
        kernel: K.
        stride: Stride.
        padding: Zeros around the input.
        begin: The first row of the output that ``grad`` has.

    Returns:
        float64 ``[rows / ROWS_OF_ITEM, M / images, K · K · C, O]``, for :func:`sum_weight_gradient`.
    """
    images, rows, _, outputs = grad.shape
    size = -(-images // CHUNKS)
    parts = -(-rows // loops.ROWS_OF_ITEM), -(-images // max(1, size))
    sums = np.zeros((*parts, kernel * kernel * maps.shape[3], outputs))
    with threads_of_torch():
        loops.weight_gradient(maps.numpy(), grad.numpy(), kernel, stride, padding, begin, size, sums)
    return sums


def sum_weight_gradient(sums: list[np.ndarray], weight: Tensor) -> Tensor:
    """Returns the gradient of ``weight`` ``[O, C, K, K]`` from the sums of all rows, in their order."""
    outputs, channels, kernel, _ = weight.shape
    total = torch.from_numpy(np.concatenate(sums).sum((0, 1))).to(weight.dtype)
    return total.view(kernel, kernel, channels, outputs).permute(3, 2, 1, 0)


def bias_gradient_sums(grad: Tensor) -> np.ndarray:
    """Returns what rows of the output contribute to the gradient of the bias, float64 ``[rows, O]``."""
    return np.array([grad[:, row].sum((0, 1), dtype=torch.float64).numpy() for row in range(grad.shape[1])])


def sum_bias_gradient(sums: list[np.ndarray], weight: Tensor) -> Tensor:
    """Returns the gradient of the bias from the sums of all rows, in their order."""
    return torch.from_numpy(np.concatenate(sums).sum(0)).to(weight.dtype)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx, maps: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:  # type: ignore[no-untyped-def]
        height = (maps.shape[1] + 2 * padding - weight.shape[2]) // stride + 1
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return convolve(maps, weight, bias, stride, padding, range(height)).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        maps, weight = ctx.saved_tensors
        rows = grad.permute(0, 2, 3, 1).contiguous()
        sums = weight_gradient_sums(maps, rows, weight.shape[2], ctx.stride, ctx.padding, 0)
        grad_bias = sum_bias_gradient([bias_gradient_sums(rows)], weight) if ctx.needs_input_grad[2] else None
        return None, sum_weight_gradient([sums], weight), grad_bias, None, None
