"""The CPU backend: each pass over memory is a compiled loop (:mod:`plifctl.snn.kernels.cpu_loops`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes. Only X is saved for the
backward pass, which recomputes the potentials in cache, goes back through time (Eq. 8–16), and through batch norm in
place.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import torch
from torch import Tensor

from plifctl.snn.kernels import cpu_loops as loops
from plifctl.snn.kernels.forking import own_threads
from plifctl.snn.kernels.stage import NormBackward, NormCoefficients, StageConfig, StageGradients, StageTensors

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
    """See :class:`~plifctl.snn.kernels.stage.Backend`, as for forward and backward."""
    return torch.from_numpy(deviations_of_rows(rows, pivot).sum(0))


def deviations_of_rows(rows: Tensor, pivot: Tensor) -> np.ndarray:
    """Returns what each row of the maps contributes to :func:`sum_deviations`, ``[H, T, 2, C]``."""
    sums = np.zeros((rows.shape[2], len(rows), 2, rows.shape[4]))
    with threads_of_torch():
        loops.statistics(rows.numpy(), pivot.numpy(), sums)
    return sums


def forward(tensors: StageTensors, config: StageConfig) -> tuple[Tensor, Tensor]:
    """Reads X once and writes pooled spikes."""
    x, scale, shift, k, v_threshold, _ = tensors
    _, samples, height, columns, channels = x.shape
    window = config.window
    out = new_maps(x, config.T, samples, height // window, columns // window, channels)
    span = windows_of_item(height, columns, window)
    counts = np.zeros(_items(height, columns, window, span))
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
    _, _, height, columns, _ = tensors.x.shape
    span = windows_of_item(height, columns, config.window)
    grad_x = torch.empty_like(tensors.x)
    sums = scan_back(tensors, config, grad, mean, grad_x, span, firing_grads=firing_grads)
    if norm_backward is not None:
        combine(grad_x, tensors.x, norm_backward(*sum_moments(sums)))
    return StageGradients(grad_x, *sum_neuron_gradients(tensors.k, sums, firing_grads=firing_grads))


class BackwardSums(NamedTuple):
    """What :func:`scan_back` sums for some rows of the maps, float64; of all rows in order after concatenation.

    Attributes:
        k: ``[items, C]``, or ``[H·W, C]`` where each neuron has its own k.
        v_threshold: ``[items, C]``.
        width: ``[items, C]``.
        moments: ``[items, T or 1, 2, C]``; see :func:`plifctl.snn.kernels.cpu_loops.backward`.
    """

    k: np.ndarray
    v_threshold: np.ndarray
    width: np.ndarray
    moments: np.ndarray


def scan_back(
    tensors: StageTensors,
    config: StageConfig,
    grad: Tensor,
    mean: Tensor | None,
    grad_y: Tensor,
    span: int,
    *,
    firing_grads: bool,
) -> BackwardSums:
    """Goes back through time; returns the sums for the gradients of all but the maps.

    Args:
        tensors: Arguments of forward, like config; maps may be some of their rows, from the first of a window on.
        config: See tensors.
        grad: Gradient of the pooled spikes of these rows.
        mean: See :class:`~plifctl.snn.kernels.stage.Backend`.
        grad_y: Result: gradient of the output of batch norm, shape of the maps.
        span: Windows in an item, by :func:`windows_of_item` of the complete maps.
        firing_grads: See :class:`~plifctl.snn.kernels.stage.Backend`.
    """
    x, scale, shift, k, v_threshold, width = tensors
    _, _, height, columns, channels = x.shape
    items = _items(height, columns, config.window, span)
    real = x.numpy().dtype.type
    grad_threshold, grad_width = np.zeros((2, items, channels))
    sums = BackwardSums(
        np.zeros((items if len(k) == 1 else len(k), channels)),
        grad_threshold,
        grad_width,
        np.zeros((items, 0 if mean is None else len(mean), 2, channels)),
    )
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
            grad_y.numpy(),
            *sums,
        )
    return sums


def sum_moments(sums: BackwardSums) -> tuple[Tensor, Tensor]:
    """Returns the arguments of a :data:`~plifctl.snn.kernels.stage.NormBackward`."""
    total, product = torch.from_numpy(sums.moments.sum(0)).unbind(1)
    return total, product


def combine(grad: Tensor, x: Tensor, coefficients: NormCoefficients) -> None:
    """Replaces the gradient of batch norm's output by that of its input ``x``."""
    with threads_of_torch():
        loops.combine(grad.numpy(), x.numpy(), *_arrays(*(part.to(x.dtype) for part in coefficients)))


def sum_neuron_gradients(
    k: Tensor, sums: BackwardSums, *, firing_grads: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Returns the gradients of k, threshold and width."""
    dtype = k.dtype
    return (
        torch.from_numpy(sums.k if len(k) > 1 else sums.k.sum(0, keepdims=True)).to(dtype),
        torch.from_numpy(sums.v_threshold.sum(0)).to(dtype).sum() if firing_grads else None,
        torch.tensor(sums.width.sum(), dtype=dtype) if firing_grads else None,
    )


_ALIGNMENT, _SLACK = 64, 4096


def new_maps(like: Tensor, *shape: int) -> Tensor:
    """Returns a tensor that is not initialised, of the type of ``like``, in memory that is used again once it is freed.

    torch asks for aligned memory, for which glibc (before 2.38) needs more than its size: the place of a freed tensor
    is too small for the next of the same size, and a process that keeps freed memory grows. This asks for a little
    more and aligns by itself.
    """
    size = math.prod(shape) * like.element_size()
    memory = np.empty(size + _SLACK, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + size]).view(like.dtype).view(shape)


@cache
def _start_numba_threads() -> None:
    """Starts numba's threads and leaves torch's as they are.

    numba's OpenMP layer sets the number of OpenMP threads of the process, torch's included, to its own when it starts:
    with OMP_NUM_THREADS=1 torch would continue with one thread per core.
    """
    threads = torch.get_num_threads()
    numba.get_num_threads()  # starts the threads
    torch.set_num_threads(threads)
    if numba.threading_layer() == "omp":  # type: ignore[attr-defined]
        from numba.np.ufunc.omppool import openmp_vendor

        if openmp_vendor == "GNU":
            own_threads()


@contextmanager
def threads_of_torch() -> Iterator[None]:
    """Gives numba as many threads as torch has, within the block."""
    _start_numba_threads()
    before = numba.get_num_threads()
    wanted = min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if wanted == before:  # setting it takes longer than some of the loops
        yield
        return
    numba.set_num_threads(wanted)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _per_channel(scalar: Tensor, channels: int) -> Tensor:
    return scalar.expand(channels).contiguous()


def windows_of_item(height: int, width: int, window: int) -> int:
    """Returns the number of windows in an item; it depends on the shape alone, not on the cores."""
    rows, across = -(-height // window), -(-width // window)
    return -(-across // -(-MIN_ITEMS // rows))


def _items(height: int, width: int, window: int, span: int) -> int:
    across = -(-width // window)
    return -(-height // window) * -(-across // span)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
