"""Memory: kept from step to step, and how one knows that it ran out."""

from __future__ import annotations

import ctypes

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def keep_freed_memory() -> bool:
    """Asks the C library to keep what is freed for what is asked for next, until the process ends.

    Each step asks for the same large tensors. By itself glibc gives each of them back to the system when it is freed
    and gets it anew, page by page, every page filled with zeros first: that takes a good part of a step.

    Returns:
        Whether this C library can be asked.

    Source: mallopt(3).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory is what ran out: of the CPU's, and of some devices', torch says so in words only."""
    words = ("out of memory", "not enough memory", "can't allocate memory", "ALLOC_FAILED")
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or (isinstance(error, RuntimeError) and any(word in str(error) for word in words))
