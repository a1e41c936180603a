"""The device-independent part of a fused spiking stage; a :class:`Backend` does the passes over memory.

Rows are ``[T, N, H, W, C]``: channels are contiguous in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plifctl.config.choices import Surrogate
from plifctl.snn.collectives import all_reduce_sum
from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels.reference import run_stage_eager
from plifctl.snn.layers import BatchNorm, Pool, combine_moments


class StageConfig(NamedTuple):
    """Settings of a stage that are not tensors.

    Attributes:
        T: Number of time steps.
        v_reset: Reset potential.
        soft: Subtract the threshold after a spike.
        detach: Ignore the spike of the reset in the gradient.
        surrogate: See :func:`~plifctl.snn.functional.surrogate_derivative`.
        window: Size of the pooling window; 1 is no pooling.
        average: Average pooling, else maximum.
    """

    T: int
    v_reset: float
    soft: bool
    detach: bool
    surrogate: Surrogate
    window: int
    average: bool


class StageTensors(NamedTuple):
    """Tensors of a stage, in the precision of the computation; ``x`` in its own.

    Attributes:
        x: Rows; a first dimension of 1 means the same input at every step.
        scale: Factor of batch norm's affine map, ``[T or 1, C]``; 1 without batch norm.
        shift: Offset of that map, ``[T or 1, C]``; 0 without batch norm.
        k: 1/τ, ``[1, C]``, or ``[H·W, C]`` where each neuron has its own.
        v_threshold: A scalar.
        width: Width of the surrogate, a scalar.
    """

    x: Tensor
    scale: Tensor
    shift: Tensor
    k: Tensor
    v_threshold: Tensor
    width: Tensor


class StageGradients(NamedTuple):
    """Gradients of the tensors of a stage; those of threshold and width are None where they are not needed."""

    x: Tensor
    k: Tensor
    v_threshold: Tensor | None
    width: Tensor | None


class NormCoefficients(NamedTuple):
    """The gradient of batch norm's input from the gradient g of its output: ``by_grad · g + by_x · x + constant``.

    Attributes:
        by_grad: float64 ``[T or 1, C]``.
        by_x: float64 ``[T or 1, C]``.
        constant: float64 ``[T or 1, C]``.
    """

    by_grad: Tensor
    by_x: Tensor
    constant: Tensor


NormBackward = Callable[[Tensor, Tensor], NormCoefficients]
"""Takes the sums over this process of batch norm's output gradient g and of g · (x − mean), float64 ``[T or 1, C]``."""


class Backend(Protocol):
    """A module with the passes over memory for one kind of device.

    Attributes:
        MAX_WINDOW: Largest pooling window that it supports.
    """

    MAX_WINDOW: int

    def features_to_rows(self, x: Tensor) -> Tensor:
        """Returns ``[T, N, F]`` as rows."""
        ...

    def sum_deviations(self, rows: Tensor, pivot: Tensor) -> Tensor:
        """Returns the sums of rows − pivot ``[T, C]`` and of their squares, float64 ``[T, 2, C]``."""
        ...

    def forward(self, tensors: StageTensors, config: StageConfig) -> tuple[Tensor, Tensor]:
        """Returns pooled spikes in rows, and the number of spikes before pooling, a float64 scalar."""
        ...

    def backward(
        self,
        tensors: StageTensors,
        config: StageConfig,
        grad: Tensor,
        mean: Tensor | None,
        norm_backward: NormBackward | None,
        *,
        firing_grads: bool,
    ) -> StageGradients:
        """Computes the gradients through time (Eq. 8–16) and through batch norm.

        Args:
            tensors: Arguments of forward.
            config: Arguments of forward.
            grad: Gradient of the pooled spikes, rows.
            mean: Mean that batch norm subtracts, ``[T or 1, C]``; None without batch norm.
            norm_backward: Called once; None without batch norm.
            firing_grads: Compute the gradients of threshold and width.
        """
        ...


