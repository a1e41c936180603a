"""Choosing the torch device that a verb runs on."""

from __future__ import annotations

import textwrap
from typing import get_args

import torch

from plifctl.config.choices import Kernel
from plifctl.errors import UsageError, check_choice
from plifctl.snn.kernels import unsupported_reason


def choose_device(name: str | None, kernel: Kernel = "auto") -> torch.device:
    """Returns the torch device of that name; for None a GPU where there is one, else the CPU.

    Raises:
        UsageError: There is no such device here, or the kernel does not support it.
    """
    check_choice("kernel", kernel, get_args(Kernel))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu") if name is None else _named_device(name)
    if (why := unsupported_reason(kernel, device)) is not None:
        raise UsageError(f"--kernel {kernel}: {why}", hint="omit --kernel, or choose another device with --device")
    return device


def _named_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # the device "meta" has tensors without content
    except Exception as error:  # torch raises many types for a device that it was built without
        # without an operator for the device, torch names every backend that has one: thousands of characters
        line = textwrap.shorten((str(error).splitlines() or [type(error).__name__])[0], 120, placeholder=" …")
        raise UsageError(
            f"--device {name}: torch {torch.__version__} cannot use it here: {line}",
            hint="--device cpu works everywhere",
        ) from None
    return device
