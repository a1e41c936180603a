"""Per-layer metrics of an epoch: time constants, gradients, memory.

:class:`LayerMetrics` watches one network. It adds up the gradients' norms on the device, without waiting for it, and
looks at everything else once an epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from plifctl.snn.networks import SpikingNetwork
from plifctl.snn.neurons import SpikingLayer
from plifctl.training.process import peak_memory

_ABOVE_ZERO = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

EDGES = (*(-edge for edge in reversed(_ABOVE_ZERO)), 0.0, *_ABOVE_ZERO)
"""Edges of the histogram of W_fc/τ, the same for every run and epoch: 0 and ±1, ±0.5, ±0.2, … ±0.001."""

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
"""Of W_fc/τ: the share of weights that lie at or below each of its quantiles."""

TAU_QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the time constants of a layer that has several: minimum, quartiles, maximum."""


class LayerMetrics:
    """Watches a network through its epochs.

    Args:
        model: The network, on the device where it stays.
    """

    def __init__(self, model: SpikingNetwork) -> None:
        self.model = model
        layers = model.layers.items()
        self._names = [name for name, layer in layers if isinstance(layer, SpikingLayer) or list(layer.parameters())]
        self._parameters = [(i, p) for i, name in enumerate(self._names) for p in model.layers[name].parameters()]
        device = next(model.parameters()).device
        self._sums = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        self._steps = torch.zeros((), dtype=torch.int64, device=device)
        self._owners: tuple[list[int], Tensor] = ([], torch.empty(0, dtype=torch.int64, device=device))

    def add_gradients(self) -> Tensor:
        """Adds the gradients of one step to the epoch's, unless one is not finite, and returns their norm together.

        Nothing waits for the device; whoever reads the norm does.
        """
        there = [(owner, p.grad) for owner, p in self._parameters if p.grad is not None]
        norms = torch.stack(torch._foreach_norm([gradient for _, gradient in there])).double()  # all in one launch
        owners = [owner for owner, _ in there]
        if owners != self._owners[0]:  # once: copying them to the device in every step would wait for it
            self._owners = owners, torch.tensor(owners, device=norms.device)
        squares = torch.zeros_like(self._sums).index_add_(0, self._owners[1], norms.square())
        total = squares.sum().sqrt()
        counts = total.isfinite()
        self._sums += torch.where(counts, squares.sqrt(), 0.0)
        self._steps += counts
        return total

    def state(self) -> dict[str, Any]:
        """Returns what was added up in the epoch so far; plain values."""
        return {"steps": int(self._steps), "sums": self._sums.tolist()}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up a state."""
        self._steps.fill_(state["steps"])
        self._sums.copy_(self._sums.new_tensor(state["sums"]))

    def row(self) -> dict[str, Any]:
        """Ends the epoch; returns the fields of :class:`~plifctl.training.progress.EpochRow` that are gathered here."""
        spiking = self.model.spiking_layers()
        learnt = {name: layer.a.detach() for name, layer in spiking.items() if layer.a is not None}
        several = {name: 1 / a.sigmoid() for name, a in learnt.items() if a.numel() > 1}
        found = {
            "layers": list(spiking),
            "a": [float(learnt[name].mean()) if name in learnt else None for name in spiking],
            "tau_quantiles": {name: _quantiles(_sorted(taus), TAU_QUANTILES) for name, taus in several.items()},
            "gradient_norm": self._gradient_norm(),
            "w_over_tau": self._w_over_tau(),
            "peak_rss_bytes": peak_memory(),
            "peak_gpu_bytes": torch.cuda.max_memory_allocated(self._sums.device) if self._sums.is_cuda else None,
        }
        self._steps.zero_()
        self._sums.zero_()
        return found

    def _gradient_norm(self) -> dict[str, float | None]:
        learning = {owner for owner, _ in self._parameters}
        sums, steps = self._sums.tolist(), int(self._steps)
        return {name: sums[i] / steps if i in learning and steps else None for i, name in enumerate(self._names)}

    def _w_over_tau(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        before: tuple[str, nn.Module] | None = None
        for name, layer in self.model.layers.items():
            if isinstance(layer, SpikingLayer) and before is not None and isinstance(before[1], nn.Linear):
                weight = before[1].weight.detach()
                k = layer.dynamics(weight).k.detach()  # one, or one for each feature
                found[before[0]] = distribution(weight * k.reshape(-1, 1))
            before = name, layer
        return found


def distribution(values: Tensor) -> dict[str, Any]:
    """Describes numbers by ``mean``, ``std``, ``quantiles`` and ``counts``.

    Args:
        values: Any shape, at least one number.

    Returns:
        ``quantiles`` at :data:`QUANTILES`, and ``counts`` of the numbers below ``EDGES[0]``, between an edge (included)
        and the next one, and from ``EDGES[-1]`` on: one more than there are edges.

    Example:
        >>> found = distribution(torch.tensor([-2.0, 0.0, 0.0, 3.0]))
        >>> found["counts"][0], found["counts"][11], found["counts"][-1], sum(found["counts"])
        (1, 2, 1, 4)
    """
    ordered = _sorted(values)
    cuts = np.searchsorted(ordered, np.array(EDGES, ordered.dtype), side="left")
    return {
        "mean": float(ordered.mean(dtype=np.float64)),
        "std": float(ordered.std(dtype=np.float64)),
        "quantiles": _quantiles(ordered, QUANTILES),
        "counts": np.diff(cuts, prepend=0, append=len(ordered)).tolist(),
    }


def _sorted(values: Tensor) -> np.ndarray:
    # numpy sorts floats several times faster than torch on the CPU, and keeps no indices
    flat: np.ndarray = np.sort(values.flatten().cpu().numpy())
    return flat


def _quantiles(ordered: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """The quantiles of sorted numbers, interpolated as numpy and torch do."""
    at = np.array(shares) * (len(ordered) - 1)
    low = np.floor(at).astype(np.int64)
    high = np.minimum(low + 1, len(ordered) - 1)
    below, above = ordered[low].astype(np.float64), ordered[high].astype(np.float64)
    return [float(value) for value in below + (above - below) * (at - low)]
