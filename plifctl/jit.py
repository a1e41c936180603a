"""Loops compiled by numba: machine code is kept beside the source, or in the user's cache, from the first call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.compiler import Compiler
from numba.extending import intrinsic


class _Unaliased(Compiler):
    """Tells LLVM that array arguments do not overlap; unsure of it, it does not vectorise loops over many of them."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()  # type: ignore[no-untyped-call]


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


def inlined(function: Callable[..., Any]) -> Any:
    """Compiles an inner loop into the compiled functions that call it; its array arguments must not overlap."""
    return numba.njit(function, nogil=True, error_model="numpy", forceinline=True, pipeline_class=_Unaliased)


LINE = 64
"""Bytes that a processor fetches at once."""


@intrinsic
def _prefetch_line(typingctx: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = context.make_array(array)(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        call = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch")  # type: ignore[no-untyped-call]
        address = builder.bitcast(builder.gep(start, [arguments[1]]), byte)
        builder.call(call, [address, word(0), word(3), word(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(array, types.intp), generate


@inlined
def prefetch(row):  # type: ignore[no-untyped-def]
    """Asks for a row of memory that is about to be needed: after a jump the processor cannot tell which that is."""
    for item in range(0, len(row), LINE // row.itemsize):
        _prefetch_line(row, item)  # type: ignore[call-arg]
