"""The definition: charge, fire, reset, surrogate, vote and losses as pure functions of tensors.

Time is the first dimension of every sequence; the membrane potential is passed in and handed back.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def charge(x: Tensor, v: Tensor, k: Tensor | float, v_reset: float) -> Tensor:
    """Returns the potential before firing, H_t = V_{t−1} + k · (X_t − (V_{t−1} − V_reset)).

    Args:
        x: Input X_t, any shape.
        v: Membrane potential V_{t−1}, shape of ``x``.
        k: 1/τ, a scalar or broadcastable to ``x``.
        v_reset: Reset potential.

    Source: Eq. 5 with k = 1/τ, Eq. 6 with k = k(a).
    """
    return v + k * (x - (v - v_reset))


class _ArctanSpike(torch.autograd.Function):
    """Heaviside step forward (Θ(0) = 1), derivative of arctan(πx)/π + 1/2 backward."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return (x >= 0).to(x)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return grads[0] * arctan_derivative(x)


def arctan_derivative(x: Tensor) -> Tensor:
    """Returns σ'(x) = 1/(1 + (πx)²).

    Source: supplement F.
    """
    return 1.0 / (1.0 + (math.pi * x).square())


def fire(h: Tensor, v_threshold: float) -> Tensor:
    """Returns the spikes S_t = Θ(H_t − V_th), 0 or 1, with the arctan surrogate as derivative.

    Source: Eq. 3 and 13, supplement F.
    """
    spikes: Tensor = _ArctanSpike.apply(h - v_threshold)  # type: ignore[no-untyped-call]
    return spikes


def reset(h: Tensor, spike: Tensor, v_reset: float, *, detach: bool) -> Tensor:
    """Returns the potential after firing, V_t = H_t · (1 − S_t) + V_reset · S_t.

    Args:
        h: Potential before firing.
        spike: Spikes, shape of ``h``.
        v_reset: Reset potential.
        detach: Ignore S_t of this equation in the gradient (supplement F).

    Source: Eq. 4.
    """
    s = spike.detach() if detach else spike
    return h * (1.0 - s) + v_reset * s


def vote(spikes: Tensor, voters: int) -> Tensor:
    """Averages each class's ``voters`` neurons: ``[..., C · voters]`` to ``[..., C]``.

    Source: Sec. 4.1, the voting layer APk10s10.
    """
    return spikes.view(*spikes.shape[:-1], -1, voters).mean(-1)


def mse_per_step(rates: Tensor, labels: Tensor) -> Tensor:
    """Returns the MSE to the one-hot target at each step, averaged over steps.

    Args:
        rates: Output of the voting layer, ``[T, N, C]``.
        labels: Class indices ``[N]``.

    Source: Sec. 3.7.
    """
    return (rates - _one_hot(rates, labels)).square().mean()


def mse_rate(rates: Tensor, labels: Tensor) -> Tensor:
    """Returns the MSE of the mean rate over T to the one-hot target; arguments as :func:`mse_per_step`.

    Source: the published training scripts.
    """
    return (rates.mean(0) - _one_hot(rates, labels)).square().mean()


def _one_hot(rates: Tensor, labels: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(labels, rates.shape[-1]).to(rates)


LOSSES = {"mse-per-step": mse_per_step, "mse-rate": mse_rate}
"""The losses that ``train.loss`` names."""


def predict(rates: Tensor) -> Tensor:
    """Returns the class with the highest mean rate, ``[T, N, C]`` to ``[N]``; of equal rates the lowest class.

    Rates are multiples of 1/voters, so equal ones are frequent; their sums are rounded to 1e-4 before they are
    compared, or the winner would depend on the order of addition, which changes with the size of the batch.

    Source: Sec. 3.7.
    """
    return (rates.sum(0, dtype=torch.float64) * 1e4).round().argmax(-1)


def hash_keys(*parts: Tensor | int) -> Tensor:
    """Mixes integers into 64-bit keys, the same on every device (SplitMix64's finaliser after each part).

    Args:
        parts: Integers, or int64 tensors that broadcast against each other.

    Returns:
        int64 tensor of the broadcast shape.
    """
    key = torch.zeros((), dtype=torch.int64)
    for part in parts:
        value = torch.as_tensor(part, dtype=torch.int64)
        key = _mix(key.to(value.device) + value - 7046029254386353131)  # 0x9E3779B97F4A7C15 as int64
    return key


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9 as int64
    z = (z ^ _shift(z, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: int64's own is arithmetic."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def uniform(keys: Tensor) -> Tensor:
    """Returns float32 numbers in [0, 1), uniform if the keys come from :func:`hash_keys`."""
    return _shift(keys, 40).to(torch.float32) * 2.0**-24


def held_dropout_mask(keys: Tensor, features: int, p: float) -> Tensor:
    """Returns a dropout mask for each sample, to be held over all time steps: 0 or 1/(1 − p).

    Args:
        keys: int64 ``[N]``, one key a sample; equal keys give equal masks, on any device and in any batch.
        features: Number of features masked.
        p: Probability of dropping.

    Returns:
        float32 ``[N, features]``.

    Source: the published code draws one mask a sample and keeps it over T.
    """
    units = torch.arange(features, dtype=torch.int64, device=keys.device)
    return (uniform(hash_keys(keys[:, None], units)) >= p).to(torch.float32) / (1.0 - p)
