"""Convolutions and matrix products that compute only where an input is not zero, on the CPU.

The inputs of all but the first layer are spikes, and few neurons fire at a time (Sec. 3.6 of the paper: products with
binary spikes are additions). Forward adds up the weights of active inputs; the gradient of the weights adds up the
gradients that active inputs reach. The gradient of the input is dense: the surrogate has no zeros.

Whether a layer is computed this way depends on its shape and the share of active inputs alone: the same input gives the
same bits, for any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import event_loops as loops
from plifctl.snn.kernels import winograd
from plifctl.snn.kernels.cpu import MIN_ITEMS, new_maps, threads_of_torch
from plifctl.snn.kernels.registers import MAX_VECTORS, VECTOR_BYTES
from plifctl.snn.kernels.stage import evaluation_tensors
from plifctl.snn.layers import BatchNorm, Conv, Pool, to_channels_last

PANEL_BYTES = 48 * 2**10
"""Size of the weights that all pixels of an item use before the next ones are read: most of a core's first cache."""

TILE_BYTES = 2**18
"""Size of the gradients that stay in a core's second cache."""

SPREAD_BYTES = 2**24
"""Size of the gradients that are copied at once to where the gradient of the weights reads them."""

ROWS_OF_ITEM = 256
"""Rows of the input of a fully connected layer that are computed together."""


MIN_CHANNELS = 32
"""Fewest input and output channels of an event-driven convolution; lists of fewer take longer than their sums."""

MIN_WEIGHTS = 2**22
"""Fewest weights of an event-driven fully connected layer; the weights of smaller ones stay in a core's cache."""


def can_be_event_driven(weight: Tensor) -> bool:
    """Returns whether a layer of these weights, ``[O, C, K, K]`` or ``[O, F]``, is large enough."""
    return min(weight.shape[:2]) >= MIN_CHANNELS if weight.dim() == 4 else weight.numel() >= MIN_WEIGHTS


def relative_cost(weight: Tensor, rows: int, density: float, *, training: bool) -> float:
    """Returns the estimated time of an event-driven layer as a share of the dense one's.

    The constants are fitted to ``benchmarks/event_driven.py``. Those of a fully connected layer are multiples of the
    time in which its weights are read.

    Args:
        weight: ``[O, C, K, K]`` or ``[O, F]``.
        rows: Images, or rows of F features.
        density: Share of inputs that are not zero.
        training: Include the gradient of the weights, where the dense product is faster in comparison.
    """
    if weight.dim() == 4:
        begun = 0.03 + 36 / (weight.shape[0] * weight.shape[3])  # lists, and beginning each sum
        return begun + (3.0 if training else 2.0) * density
    copied = rows >= loops.MIN_USES
    read = 1.8 if copied else min(1.0, rows * density)
    return (read + rows * (0.007 + 0.09 * density)) / (1.0 + 0.04 * rows)


def is_chosen(weight: Tensor, rows: int, density: float, *, training: bool) -> bool:
    """Returns whether a layer is computed event-driven; arguments as in :func:`relative_cost`."""
    return can_be_event_driven(weight) and relative_cost(weight, rows, density, training=training) < 1


def apply(layer: Conv | nn.Linear, x: Tensor, *, always: bool = False) -> Tensor:
    """Applies a layer event-driven, where that is expected to be faster; ``always``: also elsewhere.

    Args:
        layer: A convolution, or a fully connected layer.
        x: A sequence ``[T, N, C, H, W]``, or ``[T, N, F]``.
        always: Never compute the dense product.
    """
    if not (always or can_be_event_driven(layer.weight)):
        return dense(layer, x)
    return convolution(x, layer, always=always) if isinstance(layer, Conv) else product(x, layer, always=always)


def one_pass_cost(weight: Tensor, density: float) -> float:
    """Returns the estimated time of :func:`evaluate_stage` as a share of that of a dense convolution and a stage.

    Args:
        weight: ``[O, C, K, K]``.
        density: Share of inputs that are not zero.
    """
    if min(weight.shape[:2]) >= MIN_CHANNELS:
        return relative_cost(weight, 0, density, training=False)
    # of few channels, the pass over the output takes longer than the products
    return 0.65 + 10 / weight.shape[0] + 0.9 * density


def convolution(x: Tensor, layer: Conv, *, always: bool = False) -> Tensor:
    """Applies a convolution; arguments as in :func:`apply`."""
    images = to_channels_last(x.flatten(0, 1))
    active = inputs_of_convolution(images, layer, always=always)
    if active is None:
        return dense(layer, x)
    y: Tensor = _Convolution.apply(  # type: ignore[no-untyped-call]
        images, layer.weight, layer.bias, layer.stride[0], int(layer.padding[0]), active
    )
    return y.view(*x.shape[:2], *y.shape[1:])


