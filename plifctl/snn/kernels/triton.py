"""Batch norm, scan and pooling on a GPU, in as few passes over memory as can be (:mod:`~plifctl.snn.kernels.programs`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes, in X's own precision; it
keeps nothing but X. Backward computes the potentials again: once to sum up what batch norm's gradient needs, once more
to write the gradient of X. So neither normalised input nor potentials nor the gradient before the norm reach memory.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import programs
from plifctl.snn.kernels.eager import stage_eager
from plifctl.snn.kernels.rows import Moments, affine, moments_of, rates, rows_of_maps, through_norm
from plifctl.snn.layers import BatchNorm, Pool

TILE = 1024
"""Neurons that a program works on at once: 8 for each of its 128 threads."""

CHANNELS = 64
"""Of a tile, at most: side by side in memory they fill the lines that are read."""

LARGEST_WINDOW = 4
"""Larger pooling windows are pooled by torch: a tile would be one window."""

PROGRAMS = 8
"""Of a persistent kernel, on each multiprocessor."""

ROUNDING = {"enable_fp_fusion": False}
"""Products are rounded before they are added to, as the definition's are; the time is memory's, not arithmetic's."""


def stage_triton(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None
) -> tuple[Tensor, Tensor]:
    """As :func:`plifctl.snn.kernels.spiking_stage`, for tensors of any precision on a GPU; spikes have that of ``x``.

    Windows of pooling must not overlap.
    """
    if pooling is not None and pooling.kernel > LARGEST_WINDOW:
        spikes, count = stage_triton(x, T, dynamics, norm, None)
        return pooling(spikes), count
    if not x.numel() and (norm is None or not norm.training):  # else other processes wait for this one's sums
        return stage_eager(x, T, dynamics, norm, pooling)
    maps = x.dim() == 5
    rows = rows_of_maps(x) if maps else x.contiguous()[:, :, None, None]
    k = rates(dynamics.k, rows.shape[3:], maps=maps)
    choices = _Choices(
        T,
        dynamics.v_reset,
        dynamics.soft,
        dynamics.detach_reset,
        dynamics.surrogate,
        1 if pooling is None else pooling.kernel,
        pooling is not None and pooling.mode == "average",
    )
    moments = None if norm is None else moments_of(rows, norm, _sums)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    pooled, count = _Stage.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, k, dynamics.v_threshold, dynamics.width, moments, choices
    )
    return (pooled.permute(0, 1, 4, 2, 3) if maps else pooled.flatten(2)), count


class _Choices(NamedTuple):
    T: int
    v_reset: float
    soft: bool
    detach: bool
    surrogate: str
    window: int
    average: bool


class _Tiles(NamedTuple):
    """How rows are cut.

    Attributes:
        shape: Of a tile, ``(K, P, CB)``.
        across: Number of blocks of channels.
        blocks: Number of blocks of windows.
        persistent: Number of programs that share them where each has memory of its own.
    """

    shape: tuple[int, int, int]
    across: int
    blocks: int
    persistent: int


