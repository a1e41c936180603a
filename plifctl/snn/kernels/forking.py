"""Refuses processes that were forked after the compiled loops had started their threads, which a fork does not copy.

GNU OpenMP, which torch and numba share on Linux, waits for these threads for ever, or numba ends the process.
"""

from __future__ import annotations

import os

import torch

from plifctl.errors import RunError

_owner: int | None = None
"""Process that started the threads; None: they are not started, or can be forked."""


def own_threads() -> None:
    """Notes that this process has started threads that cannot be forked."""
    global _owner
    _owner = os.getpid()


def check_not_forked(device: torch.device) -> None:
    """Raises RunError in a process that was forked from the one with the threads, if it computes on a CPU."""
    if _owner is not None and _owner != os.getpid() and device.type == "cpu":
        raise RunError(
            "a network cannot run on the CPU in this process: it was forked from one in which a network had run",
            hint='start processes with multiprocessing.get_context("spawn")',
        )
