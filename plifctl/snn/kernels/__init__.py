"""The scan over time of a spiking layer: one definition, faster versions of it, chosen by device."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from plifctl.snn.kernels.eager import scan_eager

Kernel = Literal["auto", "eager", "fused"]


def scan(
    x: Tensor, k: Tensor, *, v_threshold: float, v_reset: float, detach_reset: bool, kernel: Kernel = "auto"
) -> Tensor:
    """Runs a layer of leaky integrate-and-fire neurons over a whole sequence, starting from V_{−1} = V_reset.

    Args:
        x: Input ``[T, ...]``.
        k: 1/τ of the layer, a scalar tensor; receives a gradient if it requires one.
        v_threshold: Firing threshold.
        v_reset: Reset potential.
        detach_reset: Leave the spike of the reset out of the gradient.
        kernel: ``eager`` is the definition, step by step; ``fused`` one compiled pass on the CPU; ``auto`` the fastest
            that serves ``x``.

    Returns:
        Spikes ``[T, ...]``, 0 or 1, in the dtype of ``x``.

    Source: Eq. 2–6; gradients Eq. 8–16.
    """
    if kernel == "fused" or (kernel == "auto" and x.device.type == "cpu" and x.dtype.itemsize >= 4):
        from plifctl.snn.kernels.fused import scan_fused  # numba takes half a second to import

        return scan_fused(x, k, v_threshold, v_reset, detach_reset)
    return scan_eager(x, k, v_threshold, v_reset, detach_reset)
