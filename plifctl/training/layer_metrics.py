"""Per-layer metrics of an epoch: time constants, gradient norms, weights over τ, memory.

:class:`LayerMetrics` sums the norms of the gradients on the device, without waiting for it, and computes everything
else once per epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.process import peak_memory

_POSITIVE_EDGES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

EDGES = (*(-edge for edge in reversed(_POSITIVE_EDGES)), 0.0, *_POSITIVE_EDGES)
"""Edges of the histogram of W_fc/τ, the same for every run and epoch: 0 and ±1, ±0.5, ±0.2, … ±0.001."""

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Probabilities of the quantiles of W_fc/τ."""

TAU_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Probabilities of the quantiles of a layer's time constants: minimum, quartiles, maximum."""


class LayerMetrics:
    """Collects the per-layer metrics of a network, epoch by epoch.

    Args:
        model: The network, on its final device.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        self.model = model
        layers = model.layers.items()
        self._names = [name for name, layer in layers if isinstance(layer, SpikingLayer) or list(layer.parameters())]
        self._parameters = [
            (index, parameter)
            for index, name in enumerate(self._names)
            for parameter in model.layers[name].parameters()
            if parameter.requires_grad
        ]
        device = next(model.parameters()).device
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)
        self._layer_index: tuple[list[int], Tensor] = ([], torch.empty(0, dtype=torch.int64, device=device))

    def add_gradients(self) -> Tensor:
        """Adds the norms of one step's gradients to the epoch's, unless one is not finite.

        Returns:
            The norm of all gradients together, on the device; nothing waits for it until it is read.
        """
        gradients = [(layer, p.grad) for layer, p in self._parameters if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in gradients])).double()  # a single launch
        layers = [layer for layer, _ in gradients]
        if layers != self._layer_index[0]:  # copied once: a copy to the device in every step would wait for it
            self._layer_index = layers, torch.tensor(layers, device=norms.device)
        squares = torch.zeros_like(self._sums).index_add_(0, self._layer_index[1], norms.square())
        total = squares.sum().sqrt()
        is_finite = total.isfinite()
        self._sums += torch.where(is_finite, squares.sqrt(), 0.0)
        self._steps += is_finite
        return total

    def state(self) -> dict[str, Any]:
        """Returns the sums over the epoch so far, as plain values."""
        return {"steps": int(self._steps), "sums": self._sums.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restores a state that :meth:`state` returned."""
        self._steps.fill_(state["steps"])
        self._sums.copy_(self._sums.new_tensor(state["sums"]))

    def pop_row(self) -> dict[str, Any]:
        """Returns the epoch's fields of :class:`~plifctl.training.progress.EpochRow`, and begins the next epoch."""
        spiking = self.model.spiking_layers()
        learnt = {name: layer.a.detach() for name, layer in spiking.items() if layer.a is not None}
        several = {name: 1 / a.sigmoid() for name, a in learnt.items() if a.numel() > 1}
        row = {
            "layers": list(spiking),
            "a": [float(learnt[name].mean()) if name in learnt else None for name in spiking],
            "tau_quantiles": {name: _quantiles(_sort_values(taus), TAU_QUANTILES) for name, taus in several.items()},
            "gradient_norm": self._gradient_norm(),
            "w_over_tau": self._w_over_tau(),
            "peak_rss_bytes": peak_memory(),
            "peak_gpu_bytes": torch.cuda.max_memory_allocated(self._sums.device) if self._sums.is_cuda else None,
        }
        self._steps.zero_()
        self._sums.zero_()
        return row

    def _gradient_norm(self) -> dict[str, float | None]:
        learning = {layer for layer, _ in self._parameters}
        sums, steps = self._sums.tolist(), int(self._steps)
        return {name: sums[i] / steps if i in learning and steps else None for i, name in enumerate(self._names)}

    def _w_over_tau(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        previous: tuple[str, nn.Module] | None = None
        for name, layer in self.model.layers.items():
            if isinstance(layer, SpikingLayer) and previous is not None and isinstance(previous[1], nn.Linear):
                weight = previous[1].weight.detach()
                k = layer.dynamics(weight).k.detach()  # a scalar, or one value per feature
                found[previous[0]] = distribution(weight * k.reshape(-1, 1))
            previous = name, layer
        return found


def distribution(values: Tensor) -> dict[str, Any]:
    """Describes numbers by ``mean``, ``std``, ``quantiles`` and ``counts``.

    Args:
        values: Any shape, at least one number.

    Returns:
        ``quantiles`` at the probabilities :data:`QUANTILES`, and ``counts`` of the numbers below ``EDGES[0]``, from
        each edge (included) to the next one, and from ``EDGES[-1]`` on: one more than there are edges.

    Example:
        >>> found = distribution(torch.tensor([-2.0, 0.0, 0.0, 3.0]))
        >>> found["counts"][0], found["counts"][11], found["counts"][-1], sum(found["counts"])
        (1, 2, 1, 4)
    """
    ordered = _sort_values(values)
    counts, _ = np.histogram(ordered, np.array([-np.inf, *EDGES, np.inf], ordered.dtype))
    return {
        "mean": float(ordered.mean(dtype=np.float64)),
        "std": float(ordered.std(dtype=np.float64)),
        "quantiles": _quantiles(ordered, QUANTILES),
        "counts": counts.tolist(),
    }


def _sort_values(values: Tensor) -> np.ndarray:
    flat: np.ndarray = np.sort(values.flatten().cpu().numpy())
    return flat


def _quantiles(ordered: np.ndarray, probabilities: tuple[float, ...]) -> list[float]:
    """Returns quantiles of sorted numbers, interpolated linearly in float64; np.quantile would partition a copy."""
    positions = np.array(probabilities) * (len(ordered) - 1)
    lower = np.floor(positions).astype(np.int64)
    upper = np.minimum(lower + 1, len(ordered) - 1)
    below, above = ordered[lower].astype(np.float64), ordered[upper].astype(np.float64)
    return [float(value) for value in below + (above - below) * (positions - lower)]
