"""Time of each layer's weights on real samples, dense and event-driven.

Operations say what a chip that skips zeros could save; these times say what skipping them saves on this processor.
Each convolution and fully connected layer gets its own inputs in the trained network, and is computed in both ways in
turn, with the threads of the process. Listing the active inputs is part of the event-driven time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.evaluation.accuracy import evaluation_mode
from plifctl.snn.kernels import apply_synapses, spiking_stage
from plifctl.snn.layers import Conv, Dropout
from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer

MAX_ROUNDS = 20
"""Largest number of measurements of each layer."""

_MIN_ROUNDS = 5  # of which a time limit leaves room for, by smaller batches


@dataclass(frozen=True)
class LayerTime:
    """Time of one layer, the median of several batches.

    Attributes:
        name: Name in the state dict.
        active_inputs: Share of its inputs that are not zero, 0…1.
        dense: Seconds per sample, all products computed.
        event_driven: Seconds per sample, products of active inputs only.
        chosen: What the kernel ``auto`` computes for these inputs.
    """

    name: str
    active_inputs: float
    dense: float
    event_driven: float
    chosen: Literal["dense", "event-driven"]


@dataclass(frozen=True)
class LayerTimes:
    """Times of all layers that have weights.

    Attributes:
        samples: Number of samples.
        batch: Samples in a batch.
        threads: Threads that computed.
        layers: The layers, in order.
    """

    samples: int
    batch: int
    threads: int
    layers: tuple[LayerTime, ...]

    @property
    def dense(self) -> float:
        """Seconds per sample in all layers if all are dense."""
        return sum(layer.dense for layer in self.layers)

    @property
    def chosen(self) -> float:
        """Seconds per sample in all layers if each is computed as the kernel ``auto`` computes it."""
        return sum(layer.dense if layer.chosen == "dense" else layer.event_driven for layer in self.layers)


class _Measured(NamedTuple):
    """One layer on one batch: active inputs, all inputs, rows of inputs, and seconds."""

    active: int
    inputs: int
    rows: int
    dense: float
    event_driven: float


def times_unsupported_reason(device: torch.device, precision: str) -> str | None:
    """Returns why the layers of a network cannot be timed; None where they can."""
    if device.type != "cpu":
        return f"event-driven layers exist on CPUs, the device is {device}"
    half = precision in ("bf16", "fp16")
    return f"event-driven layers compute in float32, the precision is {precision}" if half else None


@torch.no_grad()
def measure_layer_times(model: SpikingNetwork, batches: Sequence[Tensor], T: int, seconds: float) -> LayerTimes:
    """Measures every layer on all batches in turn, until ``seconds`` have passed or :data:`MAX_ROUNDS` are done.

    Args:
        model: A network on the CPU; its mode is restored.
        batches: At least one; inputs of the network. Batches that would take too long are divided.
        T: Time steps, for images.
        seconds: The time that measuring may take, about.
    """
    begun = time.perf_counter()
    with evaluation_mode(model):
        _measure_batch(model, batches[0][:1], T, event_driven_first=False)  # loads or compiles the loops
        once = _seconds(lambda: _measure_batch(model, batches[0][:1], T, event_driven_first=False))
        size = int(min(len(batches[0]), max(1, seconds / (_MIN_ROUNDS * once))))
        parts = [batch[first : first + size] for batch in batches for first in range(0, len(batch) - size + 1, size)]
        rounds: list[dict[str, _Measured]] = []
        for part in islice(cycle(parts), MAX_ROUNDS):
            rounds.append(_measure_batch(model, part, T, event_driven_first=len(rounds) % 2 == 1))
            if time.perf_counter() - begun > seconds:
                break
    weights = {name: layer.weight for name, layer in model.layers.items() if isinstance(layer, Conv | nn.Linear)}
    return LayerTimes(
        samples=size * min(len(rounds), len(parts)),
        batch=size,
        threads=torch.get_num_threads(),
        layers=tuple(_combine(name, weight, [one[name] for one in rounds], size) for name, weight in weights.items()),
    )


def _combine(name: str, weight: Tensor, rounds: Sequence[_Measured], size: int) -> LayerTime:
    from plifctl.snn.kernels import event_driven  # numba takes half a second to import

    density = sum(one.active for one in rounds) / sum(one.inputs for one in rounds)
    return LayerTime(
        name,
        density,
        float(np.median([one.dense for one in rounds])) / size,
        float(np.median([one.event_driven for one in rounds])) / size,
        "event-driven" if event_driven.is_chosen(weight, rounds[0].rows, density, training=False) else "dense",
    )


def _measure_batch(model: SpikingNetwork, batch: Tensor, T: int, *, event_driven_first: bool) -> dict[str, _Measured]:
    return {
        name: _measure(layer, x, event_driven_first=event_driven_first)
        for name, layer, x in _inputs_of_layers(model, batch, T)
    }


def _inputs_of_layers(model: SpikingNetwork, batch: Tensor, T: int) -> Iterator[tuple[str, Conv | nn.Linear, Tensor]]:
    """Yields each layer that has weights, and its input ``[T, N, ...]``."""
    x = batch[None] if batch.dim() == 4 else batch.transpose(0, 1)
    T = T if batch.dim() == 4 else len(x)
    for name, layer in model.layers.items():
        if isinstance(layer, Conv | nn.Linear):
            x = x.flatten(2) if isinstance(layer, nn.Linear) else x
            yield name, layer, x
            x = apply_synapses(layer, x, model.kernel)
        elif isinstance(layer, SpikingLayer):
            x = spiking_stage(x, T, layer.dynamics(x), kernel=model.kernel).pooled
        elif not isinstance(layer, Dropout):
            x = layer(x)


def _measure(layer: Conv | nn.Linear, x: Tensor, *, event_driven_first: bool) -> _Measured:
    from plifctl.snn.kernels import event_driven  # numba takes half a second to import

    def sparse() -> Tensor:
        return event_driven.apply(layer, x, always=True)

    def dense() -> Tensor:
        return apply_synapses(layer, x, "eager")

    if event_driven_first:
        second, first = _seconds(sparse), _seconds(dense)
    else:
        first, second = _seconds(dense), _seconds(sparse)
    return _Measured(int(x.count_nonzero()), x.numel(), x.shape[0] * x.shape[1], first, second)


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
