"""Choosing the torch device that a verb runs on."""

from __future__ import annotations

import os
import textwrap
from typing import get_args

import torch

from plifctl.config.choices import Kernel
from plifctl.config.experiment import ExperimentSpec
from plifctl.errors import UsageError, check_choice, first_line
from plifctl.snn.kernels import unsupported_reason
from plifctl.snn.networks import SpikingNetwork
from plifctl.training.kernel_selection import select_kernel

LESS_MEMORY_HINT = "--device cpu, or end other programs that use the device's memory"
"""What to do if the device runs out of memory in evaluation."""


def choose_device(name: str | None, kernel: Kernel = "auto") -> torch.device:
    """Returns the torch device of that name; for None a GPU where there is one, else the CPU.

    Raises:
        UsageError: There is no such device here, it cannot be used, or the kernel does not support it.
    """
    device = find_device(name, kernel)
    open_device(device)
    return device


def find_device(name: str | None, kernel: Kernel = "auto") -> torch.device:
    """Returns the same device without opening it: a GPU in exclusive mode remains free for another process.

    Raises:
        UsageError: There is no such device here, or the kernel does not support it.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    name = name or os.environ.get("PLIFCTL_DEVICE") or None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name is None else _named_device(name)
    if (why := unsupported_reason(kernel, device)) is not None:
        raise UsageError(f"--kernel {kernel}: {why}", hint="omit --kernel, or choose another device with --device")
    return device


def use_remembered_kernel(network: SpikingNetwork, spec: ExperimentSpec, device: torch.device) -> None:
    """Makes the kernel ``auto`` of a trained network mean, on a GPU, the one that trials chose for its training there.

    The network can be moved to a CPU, where ``auto`` is the fused kernel. The compiled definition is not used:
    compiling takes longer than most evaluations.
    """
    if device.type == "cuda":
        chosen = select_kernel(spec, device, trials="later").kernel
        network.gpu_kernel = "eager" if chosen == "compiled" else chosen


def open_device(device: torch.device) -> None:
    """Uses a device for the first time.

    Raises:
        UsageError: It cannot be used: another process holds a GPU in exclusive mode, or its driver does not work.
    """
    try:
        torch.zeros(1, device=device).item()  # the device "meta" has tensors without content
    except Exception as error:  # torch raises many types for a device that it was built without
        raise _unusable(str(device), error) from None


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except Exception as error:
        raise _unusable(name, error) from None
    if device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
        open_device(device)
    return device


def _unusable(name: str, error: Exception) -> UsageError:
    # without an operator for the device, torch names every backend that has one: thousands of characters
    line = textwrap.shorten(first_line(error), 120, placeholder=" …")
    return UsageError(
        f"--device {name}: torch {torch.__version__} cannot use it here: {line}",
        hint="--device cpu works everywhere",
    )
