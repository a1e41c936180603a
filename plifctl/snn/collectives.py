"""Sums over the processes of a data-parallel training; a single process gets its own values."""

from __future__ import annotations

import torch
from torch import Tensor, distributed


def world_size() -> int:
    """Returns the number of processes that train together."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = x.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, *grads: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = grads[0].clone()
        distributed.all_reduce(total)
        return total


def all_reduce_sum(x: Tensor) -> Tensor:
    """Returns ``x`` summed over all processes; each receives the gradients of all of them."""
    if world_size() == 1:
        return x
    total: Tensor = _AllReduceSum.apply(x)  # type: ignore[no-untyped-call]
    return total
