"""What compiled kernels have in common: channels in rows, and what batch norm normalises by."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from plifctl.snn.layers import BatchNorm, combined_moments
from plifctl.snn.ranks import summed


class Moments(NamedTuple):
    """What batch norm normalises by, float64 ``[T or 1, C]``.

    Attributes:
        mean: Of each channel.
        scale: 1/√(variance + ε).
        values: Of how many values, over all processes; 0: they are the running ones, which no input moves.
    """

    mean: Tensor
    scale: Tensor
    values: float


Sums = Callable[[Tensor, Tensor], Tensor]
"""Of rows ``[T, N, H, W, C]`` and a pivot ``[T, C]``: sums of difference and square, float64 ``[T, 2, C]``."""


def rows_of_maps(x: Tensor) -> Tensor:
    """Returns ``[T, N, C, H, W]`` as ``[T, N, H, W, C]``, a view where channels are last in memory."""
    return x.permute(0, 1, 3, 4, 2).contiguous()


def rates(k: Tensor, place: torch.Size, *, maps: bool) -> Tensor:
    """Returns 1/τ as ``[1, C]`` or, where each neuron has its own, as ``[H·W, C]``.

    Args:
        k: As :class:`~plifctl.snn.functional.Dynamics` has it.
        place: ``(W, C)`` of the rows.
        maps: The rows are of maps, not of features.
    """
    width, channels = place
    if k.numel() == 1:
        return k.reshape(1, 1).expand(1, channels)
    if not maps:
        return k.reshape(width, channels)
    return k.permute(1, 2, 0).reshape(-1, channels)


def moments_of(rows: Tensor, norm: BatchNorm, sums: Sums) -> Moments:
    """Returns what a batch norm normalises rows ``[T, N, H, W, C]`` by; in training its running statistics move."""
    if not norm.training:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean[None].to(torch.float64, copy=True), norm.running_var[None].double()
        return Moments(mean, (variance + norm.eps).rsqrt(), 0.0)
    mean, variance, values = _batch_statistics(rows.detach(), sums, per_step=norm.per_step)
    norm.track(mean, variance, values)
    return Moments(mean, (variance + norm.eps).rsqrt(), values)


def _batch_statistics(rows: Tensor, sums: Sums, *, per_step: bool) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of each channel over all processes, float64 ``[T or 1, C]``, and of how many values."""
    values = rows[0, ..., 0].numel()
    if not values:  # a small batch may not reach all processes
        nothing = rows.new_zeros(len(rows), rows.shape[4], dtype=torch.float64)
        return combined_moments(nothing, nothing, 0, per_step=per_step)
    pivot = rows[:, 0, 0, 0]  # any value near the others: squares of small differences lose little
    shift, square = sums(rows, pivot).unbind(1)
    return combined_moments(pivot + shift / values, square - shift * shift / values, values, per_step=per_step)


def affine(weight: Tensor | None, bias: Tensor | None, moments: Moments | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Returns batch norm as scale and shift ``[T or 1, C]``, 1 and 0 where there is none, in ``like``'s dtype.

    Args:
        weight: γ.
        bias: β.
        moments: What it normalises by.
        like: ``[C]``.
    """
    if moments is None:
        return like.new_ones(1, len(like)), like.new_zeros(1, len(like))
    assert weight is not None
    assert bias is not None
    scale = moments.scale * weight
    return scale.to(like), (bias - moments.mean * scale).to(like)


class ThroughNorm(NamedTuple):
    """How the gradient of batch norm's input follows from that of its output, ``by_grad · g + by_x · x + constant``.

    Attributes:
        by_grad: float64 ``[T or 1, C]``, as the others.
    """

    by_grad: Tensor
    by_x: Tensor
    constant: Tensor


def through_norm(weight: Tensor, moments: Moments, total: Tensor, product: Tensor) -> ThroughNorm:
    """Returns it for sums over all processes.

    Args:
        weight: γ.
        moments: What was normalised by.
        total: Sum of the gradient of the output in this process, float64 ``[T or 1, C]``.
        product: Sum of that gradient times (x − mean).
    """
    by_grad = moments.scale * weight
    by_x = constant = torch.zeros_like(by_grad)
    if moments.values:
        total, product = summed(torch.stack([total, product])) / moments.values
        by_x = -by_grad * moments.scale.square() * product
        constant = -by_grad * total - by_x * moments.mean
    return ThroughNorm(by_grad, by_x, constant)
