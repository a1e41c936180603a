"""Batch norm, scan and pooling on the CPU, each pass over memory compiled (:mod:`plifctl.snn.kernels.cpu_loops`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes. Backward keeps nothing but
X: it computes the potentials again, in cache, walks back through time (Eq. 8–16), and goes through batch norm in place.
"""

from __future__ import annotations

import sys

import numba
import numpy as np
import torch
from torch import Tensor

from plifctl.snn.kernels import cpu_loops as loops
from plifctl.snn.kernels.stage import Choices, Gradients, Layer, Through

ITEMS = 16
"""Into so many pieces, at least, work is cut where it can be; more would be more sums to add up."""

LANES = 256
"""Features of a fully connected layer that are worked on together, at most."""

LARGEST_WINDOW = sys.maxsize


def rows_of_features(x: Tensor) -> Tensor:
    """Returns ``[T, N, F]`` as ``[T, N, 1, F/C, C]`` with the largest C that divides F."""
    features = x.shape[2]
    lanes = next(n for n in range(min(LANES, features), 0, -1) if features % n == 0)
    return x.reshape(*x.shape[:2], 1, features // lanes, lanes)


def sums(rows: Tensor, pivot: Tensor) -> Tensor:
    """See :class:`~plifctl.snn.kernels.stage.Passes`, as of all here."""
    _use_as_many_threads_as_torch()
    found = np.zeros((rows.shape[2], len(rows), 2, rows.shape[4]))
    loops.statistics(rows.numpy(), pivot.numpy(), found)
    return torch.from_numpy(found.sum(0))


def forward(layer: Layer, choices: Choices) -> tuple[Tensor, Tensor]:
    """Reads X once and writes pooled spikes."""
    _use_as_many_threads_as_torch()
    x, scale, shift, k, v_threshold, _ = layer
    _, samples, height, columns, channels = x.shape
    window = choices.window
    out = x.new_empty(choices.T, samples, height // window, columns // window, channels)
    span, items = _cut(height, columns, window)
    counts = np.zeros(items)
    loops.forward(
        *_arrays(x, scale, shift, k, _of_channels(v_threshold, channels)),
        x.numpy().dtype.type(choices.v_reset),
        choices.soft,
        choices.T,
        window,
        choices.average,
        span,
        out.numpy(),
        counts,
    )
    return out, torch.tensor(counts.sum(), dtype=torch.float64)


def backward(
    layer: Layer, choices: Choices, grad: Tensor, mean: Tensor | None, through: Through | None, *, shape: bool
) -> Gradients:
    """Writes the gradient of batch norm's output, and goes through batch norm in place."""
    _use_as_many_threads_as_torch()
    x, scale, shift, k, v_threshold, width = layer
    _, _, height, columns, channels = x.shape
    span, items = _cut(height, columns, choices.window)
    real = x.numpy().dtype.type
    grad_x = torch.empty_like(x)
    by_k = np.zeros((items if len(k) == 1 else len(k), channels))
    by_threshold, by_width = np.zeros((2, items, channels))
    found = np.zeros((items, 0 if mean is None else len(mean), 2, channels))
    loops.backward(
        *_arrays(x, scale, shift, x.new_zeros(1, channels) if mean is None else mean, k),
        *_arrays(_of_channels(v_threshold, channels)),
        real(choices.v_reset),
        choices.soft,
        choices.detach,
        loops.SURROGATES[choices.surrogate],
        real(width.item()),
        shape,
        choices.window,
        choices.average,
        span,
        grad.numpy(),
        grad_x.numpy(),
        by_k,
        by_threshold,
        by_width,
        found,
    )
    if through is not None:
        parts = through(*torch.from_numpy(found.sum(0)).unbind(1))
        loops.combine(grad_x.numpy(), x.numpy(), *_arrays(*(part.to(x.dtype) for part in parts)))
    return Gradients(
        grad_x,
        torch.from_numpy(by_k if len(k) > 1 else by_k.sum(0, keepdims=True)).to(x.dtype),
        torch.from_numpy(by_threshold.sum(0)).to(x.dtype).sum() if shape else None,
        torch.tensor(by_width.sum(), dtype=x.dtype) if shape else None,
    )


def _use_as_many_threads_as_torch() -> None:
    numba.set_num_threads(min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def _of_channels(scalar: Tensor, channels: int) -> Tensor:
    return scalar.expand(channels).contiguous()


def _cut(height: int, width: int, window: int) -> tuple[int, int]:
    """How many windows an item takes, and how many items there are; of the shape alone, not of the number of cores."""
    rows, across = -(-height // window), -(-width // window)
    span = -(-across // -(-ITEMS // rows))
    return span, rows * -(-across // span)


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
