"""The scan in one compiled pass over memory, on the CPU.

Forward reads X and writes S. Backward keeps nothing but X: it computes the potentials of a block of neurons again,
in cache, then walks back through time (Eq. 8–16). Sums over neurons are taken per block in float64 and in a fixed
order, so the result does not depend on the number of threads.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import torch
from torch import Tensor

from plifctl.compiled import compiled

BLOCK = 1024
"""Neurons worked on together: T × BLOCK potentials stay in the core's cache."""


@compiled(parallel=True)
def _forward(x, k, v_threshold, v_reset, spikes):  # type: ignore[no-untyped-def]
    steps, neurons = x.shape
    for block in numba.prange((neurons + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(neurons, (block + 1) * BLOCK)
        v = np.full(stop - start, v_reset, x.dtype)
        for t in range(steps):
            for i in range(stop - start):
                h = v[i] + k * (x[t, start + i] - (v[i] - v_reset))
                fires = h >= v_threshold
                spikes[t, start + i] = 1.0 if fires else 0.0
                v[i] = v_reset if fires else h


@compiled(parallel=True)
def _backward(x, k, v_threshold, v_reset, detach_reset, grad_s, grad_x, grad_k):  # type: ignore[no-untyped-def]
    steps, neurons = x.shape
    one = x.dtype.type(1.0)
    pi_squared = x.dtype.type(np.pi * np.pi)
    for block in numba.prange((neurons + BLOCK - 1) // BLOCK):
        start, stop = block * BLOCK, min(neurons, (block + 1) * BLOCK)
        width = stop - start
        h = np.empty((steps, width), x.dtype)
        v = np.full(width, v_reset, x.dtype)
        for t in range(steps):
            for i in range(width):
                h[t, i] = v[i] + k * (x[t, start + i] - (v[i] - v_reset))
                v[i] = v_reset if h[t, i] >= v_threshold else h[t, i]
        grad_v = np.zeros(width, x.dtype)
        sums = np.zeros(width, np.float64)
        for t in range(steps - 1, -1, -1):
            for i in range(width):
                over = h[t, i] - v_threshold
                slope = one / (one + pi_squared * over * over)
                kept = grad_v[i] if over < 0 else one * 0
                if not detach_reset:
                    kept += grad_v[i] * (v_reset - h[t, i]) * slope
                grad_h = grad_s[t, start + i] * slope + kept
                grad_x[t, start + i] = grad_h * k
                before = v_reset
                if t > 0 and h[t - 1, i] < v_threshold:
                    before = h[t - 1, i]
                sums[i] += grad_h * (x[t, start + i] - (before - v_reset))
                grad_v[i] = grad_h * (one - k)
        total = 0.0
        for i in range(width):
            total += sums[i]
        grad_k[block] = total


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, k: Tensor, v_threshold: float, v_reset: float, detach_reset: bool
    ) -> Tensor:
        flat = x.detach().reshape(len(x), math.prod(x.shape[1:]))
        spikes = torch.empty(x.shape, dtype=x.dtype)
        real = flat.numpy().dtype.type
        ctx.constants = (real(k.item()), real(v_threshold), real(v_reset))
        _forward(flat.numpy(), *ctx.constants, spikes.view(flat.shape).numpy())
        ctx.detach_reset = detach_reset
        ctx.save_for_backward(flat)
        ctx.shape = x.shape
        return spikes

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor, Tensor, None, None, None]:  # type: ignore[no-untyped-def]
        (flat,) = ctx.saved_tensors
        grad_x = torch.empty(flat.shape, dtype=flat.dtype)
        blocks = -(-flat.shape[1] // BLOCK)
        grad_k = np.zeros(blocks, np.float64)
        grad_s = grads[0].reshape(flat.shape).numpy()
        _backward(flat.numpy(), *ctx.constants, ctx.detach_reset, grad_s, grad_x.numpy(), grad_k)
        return grad_x.view(ctx.shape), torch.tensor(grad_k.sum(), dtype=flat.dtype), None, None, None


def scan_fused(x: Tensor, k: Tensor, v_threshold: float, v_reset: float, detach_reset: bool) -> Tensor:
    """As :func:`plifctl.snn.kernels.scan`, for float32 and float64 tensors on the CPU."""
    spikes: Tensor = _Scan.apply(x, k, v_threshold, v_reset, detach_reset)  # type: ignore[no-untyped-call]
    return spikes