def inputs_of_convolution(images: Tensor, layer: Conv, *, always: bool = False) -> ActiveInputs | None:
    """Returns the active inputs of a convolution; None where the dense one is expected to be faster.

    Args:
        images: ``[M, C, H, W]``, channels-last in memory.
        layer: The convolution.
        always: See :func:`apply`.
    """
    maps = images.permute(0, 2, 3, 1)
    counts = count_active(_rows(maps))
    if not (always or _pays(layer, counts, images)):
        return None
    return list_active(_rows(maps), counts, maps.shape[2], channels_of_group(layer.weight))


def product(x: Tensor, layer: nn.Linear, *, always: bool = False) -> Tensor:
    """Applies a fully connected layer; arguments as in :func:`apply`."""
    rows = x.flatten(0, 1).contiguous()
    counts = count_active(_rows(rows))
    if not (always or _pays(layer, counts, rows)):
        return dense(layer, x)
    y: Tensor = _Product.apply(rows, layer.weight, counts)  # type: ignore[no-untyped-call]
    y = y if layer.bias is None else y + layer.bias  # of rows: the gradient of the bias is a sum over one dimension
    return y.view(*x.shape[:2], y.shape[1])


def dense(layer: Conv | nn.Linear, x: Tensor) -> Tensor:
    """Applies a layer as torch does."""
    y: Tensor = layer(x)
    return y


def _pays(layer: Conv | nn.Linear, counts: np.ndarray, x: Tensor) -> bool:
    density = float(counts.sum()) / max(1, x.numel())
    training = torch.is_grad_enabled() and layer.weight.requires_grad
    return is_chosen(layer.weight, len(x), density, training=training)


def to_maps(x: Tensor) -> Tensor:
    """Returns ``[T, N, C, H, W]`` as ``[T · N, H, W, C]``, contiguous."""
    return x.flatten(0, 1).permute(0, 2, 3, 1).contiguous()


def _rows(x: Tensor) -> np.ndarray:
    """Returns ``[M, H, W, C]`` as ``[M · H, W · C]``, and ``[M, F]`` as it is."""
    rows: np.ndarray = (x.detach().flatten(2).flatten(0, 1) if x.dim() == 4 else x.detach()).numpy()
    return rows


class ActiveInputs(NamedTuple):
    """The values of an input that are not zero, by row, group of channels and pixel; see :func:`event_loops.collect`.

    Attributes:
        positions: Pixel · group + channel within the group, uint16 if that is enough, else uint32.
        values: The values.
        pointers: Where the list of each pixel begins, int64 ``[rows, groups · pixels + 1]``.
        group: Channels (or features) in a group.
    """

    positions: np.ndarray
    values: np.ndarray
    pointers: np.ndarray
    group: int


def count_active(rows: np.ndarray) -> np.ndarray:
    """Returns the number of values that are not zero in each row ``[R, L]``."""
    counts = np.empty(len(rows), np.int64)
    with threads_of_torch():
        loops.count(rows, counts)
    return counts