def run_stage(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None, backend: Backend
) -> tuple[Tensor, Tensor]:
    """Runs :func:`plifctl.snn.kernels.spiking_stage`; returns pooled spikes and the number of spikes before pooling."""
    if pooling is not None and pooling.kernel > backend.MAX_WINDOW:
        spikes, count = run_stage(x, T, dynamics, norm, None, backend)
        return pooling(spikes), count
    if not x.numel() and (norm is None or not norm.training):  # in training the other ranks wait for this one's sums
        return run_stage_eager(x, T, dynamics, norm, pooling)
    maps = x.dim() == 5
    rows = (x.permute(0, 1, 3, 4, 2) if maps else backend.features_to_rows(x)).contiguous()
    k = k_of_rows(dynamics.k, rows.shape[3:], maps=maps)
    statistics = None
    if norm is not None:
        values = rows[0, ..., 0].numel()
        statistics = norm_statistics(norm, rows.detach(), values, partial(backend.sum_deviations, rows.detach()))
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    config = stage_config(T, dynamics, pooling)
    pooled, count = _Stage.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, k, dynamics.v_threshold, dynamics.width, statistics, config, backend
    )
    return (pooled.permute(0, 1, 4, 2, 3) if maps else pooled.flatten(2)), count


def stage_config(T: int, dynamics: Dynamics, pooling: Pool | None) -> StageConfig:
    """Returns the settings of a stage that are not tensors."""
    return StageConfig(
        T,
        dynamics.v_reset,
        dynamics.soft,
        dynamics.detach_reset,
        dynamics.surrogate,
        1 if pooling is None else pooling.kernel,
        pooling is not None and pooling.mode == "average",
    )


class NormStatistics(NamedTuple):
    """Statistics that batch norm normalises by, float64 ``[T or 1, C]``.

    Attributes:
        mean: Mean of each channel.
        scale: 1/√(variance + ε).
        values: Number of values they are taken over, in all processes; 0 for the running statistics, which are
            constants of the gradient.
    """

    mean: Tensor
    scale: Tensor
    values: float


def k_of_rows(k: Tensor, row_shape: torch.Size, *, maps: bool) -> Tensor:
    """Returns 1/τ as :class:`StageTensors` has it; ``row_shape`` is ``(W, C)`` of the rows."""
    width, channels = row_shape
    if k.numel() == 1:
        return k.reshape(1, 1).expand(1, channels)
    if not maps:
        return k.reshape(width, channels)
    return k.permute(1, 2, 0).reshape(-1, channels)


def norm_statistics(
    norm: BatchNorm, rows: Tensor, values: int, sum_deviations: Callable[[Tensor], Tensor]
) -> NormStatistics:
    """Returns the statistics of a batch norm; in training the running ones are updated.

    Args:
        norm: The batch norm.
        rows: Its input, or the first rows of the maps.
        values: Number of values of a channel and step in this process.
        sum_deviations: Sums of the whole input; see :class:`Backend`.
    """
    if not norm.training:
        return _running_statistics(norm)
    mean, variance, total = _batch_statistics(rows, values, sum_deviations, per_step=norm.per_step)
    norm.update_running_statistics(mean, variance, total)
    return NormStatistics(mean, (variance + norm.eps).rsqrt(), total)


def _running_statistics(norm: BatchNorm) -> NormStatistics:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean[None].to(torch.float64, copy=True), norm.running_var[None].double()
    return NormStatistics(mean, (variance + norm.eps).rsqrt(), 0.0)


