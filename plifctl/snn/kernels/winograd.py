"""The gradient of the input of a 3×3 convolution, with a quarter of its multiplications, on the CPU.

This gradient is a convolution of the gradient of the output, without zeros to leave out. A tile of 4×4 of its values
depends on 6×6 of the maps. By the definition, it takes 144 products for each pair of channels; after a transform of
maps and weights (values of polynomials at six points), 36. The transforms are sums of few terms.

Source: S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin, S. Gray, Fast Algorithms for Convolutional
Neural Networks, CVPR 2016: F(4×4, 3×3).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from plifctl.snn.kernels import winograd_loops as loops
from plifctl.snn.kernels.cpu import MIN_ITEMS, threads_of_torch
from plifctl.snn.kernels.registers import VECTOR_BYTES
from plifctl.snn.kernels.winograd_loops import SPAN, TILE

TILES = 128
"""Tiles that are computed together, more where their rows are few: with 128 channels their transforms take 4.5 MiB."""


def pays(weight: Tensor, size: Sequence[int], stride: int, images: int) -> bool:
    """Returns whether :func:`input_gradient` can be computed, and is expected to be faster than the sums.

    Args:
        weight: ``[O, C, K, K]``.
        size: H and W of the input.
        stride: Stride.
        images: Number of images.
    """
    lanes = VECTOR_BYTES // weight.element_size()
    if weight.shape[2] != 3 or stride != 1 or any(channels % lanes for channels in weight.shape[:2]):
        return False
    return images > 0 and relative_cost(weight, size, images) < 1


def relative_cost(weight: Tensor, size: Sequence[int], images: int) -> float:
    """Returns the estimated time as a share of the dense gradient's; arguments as in :func:`pays`.

    The constants are fitted to ``benchmarks/event_driven.py``: products, transforms of the maps and of the weights.
    """
    height, width = size
    computed = TILE * TILE * -(-height // TILE) * -(-width // TILE)
    transforms = 1 / weight.shape[0] + 1 / weight.shape[1]
    return (0.36 + 6 * transforms) * computed / (height * width) + 1000 / (images * height * width)


def input_gradient(grad: Tensor, weight: Tensor, size: Sequence[int], padding: int) -> Tensor:
    """Returns the gradient of the input of a convolution of stride 1, ``[M, H, W, C]``.

    Args:
        grad: Gradient of the output, ``[M, H', W', O]``, contiguous.
        weight: ``[O, C, 3, 3]``.
        size: H and W.
        padding: Zeros around the input.
    """
    (height, width), (outputs, channels) = size, weight.shape[:2]
    tile_rows, tile_columns = -(-height // TILE), -(-width // TILE)
    total = len(grad) * tile_rows
    rows = max(MIN_ITEMS, TILES // tile_columns)  # a row is an item of a thread
    rows = -(-total // -(-total // rows))  # of tiles at a time, alike but for the last time
    weights = _transform(weight)
    tiles = grad.new_zeros(SPAN * SPAN, rows * tile_columns, outputs)
    products = grad.new_empty(SPAN * SPAN, rows * tile_columns, channels)
    out = grad.new_empty(len(grad), height, width, channels)
    with threads_of_torch():
        for begin in range(0, total, rows):
            part = begin, min(rows, total - begin), tile_rows, tile_columns
            loops.to_products(grad.numpy(), *part, 2 - padding, tiles.numpy())
            torch.bmm(tiles, weights, out=products)
            loops.from_products(products.numpy(), *part, out.numpy())
    return out


def _transform(weight: Tensor) -> Tensor:
    """Returns the weights, mirrored, at the points, ``[SPAN · SPAN, O, C]``."""
    points = torch.tensor(loops.WEIGHT_TRANSFORM, dtype=torch.float64, device=weight.device)
    taps = weight.detach().double().flip(2, 3).permute(2, 3, 0, 1).flatten(2).flatten(0, 1)
    return (torch.kron(points, points) @ taps).to(weight.dtype).view(-1, *weight.shape[:2])