def list_active(rows: np.ndarray, counts: np.ndarray, pixels: int, group: int) -> ActiveInputs:
    """Lists the values of rows ``[R, pixels · C]`` that are not zero, in groups of channels."""
    ends = np.cumsum(counts)
    groups = -(-rows.shape[1] // pixels // group)
    pointers = np.empty((len(rows), groups * pixels + 1), np.int64)
    pointers[:, 0], pointers[:, -1] = ends - counts, ends
    total = int(ends[-1]) if len(ends) else 0
    position_type = np.uint16 if pixels * group <= 2**16 else np.uint32
    active = ActiveInputs(np.empty(total, position_type), np.empty(total, rows.dtype), pointers, group)
    with threads_of_torch():
        loops.collect(rows, pixels, group, *active[:3])
    return active


class _Panels(NamedTuple):
    """Weights of a convolution as the compiled loops read them; see :func:`event_loops.convolve`.

    Attributes:
        weight: By block of outputs, flat.
        bias: ``[O]``, O padded to whole vectors.
        blocks: Blocks of outputs.
    """

    weight: np.ndarray
    bias: np.ndarray
    blocks: np.ndarray


def _panels(weight: Tensor, bias: Tensor | None, group: int) -> _Panels:
    outputs, channels, kernel, _ = weight.shape
    padded_bias = pad_outputs(weight.new_zeros(outputs) if bias is None else bias.detach())
    blocks = output_blocks(padded_bias)
    panels = np.zeros(len(padded_bias) * -(-channels // group) * group * kernel**2, padded_bias.numpy().dtype)
    with threads_of_torch():
        loops.pack(weight.detach().contiguous().numpy(), group, blocks, panels)
    return _Panels(panels, padded_bias.numpy(), blocks)


def convolve(
    active: ActiveInputs, weight: Tensor, bias: Tensor | None, shape: torch.Size, stride: int, padding: int
) -> Tensor:
    """Returns a convolution of square kernels.

    Args:
        active: Active inputs by pixel.
        weight: ``[O, C, K, K]``.
        bias: ``[O]``.
        shape: ``[M, H, W, C]`` of the input.
        stride: Stride.
        padding: Zeros around the input.

    Returns:
        ``[M, H', W', O]``.
    """
    images, height, width, _ = shape
    panels = _panels(weight, bias, active.group)
    out_height, out_width = _output_size(shape, weight, stride, padding)
    out = new_maps(weight, images, out_height, out_width, len(panels.bias))
    with threads_of_torch():
        loops.convolve(
            *active[:3], panels.weight, panels.bias, weight.shape[2], stride, padding, height, width, active.group,
            -(-out_height // -(-MIN_ITEMS // max(1, images))), panels.blocks, out.numpy(),
        )  # fmt: skip
    return out[..., : len(weight)]


def _output_size(shape: torch.Size, weight: Tensor, stride: int, padding: int) -> tuple[int, int]:
    height, width = ((size + 2 * padding - weight.shape[2]) // stride + 1 for size in shape[1:3])
    return height, width


def evaluate_stage(
    x: Tensor,
    layer: Conv,
    dynamics: Dynamics,
    norm: BatchNorm | None,
    pooling: Pool | None,
    *,
    always: bool = False,
) -> tuple[Tensor, Tensor, int] | None:
    """Runs a convolution, batch norm by its running statistics, neurons and pooling in one pass, without gradients.

    The output of the convolution is nowhere in memory as a whole.

    Args:
        x: Input, ``[T, N, C, H, W]``.
        layer: The convolution.
        dynamics: The neurons.
        norm: Batch norm before them.
        pooling: Pooling after them, in windows that do not overlap.
        always: Also where the dense convolution is expected to be faster.

    Returns:
        Pooled spikes ``[T, N, C', H', W']``, the number of spikes before pooling, a float64 scalar, and the largest
        number possible; None where the dense convolution is expected to be faster.
    """
    T, samples = x.shape[:2]
    maps = to_maps(x)
    counts = count_active(_rows(maps))
    if not always and one_pass_cost(layer.weight, float(counts.sum()) / max(1, maps.numel())) >= 1:
        return None
    weight, stride, padding = layer.weight.detach(), layer.stride[0], int(layer.padding[0])
    active = list_active(_rows(maps), counts, maps.shape[2], channels_of_group(weight))
    panels = _panels(weight, layer.bias, active.group)
    height, width = _output_size(maps.shape, weight, stride, padding)
    window, lanes = 1 if pooling is None else pooling.kernel, len(panels.bias)
    per_channel = evaluation_tensors(dynamics, norm, torch.Size((width, len(weight))))
    scale, shift, k = (F.pad(part.detach(), (0, lanes - len(weight))).numpy() for part in per_channel)
    threshold = np.full(lanes, np.inf, panels.bias.dtype)  # channels of the padding never fire
    threshold[: len(weight)] = dynamics.v_threshold.detach().numpy()
    pooled = weight.new_empty(T, samples, height // window, width // window, lanes)
    rows = _rows_of_band(height, width, window, samples)
    spikes = np.zeros(samples * -(-height // rows))
    with threads_of_torch():
        loops.evaluate(
            *active[:3], panels.weight, panels.bias, weight.shape[2], stride, padding, *maps.shape[1:3], active.group,
            rows, panels.blocks, scale, shift, k, threshold, threshold.dtype.type(dynamics.v_reset), dynamics.soft,
            window, pooling is not None and pooling.mode == "average", height, width, pooled.numpy(), spikes,
        )  # fmt: skip
    pooled = pooled[..., : len(weight)].permute(0, 1, 4, 2, 3)
    return pooled, torch.tensor(spikes.sum(), dtype=torch.float64), len(maps) * len(weight) * height * width


def _rows_of_band(height: int, width: int, window: int, samples: int) -> int:
    """Returns the rows of the output that an item of :func:`evaluate_stage` computes, a multiple of the window."""
    bytes_of_row = 2 * width * MAX_VECTORS * VECTOR_BYTES  # inputs and potentials of one block of outputs
    rows = min(TILE_BYTES // bytes_of_row, height // -(-MIN_ITEMS // max(1, samples)))
    return max(1, rows // window) * window


def multiply(active: ActiveInputs, weight: Tensor, samples: int) -> Tensor:
    """Returns ``x @ weight.T`` for active inputs of one pixel; ``weight`` is ``[O, F]``, the result ``[M, O]``."""
    rows = pad_outputs(weight.t())
    out = rows.new_empty(samples, rows.shape[-1])
    with threads_of_torch():
        loops.multiply(*active[:3], rows.numpy(), active.group, ROWS_OF_ITEM, output_blocks(rows), out.numpy())
    return out[:, : len(weight)]


def convolution_weight_gradient(
    active: ActiveInputs, grad: Tensor, shape: torch.Size, kernel: int, stride: int, padding: int
) -> Tensor:
    """Returns the gradient of the weights of :func:`convolve`, ``[O, C, K, K]``.

    Args:
        active: Active inputs by pixel.
        grad: Gradient of the output, ``[M, H', W', O]``.
        shape: ``[M, H, W, C]`` of the input.
        kernel: K.
        stride: Stride.
        padding: Zeros around the input.
    """
    images, height, width, channels = shape
    outputs, edge = grad.shape[3], kernel - 1 - padding
    lanes = VECTOR_BYTES // grad.element_size()
    ends = (edge + (size - 1) * stride + 1 for size in grad.shape[1:3])
    rows, columns = (slice(edge, end, stride) for end in ends)
    steps = torch.arange(kernel - 1, -1, -1)
    offsets = (steps[:, None] * (width + kernel - 1) + steps).flatten()
    tile = max(1, TILE_BYTES // ((width + kernel - 1) * MAX_VECTORS * VECTOR_BYTES))
    size = height + kernel - 1, width + kernel - 1, outputs + -outputs % lanes
    by_tap = grad.new_zeros(len(offsets), channels, size[2])
    chunk = max(1, SPREAD_BYTES // (math.prod(size) * grad.element_size()))
    for begin in range(0, images, chunk):
        part = grad[begin : begin + chunk]
        # where the input has a pixel, and a tap an output: zeros between outputs for strides, and around them
        spread = grad.new_zeros(len(part), *size)
        spread[:, rows, columns, :outputs] = part
        of_part = _select_rows(active, begin * height, (begin + len(part)) * height)
        by_tap += _weight_gradient(of_part, spread.flatten(0, 2), offsets, channels, tile, height, *size[:2])
    return by_tap[..., :outputs].view(kernel, kernel, channels, outputs).permute(3, 2, 0, 1)


def _select_rows(active: ActiveInputs, begin: int, end: int) -> ActiveInputs:
    pointers = active.pointers[begin:end]
    first, last = (pointers[0, 0], pointers[-1, -1]) if len(pointers) else (0, 0)
    return active._replace(
        positions=active.positions[first:last], values=active.values[first:last], pointers=pointers - first
    )


def product_weight_gradient(active: ActiveInputs, grad: Tensor, features: int) -> Tensor:
    """Returns the gradient of the weights of :func:`multiply`, ``[O, F]``; ``grad`` is ``[M, O]``."""
    tile = max(1, TILE_BYTES // (MAX_VECTORS * VECTOR_BYTES))
    by_feature = _weight_gradient(active, pad_outputs(grad), torch.zeros(1, dtype=torch.int64), features, tile, 1, 1, 1)
    return by_feature[0, :, : grad.shape[1]].t()


def _weight_gradient(
    active: ActiveInputs,
    grad: Tensor,
    offsets: Tensor,
    channels: int,
    tile: int,
    height: int,
    height_step: int,
    width_step: int,
) -> Tensor:
    """Returns the gradient ``[taps, C, O]``; arguments as in the two functions of ``event_loops`` that are called."""
    if not len(active.pointers):
        return grad.new_zeros(len(offsets), channels, grad.shape[-1])
    pixels, values = np.empty(len(active.values), np.uint32), np.empty_like(active.values)
    first = np.empty((-(-len(active.pointers) // tile), channels + 1), np.int64)
    out = grad.new_empty(len(offsets), channels, grad.shape[-1])
    with threads_of_torch():
        loops.transpose(
            *active[:3], channels, active.group, tile, height, height_step, width_step, pixels, values, first
        )
        loops.weight_gradient(
            pixels,
            values,
            first,
            grad.numpy(),
            offsets.numpy(),
            -(-channels // MIN_ITEMS),
            output_blocks(grad),
            out.numpy(),
        )
    return out


def channels_of_group(weight: Tensor) -> int:
    """Returns the channels whose weights, for one block of outputs and one row of taps, stay in the first cache."""
    taps = weight.shape[3] if weight.dim() == 4 else 1
    return max(1, min(weight.shape[1], PANEL_BYTES // (MAX_VECTORS * VECTOR_BYTES * taps)))


def pad_outputs(rows: Tensor) -> Tensor:
    """Returns rows of whole vectors, contiguous; a copy only where they are not."""
    lanes = VECTOR_BYTES // rows.element_size()
    missing = -rows.shape[-1] % lanes
    return (F.pad(rows, (0, missing)) if missing else rows).contiguous()


def output_blocks(rows: Tensor) -> np.ndarray:
    """Returns the blocks of output channels that are summed together: the first, their number, that of vectors."""
    lanes = VECTOR_BYTES // rows.element_size()
    left, blocks = rows.shape[-1] // lanes, []
    while left:
        vectors = min(MAX_VECTORS, 1 << (left.bit_length() - 1))
        blocks.append((rows.shape[-1] - left * lanes, vectors * lanes, vectors))
        left -= vectors
    return np.array(blocks, np.int64).reshape(-1, 3)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, active: ActiveInputs
    ) -> Tensor:
        maps = x.permute(0, 2, 3, 1)
        ctx.save_for_backward(weight)
        ctx.active, ctx.shape, ctx.stride, ctx.padding = active, maps.shape, stride, padding
        return convolve(active, weight, bias, maps.shape, stride, padding).permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        by_pixel = grad.permute(0, 2, 3, 1)
        needed = ctx.needs_input_grad[:3]
        gradients = convolution_gradients(ctx.active, by_pixel, weight, ctx.shape, ctx.stride, ctx.padding, needed)
        return *gradients, None, None, None


def convolution_gradients(
    active: ActiveInputs,
    grad: Tensor,
    weight: Tensor,
    shape: torch.Size,
    stride: int,
    padding: int,
    needed: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Returns the gradients of input, weights and bias of :func:`convolve`, each None where it is not needed.

    Args:
        active: Active inputs by pixel.
        grad: Gradient of the output, ``[M, H', W', O]``.
        weight: ``[O, C, K, K]``.
        shape: ``[M, H, W, C]`` of the input.
        stride: Stride.
        padding: Zeros around the input.
        needed: Which of the three are needed.
    """
    grad_x = grad_weight = None
    if needed[1]:
        grad_weight = convolution_weight_gradient(active, grad, shape, weight.shape[2], stride, padding)
    if needed[0]:
        grad_x = input_gradient(grad, weight, shape[1:3], stride, padding).permute(0, 3, 1, 2)
    return grad_x, grad_weight, _bias_gradient(grad) if needed[2] else None


def _bias_gradient(grad: Tensor) -> Tensor:
    """Returns the gradient of the bias of :func:`convolve`; ``grad`` is ``[M, H', W', O]``.

    Sums over several dimensions would be taken in an order that depends on the strides of dimensions of size 1.
    """
    return grad.flatten(0, 2).sum(0)


def input_gradient(grad: Tensor, weight: Tensor, size: Sequence[int], stride: int, padding: int) -> Tensor:
    """Returns the gradient of the input of :func:`convolve`, ``[M, H, W, C]``; it is dense.

    Args:
        grad: Gradient of the output, ``[M, H', W', O]``.
        weight: ``[O, C, K, K]``.
        size: H and W.
        stride: Stride.
        padding: Zeros around the input.
    """
    # the strides of one image depend on its origin, and torch would choose its algorithm, and so the last bits, by them
    grad = grad.flatten().view(grad.shape)
    if winograd.pays(weight, size, stride, len(grad)):
        return winograd.input_gradient(grad, weight, size, padding)
    rest = [
        length + 2 * padding - weight.shape[2] - (outputs - 1) * stride
        for length, outputs in zip(size, grad.shape[1:3], strict=True)
    ]
    found = F.conv_transpose2d(grad.permute(0, 3, 1, 2), weight, None, stride, padding, rest)
    return found.permute(0, 2, 3, 1)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, counts: np.ndarray) -> Tensor:  # type: ignore[no-untyped-def]
        active = list_active(_rows(x), counts, 1, channels_of_group(weight))
        ctx.save_for_backward(weight)
        ctx.active = active
        return multiply(active, weight, len(x))

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        (weight,) = ctx.saved_tensors
        # grad @ weight, but the product that MKL computes faster on AMD processors: of few rows, in this order
        grad_x = (weight.t() @ grad.t()).t() if ctx.needs_input_grad[0] else None
        grad_weight = product_weight_gradient(ctx.active, grad, weight.shape[1]) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, None
