"""The GPU backend: batch norm, scan and pooling in few passes (:mod:`~plifctl.snn.kernels.triton_kernels`).

Forward reads X twice, for the statistics and for everything else, and writes pooled spikes, in X's own precision; it
saves only X for the backward pass. Backward recomputes the potentials: once to sum what batch norm's gradient needs,
once more to write the gradient of X. Neither the normalised input nor the gradient before the norm is written.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from plifctl.snn.kernels import triton_kernels as programs
from plifctl.snn.kernels.stage import NormBackward, StageConfig, StageGradients, StageTensors

TILE = 512
"""Number of neurons that a program computes at once: 4 for each of its 128 threads, 16 bytes of float32. In larger
tiles the float32 potentials and half-precision inputs get different thread layouts, and are exchanged at every step."""

MAX_CHANNELS = 32
"""Maximum number of channels of a tile: contiguous in memory, few enough for a warp to have complete windows."""

MAX_WINDOW = 4
"""Larger pooling windows are left to torch: a tile would be a single window."""

PROGRAMS, REGISTERS = 5, 96
"""Programs of a persistent kernel on each multiprocessor, and registers of each thread: all programs are resident."""

ROUNDING = {"enable_fp_fusion": False}
"""Products are rounded before they are added, as in the definition; memory, not arithmetic, limits the speed."""


def features_to_rows(x: Tensor) -> Tensor:
    """Returns ``[T, N, F]`` as ``[T, N, 1, 1, F]``."""
    return x.contiguous()[:, :, None, None]


def sum_deviations(rows: Tensor, pivot: Tensor) -> Tensor:
    """See :class:`~plifctl.snn.kernels.stage.Backend`, as for all functions here."""
    T, channels = len(rows), rows.shape[4]
    tiles = _tiles(rows, 1)
    windows, _, tile_channels = tiles.shape
    real, triton_real = _computation_type(rows.dtype)
    partial = rows.new_empty(tiles.persistent, T, 2, channels, dtype=real)
    with _device_of(rows):
        programs.statistics[(tiles.persistent, tiles.channel_blocks, T)](
            *(rows, pivot.contiguous(), partial, rows[0, ..., 0].numel(), channels, rows.stride(0)),
            P=windows,
            CB=tile_channels,
            REAL=triton_real,
            **ROUNDING,
        )
    return partial.sum(0, dtype=torch.float64)


def forward(tensors: StageTensors, config: StageConfig) -> tuple[Tensor, Tensor]:
    """Reads X once and writes pooled spikes."""
    x, scale, shift, k, v_threshold, _ = tensors
    window = config.window
    _, samples, height, columns, channels = x.shape
    out = x.new_empty(config.T, samples, height // window, columns // window, channels)
    tiles = _tiles(x, window)
    counts = x.new_zeros(tiles.window_blocks * tiles.channel_blocks, dtype=k.dtype)
    if x.numel():
        with _device_of(x):
            programs.forward[(tiles.window_blocks, tiles.channel_blocks)](
                *(x, scale, shift, k, v_threshold, out, counts),
                *_sizes(tensors, out, config),
                AVERAGE=config.average,
                **_constants(tensors, config, tiles),
            )
    return out, counts.sum(dtype=torch.float64)


def backward(
    tensors: StageTensors,
    config: StageConfig,
    grad: Tensor,
    mean: Tensor | None,
    norm_backward: NormBackward | None,
    *,
    firing_grads: bool,
) -> StageGradients:
    """Computes the sums for batch norm, if there is one, then writes the gradient of X and all others."""
    x, scale, shift, k, v_threshold, width = tensors
    channels = x.shape[4]
    real, _ = _computation_type(x.dtype)
    tiles = _tiles(x, config.window)
    grad_x = torch.empty_like(x)
    k_per_neuron = len(k) > 1
    grad_k = x.new_empty(x.shape[1:] if k_per_neuron else (0,), dtype=real)
    partial = x.new_zeros(tiles.persistent, 3, channels, dtype=real)
    scratch = x.new_empty(tiles.persistent * tiles.channel_blocks, config.T, *tiles.shape, dtype=real)
    sums = x.new_zeros(tiles.persistent, len(scale), 2, channels, dtype=real)
    sizes = _sizes(tensors, grad, config)
    stride_t, stride_m, _, stride_out = sizes[-4:]

    def launch(coefficients: tuple[Tensor, ...], *, sum_only: bool) -> None:
        if not x.numel():
            return
        with _device_of(x):
            programs.backward[(tiles.persistent, tiles.channel_blocks)](
                *(x, scale, shift, scale if mean is None else mean, k, v_threshold, width, grad, scratch),
                *(*coefficients, grad_x, grad_k, partial, sums, *sizes),
                *((config.T - 1) * stride for stride in (stride_t, stride_m, stride_out)),
                AVERAGE=config.average,
                DETACH=config.detach,
                SURROGATE=config.surrogate,
                STATIC=len(x) < config.T,
                K_PER_NEURON=k_per_neuron,
                FIRING_GRADS=firing_grads,
                SUM_ONLY=sum_only,
                **({"maxnreg": REGISTERS} if real == torch.float32 else {}),
                **_constants(tensors, config, tiles),
            )

    coefficients: tuple[Tensor, ...] = (scale, shift, shift)  # without batch norm 1, 0 and 0; sum_only reads none
    if norm_backward is not None:
        launch(coefficients, sum_only=True)
        coefficients = tuple(part.to(real) for part in norm_backward(*sums.sum(0, dtype=torch.float64).unbind(1)))
    launch(coefficients, sum_only=False)
    k_sum, threshold_sum, width_sum = partial.sum(0, dtype=torch.float64).to(real)
    return StageGradients(
        grad_x,
        (grad_k.sum(0) if k_per_neuron else k_sum).view_as(k),
        threshold_sum.sum().view_as(v_threshold) if firing_grads else None,
        width_sum.sum().view_as(width) if firing_grads else None,
    )


def dropout_mask(keys: Tensor, layer: int, features: int, p: float) -> Tensor:
    """Returns the mask that the definition draws from ``hash_keys(keys, layer)``, in a single launch."""
    mask = torch.empty(len(keys), features, device=keys.device)
    kept = (torch.ones(()) / (1.0 - p)).item()  # as the definition rounds it
    if mask.numel():
        with _device_of(keys):
            programs.dropout[(triton.cdiv(features, TILE), len(keys))](
                keys, mask, layer, features, round(p * 2**16), kept, BLOCK=TILE
            )
    return mask


class _Tiles(NamedTuple):
    """How rows are divided into tiles.

    Attributes:
        shape: Shape of a tile, ``(P, K, CB)``.
        channel_blocks: Number of blocks of channels.
        window_blocks: Number of blocks of windows.
        persistent: Number of programs over which the blocks of windows are distributed where each program has memory
            of its own.
    """

    shape: tuple[int, int, int]
    channel_blocks: int
    window_blocks: int
    persistent: int


def _tiles(rows: Tensor, window: int) -> _Tiles:
    _, samples, height, width, channels = rows.shape
    window_size = triton.next_power_of_2(window * window)
    tile_channels = min(triton.next_power_of_2(channels), MAX_CHANNELS)
    windows = max(1, TILE // (window_size * tile_channels))
    window_blocks = triton.cdiv(samples * triton.cdiv(height, window) * triton.cdiv(width, window), windows)
    channel_blocks = triton.cdiv(channels, tile_channels)
    processors = torch.cuda.get_device_properties(rows.device).multi_processor_count if rows.is_cuda else 1
    persistent = min(window_blocks, max(2, PROGRAMS * processors // channel_blocks))
    return _Tiles((windows, window_size, tile_channels), channel_blocks, window_blocks, persistent)


def _device_of(x: Tensor) -> AbstractContextManager[object]:
    """Makes the device of ``x`` the current one, on which Triton launches."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _computation_type(dtype: torch.dtype) -> tuple[torch.dtype, tl.dtype]:
    """Returns the type of the computation for inputs of ``dtype``, as torch and as Triton name it."""
    return (torch.float64, tl.float64) if dtype == torch.float64 else (torch.float32, tl.float32)


def _constants(tensors: StageTensors, config: StageConfig, tiles: _Tiles) -> dict[str, Any]:
    """Returns the compile-time constants of forward and backward."""
    windows, window_size, tile_channels = tiles.shape
    _, real = _computation_type(tensors.x.dtype)
    return {
        "RESET": config.v_reset,
        "SOFT": config.soft,
        "K": window_size,
        "P": windows,
        "CB": tile_channels,
        "REAL": real,
        **ROUNDING,
    }


def _sizes(tensors: StageTensors, out: Tensor, config: StageConfig) -> tuple[Any, ...]:
    """Returns sizes, and the strides of steps of X, rows of batch norm's arrays, rows of k, and steps of the output."""
    x, channels = tensors.x, tensors.x.shape[4]
    return (
        *(config.T, *x.shape[1:], config.window),
        0 if len(x) < config.T else x.stride(0),
        0 if len(tensors.scale) == 1 else channels,
        0 if len(tensors.k) == 1 else channels,
        out[0].numel(),
    )
