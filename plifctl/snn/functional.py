"""The definition: charge, fire, reset, surrogate and vote as pure functions of tensors.

Time is the first dimension of every sequence; the membrane potential is passed in and returned.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from plifctl.config.choices import Surrogate


class Dynamics(NamedTuple):
    """Parameters of a layer of neurons.

    Attributes:
        k: 1/τ: a scalar, ``[C, 1, 1]`` or ``[C, H, W]`` of maps, ``[F]`` of features.
        v_threshold: Firing threshold, a scalar.
        v_reset: Reset potential.
        soft: Subtract the threshold after a spike, instead of going to v_reset.
        detach_reset: Ignore the spike of the reset in the gradient.
        surrogate: See :func:`surrogate_derivative`.
        width: Width of the surrogate, a scalar.
        leak: See :func:`charge`; only the definition computes with another value than None.
    """

    k: Tensor
    v_threshold: Tensor
    v_reset: float
    soft: bool
    detach_reset: bool
    surrogate: Surrogate
    width: Tensor
    leak: float | None = None


def tau_to_a(tau: float) -> float:
    """Returns the parameter ``a`` whose clamp k(a) = sigmoid(a) equals 1/τ.

    Args:
        tau: Membrane time constant in time steps, above 1.

    Source: Sec. 3.3, τ = 1/k(a); a = −ln(τ − 1).

    Example:
        >>> tau_to_a(2.0)
        -0.0
    """
    return -math.log(tau - 1.0)


def charge(x: Tensor, v: Tensor, k: Tensor | float, v_reset: float, leak: float | None = None) -> Tensor:
    """Returns the potential before firing, H_t = V_{t−1} + k · (X_t − (V_{t−1} − V_reset)).

    There k is both the weight of the input and the share of the potential that leaks away. With ``leak`` the two
    differ: H_t = V_reset + (1 − leak) · (V_{t−1} − V_reset) + k · X_t.

    Args:
        x: Input X_t, any shape.
        v: Membrane potential V_{t−1}, shape of ``x``.
        k: 1/τ, a scalar or broadcastable to ``x``.
        v_reset: Reset potential.
        leak: Share of V_{t−1} − V_reset that is lost in a step, 0…1; None: k.

    Source: Eq. 5 with k = 1/τ, Eq. 6 with k = k(a).
    """
    if leak is None:
        return v + k * (x - (v - v_reset))
    return v_reset + (1.0 - leak) * (v - v_reset) + k * x


def surrogate_derivative(x: Tensor, surrogate: Surrogate, width: Tensor | float = 1.0) -> Tensor:
    """Returns the derivative used in place of the step function's, g(x/w)/w.

    Args:
        x: Distance to the threshold, H − V_th.
        surrogate: ``arctan`` g(u) = 1/(1 + (πu)²); ``sigmoid`` g(u) = s(u)(1 − s(u)), s the logistic function;
            ``rectangular`` g(u) = 1 where |u| < 1/2, else 0; ``triangular`` g(u) = max(0, 1 − |u|).
        width: w; the integral over x is 1 for every w.

    Source: supplement F (arctan, w = 1).
    """
    u = x / width
    match surrogate:
        case "arctan":
            g = 1.0 / (1.0 + (math.pi * u).square())
        case "sigmoid":
            g = u.sigmoid() * (-u).sigmoid()
        case "rectangular":
            g = (u.abs() < 0.5).to(u)
        case "triangular":
            g = (1.0 - u.abs()).clamp_min(0.0)
    return g / width


class _Spike(torch.autograd.Function):
    """Heaviside step forward (Θ(0) = 1), the derivative of a smooth step σ(x/w) backward, for x and for w."""

    @staticmethod
    def forward(ctx, x: Tensor, width: Tensor, surrogate: Surrogate) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x, width)
        ctx.surrogate = surrogate
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[no-untyped-def]
        x, width = ctx.saved_tensors
        grad_x = grads[0] * surrogate_derivative(x, ctx.surrogate, width)
        grad_width = -(grad_x * x / width).sum() if ctx.needs_input_grad[1] else None
        return grad_x, grad_width, None


def fire(
    h: Tensor, v_threshold: Tensor | float, surrogate: Surrogate = "arctan", width: Tensor | float = 1.0
) -> Tensor:
    """Returns the spikes S_t = Θ(H_t − V_th), 0 or 1, with the surrogate as derivative.

    Args:
        h: Potential before firing.
        v_threshold: A scalar or broadcastable to ``h``.
        surrogate: See :func:`surrogate_derivative`.
        width: w, a scalar; if learnt, its gradient is that of σ(x/w), −x/w · g(x/w)/w.

    Source: Eq. 3 and 13, supplement F.
    """
    width = torch.as_tensor(width, dtype=h.dtype, device=h.device)
    spikes: Tensor = _Spike.apply(h - v_threshold, width, surrogate)  # type: ignore[no-untyped-call]
    return spikes


def reset(
    h: Tensor, spike: Tensor, v_threshold: Tensor | float, v_reset: float, *, soft: bool = False, detach: bool
) -> Tensor:
    """Returns the potential after firing, hard V_t = H_t · (1 − S_t) + V_reset · S_t, or soft V_t = H_t − V_th · S_t.

    Args:
        h: Potential before firing.
        spike: Spikes, shape of ``h``.
        v_threshold: Firing threshold.
        v_reset: Reset potential.
        soft: Use the soft reset.
        detach: Ignore S_t of this equation in the gradient (supplement F).

    Source: Eq. 4.
    """
    s = spike.detach() if detach else spike
    return h - v_threshold * s if soft else h * (1.0 - s) + v_reset * s


def vote(spikes: Tensor, voters: int) -> Tensor:
    """Averages each class's ``voters`` neurons: ``[..., C · voters]`` to ``[..., C]``.

    Source: Sec. 4.1, the voting layer APk10s10.
    """
    dtype = torch.promote_types(spikes.dtype, torch.float32)  # half precision cannot represent tenths
    return spikes.view(*spikes.shape[:-1], spikes.shape[-1] // voters, voters).mean(-1, dtype=dtype)


def predict(rates: Tensor) -> Tensor:
    """Returns the class with the highest mean rate, ``[T, N, C]`` to ``[N]``; of equal rates the lowest class.

    Rates are multiples of 1/voters, so ties are frequent. Their sums are rounded to 1e-4 before they are compared:
    otherwise the winner would depend on the order of addition, which changes with the batch size.

    Source: Sec. 3.7.
    """
    return _argmax(rates.sum(0, dtype=torch.float64))


def predict_over_time(rates: Tensor) -> Tensor:
    """Returns the prediction after each step if the network stopped there, ``[T, N, C]`` to ``[T, N]``."""
    return _argmax(rates.cumsum(0, dtype=torch.float64))


def _argmax(sums: Tensor) -> Tensor:
    return (sums * 1e4).round().argmax(-1)
