"""Spiking layers with batch norm and pooling, and dropout: one definition, and what is faster, chosen by device."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from plifctl.snn.functional import Dynamics, hash_keys, held_dropout_mask
from plifctl.snn.kernels.reference import stage_eager
from plifctl.snn.kernels.stage import run_stage
from plifctl.snn.layers import BatchNorm, Pool

Kernel = Literal["auto", "eager", "fused", "triton"]


def unsupported_reason(kernel: Kernel, device: torch.device) -> str | None:
    """Returns why a kernel does not serve a device; None where it does."""
    if kernel == "fused" and device.type != "cpu":
        return f"it is for the CPU, not for {device}"
    if kernel == "triton" and find_spec("triton") is None:
        return "Triton is not installed"
    if kernel == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"it is for GPUs, not for {device}"
    return None


class Spikes(NamedTuple):
    """What a spiking layer gives.

    Attributes:
        pooled: Spikes after pooling ``[T, N, ...]``.
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
        x: Input ``[T, N, C, H, W]`` or ``[T, N, F]``; with 1 for T it is the same at every step. Of half precision
            (convolutions under autocast give it) all is computed in float32: potentials add up small changes.
        T: Number of time steps.
        dynamics: The neurons.
        norm: Batch norm before them.
        pooling: Pooling of their spikes, in windows that do not overlap.
        kernel: ``eager`` is the definition, step by step; ``fused`` one compiled pass on the CPU; ``triton`` the same
            on a GPU, where spikes have the precision of ``x``; ``auto`` is fused on a CPU and eager elsewhere.

    Source: Eq. 2–6; gradients Eq. 8–16.
    """
    if kernel == "triton":
        from plifctl.snn.kernels import triton

        pooled, count = run_stage(x, T, dynamics, norm, pooling, triton)
    elif kernel == "fused" or (kernel == "auto" and x.device.type == "cpu"):
        from plifctl.snn.kernels import cpu as fused  # numba takes half a second to import

        pooled, count = run_stage(_in_single(x), T, dynamics, norm, pooling, fused)
    else:
        pooled, count = stage_eager(_in_single(x), T, dynamics, norm, pooling)
    return Spikes(pooled, count, T * math.prod(x.shape[1:]))


def held_dropout(x: Tensor, keys: Tensor, layer: int, p: float, kernel: Kernel = "auto") -> Tensor:
    """Drops features, of each sample the same at all time steps.

    Args:
        x: ``[T, N, ...]``.
        keys: int64 ``[N]``, one of each sample, for all layers.
        layer: Number of this one, whose masks are its own.
        p: Probability of dropping.
        kernel: ``triton`` draws a mask in one launch, else it is the definition.

    Source: see :func:`~plifctl.snn.functional.held_dropout_mask`.
    """
    if p == 0:
        return x
    features = x.shape[2:].numel()
    if kernel == "triton":
        from plifctl.snn.kernels import triton

        mask = triton.dropout_mask(keys, layer, features, p)
    else:
        mask = held_dropout_mask(hash_keys(keys, layer), features, p)
    return x * mask.view(x.shape[1:]).to(x.dtype)


def _in_single(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x