def _tiles(rows: Tensor, window: int) -> _Tiles:
    _, samples, height, width, channels = rows.shape
    parts, wide = triton.next_power_of_2(window * window), min(triton.next_power_of_2(channels), CHANNELS)
    windows = max(1, TILE // (parts * wide))
    blocks = triton.cdiv(samples * triton.cdiv(height, window) * triton.cdiv(width, window), windows)
    across = triton.cdiv(channels, wide)
    here = torch.cuda.get_device_properties(rows.device).multi_processor_count if rows.is_cuda else 1
    return _Tiles((parts, windows, wide), across, blocks, min(blocks, max(2, PROGRAMS * here // across)))


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be that of its arguments."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _real(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    """What is computed in, as torch and as Triton call it."""
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def _sums(rows: Tensor, pivot: Tensor) -> Tensor:
    T, channels = len(rows), rows.shape[4]
    count = rows[0, ..., 0].numel()
    tiles = _tiles(rows, 1)
    _, high, wide = tiles.shape
    real, real_there = _real(rows.dtype)
    partial = rows.new_empty(tiles.persistent, T, 2, channels, dtype=real)
    with _on(rows):
        programs.statistics[(tiles.persistent, tiles.across, T)](
            rows,
            pivot.contiguous(),
            partial,
            count,
            channels,
            rows.stride(0),
            P=high,
            CB=wide,
            REAL=real_there,
            **ROUNDING,
        )
    return partial.sum(0, dtype=torch.float64)


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
        T, window = choices.T, choices.window
        _, samples, height, columns, channels = x.shape
        real, real_there = _real(x.dtype)
        k = k.contiguous()
        scale, shift = affine(weight, bias, moments, x.new_empty(channels, dtype=real))
        out = x.new_empty(T, samples, height // window, columns // window, channels)
        tiles = _tiles(x, window)
        counts = x.new_zeros(tiles.blocks * tiles.across, dtype=real)
        if x.numel():
            parts, windows, wide = tiles.shape
            with _on(x):
                programs.forward[(tiles.blocks, tiles.across)](
                    *(x, scale, shift, k, v_threshold, out, counts),
                    *_sizes(x, scale, k, out, T, window),
                    RESET=choices.v_reset,
                    SOFT=choices.soft,
                    AVERAGE=choices.average,
                    K=parts,
                    P=windows,
                    CB=wide,
                    REAL=real_there,
                    **ROUNDING,
                )
        ctx.save_for_backward(x, weight, scale, shift, k, v_threshold, width)
        ctx.moments, ctx.choices = moments, choices
        count = counts.sum(dtype=torch.float64)
        ctx.mark_non_differentiable(count)
        return out, count

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        x, weight, scale, shift, k, v_threshold, width = ctx.saved_tensors
        moments, choices = ctx.moments, ctx.choices
        channels = x.shape[4]
        real, real_there = _real(x.dtype)
        tiles = _tiles(x, choices.window)
        grad = grads[0].contiguous()
        grad_x = torch.empty_like(x)
        own_rates = len(k) > 1
        grad_k = x.new_empty(x.shape[1:] if own_rates else (0,), dtype=real)
        partial = x.new_zeros(tiles.persistent, 3, channels, dtype=real)
        scratch = x.new_empty(tiles.persistent * tiles.across, choices.T, *tiles.shape, dtype=real)
        mean = scale if moments is None else moments.mean.to(real)
        sums = x.new_zeros(tiles.persistent, len(scale), 2, channels, dtype=real)

        def run(through: tuple[Tensor, ...], *, summing: bool) -> None:
            if not x.numel():
                return
            parts, windows, wide = tiles.shape
            sizes = _sizes(x, scale, k, grad, choices.T, choices.window)
            stride_t, stride_m, _, stride_out = sizes[-4:]
            with _on(x):
                programs.backward[(tiles.persistent, tiles.across)](
                    *(x, scale, shift, mean, k, v_threshold, width, grad, scratch, *through),
                    *(grad_x, grad_k, partial, sums, *sizes),
                    *((choices.T - 1) * stride for stride in (stride_t, stride_m, stride_out)),
                    RESET=choices.v_reset,
                    SOFT=choices.soft,
                    DETACH=choices.detach,
                    SURROGATE=choices.surrogate,
                    AVERAGE=choices.average,
                    STATIC=len(x) < choices.T,
                    OWN_RATES=own_rates,
                    SUMS=summing,
                    K=parts,
                    P=windows,
                    CB=wide,
                    REAL=real_there,
                    **ROUNDING,
                )

        grad_weight = grad_bias = None
        through: tuple[Tensor, ...] = (torch.ones_like(scale), torch.zeros_like(scale), torch.zeros_like(scale))
        if moments is not None:
            run(through, summing=True)
            total, product = sums.sum(0, dtype=torch.float64).unbind(1)
            grad_bias, grad_weight = total.sum(0).to(real), (product * moments.scale).sum(0).to(real)
            through = tuple(part.to(real) for part in through_norm(weight, moments, total, product))
        run(through, summing=False)
        by_k, by_threshold, by_width = partial.sum(0, dtype=torch.float64).to(real)
        if own_rates:
            by_k = grad_k.sum(0).view(-1, channels)
        return (
            grad_x,
            grad_weight,
            grad_bias,
            by_k.view_as(k),
            by_threshold.sum().view_as(v_threshold),
            by_width.sum().view_as(width),
            None,
            None,
        )


def _sizes(x: Tensor, scale: Tensor, k: Tensor, out: Tensor, T: int, window: int) -> tuple[Any, ...]:
    """Numbers that both kernels are given: sizes, and how far apart steps, rows of moments and neurons' rates lie."""
    channels = x.shape[4]
    still, alike, shared = len(x) < T, len(scale) == 1, len(k) == 1
    return (
        *(T, *x.shape[1:], window),
        0 if still else x.stride(0),
        0 if alike else channels,
        0 if shared else channels,
        out[0].numel(),
    )
