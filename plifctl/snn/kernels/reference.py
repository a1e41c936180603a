"""The definition: one step after another, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from plifctl.snn.functional import Dynamics, charge, fire, reset
from plifctl.snn.layers import BatchNorm, Pool


def stage_eager(
    x: Tensor, T: int, dynamics: Dynamics, norm: BatchNorm | None, pooling: Pool | None
) -> tuple[Tensor, Tensor]:
    """As :func:`plifctl.snn.kernels.spiking_stage`: pooled spikes, and how many there were before pooling."""
    x = norm(x) if norm is not None else x
    spikes = scan(x if len(x) == T else x.expand(T, *x.shape[1:]), dynamics)
    count = spikes.detach().sum(dtype=torch.float64)
    return (pooling(spikes) if pooling is not None else spikes), count


def scan(x: Tensor, dynamics: Dynamics) -> Tensor:
    """Returns the spikes of inputs ``[T, N, ...]``, starting from V_{−1} = V_reset.

    Source: Eq. 2–6.
    """
    k, v_threshold, v_reset, soft, detach, surrogate, width = dynamics
    v = torch.full(x.shape[1:], v_reset, dtype=x.dtype, device=x.device)
    spikes = []
    for x_t in x:
        h = charge(x_t, v, k, v_reset)
        spike = fire(h, v_threshold, surrogate, width)
        v = reset(h, spike, v_threshold, v_reset, soft=soft, detach=detach)
        spikes.append(spike)
    return torch.stack(spikes) if spikes else x
