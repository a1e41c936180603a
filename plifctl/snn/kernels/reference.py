"""The definition of a spiking layer: one step after another, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from plifctl.snn.functional import Dynamics, charge, fire, reset
from plifctl.snn.layers import BatchNorm, Pool


def run_stage_eager(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None
) -> tuple[Tensor, Tensor]:
    """Runs :func:`plifctl.snn.kernels.spiking_stage`; returns pooled spikes and the number of spikes before pooling."""
    x = norm(x) if norm is not None else x
    spikes = scan(x if len(x) == T else x.expand(T, *x.shape[1:]), dynamics)
    count = spikes.detach().sum(dtype=torch.float64)
    return (pooling(spikes) if pooling is not None else spikes), count


def scan(x: Tensor, dynamics: Dynamics) -> Tensor:
    """Returns the spikes of inputs ``[T, N, ...]``, starting from V_{−1} = V_reset."""
    v = torch.full(x.shape[1:], dynamics.v_reset, dtype=x.dtype, device=x.device)
    spikes = []
    for x_t in x:
        spike, v = step(x_t, v, dynamics)
        spikes.append(spike)
    return torch.stack(spikes) if spikes else x


def step(x: Tensor, v: Tensor, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Runs one time step.

    Args:
        x: Input X_t, ``[N, ...]``.
        v: Membrane potential V_{t−1}, shape of ``x``.
        dynamics: The neurons.

    Returns:
        Spikes S_t and membrane potential V_t.

    Source: Eq. 2–6.
    """
    k, v_threshold, v_reset, soft, detach, surrogate, width, leak = dynamics
    h = charge(x, v, k, v_reset, leak)
    spike = fire(h, v_threshold, surrogate, width)
    return spike, reset(h, spike, v_threshold, v_reset, soft=soft, detach=detach)
