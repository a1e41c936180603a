"""Loops compiled by numba; machine code is cached beside the source, or in the user's cache directory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core.compiler import Compiler


class _NoAliasCompiler(Compiler):
    """Tells LLVM that array arguments do not overlap; otherwise it does not vectorise loops over many of them."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()  # type: ignore[no-untyped-call]


def compiled(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Returns a decorator that compiles a function at its first call; it releases the GIL while it runs.

    Args:
        parallel: Distribute ``numba.prange`` over the cores.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "parallel": parallel}

    def compile_lazily(function: Callable[..., Any]) -> Any:
        try:
            return numba.njit(function, cache=True, **options)
        except RuntimeError:  # no writable cache directory, neither beside the source nor in the home directory
            return numba.njit(function, **options)

    return compile_lazily


def inlined(function: Callable[..., Any]) -> Any:
    """Compiles an inner loop into the compiled functions that call it; its array arguments must not overlap."""
    return numba.njit(function, nogil=True, error_model="numpy", forceinline=True, pipeline_class=_NoAliasCompiler)
