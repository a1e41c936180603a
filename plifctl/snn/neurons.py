"""Spiking neurons as modules that hold the learnable parameters; the kernels compute with them.

:class:`SpikingLayer` has the neuron of an experiment. :class:`PLIF` and :class:`LIF` are the same for networks of one's
own, beside any other modules of torch.
"""

from __future__ import annotations

import operator
from contextlib import suppress
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from plifctl.config.choices import NeuronKind
from plifctl.config.network import NeuronSpec
from plifctl.errors import UsageError
from plifctl.snn.functional import Dynamics, tau_to_a
from plifctl.snn.kernels import spiking_stage


class SpikingLayer(nn.Module):
    """A layer of PLIF or LIF neurons.

    Its parameters are exactly the learnt ones: for PLIF ``a`` with k(a) = sigmoid(a) = 1/τ (Eq. 6), and on request of
    the spec ``v_threshold`` and ``log_width``, the logarithm of the surrogate's width, which keeps the width positive.

    Args:
        spec: The neuron.
        shape: Shape of the layer, ``(C, H, W)`` or ``(F,)``; it decides the shape of ``a`` alone.

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
        tau_shape = {"layer": (), "channel": (*shape[:1], *(1 for _ in shape[1:])), "neuron": shape}[spec.tau_per]
        self._add_parameter("a", torch.full(tau_shape, tau_to_a(spec.start_tau)) if spec.kind == "plif" else None)
        self._add_parameter("v_threshold", torch.tensor(spec.v_threshold) if spec.learn_threshold else None)
        log_width = torch.tensor(spec.surrogate_width).log()
        self._add_parameter("log_width", log_width if spec.learn_surrogate_width else None)

    def _add_parameter(self, name: str, start: Tensor | None) -> None:
        self.register_parameter(name, None if start is None else nn.Parameter(start))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the spikes of a sequence, 0 or 1, of the shape and type of ``x``; neurons start at rest in each call.

        Args:
            x: Input ``[T, N, ...]``: time steps, samples, and any further dimensions. Half precision is computed in
                float32; whole numbers become float32.

        Raises:
            ValueError: The input is not of that shape, or not of the shape of the neurons that have τ of their own.
        """
        x = x if x.is_floating_point() else x.float()
        dynamics, sample = self.dynamics(x), x.shape[2:]
        k = dynamics.k
        if x.dim() < 2 or k.shape not in ((), sample, (*sample[:1], *(1 for _ in sample[1:]))):
            neurons = f", and τ has the shape {list(k.shape)}" if k.dim() else ""
            raise ValueError(f"found an input of shape {list(x.shape)}, expected [T, N, ...]{neurons}")
        if len(sample) in (1, 3):
            return spiking_stage(x, len(x), dynamics).pooled.to(x.dtype)
        features = dynamics._replace(k=k.expand(sample).flatten() if k.dim() else k)
        spikes = spiking_stage(x.reshape(*x.shape[:2], sample.numel()), len(x), features).pooled
        return spikes.view(x.shape).to(x.dtype)

    def dynamics(self, x: Tensor) -> Dynamics:
        """Returns the parameters for the kernels, on the device and in the type (at least float32) of input ``x``."""
        spec = self.spec
        dtype = torch.promote_types(x.dtype, torch.float32)

        def in_dtype(learnt: Tensor | None, fixed: float) -> Tensor:
            return x.new_full((), fixed, dtype=dtype) if learnt is None else learnt.to(dtype)

        return Dynamics(
            in_dtype(None if self.a is None else self.a.sigmoid(), 1.0 / spec.start_tau),
            in_dtype(self.v_threshold, spec.v_threshold),
            spec.v_reset,
            spec.reset == "soft",
            spec.detach_reset,
            spec.surrogate,
            in_dtype(None if self.log_width is None else self.log_width.exp(), spec.surrogate_width),
            self.leak,
        )

    @property
    def tau(self) -> float:
        """Membrane time constant in time steps, the mean where there are several; infinite where 1/τ is 0."""
        return self.spec.start_tau if self.a is None else float(self.a.sigmoid().reciprocal().mean().item())

    def extra_repr(self) -> str:
        return f"{self.spec.kind}, tau={self.tau:.4g}, per {self.spec.tau_per}, {self.spec.surrogate}"


class PLIF(SpikingLayer):
    """Neurons that learn their time constant, for networks of one's own; the defaults are those of the paper.

    Args:
        tau_0: Time constant before training, in time steps, above 1.
        shape: Shape of a sample, ``(C, H, W)`` or ``(F,)``; for ``tau_per`` ``channel`` and ``neuron`` only.
        settings: Other values of :class:`~plifctl.config.network.NeuronSpec`, e.g. ``v_threshold=0.5, reset="soft"``.

    Raises:
        UsageError: Unknown or invalid settings, or the shape is missing.

    Example:
        >>> net = nn.Sequential(nn.Linear(20, 5), PLIF(tau_0=4.0))
        >>> net(torch.rand(8, 3, 20)).shape  # [T, N, F]
        torch.Size([8, 3, 5])
    """

    def __init__(self, tau_0: float = 2.0, *, shape: tuple[int, ...] = (), **settings: Any) -> None:
        spec = _paper_neuron("plif", {"tau_0": tau_0}, settings)
        sizes = _as_sizes(shape)
        if spec.tau_per != "layer" and not sizes:
            raise UsageError(f"PLIF: tau_per {spec.tau_per} needs the shape of a sample", hint="shape=(C, H, W)")
        super().__init__(spec, sizes)


class LIF(SpikingLayer):
    """Neurons of a fixed time constant, for networks of one's own; the defaults are those of the paper.

    Args:
        tau: Time constant in time steps, above 1.
        settings: See :class:`PLIF`.

    Raises:
        UsageError: Unknown or invalid settings.
    """

    def __init__(self, tau: float = 2.0, **settings: Any) -> None:
        super().__init__(_paper_neuron("lif", {"tau": tau}, settings), ())


def _as_sizes(shape: Any) -> tuple[int, ...]:
    """Returns the user's shape as integers; those of numpy are ones, True and False are not.

    Raises:
        UsageError: It is no tuple or list of whole numbers above 0.
    """
    if isinstance(shape, tuple | list) and not any(isinstance(size, bool) for size in shape):
        with suppress(TypeError):  # not a whole number
            sizes = tuple(map(operator.index, shape))
            if all(size > 0 for size in sizes):
                return sizes
    raise UsageError(f"PLIF: shape: found {shape!r}, expected whole numbers above 0", hint="shape=(C, H, W)")


def _paper_neuron(kind: NeuronKind, start: dict[str, float], settings: dict[str, Any]) -> NeuronSpec:
    """Returns the paper's neuron with another time constant ``start`` and other settings."""
    if wrong := settings.keys() & {"kind", "tau", "tau_0"}:
        (own,) = start
        raise UsageError(f"{kind.upper()}: no argument {min(wrong)}; its time constant is {own}")
    paper = {"v_threshold": 1.0, "v_reset": 0.0, "surrogate": "arctan", "detach_reset": True}
    try:
        return NeuronSpec(kind=kind, **{**paper, **start, **settings})
    except ValidationError as error:
        from plifctl.config.problems import first_problem

        raise UsageError(f"{kind.upper()}: {first_problem(error)}") from None
