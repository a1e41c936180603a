"""Loops compiled by numba: machine code is kept beside the source, or in the user's cache, from the first call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Returns a decorator that compiles a function at its first call; other threads run while it runs.

    Args:
        parallel: Spread ``numba.prange`` over the cores.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "parallel": parallel}

    def compile_lazily(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(function, cache=True, **options)
        except RuntimeError:  # nowhere to keep compiled code: neither beside the source nor at home
            return numba.njit(function, **options)

    return compile_lazily
