"""Batch norm, scan and pooling on a GPU in few passes over memory (:mod:`~plifctl.snn.kernels.triton_kernels`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes, in X's own precision; it
keeps nothing but X. Backward computes the potentials again: once to sum up what batch norm's gradient needs, once more
to write the gradient of X. Neither the normalised input nor the gradient before the norm is written.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from plifctl.snn.kernels import triton_kernels as programs
from plifctl.snn.kernels.stage import Choices, Gradients, Layer, Through

TILE = 512
"""Neurons that a program works on at once: 4 for each of its 128 threads, 16 bytes of float32. With more of them
potentials in float32 and inputs in half precision lie differently in the threads, and are exchanged at every step."""

CHANNELS = 32
"""Of a tile, at most: side by side in memory, and so few that the threads of one warp have a whole pooling window."""

LARGEST_WINDOW = 4
"""Larger pooling windows are pooled by torch: a tile would be one window."""

PROGRAMS, REGISTERS = 5, 96
"""Of a persistent kernel on each multiprocessor, and of each of their threads: all of them are there at once."""

ROUNDING = {"enable_fp_fusion": False}
"""Products are rounded before they are added to, as the definition's are; the time is memory's, not arithmetic's."""


def rows_of_features(x: Tensor) -> Tensor:
    """Returns ``[T, N, F]`` as ``[T, N, 1, 1, F]``."""
    return x.contiguous()[:, :, None, None]


def sums(rows: Tensor, pivot: Tensor) -> Tensor:
    """See :class:`~plifctl.snn.kernels.stage.Passes`, as of all here."""
    T, channels = len(rows), rows.shape[4]
    tiles = _tiles(rows, 1)
    high, _, wide = tiles.shape
    real, real_there = _real(rows.dtype)
    partial = rows.new_empty(tiles.persistent, T, 2, channels, dtype=real)
    with _on(rows):
        programs.statistics[(tiles.persistent, tiles.across, T)](
            *(rows, pivot.contiguous(), partial, rows[0, ..., 0].numel(), channels, rows.stride(0)),
            P=high,
            CB=wide,
            REAL=real_there,
            **ROUNDING,
        )
    return partial.sum(0, dtype=torch.float64)


