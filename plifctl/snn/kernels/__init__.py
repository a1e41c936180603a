"""Spiking layers with batch norm and pooling, and dropout: one definition, and faster implementations by device."""

from __future__ import annotations

import math
import os
from importlib.util import find_spec
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from plifctl.config.choices import Kernel
from plifctl.snn.functional import Dynamics
from plifctl.snn.kernels import reference
from plifctl.snn.kernels.forking import check_not_forked
from plifctl.snn.kernels.stage import run_stage
from plifctl.snn.keyed_random import hash_keys, held_dropout_mask
from plifctl.snn.layers import BatchNorm, Conv, Pool


def unsupported_reason(kernel: Kernel, device: torch.device) -> str | None:
    """Returns why a kernel cannot run on a device; None where it can."""
    if kernel == "fused" and device.type != "cpu":
        return f"runs on the CPU, not on {device}"
    if kernel == "triton" and find_spec("triton") is None:
        return "Triton is not installed"
    if kernel == "triton" and device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"runs on GPUs, not on {device}"
    return None


def apply_synapses(layer: Conv | nn.Linear, x: Tensor, kernel: Kernel = "auto") -> Tensor:
    """Applies the weights of a convolution or of a fully connected layer.

    Args:
        layer: The layer.
        x: Input ``[T, N, C, H, W]``, or ``[T, N, F]``; for a fully connected layer any shape of F values.
        kernel: ``eager``, ``compiled`` and ``triton`` are the dense product; ``fused``, and ``auto`` on a CPU, compute
            only where ``x`` is not zero, if that is faster for this layer and this share of active inputs. A layer with
            hooks is called as a module.
    """
    x = x.flatten(2) if isinstance(layer, nn.Linear) else x
    if not _may_be_event_driven(layer, x, kernel):
        dense: Tensor = layer(x)
        return dense
    from plifctl.snn.kernels import event_driven  # numba takes half a second to import

    return event_driven.apply(layer, x)


def _may_be_event_driven(layer: Conv | nn.Linear, x: Tensor, kernel: Kernel) -> bool:
    exact = x.dtype == layer.weight.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled("cpu")
    on_cpu = kernel in ("auto", "fused") and x.device.type == "cpu"
    return on_cpu and exact and not _has_hooks(layer) and not _is_traced()


def _is_traced() -> bool:
    """Returns whether torch records a program (``torch.jit.trace``, ``torch.export``), which compiled loops cannot."""
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return tracing or torch.compiler.is_exporting()


def _has_hooks(layer: nn.Module) -> bool:
    """Returns whether calling the layer does more than its forward: hooks, some of which make its weights anew."""
    kinds = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(kinds)


Kept = Literal["all", "input and output", "input"]
"""What a stage keeps of its convolution for the gradients: both as they are, or the input packed, with the output or
without; it is then computed again."""


class StageOutput(NamedTuple):
    """Output of a spiking stage.

    Attributes:
        pooled: Spikes after pooling, ``[T, N, ...]``.
        spike_count: Number of spikes before pooling, a float64 scalar.
        neuron_steps: Largest number possible: neurons times steps times samples.
    """

    pooled: Tensor
    spike_count: Tensor
    neuron_steps: int


