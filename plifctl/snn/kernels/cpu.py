"""The CPU backend: each pass over memory is a compiled loop (:mod:`plifctl.snn.kernels.cpu_loops`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes. Only X is saved for the
backward pass, which recomputes the potentials in cache, goes back through time (Eq. 8–16), and through batch norm in
place.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import numba
import numpy as np
import torch
from torch import Tensor

from plifctl.snn.kernels import cpu_loops as loops
from plifctl.snn.kernels.stage import NormBackward, StageConfig, StageGradients, StageTensors

MIN_ITEMS = 16
"""Minimum number of items that the work is divided into, if its size allows; more items mean more sums to add."""

MAX_LANES = 256
"""Maximum number of features of a fully connected layer that are computed together."""

MAX_WINDOW = sys.maxsize


def features_to_rows(x: Tensor) -> Tensor:
    """Returns ``[T, N, F]`` as ``[T, N, 1, F/C, C]`` with the largest C that divides F."""
    features = x.shape[2]
    lanes = next(n for n in range(min(MAX_LANES, features), 0, -1) if features % n == 0)
    return x.reshape(*x.shape[:2], 1, features // lanes, lanes)


def sum_deviations(rows: Tensor, pivot: Tensor) -> Tensor:
    """See :class:`~plifctl.snn.kernels.stage.Backend`, as for all functions here."""
    sums = np.zeros((rows.shape[2], len(rows), 2, rows.shape[4]))
    with threads_of_torch():
        loops.statistics(rows.numpy(), pivot.numpy(), sums)
    return torch.from_numpy(sums.sum(0))


def forward(tensors: StageTensors, config: StageConfig) -> tuple[Tensor, Tensor]:
    """Reads X once and writes pooled spikes."""
    x, scale, shift, k, v_threshold, _ = tensors
    _, samples, height, columns, channels = x.shape
    window = config.window
    out = x.new_empty(config.T, samples, height // window, columns // window, channels)
    span, items = _divide_work(height, columns, window)
    counts = np.zeros(items)
    with threads_of_torch():
        loops.forward(
            *_arrays(x, scale, shift, k, _per_channel(v_threshold, channels)),
            x.numpy().dtype.type(config.v_reset),
            config.soft,
            config.T,
            window,
            config.average,
            span,
            out.numpy(),
            counts,
        )
    return out, torch.tensor(counts.sum(), dtype=torch.float64)


def backward(
    tensors: StageTensors,
    config: StageConfig,
    grad: Tensor,
    mean: Tensor | None,
    norm_backward: NormBackward | None,
    *,
    firing_grads: bool,
) -> StageGradients:
    """Writes the gradient of batch norm's output, and goes through batch norm in place."""
    x, scale, shift, k, v_threshold, width = tensors
    _, _, height, columns, channels = x.shape
    span, items = _divide_work(height, columns, config.window)
    real = x.numpy().dtype.type
    grad_x = torch.empty_like(x)
    grad_k = np.zeros((items if len(k) == 1 else len(k), channels))
    grad_threshold, grad_width = np.zeros((2, items, channels))
    sums = np.zeros((items, 0 if mean is None else len(mean), 2, channels))
    with threads_of_torch():
        loops.backward(
            *_arrays(x, scale, shift, x.new_zeros(1, channels) if mean is None else mean, k),
            *_arrays(_per_channel(v_threshold, channels)),
            real(config.v_reset),
            config.soft,
            config.detach,
            loops.SURROGATES[config.surrogate],
            real(width.item()),
            firing_grads,
            config.window,
            config.average,
            span,
            grad.numpy(),
            grad_x.numpy(),
            grad_k,
            grad_threshold,
            grad_width,
            sums,
        )
        if norm_backward is not None:
            coefficients = norm_backward(*torch.from_numpy(sums.sum(0)).unbind(1))
            loops.combine(grad_x.numpy(), x.numpy(), *_arrays(*(part.to(x.dtype) for part in coefficients)))
    return StageGradients(
        grad_x,
        torch.from_numpy(grad_k if len(k) > 1 else grad_k.sum(0, keepdims=True)).to(x.dtype),
        torch.from_numpy(grad_threshold.sum(0)).to(x.dtype).sum() if firing_grads else None,
        torch.tensor(grad_width.sum(), dtype=x.dtype) if firing_grads else None,
    )


@cache
def _start_numba_threads() -> None:
    """Starts numba's threads and leaves torch's as they are.

    numba's OpenMP layer sets the number of OpenMP threads of the process, torch's included, to its own when it starts:
    with OMP_NUM_THREADS=1 torch would continue with one thread per core.
    """
    threads = torch.get_num_threads()
    numba.get_num_threads()  # starts the threads
    torch.set_num_threads(threads)


@contextmanager
def threads_of_torch() -> Iterator[None]:
    """Gives numba as many threads as torch has, within the block."""
    _start_numba_threads()
    before = numba.get_num_threads()
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _per_channel(scalar: Tensor, channels: int) -> Tensor:
    return scalar.expand(channels).contiguous()


def _divide_work(height: int, width: int, window: int) -> tuple[int, int]:
    """Returns the windows per item and the number of items; they depend on the shape alone, not on the cores."""
    rows, across = -(-height // window), -(-width // window)
    span = -(-across // -(-MIN_ITEMS // rows))
    return span, rows * -(-across // span)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