def forward(layer: Layer, choices: Choices) -> tuple[Tensor, Tensor]:
    """Reads X once and writes pooled spikes."""
    x, scale, shift, k, v_threshold, _ = layer
    window = choices.window
    _, samples, height, columns, channels = x.shape
    out = x.new_empty(choices.T, samples, height // window, columns // window, channels)
    tiles = _tiles(x, window)
    counts = x.new_zeros(tiles.blocks * tiles.across, dtype=k.dtype)
    if x.numel():
        with _on(x):
            programs.forward[(tiles.blocks, tiles.across)](
                *(x, scale, shift, k, v_threshold, out, counts),
                *_sizes(layer, out, choices),
                AVERAGE=choices.average,
                **_constants(layer, choices, tiles),
            )
    return out, counts.sum(dtype=torch.float64)


def backward(
    layer: Layer, choices: Choices, grad: Tensor, mean: Tensor | None, through: Through | None, *, shape: bool
) -> Gradients:
    """Sums up what batch norm needs, if there is one, then writes the gradient of X, and all others."""
    x, scale, shift, k, v_threshold, width = layer
    channels = x.shape[4]
    real, _ = _real(x.dtype)
    tiles = _tiles(x, choices.window)
    grad_x = torch.empty_like(x)
    own_rates = len(k) > 1
    grad_k = x.new_empty(x.shape[1:] if own_rates else (0,), dtype=real)
    partial = x.new_zeros(tiles.persistent, 3, channels, dtype=real)
    scratch = x.new_empty(tiles.persistent * tiles.across, choices.T, *tiles.shape, dtype=real)
    found = x.new_zeros(tiles.persistent, len(scale), 2, channels, dtype=real)
    sizes = _sizes(layer, grad, choices)
    stride_t, stride_m, _, stride_out = sizes[-4:]

    def run(parts: tuple[Tensor, ...], *, summing: bool) -> None:
        if not x.numel():
            return
        with _on(x):
            programs.backward[(tiles.persistent, tiles.across)](
                *(x, scale, shift, scale if mean is None else mean, k, v_threshold, width, grad, scratch, *parts),
                *(grad_x, grad_k, partial, found, *sizes),
                *((choices.T - 1) * stride for stride in (stride_t, stride_m, stride_out)),
                AVERAGE=choices.average,
                DETACH=choices.detach,
                SURROGATE=choices.surrogate,
                STATIC=len(x) < choices.T,
                OWN_RATES=own_rates,
                SHAPE=shape,
                SUMS=summing,
                **({"maxnreg": REGISTERS} if real == torch.float32 else {}),
                **_constants(layer, choices, tiles),
            )

    parts: tuple[Tensor, ...] = (scale, shift, shift)  # without batch norm 1, 0 and 0; with it, summing reads none
    if through is not None:
        run(parts, summing=True)
        parts = tuple(part.to(real) for part in through(*found.sum(0, dtype=torch.float64).unbind(1)))
    run(parts, summing=False)
    by_k, by_threshold, by_width = partial.sum(0, dtype=torch.float64).to(real)
    return Gradients(
        grad_x,
        (grad_k.sum(0) if own_rates else by_k).view_as(k),
        by_threshold.sum().view_as(v_threshold) if shape else None,
        by_width.sum().view_as(width) if shape else None,
    )


def dropout_mask(keys: Tensor, layer: int, features: int, p: float) -> Tensor:
    """Returns what the definition draws from ``hash_keys(keys, layer)``, of which every operation would be a launch."""
    mask = torch.empty(len(keys), features, device=keys.device)
    kept = (torch.ones(()) / (1.0 - p)).item()  # as the definition rounds it
    if mask.numel():
        with _on(keys):
            programs.dropout[(triton.cdiv(features, TILE), len(keys))](
                keys, mask, layer, features, round(p * 2**16), kept, BLOCK=TILE
            )
    return mask


class _Tiles(NamedTuple):
    """How rows are cut.

    Attributes:
        shape: Of a tile, ``(P, K, CB)``.
        across: Number of blocks of channels.
        blocks: Number of blocks of windows.
        persistent: Number of programs that share them where each has memory of its own.
    """

    shape: tuple[int, int, int]
    across: int
    blocks: int
    persistent: int


def _tiles(rows: Tensor, window: int) -> _Tiles:
    _, samples, height, width, channels = rows.shape
    parts, wide = triton.next_power_of_2(window * window), min(triton.next_power_of_2(channels), CHANNELS)
    windows = max(1, TILE // (parts * wide))
    blocks = triton.cdiv(samples * triton.cdiv(height, window) * triton.cdiv(width, window), windows)
    across = triton.cdiv(channels, wide)
    here = torch.cuda.get_device_properties(rows.device).multi_processor_count if rows.is_cuda else 1
    return _Tiles((windows, parts, wide), across, blocks, min(blocks, max(2, PROGRAMS * here // across)))


def _on(x: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, which need not be that of its arguments."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _real(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    """What is computed in, as torch and as Triton call it."""
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def _constants(layer: Layer, choices: Choices, tiles: _Tiles) -> dict[str, Any]:
    """What both kernels are compiled for."""
    windows, parts, wide = tiles.shape
    _, real = _real(layer.x.dtype)
    return {
        "RESET": choices.v_reset,
        "SOFT": choices.soft,
        "K": parts,
        "P": windows,
        "CB": wide,
        "REAL": real,
        **ROUNDING,
    }


def _sizes(layer: Layer, out: Tensor, choices: Choices) -> tuple[Any, ...]:
    """Numbers that both kernels are given: sizes, and how far apart steps, rows of moments and neurons' rates lie."""
    x, channels = layer.x, layer.x.shape[4]
    return (
        *(choices.T, *x.shape[1:], choices.window),
        0 if len(x) < choices.T else x.stride(0),
        0 if len(layer.scale) == 1 else channels,
        0 if len(layer.k) == 1 else channels,
        out[0].numel(),
    )
