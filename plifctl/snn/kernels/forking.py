"""Refuses processes that were forked after a network had started threads, which a fork does not copy.

GNU OpenMP, which torch and numba share on Linux, waits for these threads for ever, or numba ends the process.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch

from plifctl.errors import RunError

_owner: int | None = None
"""Process that started the threads; None: they are not started, or can be forked."""


def own_threads() -> None:
    """Notes that this process has started threads that cannot be forked."""
    global _owner
    _owner = os.getpid()


def check_not_forked(device: torch.device) -> None:
    """Called before a network computes; notes that this process does, if that takes threads that cannot be forked.

    Raises:
        RunError: It computes on a CPU, in a process that was forked from one with such threads.
    """
    if device.type != "cpu":
        return
    if _owner is None:
        if torch.get_num_threads() > 1 and _has_gnu_openmp():
            own_threads()
    elif _owner != os.getpid():
        raise RunError(
            "a network cannot run on the CPU in this process: it was forked from one in which a network had run",
            hint='start processes with multiprocessing.get_context("spawn")',
        )


@cache
def _has_gnu_openmp() -> bool:
    """Returns whether torch, which is loaded, computes with GNU OpenMP; False where the system does not say it."""
    try:
        return "libgomp" in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