def _batch_statistics(
    rows: Tensor, values: int, sum_deviations: Callable[[Tensor], Tensor], *, per_step: bool
) -> tuple[Tensor, Tensor, float]:
    """Returns mean and variance of each channel over all processes, ``[T or 1, C]``, and the number of values."""
    if not values:  # this rank's shard of a small batch may be empty
        zeros = rows.new_zeros(len(rows), rows.shape[4], dtype=torch.float64)
        return combine_moments(zeros, zeros, 0, per_step=per_step)
    # any value near the mean: squares of small differences lose little precision; the rows may be overwritten
    pivot = rows[:, 0, 0, 0].clone()
    total, square = sum_deviations(pivot).unbind(1)
    # sums of float32 squares: with an outlier as the pivot, the difference of equal values may round below zero
    deviations = (square - total * total / values).clamp_min(0)
    return combine_moments(pivot + total / values, deviations, values, per_step=per_step)


def affine(
    weight: Tensor | None, bias: Tensor | None, statistics: NormStatistics | None, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns scale and shift as :class:`StageTensors` has them, in the type of ``like``, ``[C]``."""
    if statistics is None:
        return like.new_ones(1, len(like)), like.new_zeros(1, len(like))
    assert weight is not None
    assert bias is not None
    scale = statistics.scale * weight
    return scale.to(like), (bias - statistics.mean * scale).to(like)


def evaluation_tensors(
    dynamics: Dynamics, norm: BatchNorm | None, row_shape: torch.Size
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns scale, shift and k of maps as :class:`StageTensors` has them, for evaluation.

    Args:
        dynamics: The neurons.
        norm: Batch norm before them, in evaluation mode.
        row_shape: ``(W, C)`` of the maps.
    """
    k = k_of_rows(dynamics.k, row_shape, maps=True).contiguous()
    if norm is None:
        return *affine(None, None, None, k[0]), k
    return *affine(norm.weight, norm.bias, _running_statistics(norm), k[0]), k


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
        statistics: NormStatistics | None,
        config: StageConfig,
        backend: Backend,
    ) -> tuple[Tensor, Tensor]:
        k = k.contiguous()
        tensors = StageTensors(x, *affine(weight, bias, statistics, k[0]), k, v_threshold, width)
        pooled, count = backend.forward(tensors, config)
        ctx.save_for_backward(weight, *tensors)
        ctx.statistics, ctx.config, ctx.backend = statistics, config, backend
        ctx.mark_non_differentiable(count)
        return pooled, count

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        weight, *saved = ctx.saved_tensors
        tensors, statistics = StageTensors(*saved), ctx.statistics
        grad_weight: Tensor | None = None
        grad_bias: Tensor | None = None
        mean = None if statistics is None else statistics.mean.to(tensors.k.dtype)

        def norm_backward(total: Tensor, product: Tensor) -> NormCoefficients:
            nonlocal grad_weight, grad_bias
            coefficients, grad_weight, grad_bias = norm_gradients(weight, statistics, total, product)
            return coefficients

        gradients = ctx.backend.backward(
            tensors,
            ctx.config,
            grads[0].contiguous(),
            mean,
            None if statistics is None else norm_backward,
            firing_grads=ctx.needs_input_grad[4] or ctx.needs_input_grad[5],
        )
        by_neuron = gradients.k, gradients.v_threshold, gradients.width
        return gradients.x, grad_weight, grad_bias, *by_neuron, None, None, None


def norm_gradients(
    weight: Tensor, statistics: NormStatistics, total: Tensor, product: Tensor
) -> tuple[NormCoefficients, Tensor, Tensor]:
    """Goes back through batch norm; the sums are the arguments of a :data:`NormBackward`.

    Returns:
        The gradient of its input, and those of its weight and bias.
    """
    grad_weight, grad_bias = (product * statistics.scale).sum(0).to(weight.dtype), total.sum(0).to(weight.dtype)
    by_grad = statistics.scale * weight
    by_x = constant = torch.zeros_like(by_grad)
    if statistics.values:
        total, product = all_reduce_sum(torch.stack([total, product])) / statistics.values
        by_x = -by_grad * statistics.scale.square() * product
        constant = -by_grad * total - by_x * statistics.mean
    return NormCoefficients(by_grad, by_x, constant), grad_weight, grad_bias
