"""Batch norm, scan over time and pooling of a spiking layer: one definition, and what is faster, chosen by device."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from torch import Tensor

from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels.eager import stage_eager
from plifctl.snn.layers import BatchNorm, Pool

Kernel = Literal["auto", "eager", "fused"]


class Spikes(NamedTuple):
    """What a spiking layer gives.

    Attributes:
        pooled: Spikes after pooling ``[T, N, ...]``, float32 or float64.
        fired: Number of spikes before pooling, a float64 scalar.
        neurons: Number of neurons times steps times samples.
    """

    pooled: Tensor
    fired: Tensor
    neurons: int


def spiking_stage(
    x: Tensor,
    T: int,
    dynamics: Dynamics,
    norm: BatchNorm | None = None,
    pooling: Pool | None = None,
    kernel: Kernel = "auto",
) -> Spikes:
    """Runs batch norm, a layer of leaky integrate-and-fire neurons from V_{−1} = V_reset on, and pooling.

    Args:
        x: Input ``[T, N, C, H, W]`` or ``[T, N, F]``; with 1 for T it is the same at every step. What has half
            precision (convolutions under autocast give it) is computed in float32: potentials add up small changes.
        T: Number of time steps.
        dynamics: The neurons.
        norm: Batch norm before them.
        pooling: Pooling of their spikes, in windows that do not overlap.
        kernel: ``eager`` is the definition, step by step; ``fused`` one compiled pass on the CPU; ``auto`` the fastest
            that serves ``x``.

    Source: Eq. 2–6; gradients Eq. 8–16.
    """
    x = x.float() if x.dtype.itemsize < 4 else x
    if kernel == "fused" or (kernel == "auto" and x.device.type == "cpu"):
        from plifctl.snn.kernels.fused import stage_fused  # numba takes half a second to import

        pooled, count = stage_fused(x, T, dynamics, norm, pooling)
    else:
        pooled, count = stage_eager(x, T, dynamics, norm, pooling)
    return Spikes(pooled, count, T * math.prod(x.shape[1:]))
