"""Event-driven layers on two cores, compared with the dense ones: ``make bench-events``.

Inputs are random spikes; before anything is timed, both sides compute the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.measure import Figure, Setting, interleaved, run, within
from benchmarks.steps import THREADS, limit_threads
from plifctl.snn.kernels import apply_synapses, event_driven
from plifctl.snn.layers import Conv, Linear
from plifctl.training.process import keep_freed_memory

FORWARD = {0.01: None, 0.04: 0.25, 0.09: 0.40, 0.20: 0.75, 0.60: 1.05}
"""Target of the ratio for each share of active inputs; at 60 % the dense product is chosen."""

WEIGHTS = {0.01: None, 0.04: 0.35, 0.09: 0.5, 0.20: 0.9}
DENSE = "the same layer of torch"


class _Layer(NamedTuple):
    name: str
    layer: Conv | nn.Linear
    shape: tuple[int, ...]


def _layers() -> list[_Layer]:
    return [
        _Layer("3×3, 128 → 128 channels, 17×17", Conv(128, 128, 3, 1), (10, 8, 128, 17, 17)),
        _Layer("3×3, 128 → 128 channels, 32×32", Conv(128, 128, 3, 1), (6, 4, 128, 32, 32)),
        _Layer("3×3, 128 → 128 channels, 64×64", Conv(128, 128, 3, 1), (6, 1, 128, 64, 64)),
        _Layer("fully connected, 8192 → 2048, 160 rows", Linear(8192, 2048), (10, 16, 8192)),
        _Layer("fully connected, 8192 → 2048, 10 rows", Linear(8192, 2048), (10, 1, 8192)),
    ]


def _spikes(shape: tuple[int, ...], density: float) -> Tensor:
    x = (torch.rand(shape, generator=torch.Generator().manual_seed(2020)) < density).float()
    if len(shape) == 5:  # as spiking layers give them
        x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last).view(shape)
    return x


def forward(setting: Setting) -> Iterator[Figure]:
    """A layer's output, finding the active inputs included."""
    for name, layer, shape in _layers():
        for density, target in FORWARD.items():
            x = _spikes(shape, density)
            with torch.no_grad():
                torch.testing.assert_close(apply_synapses(layer, x), layer(x), rtol=1e-4, atol=1e-4)
                ours, dense = interleaved(
                    lambda layer=layer, x=x: apply_synapses(layer, x),
                    lambda layer=layer, x=x: layer(x),
                    setting.pairs * 8,
                )
            yield within(f"forward, {name}, {density:.0%} active", "s", ours, dense, DENSE, target)


def weights(setting: Setting) -> Iterator[Figure]:
    """The gradient of a layer's weights from lists of active inputs that forward made."""
    for name, layer, shape in _layers():
        for density, target in WEIGHTS.items():
            x = _spikes(shape, density).flatten(0, 1)
            grad = torch.randn_like(layer(x[:, None])[:, 0] if isinstance(layer, nn.Linear) else layer(x[None])[0])
            yield within(
                f"gradient of weights, {name}, {density:.0%} active",
                "s",
                *_time_gradients(layer, x, grad.detach(), setting.pairs * 8),
                DENSE,
                target,
            )


def _time_gradients(layer: Conv | nn.Linear, x: Tensor, grad: Tensor, pairs: int) -> tuple[list[float], list[float]]:
    weight = layer.weight.detach()
    group = event_driven.channels_of_group(weight)
    if isinstance(layer, nn.Linear):
        rows = x.numpy()
        active = event_driven.list_active(rows, event_driven.count_active(rows), 1, group)

        def ours() -> Tensor:
            return event_driven.product_weight_gradient(active, grad, x.shape[1])

        def dense() -> Tensor:
            return grad.t() @ x
    else:
        maps = x.permute(0, 2, 3, 1)
        rows = maps.flatten(2).flatten(0, 1).numpy()
        active = event_driven.list_active(rows, event_driven.count_active(rows), maps.shape[2], group)

        def ours() -> Tensor:
            return event_driven.convolution_weight_gradient(active, grad.permute(0, 2, 3, 1), maps.shape, 3, 1, 1)

        def dense() -> Tensor:
            found: Tensor = torch.ops.aten.convolution_backward(
                grad, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False]
            )[1]
            return found

    torch.testing.assert_close(ours(), dense(), rtol=1e-3, atol=1e-3)
    return interleaved(ours, dense, pairs)


if __name__ == "__main__":
    limit_threads()
    keep_freed_memory()
    run(
        f"event-driven layers, {THREADS} threads, float32",
        {"forward": forward, "weights": weights},
        recordings=False,
    )
