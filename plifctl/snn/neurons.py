"""Spiking neurons as modules that hold the learnable parameters; the kernels compute with them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plifctl.config.network import NeuronSpec
from plifctl.snn.functional import Dynamics, tau_to_a


class SpikingLayer(nn.Module):
    """A layer of PLIF or LIF neurons.

    Its parameters are exactly the learnt ones: for PLIF ``a`` with k(a) = sigmoid(a) = 1/τ (Eq. 6), and on request of
    the spec ``v_threshold`` and ``log_width``, the logarithm of the surrogate's width, which keeps the width positive.

    Args:
        spec: The neuron.
        shape: Shape of the layer, ``(C, H, W)`` or ``(F,)``.

    Attributes:
        leak: Share of the potential that is lost in a step, 0…1; None: 1/τ. Only controls set it.
    """

    leak: float | None = None

    a: Tensor | None
    v_threshold: Tensor | None
    log_width: Tensor | None

    def __init__(self, spec: NeuronSpec, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.spec = spec
        tau_shape = {"layer": (), "channel": (shape[0], *(1 for _ in shape[1:])), "neuron": shape}[spec.tau_per]
        self._add_parameter("a", torch.full(tau_shape, tau_to_a(spec.start_tau)) if spec.kind == "plif" else None)
        self._add_parameter("v_threshold", torch.tensor(spec.v_threshold) if spec.learn_threshold else None)
        log_width = torch.tensor(spec.surrogate_width).log()
        self._add_parameter("log_width", log_width if spec.learn_surrogate_width else None)

    def _add_parameter(self, name: str, start: Tensor | None) -> None:
        self.register_parameter(name, None if start is None else nn.Parameter(start))

    def dynamics(self, x: Tensor) -> Dynamics:
        """Returns the parameters for the kernels, on the device and in the type (at least float32) of input ``x``."""
        spec = self.spec
        dtype = torch.promote_types(x.dtype, torch.float32)
        return Dynamics(
            x.new_full((), 1.0 / spec.start_tau, dtype=dtype) if self.a is None else self.a.sigmoid(),
            x.new_full((), spec.v_threshold, dtype=dtype) if self.v_threshold is None else self.v_threshold,
            spec.v_reset,
            spec.reset == "soft",
            spec.detach_reset,
            spec.surrogate,
            x.new_full((), spec.surrogate_width, dtype=dtype) if self.log_width is None else self.log_width.exp(),
            self.leak,
        )

    @property
    def tau(self) -> float:
        """Membrane time constant in time steps, the mean where there are several; infinite where 1/τ is 0."""
        return self.spec.start_tau if self.a is None else float(self.a.sigmoid().reciprocal().mean().item())

    def extra_repr(self) -> str:
        return f"{self.spec.kind}, tau={self.tau:.4g}, per {self.spec.tau_per}, {self.spec.surrogate}"
