"""Batch norm, scan and pooling on the CPU, each pass over memory compiled (:mod:`plifctl.snn.kernels.loops`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes. Backward keeps nothing but
X: it computes the potentials again, in cache, walks back through time (Eq. 8–16), and goes through batch norm in place.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import loops
from plifctl.snn.kernels.eager import stage_eager
from plifctl.snn.kernels.rows import Moments, affine, moments_of, rates, rows_of_maps, through_norm
from plifctl.snn.layers import BatchNorm, Pool

ITEMS = 16
"""Into so many pieces, at least, work is cut where it can be; more would be more sums to add up."""

LANES = 256
"""Features of a fully connected layer that are worked on together, at most."""


def stage_fused(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None
) -> tuple[Tensor, Tensor]:
    """As :func:`plifctl.snn.kernels.spiking_stage`, for float32 and float64 tensors on the CPU.

    Windows of pooling must not overlap.
    """
    if not x.numel() and (norm is None or not norm.training):  # else other processes wait for this one's sums
        return stage_eager(x, T, dynamics, norm, pooling)
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    maps = x.dim() == 5
    rows = rows_of_maps(x) if maps else _rows_of_features(x)
    k = rates(dynamics.k, rows.shape[3:], maps=maps)
    v_threshold = dynamics.v_threshold.expand(rows.shape[4])
    choices = _Choices(
        T,
        dynamics.v_reset,
        dynamics.soft,
        dynamics.detach_reset,
        loops.SURROGATES[dynamics.surrogate],
        1 if pooling is None else pooling.kernel,
        pooling is not None and pooling.mode == "average",
    )
    moments = None if norm is None else moments_of(rows, norm, _sums)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    pooled, count = _Stage.apply(rows, weight, bias, k, v_threshold, dynamics.width, moments, choices)  # type: ignore[no-untyped-call]
    return (pooled.permute(0, 1, 4, 2, 3) if maps else pooled.flatten(2)), count


class _Choices(NamedTuple):
    T: int
    v_reset: float
    soft: bool
    detach: bool
    surrogate: int
    window: int
    average: bool


def _rows_of_features(x: Tensor) -> Tensor:
    """``[T, N, F]`` as ``[T, N, 1, F/C, C]`` with the largest C that divides F."""
    features = x.shape[2]
    lanes = next(n for n in range(min(LANES, features), 0, -1) if features % n == 0)
    return x.reshape(*x.shape[:2], 1, features // lanes, lanes)


def _sums(rows: Tensor, pivot: Tensor) -> Tensor:
    sums = np.zeros((rows.shape[2], len(rows), 2, rows.shape[4]))
    loops.statistics(rows.numpy(), pivot.numpy(), sums)
    return torch.from_numpy(sums.sum(0))


class _Stage(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        k: Tensor,
        v_threshold: Tensor,
        width: Tensor,
        moments: Moments | None,
        choices: _Choices,
    ) -> tuple[Tensor, Tensor]:
        _, samples, height, columns, channels = x.shape
        scale, shift = affine(weight, bias, moments, v_threshold)
        k, v_threshold = k.contiguous(), v_threshold.contiguous()
        window = choices.window
        out = x.new_empty(choices.T, samples, height // window, columns // window, channels)
        span, items = _cut(height, columns, window)
        counts = np.zeros(items)
        real = x.numpy().dtype.type
        loops.forward(
            *_arrays(x, scale, shift, k, v_threshold),
            real(choices.v_reset),
            choices.soft,
            choices.T,
            window,
            choices.average,
            span,
            out.numpy(),
            counts,
        )
        ctx.save_for_backward(x, weight, scale, shift, k, v_threshold, width)
        ctx.moments, ctx.choices = moments, choices
        count = torch.tensor(counts.sum(), dtype=torch.float64)
        ctx.mark_non_differentiable(count)
        return out, count

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weight, scale, shift, k, v_threshold, width = ctx.saved_tensors
        moments, choices = ctx.moments, ctx.choices
        _, _, height, columns, channels = x.shape
        span, items = _cut(height, columns, choices.window)
        real = x.numpy().dtype.type
        mean = x.new_zeros(1, channels) if moments is None else moments.mean.to(x.dtype)
        shape_too = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
        grad_x = torch.empty_like(x)
        by_k = np.zeros((items if len(k) == 1 else len(k), channels))
        by_threshold, by_width = np.zeros((2, items, channels))
        sums = np.zeros((items, 0 if moments is None else len(mean), 2, channels))
        loops.backward(
            *_arrays(x, scale, shift, mean, k, v_threshold),
            real(choices.v_reset),
            choices.soft,
            choices.detach,
            choices.surrogate,
            real(width.item()),
            shape_too,
            choices.window,
            choices.average,
            span,
            grads[0].contiguous().numpy(),
            grad_x.numpy(),
            by_k,
            by_threshold,
            by_width,
            sums,
        )
        grad_weight = grad_bias = None
        if moments is not None:
            total, product = torch.from_numpy(sums.sum(0)).unbind(1)
            grad_bias, grad_weight = total.sum(0).to(x.dtype), (product * moments.scale).sum(0).to(x.dtype)
            through = through_norm(weight, moments, total, product)
            loops.combine(grad_x.numpy(), x.numpy(), *_arrays(*(part.to(x.dtype) for part in through)))
        grad_k = torch.from_numpy(by_k if len(k) > 1 else by_k.sum(0, keepdims=True)).to(x.dtype)
        grad_threshold = torch.from_numpy(by_threshold.sum(0)).to(x.dtype) if shape_too else None
        grad_width = torch.tensor(by_width.sum(), dtype=x.dtype) if shape_too else None
        return grad_x, grad_weight, grad_bias, grad_k, grad_threshold, grad_width, None, None


def _cut(height: int, width: int, window: int) -> tuple[int, int]:
    """How many windows an item takes, and how many items there are; of the shape alone, not of the number of cores."""
    rows, across = -(-height // window), -(-width // window)
    span = -(-across // -(-ITEMS // rows))
    return span, rows * -(-across // span)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
