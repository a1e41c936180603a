"""Spiking neurons as modules: a thin shell that holds the time constant."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from plifctl.snn.functional import tau_to_a
from plifctl.snn.kernels import Kernel, scan
from plifctl.specs import NeuronSpec


class Spiking(nn.Module):
    """A layer of PLIF or LIF neurons that share one time constant.

    PLIF holds the parameter ``a`` with k(a) = sigmoid(a) = 1/τ (Eq. 6); LIF the constant ``k`` = 1/τ (Eq. 5).
    """

    a: Tensor | None
    k: Tensor | None

    def __init__(self, spec: NeuronSpec, kernel: Kernel = "auto") -> None:
        super().__init__()
        self.spec = spec
        self.kernel: Kernel = kernel
        learnable = spec.kind == "plif"
        self.register_parameter("a", nn.Parameter(torch.tensor(tau_to_a(spec.start_tau))) if learnable else None)
        self.register_buffer("k", None if learnable else torch.tensor(1.0 / spec.start_tau))

    def decay(self) -> Tensor:
        """Returns k = 1/τ, a scalar."""
        if self.a is not None:
            return self.a.sigmoid()
        assert self.k is not None
        return self.k

    @property
    def tau(self) -> float:
        """The membrane time constant in time steps; infinite where ``a`` is so low that 1/τ is 0."""
        return float(self.decay().reciprocal().item())

    def forward(self, x: Tensor) -> Tensor:
        """Maps inputs ``[T, N, ...]`` to spikes of the same shape, starting from V_reset."""
        return scan(
            x,
            self.decay(),
            v_threshold=self.spec.v_threshold,
            v_reset=self.spec.v_reset,
            detach_reset=self.spec.detach_reset,
            kernel=self.kernel,
        )
