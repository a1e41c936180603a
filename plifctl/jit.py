"""Loops compiled by numba; machine code is cached beside the source, or in the user's cache directory.

Modules of loops that threads import, those of :mod:`plifctl.data`, import numba and llvmlite through this module only:
two threads that enter these libraries by different modules would wait for each other, and Python would give one of them
half a module.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from llvmlite import ir
from numba.core.caching import FunctionCache
from numba.core.compiler import Compiler
from numba.extending import intrinsic


class _NoAliasCompiler(Compiler):
    """Tells LLVM that array arguments do not overlap; otherwise it does not vectorise loops over many of them."""

    def define_pipelines(self) -> Any:
        self.state.flags.noalias = True
        return super().define_pipelines()  # type: ignore[no-untyped-call]


class _RepairedCache(FunctionCache):
    """Machine code on disk; damaged files, such as an empty index after a full disk, are replaced, not an error.

    Numba compares the file of a function only. A function also has the code of those that it calls, from other files.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]
        with suppress(OSError):  # in an archive or a frozen program numba has its own way
            self._cache_file._source_stamp = [_digest(file) for file in sorted(_source_files(function))]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Returns the machine code of a signature; None if there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)  # type: ignore[no-untyped-call]
        except Exception:  # pickle and LLVM raise many types
            with suppress(OSError):
                self.flush()  # type: ignore[no-untyped-call]
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Saves machine code; where a damaged file cannot be replaced, nothing is saved."""
        with suppress(Exception):
            super().save_overload(sig, data)  # type: ignore[no-untyped-call]


def _source_files(function: Callable[..., Any]) -> set[str]:
    """Returns the files of a function, of the compiled functions that it may call, and of what compiles them."""
    files, functions = {__file__}, [function]
    while functions:
        one = functions.pop()
        if one.__code__.co_filename not in files:
            files.add(one.__code__.co_filename)
            for value in one.__globals__.values():  # compiled functions, and intrinsics
                functions += [getattr(value, name) for name in ("py_func", "_defn") if hasattr(value, name)]
    return files


@cache
def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()


def compiled(*, parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """Returns a decorator that compiles a function at its first call; it releases the GIL while it runs.

    Args:
        parallel: Distribute ``numba.prange`` over the cores.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "parallel": parallel}

    def compile_lazily(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(function, **options)
        with suppress(RuntimeError):  # no writable cache directory, neither beside the source nor in the home directory
            dispatcher._cache = _RepairedCache(dispatcher.py_func)
        return dispatcher

    return compile_lazily


def inlined(function: Callable[..., Any]) -> Any:
    """Compiles an inner loop into the compiled functions that call it; its array arguments must not overlap."""
    return numba.njit(function, nogil=True, error_model="numpy", forceinline=True, pipeline_class=_NoAliasCompiler)


def _build_count_ones(_: Any, word: Any) -> Any:
    return word(word), lambda context, builder, signature, args: builder.ctpop(args[0])


def _build_lowest_one(_: Any, word: Any) -> Any:
    zero_is_undefined = ir.Constant(ir.IntType(1), 1)
    return word(word), lambda context, builder, signature, args: builder.cttz(args[0], zero_is_undefined)


count_ones: Any = intrinsic(_build_count_ones)
"""Returns the number of bits of a word that are set."""

lowest_one: Any = intrinsic(_build_lowest_one)
"""Returns the place of the lowest bit that is set, of a word that is not 0."""
