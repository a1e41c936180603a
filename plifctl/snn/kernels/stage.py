"""A spiking layer by compiled passes over memory: all of it that is the same wherever they run.

Rows are ``[T, N, H, W, C]``: channels lie side by side in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from plifctl.config.choices import Surrogate
from plifctl.snn.collectives import summed
from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels.reference import stage_eager
from plifctl.snn.layers import BatchNorm, Pool, combined_moments


class Choices(NamedTuple):
    """What a layer does, beside its numbers.

    Attributes:
        T: Number of time steps.
        v_reset: Reset potential.
        soft: Subtract the threshold after a spike.
        detach: Leave the spike of the reset out of the gradient.
        surrogate: See :func:`~plifctl.snn.functional.surrogate_derivative`.
        window: Of pooling; 1 is none.
        average: Pool by the average, else by the maximum.
    """

    T: int
    v_reset: float
    soft: bool
    detach: bool
    surrogate: Surrogate
    window: int
    average: bool


class Layer(NamedTuple):
    """A layer's numbers, in the precision that is computed in; X in its own.

    Attributes:
        x: Rows; with 1 for T they are the same at every step.
        scale: Of batch norm, ``[T or 1, C]``; of none, 1.
        shift: The same; of none, 0.
        k: 1/τ, ``[1, C]``, or ``[H·W, C]`` where each neuron has its own.
        v_threshold: A scalar.
        width: Of the surrogate, a scalar.
    """

    x: Tensor
    scale: Tensor
    shift: Tensor
    k: Tensor
    v_threshold: Tensor
    width: Tensor


class Gradients(NamedTuple):
    """Gradients of what a :class:`Layer` has; None where nobody wants it."""

    x: Tensor
    k: Tensor
    v_threshold: Tensor | None
    width: Tensor | None


class ThroughNorm(NamedTuple):
    """How the gradient of batch norm's input follows from that of its output, ``by_grad · g + by_x · x + constant``.

    Attributes:
        by_grad: float64 ``[T or 1, C]``, as the others.
    """

    by_grad: Tensor
    by_x: Tensor
    constant: Tensor


Through = Callable[[Tensor, Tensor], ThroughNorm]
"""Of the sums of batch norm's output's gradient g, and of g · (x − mean), in this process, float64 ``[T or 1, C]``."""


class Passes(Protocol):
    """A module that passes over memory.

    Attributes:
        LARGEST_WINDOW: Of pooling that it does.
    """

    LARGEST_WINDOW: int

    def rows_of_features(self, x: Tensor) -> Tensor:
        """Returns ``[T, N, F]`` as rows."""
        ...

    def sums(self, rows: Tensor, pivot: Tensor) -> Tensor:
        """Returns the sums of rows less a pivot ``[T, C]``, and of their square, float64 ``[T, 2, C]``."""
        ...

    def forward(self, layer: Layer, choices: Choices) -> tuple[Tensor, Tensor]:
        """Returns pooled spikes in rows, and how many there were before pooling, a float64 scalar."""
        ...

    def backward(
        self, layer: Layer, choices: Choices, grad: Tensor, mean: Tensor | None, through: Through | None, *, shape: bool
    ) -> Gradients:
        """Walks back through time (Eq. 8–16) and batch norm.

        Args:
            layer: What forward was given.
            choices: The same.
            grad: Of pooled spikes, rows.
            mean: What batch norm subtracts, ``[T or 1, C]``; None without one.
            through: Is called once where there is one.
            shape: The gradients of threshold or width are wanted.
        """
        ...


def run_stage(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None, passes: Passes
) -> tuple[Tensor, Tensor]:
    """As :func:`plifctl.snn.kernels.spiking_stage`: pooled spikes, and how many there were before pooling."""
    if pooling is not None and pooling.kernel > passes.LARGEST_WINDOW:
        spikes, count = run_stage(x, T, dynamics, norm, None, passes)
        return pooling(spikes), count
    if not x.numel() and (norm is None or not norm.training):  # else other processes wait for this one's sums
        return stage_eager(x, T, dynamics, norm, pooling)
    maps = x.dim() == 5
    rows = x.permute(0, 1, 3, 4, 2).contiguous() if maps else passes.rows_of_features(x)
    choices = Choices(
        T,
        dynamics.v_reset,
        dynamics.soft,
        dynamics.detach_reset,
        dynamics.surrogate,
        1 if pooling is None else pooling.kernel,
        pooling is not None and pooling.mode == "average",
    )
    k = _rates(dynamics.k, rows.shape[3:], maps=maps)
    moments = None if norm is None else _moments(rows, norm, passes)
    weight, bias = (None, None) if norm is None else (norm.weight, norm.bias)
    pooled, count = _Stage.apply(  # type: ignore[no-untyped-call]
        rows, weight, bias, k, dynamics.v_threshold, dynamics.width, moments, choices, passes
    )
    return (pooled.permute(0, 1, 4, 2, 3) if maps else pooled.flatten(2)), count


class _Moments(NamedTuple):
    """What batch norm normalises by, float64 ``[T or 1, C]``.

    Attributes:
        mean: Of each channel.
        scale: 1/√(variance + ε).
        values: Of how many values, over all processes; 0: they are the running ones, which no input moves.
    """

    mean: Tensor
    scale: Tensor
    values: float


def _rates(k: Tensor, place: torch.Size, *, maps: bool) -> Tensor:
    """1/τ as :class:`Layer` has it; ``place`` is ``(W, C)`` of the rows."""
    width, channels = place
    if k.numel() == 1:
        return k.reshape(1, 1).expand(1, channels)
    if not maps:
        return k.reshape(width, channels)
    return k.permute(1, 2, 0).reshape(-1, channels)


def _moments(rows: Tensor, norm: BatchNorm, passes: Passes) -> _Moments:
    """What a batch norm normalises by; in training its running statistics move."""
    if not norm.training:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        mean, variance = norm.running_mean[None].to(torch.float64, copy=True), norm.running_var[None].double()
        return _Moments(mean, (variance + norm.eps).rsqrt(), 0.0)
    mean, variance, values = _batch_statistics(rows.detach(), passes, per_step=norm.per_step)
    norm.track(mean, variance, values)
    return _Moments(mean, (variance + norm.eps).rsqrt(), values)


def _batch_statistics(rows: Tensor, passes: Passes, *, per_step: bool) -> tuple[Tensor, Tensor, float]:
    """Mean and variance of each channel over all processes, float64 ``[T or 1, C]``, and of how many values."""
    values = rows[0, ..., 0].numel()
    if not values:  # a small batch may not reach all processes
        nothing = rows.new_zeros(len(rows), rows.shape[4], dtype=torch.float64)
        return combined_moments(nothing, nothing, 0, per_step=per_step)
    pivot = rows[:, 0, 0, 0]  # any value near the others: squares of small differences lose little
    shift, square = passes.sums(rows, pivot).unbind(1)
    return combined_moments(pivot + shift / values, square - shift * shift / values, values, per_step=per_step)


def _affine(
    weight: Tensor | None, bias: Tensor | None, moments: _Moments | None, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Scale and shift as :class:`Layer` has them, in the type of ``like``, ``[C]``."""
    if moments is None:
        return like.new_ones(1, len(like)), like.new_zeros(1, len(like))
    assert weight is not None
    assert bias is not None
    scale = moments.scale * weight
    return scale.to(like), (bias - moments.mean * scale).to(like)


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
        moments: _Moments | None,
        choices: Choices,
        passes: Passes,
    ) -> tuple[Tensor, Tensor]:
        k = k.contiguous()
        layer = Layer(x, *_affine(weight, bias, moments, k[0]), k, v_threshold, width)
        pooled, count = passes.forward(layer, choices)
        ctx.save_for_backward(weight, *layer)
        ctx.moments, ctx.choices, ctx.passes = moments, choices, passes
        ctx.mark_non_differentiable(count)
        return pooled, count

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        weight, *saved = ctx.saved_tensors
        layer, moments = Layer(*saved), ctx.moments
        by_norm: tuple[Tensor | None, Tensor | None] = (None, None)
        mean = None if moments is None else moments.mean.to(layer.k.dtype)

        def through(total: Tensor, product: Tensor) -> ThroughNorm:
            nonlocal by_norm
            by_norm = (product * moments.scale).sum(0).to(weight.dtype), total.sum(0).to(weight.dtype)
            return _through_norm(weight, moments, total, product)

        shape = ctx.needs_input_grad[4] or ctx.needs_input_grad[5]
        found = ctx.passes.backward(
            layer, ctx.choices, grads[0].contiguous(), mean, None if moments is None else through, shape=shape
        )
        return found.x, *by_norm, found.k, found.v_threshold, found.width, None, None, None


def _through_norm(weight: Tensor, moments: _Moments, total: Tensor, product: Tensor) -> ThroughNorm:
    by_grad = moments.scale * weight
    by_x = constant = torch.zeros_like(by_grad)
    if moments.values:
        total, product = summed(torch.stack([total, product])) / moments.values
        by_x = -by_grad * moments.scale.square() * product
        constant = -by_grad * total - by_x * moments.mean
    return ThroughNorm(by_grad, by_x, constant)
