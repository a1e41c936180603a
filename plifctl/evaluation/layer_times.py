"""Time of each layer on real samples, dense and event-driven.

Operations say what a chip that skips zeros could save; these times say what skipping them saves on this processor. A
layer is a convolution or a fully connected layer with what is computed together with it: batch norm, neurons, pooling.
Each gets its own inputs in the trained network, and is computed in both ways in turn, with the threads of the process.
Finding the active inputs is part of the event-driven time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.config.choices import HALF_PRECISIONS
from plifctl.evaluation.accuracy import evaluation_mode
from plifctl.snn.kernels import apply_synapses, spiking_stage
from plifctl.snn.layers import Conv, Dropout
from plifctl.snn.networks import SpikingNetwork, Stage, stage_at

MAX_ROUNDS = 20
"""Largest number of measurements of each layer."""

_Result = TypeVar("_Result")
_MIN_ROUNDS = 5  # of which a time limit leaves room for, by smaller batches


@dataclass(frozen=True)
class LayerTime:
    """Time of one layer with the neurons after it, the median of several batches.

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
    """One layer on one batch: active inputs, all inputs, whether ``auto`` is event-driven, and seconds."""

    active: int
    inputs: int
    chosen: bool
    dense: float
    event_driven: float


def times_unsupported_reason(device: torch.device, precision: str) -> str | None:
    """Returns why the layers of a network cannot be timed; None where they can."""
    if device.type != "cpu":
        return f"event-driven layers exist on CPUs, the device is {device}"
    half = precision in HALF_PRECISIONS
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
        once, _ = _timed(lambda: _measure_batch(model, batches[0][:1], T, event_driven_first=False))
        size = int(min(len(batches[0]), max(1, seconds / (_MIN_ROUNDS * once))))
        parts = [batch[first : first + size] for batch in batches for first in range(0, len(batch) - size + 1, size)]
        rounds: list[dict[str, _Measured]] = []
        for part in islice(cycle(parts), MAX_ROUNDS):
            rounds.append(_measure_batch(model, part, T, event_driven_first=len(rounds) % 2 == 1))
            if time.perf_counter() - begun > seconds:
                break
    return LayerTimes(
        samples=size * min(len(rounds), len(parts)),
        batch=size,
        threads=torch.get_num_threads(),
        layers=tuple(_combine(name, [one[name] for one in rounds], size) for name in rounds[0]),
    )


def _combine(name: str, rounds: Sequence[_Measured], size: int) -> LayerTime:
    return LayerTime(
        name,
        sum(one.active for one in rounds) / sum(one.inputs for one in rounds),
        float(np.median([one.dense for one in rounds])) / size,
        float(np.median([one.event_driven for one in rounds])) / size,
        "event-driven" if 2 * sum(one.chosen for one in rounds) > len(rounds) else "dense",
    )


def _measure_batch(model: SpikingNetwork, batch: Tensor, T: int, *, event_driven_first: bool) -> dict[str, _Measured]:
    """Returns what was measured of each layer that has weights, by its name."""
    x = batch[None] if batch.dim() == 4 else batch.transpose(0, 1)
    T = T if batch.dim() == 4 else len(x)
    layers, index, found = list(model.layers.items()), 0, {}
    while index < len(layers):
        name, layer = layers[index]
        stage = stage_at(layers, index, with_pooling=True)
        if isinstance(layer, Conv | nn.Linear):
            ways = _Ways(layer, stage, x.flatten(2) if isinstance(layer, nn.Linear) else x, T)
            found[name], x = ways.measure(event_driven_first=event_driven_first)
        elif stage is not None:
            x = _after(stage, x, T)
        elif not isinstance(layer, Dropout):
            x = layer(x)
        index += 1 if stage is None else stage.layers
    return found


def _after(stage: Stage | None, x: Tensor, T: int) -> Tensor:
    """Returns the spikes of a stage from what its synapses, if it has any, gave."""
    return x if stage is None else spiking_stage(x, T, stage.spiking.dynamics(x), stage.norm, stage.pool).pooled


class _Ways(NamedTuple):
    """A layer that is computed in two ways.

    Attributes:
        layer: Convolution or fully connected layer.
        stage: The stage that it begins; None where no neurons come after it.
        x: Its input, ``[T, N, ...]``.
        T: Time steps.
    """

    layer: Conv | nn.Linear
    stage: Stage | None
    x: Tensor
    T: int

    def measure(self, *, event_driven_first: bool) -> tuple[_Measured, Tensor]:
        """Returns what was measured, and the output of the layer."""
        if event_driven_first:
            event_driven, _ = _timed(self._event_driven)
            dense, output = _timed(self._dense)
        else:
            dense, output = _timed(self._dense)
            event_driven, _ = _timed(self._event_driven)
        active, inputs = int(self.x.count_nonzero()), self.x.numel()
        return _Measured(active, inputs, self._is_chosen(active / inputs), dense, event_driven), output

    def _dense(self) -> Tensor:
        return _after(self.stage, apply_synapses(self.layer, self.x, "eager"), self.T)

    def _event_driven(self) -> Tensor:
        from plifctl.snn.kernels import event_driven  # numba takes half a second to import

        if self._in_one_pass():
            assert self.stage is not None
            assert isinstance(self.layer, Conv)
            dynamics = self.stage.spiking.dynamics(self.x)
            found = event_driven.evaluate_stage(
                self.x, self.layer, dynamics, self.stage.norm, self.stage.pool, always=True
            )
            assert found is not None
            return found[0]
        return _after(self.stage, event_driven.apply(self.layer, self.x, always=True), self.T)

    def _in_one_pass(self) -> bool:
        """Returns whether convolution and neurons are one pass; inputs that are equal at all steps have a pass each."""
        return isinstance(self.layer, Conv) and self.stage is not None and len(self.x) == self.T

    def _is_chosen(self, density: float) -> bool:
        """Returns whether the kernel ``auto`` computes the layer event-driven."""
        from plifctl.snn.kernels import event_driven

        weight, rows = self.layer.weight, len(self.x) * self.x.shape[1]
        if self._in_one_pass():
            return event_driven.one_pass_cost(weight, density) < 1
        return event_driven.is_chosen(weight, rows, density, training=False)


def _timed(work: Callable[[], _Result]) -> tuple[float, _Result]:
    """Returns the seconds that a call takes, and its result."""
    begun = time.perf_counter()
    result = work()
    return time.perf_counter() - begun, result
