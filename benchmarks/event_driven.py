"""Event-driven layers on two cores, compared with the dense ones: ``make bench-events``.

Inputs are random spikes; before anything is timed, both sides compute the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks import layers
from benchmarks.measure import Figure, Setting, interleaved, run, within
from benchmarks.steps import THREADS, limit_threads
from plifctl.snn.kernels import apply_synapses, event_driven
from plifctl.snn.kernels.registers import VECTOR_BYTES
from plifctl.snn.layers import Conv, Linear
from plifctl.training.process import keep_freed_memory

FORWARD = {0.01: None, 0.02: None, 0.04: 0.25, 0.09: 0.40, 0.14: None, 0.20: 0.75, 0.30: 1.05, 0.45: 1.05, 0.60: 1.05}
"""Target of the ratio for each share of active inputs; where most are active, the dense product is chosen."""

WEIGHTS = {0.01: None, 0.02: None, 0.04: 0.35, 0.09: 0.5, 0.14: None, 0.20: 0.9, 0.30: None}
OTHERS = (0.04, 0.09, 0.20)
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
    """A layer's output, finding the active inputs included, as plifctl computes it: event-driven or dense."""
    with torch.no_grad():
        for name, layer, shape in _layers():
            for density, target in FORWARD.items():
                x = _spikes(shape, density)
                _must_agree(layers.forward(layer, x))
                ours, dense = interleaved(
                    partial(apply_synapses, layer, x), layers.forward(layer, x).dense, setting.pairs * 8
                )
                title = f"forward, {name}, {density:.0%} active"
                yield _labelled(within(title, "s", ours, dense, DENSE, target), "forward", name, density)


def weights(setting: Setting) -> Iterator[Figure]:
    """The gradient of a layer's weights, event-driven, from lists of active inputs that forward made."""
    for name, layer, shape in _layers():
        for density, target in WEIGHTS.items():
            x = _spikes(shape, density)
            ways = layers.weight_gradient(layer, x, torch.randn_like(event_driven.dense(layer, x)))
            _must_agree(ways)
            title = f"gradient of weights, {name}, {density:.0%} active"
            figure = within(title, "s", *interleaved(*ways, setting.pairs * 8), DENSE, target)
            yield _labelled(figure, "weight gradient", name, density)


def inputs(setting: Setting) -> Iterator[Figure]:
    """The gradient of a convolution's input, which is dense whatever fires."""
    sizes = ((128, 17, 80), (128, 32, 24), (128, 64, 6), (128, 16, 80), (128, 8, 80), (128, 4, 80), (32, 32, 24))
    for channels, size, images in sizes:
        layer, x = Conv(channels, channels, 3, 1), _spikes((1, images, channels, size, size), 0.1)
        ways = layers.input_gradient(layer, x, torch.randn_like(event_driven.dense(layer, x)))
        _must_agree(ways)
        name = f"3×3, {channels} → {channels} channels, {size}×{size}, {images} images"
        figure = within(f"gradient of the input, {name}", "s", *interleaved(*ways, setting.pairs * 8), DENSE, 1.05)
        yield replace(figure, labels={"part": "input gradient", "layer": name, "peer": "dense"})


def others(setting: Setting) -> Iterator[Figure]:
    """A layer's output compared with other libraries, where they are installed."""
    with torch.no_grad():
        for name, layer, shape in (_layers()[0], _layers()[3]):
            for density in OTHERS:
                x = _spikes(shape, density)
                for peer, work in _peers(layer, x):
                    ours = partial(apply_synapses, layer, x)
                    try:
                        _must_agree(layers.Ways(ours, work))
                    except (ImportError, RuntimeError) as error:  # torch.compile wants a compiler of the system
                        print(f"left out: {peer}: {str(error).splitlines()[0]}", file=sys.stderr)
                        continue
                    title = f"forward, {name}, {density:.0%} active"
                    figure = within(title, "s", *interleaved(ours, work, setting.pairs * 8), peer, None)
                    yield _labelled(figure, "forward", name, density)


def _peers(layer: Conv | nn.Linear, x: Tensor) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """Yields name and function of each library that computes this layer, from the same dense tensor."""
    compiled = torch.compile(partial(event_driven.dense, layer))
    yield "torch.compile of the layer", lambda: compiled(x)
    if isinstance(layer, nn.Linear):
        rows, weight = x.flatten(0, 1), layer.weight.t()
        yield "torch.sparse, CSR", lambda: (rows.to_sparse_csr() @ weight).view(*x.shape[:2], -1)
        yield "brainevent", _brainevent_product(layer, x)


def _brainevent_product(layer: nn.Linear, x: Tensor) -> Callable[[], Tensor]:
    """Returns brainevent's product of binary events, which are given to it as the array that it works on."""

    @cache
    def prepared() -> Callable[[], Tensor]:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        import brainevent
        import jax

        product = jax.jit(lambda events, weight: brainevent.BinaryArray(events) @ weight)
        events = jax.numpy.asarray(x.flatten(0, 1).numpy() != 0)
        weight = jax.numpy.asarray(layer.weight.detach().t().contiguous().numpy())
        return lambda: torch.from_dlpack(product(events, weight).block_until_ready()).view(*x.shape[:2], -1)

    return lambda: prepared()()


def _must_agree(ways: layers.Ways) -> None:
    torch.testing.assert_close(ways.event_driven(), ways.dense(), rtol=1e-3, atol=1e-3)


def _labelled(figure: Figure, part: str, layer: str, density: float) -> Figure:
    peer = "dense" if figure.peer_name == DENSE else "library"
    return replace(figure, labels={"part": part, "layer": layer, "active_inputs": density, "peer": peer})


if __name__ == "__main__":
    limit_threads()
    keep_freed_memory()
    run(
        f"event-driven layers, {THREADS} threads, float32, vectors of {8 * VECTOR_BYTES} bits",
        {"forward": forward, "weights": weights, "inputs": inputs, "others": others},
        recordings=False,
    )
