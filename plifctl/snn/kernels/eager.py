"""The definition of the scan: one step after another, gradients by autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from plifctl.snn.functional import charge, fire, reset


def scan_eager(x: Tensor, k: Tensor, v_threshold: float, v_reset: float, detach_reset: bool) -> Tensor:
    """As :func:`plifctl.snn.kernels.scan`."""
    v = torch.full_like(x[:1].squeeze(0), v_reset) if len(x) else x
    spikes = []
    for x_t in x:
        h = charge(x_t, v, k, v_reset)
        spike = fire(h, v_threshold)
        v = reset(h, spike, v_reset, detach=detach_reset)
        spikes.append(spike)
    return torch.stack(spikes) if spikes else x