def spiking_stage(
    x: Tensor,
    T: int,
    dynamics: Dynamics,
    norm: BatchNorm | None = None,
    pooling: Pool | None = None,
    kernel: Kernel = "auto",
    synapses: Conv | nn.Linear | None = None,
    keep: Kept = "all",
) -> StageOutput:
    """Runs synapses, batch norm, leaky integrate-and-fire neurons starting from V_{−1} = V_reset, and pooling.

    Args:
        x: Input ``[T, N, C, H, W]`` or ``[T, N, F]``; a first dimension of 1 means the same input at every step. Half
            precision (from convolutions under autocast) is computed in float32: potentials accumulate small changes.
        T: Number of time steps.
        dynamics: The neurons.
        norm: Batch norm before them.
        pooling: Pooling of their spikes, in windows that do not overlap.
        kernel: ``eager`` is the definition, step by step; ``compiled`` is torch.compile of it; ``fused`` one compiled
            pass on the CPU; ``triton`` the same on a GPU, where spikes have the precision of ``x``; ``auto`` is fused
            on a CPU and eager elsewhere. Neurons with another ``leak`` than k are computed by the definition, and so
            are all while torch traces or exports a program, which needs operations of torch.
        synapses: Convolution or fully connected layer before batch norm (:func:`apply_synapses`).
        keep: What is kept for the gradients; fused kernel only. Results are the same.

    Raises:
        ValueError: ``x`` has neither ``T`` steps nor one.
        RunError: On a CPU, in a process that was forked after a network had run.

    Source: Eq. 2–6; gradients Eq. 8–16.
    """
    if len(x) not in (1, T):  # compiled loops would read behind its end
        raise ValueError(f"found an input of {len(x)} time steps, expected T = {T}, or 1 for all of them")
    if _is_traced():
        kernel = "eager"
    else:
        check_not_forked(x.device)
    kernel = kernel if dynamics.leak is None else "eager"
    if isinstance(synapses, Conv) and x.numel() and _may_be_event_driven(synapses, x, kernel):
        whole = _stage_of_convolution(x, T, dynamics, norm, pooling, synapses, keep)
        if whole is not None:
            return whole
    if synapses is not None:
        x = apply_synapses(synapses, x, kernel)
    if kernel == "triton":
        from plifctl.snn.kernels import triton

        pooled, count = run_stage(x, T, dynamics, norm, pooling, triton)
    elif kernel == "fused" or (kernel == "auto" and x.device.type == "cpu"):
        from plifctl.snn.kernels import cpu  # numba takes half a second to import

        pooled, count = run_stage(_at_least_float32(x), T, dynamics, norm, pooling, cpu)
    elif kernel == "compiled":
        from plifctl.snn.kernels import compiled  # torch.compile takes seconds to import

        pooled, count = compiled.run_stage_compiled(_at_least_float32(x), T, dynamics, norm, pooling)
    else:
        pooled, count = reference.run_stage_eager(_at_least_float32(x), T, dynamics, norm, pooling)
    return StageOutput(pooled, count, T * math.prod(x.shape[1:]))


def _stage_of_convolution(
    x: Tensor,
    T: int,
    dynamics: Dynamics,
    norm: BatchNorm | None,
    pooling: Pool | None,
    layer: Conv,
    keep: Kept,
) -> StageOutput | None:
    """Runs a stage together with its convolution on a CPU; None where it is run after the convolution."""
    if torch.is_grad_enabled():
        from plifctl.snn.kernels import convolution_stage, patches  # numba takes half a second to import

        few_inputs = patches.pays(layer, x)
        if keep == "all" and not few_inputs:
            return None
        return StageOutput(
            *convolution_stage.run_convolution_stage(
                x, T, layer, dynamics, norm, pooling, few_inputs=few_inputs, keep_output=keep != "input"
            )
        )
    if len(x) < T or (norm is not None and norm.training):
        return None
    from plifctl.snn.kernels import event_driven

    found = event_driven.evaluate_stage(x, layer, dynamics, norm, pooling)
    return None if found is None else StageOutput(*found)


def spiking_step(x: Tensor, v: Tensor | None, dynamics: Dynamics) -> tuple[Tensor, Tensor]:
    """Runs one time step of a layer of neurons by the definition.

    Args:
        x: Input of the step, ``[N, ...]``.
        v: Membrane potential after the previous step; None: V_reset.
        dynamics: The neurons.

    Returns:
        Spikes and membrane potential after the step.
    """
    x = _at_least_float32(x)
    return reference.step(x, torch.full_like(x, dynamics.v_reset) if v is None else v, dynamics)


def held_dropout(x: Tensor, keys: Tensor, layer: int, p: float, kernel: Kernel = "auto") -> Tensor:
    """Drops features of each sample, the same at all time steps.

    Args:
        x: ``[T, N, ...]``.
        keys: int64 ``[N]``, one per sample, for all layers.
        layer: Number of this layer; each layer draws its own mask.
        p: Probability of dropping.
        kernel: ``triton`` draws a mask in one launch; the others use the definition.

    Source: see :func:`~plifctl.snn.keyed_random.held_dropout_mask`.
    """
    if p == 0:
        return x
    features = x.shape[2:].numel()
    if kernel == "triton":
        from plifctl.snn.kernels import triton

        mask = triton.dropout_mask(keys, layer, features, p)
    else:
        mask = held_dropout_mask(hash_keys(keys, layer), features, p)
    return x * mask.view(x.shape[1:]).to(x.dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype.itemsize < 4 else x
