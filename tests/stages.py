"""One stage of a network, run by any kernel: everything that it gives and leaves behind."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plifctl.config.choices import Kernel
from plifctl.config.network import NeuronSpec
from plifctl.snn.kernels import spiking_stage
from plifctl.snn.layers import BatchNorm, Pool
from plifctl.snn.neurons import SpikingLayer

PLIF = NeuronSpec(kind="plif", tau_0=2.0, v_threshold=1.0, v_reset=0.0, surrogate="arctan", detach_reset=True)

NEURONS: list[dict[str, Any]] = [
    {},
    {"kind": "lif", "tau_0": None, "tau": 3.0},
    {"v_reset": -0.5, "v_threshold": 0.7},
    {"detach_reset": False, "v_reset": -0.5},
    {"reset": "soft"},
    {"reset": "soft", "detach_reset": False, "v_threshold": 0.7},
    {"surrogate": "sigmoid", "surrogate_width": 0.25},
    {"surrogate": "rectangular"},
    {"surrogate": "triangular", "surrogate_width": 0.7},
    {"tau_per": "channel"},
    {"tau_per": "neuron"},
    {"learn_threshold": True},
    {"learn_threshold": True, "reset": "soft", "detach_reset": False, "learn_surrogate_width": True},
    {"learn_surrogate_width": True, "surrogate": "sigmoid", "tau_per": "neuron"},
    {"learn_surrogate_width": True, "surrogate": "triangular"},
]

Result = dict[str, Tensor]


Layers = tuple[SpikingLayer, BatchNorm | None]
Drawn = Callable[..., Tensor]


def drawn_stage(
    shape: tuple[int, ...],
    neuron: dict[str, Any],
    dtype: torch.dtype = torch.float64,
    norm: str | None = "per-step",
    training: bool = True,
    device: str = "cpu",
) -> tuple[Tensor, Layers, Drawn]:
    """Inputs ``shape`` of [T or 1, N, …] and layers, drawn by a seed; and what draws further numbers."""
    generator = torch.Generator().manual_seed(7)

    def drawn(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64).to(device, dtype)

    x = (1.5 * drawn(*shape) + 0.5).requires_grad_()
    spiking = SpikingLayer(PLIF.model_copy(update=neuron), shape[2:]).to(device, dtype)
    if spiking.a is not None:
        spiking.a.data += 0.5 * drawn(*spiking.a.shape)
    layer = None
    if norm is not None:
        layer = BatchNorm(shape[2], per_step=norm == "per-step").to(device, dtype).train(training)
        layer.weight.data = 1.5 + 0.3 * drawn(shape[2])
        layer.bias.data = 0.3 * drawn(shape[2])
        layer.running_var += 0.5
    return x, (spiking, layer), drawn


def stage(
    kernel: Kernel,
    shape: tuple[int, ...],
    T: int,
    neuron: dict[str, Any],
    dtype: torch.dtype = torch.float64,
    norm: str | None = "per-step",
    pool: tuple[str, int] | None = ("max", 2),
    training: bool = True,
    device: str = "cpu",
) -> Result:
    """Everything that a stage gives and leaves behind, for inputs ``shape`` of [T or 1, N, …] drawn by a seed."""
    x, (spiking, layer), drawn = drawn_stage(shape, neuron, dtype, norm, training, device)
    pooling = Pool(*pool, pool[1]) if pool is not None else None
    spikes = spiking_stage(x, T, spiking.dynamics(x), layer, pooling, kernel)
    (spikes.pooled * drawn(*spikes.pooled.shape)).sum().backward()
    found: Result = {"spikes": spikes.pooled.detach(), "fired": spikes.spike_count}
    found["grad"] = x.grad if x.grad is not None else x
    modules: dict[str, torch.nn.Module] = {"sn": spiking} | ({"bn": layer} if layer is not None else {})
    for name, module in modules.items():
        found |= {f"{name}.{key}": p.grad for key, p in module.named_parameters() if p.grad is not None}
        found |= {f"{name}.{key}": b.clone() for key, b in module.named_buffers()}
    return found
