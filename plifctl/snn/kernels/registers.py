"""Vector registers: sums of rows, the primitive of event-driven products; combinations; masks; prefetching.

A product with spikes adds up a few rows of a matrix, for each output the rows of its active inputs. A compiler keeps
the sums in memory, and loads and stores them for every row; here they stay in registers from the first row to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic


def _vector_bytes() -> int:
    """Returns the width of a vector register that numba compiles for (NUMBA_CPU_FEATURES takes precedence)."""
    features = numba.config.CPU_FEATURES  # type: ignore[attr-defined]
    # numba's own function: of processors for which it does not use AVX, it leaves AVX out
    known = get_host_cpu_features() if features is None else features  # type: ignore[no-untyped-call]
    return 64 if "+avx512f" in known else 32 if "+avx2" in known else 16


VECTOR_BYTES = _vector_bytes()

MAX_VECTORS = 8
"""Vectors that are summed at once: as many as hide the latency of an addition, and leave registers for the rest."""


def _sum_rows_of(vectors: int) -> Any:
    """Returns the compiled sum for a number of vectors."""

    @intrinsic
    def sum_rows(typing, rows, base, stride, index, value, begin, end, out, at):  # type: ignore[no-untyped-def]
        signature = types.void(rows, types.intp, types.intp, index, value, types.intp, types.intp, out, types.intp)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            def data(position: int) -> Any:
                make = context.make_array(signature.args[position])
                return make(context, builder, arguments[position]).data

            _emit_sum(
                context, builder, signature.args[0].dtype, vectors, data(0), arguments[1], arguments[2], data(3),
                data(4), arguments[5], arguments[6], builder.gep(data(7), [arguments[8]]),
            )  # fmt: skip
            return context.get_dummy_value()

        return signature, generate

    return sum_rows


def _emit_sum(  # type: ignore[no-untyped-def]
    context, builder, dtype, vectors, rows, base, stride, index, value, begin, end, out
) -> None:
    """Emits ``out += Σ value[j] · rows[base + index[j] · stride:]`` over j from begin to end."""
    size = dtype.bitwidth // 8
    lanes = VECTOR_BYTES // size
    integer, scalar = ir.IntType(64), context.get_value_type(dtype)
    vector = ir.VectorType(scalar, lanes)
    undefined = ir.Constant(vector, ir.Undefined)
    multiply_add = _multiply_add(builder, vector)

    def pointers(start: Any) -> list[Any]:
        places = (builder.gep(start, [ir.Constant(integer, lanes * part)]) for part in range(vectors))
        return [builder.bitcast(place, vector.as_pointer()) for place in places]

    def load(pointer: Any) -> Any:
        loaded = builder.load(pointer)
        loaded.align = size  # rows may begin anywhere
        return loaded

    targets = pointers(out)
    before = [load(target) for target in targets]
    entry, loop, after = builder.block, builder.append_basic_block("rows"), builder.append_basic_block("summed")
    builder.cbranch(builder.icmp_signed("<", begin, end), loop, after)

    builder.position_at_end(loop)
    j = builder.phi(integer)
    j.add_incoming(begin, entry)
    sums = [builder.phi(vector) for _ in range(vectors)]
    for total, start in zip(sums, before, strict=True):
        total.add_incoming(start, entry)
    row = builder.zext(builder.load(builder.gep(index, [j])), integer)
    first = builder.gep(rows, [builder.add(base, builder.mul(row, stride))])
    lane0 = builder.insert_element(undefined, builder.load(builder.gep(value, [j])), ir.Constant(ir.IntType(32), 0))
    factor = builder.shuffle_vector(lane0, undefined, ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes))
    added = [
        builder.call(multiply_add, [factor, load(place), total])
        for place, total in zip(pointers(first), sums, strict=True)
    ]
    following = builder.add(j, ir.Constant(integer, 1))
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    j.add_incoming(following, loop)
    for total, new in zip(sums, added, strict=True):
        total.add_incoming(new, loop)

    builder.position_at_end(after)
    results = [builder.phi(vector) for _ in range(vectors)]
    for result, start, new in zip(results, before, added, strict=True):
        result.add_incoming(start, entry)
        result.add_incoming(new, loop)
    for result, target in zip(results, targets, strict=True):
        builder.store(result, target).align = size


def _multiply_add(builder: Any, vector: Any) -> Any:
    """Returns a · b + c of vectors: one instruction where the processor has it, else two.

    llvm.fma would call a function for each value.
    """
    function, kind = ir.FunctionType(vector, [vector] * 3), f"v{vector.count}{vector.element.intrinsic_name}"
    return cgutils.get_or_insert_function(builder.module, function, f"llvm.fmuladd.{kind}")  # type: ignore[no-untyped-call]


_sum_8, _sum_4, _sum_2, _sum_1 = map(_sum_rows_of, (MAX_VECTORS, 4, 2, 1))


@numba.njit(nogil=True, error_model="numpy", inline="always")
def sum_rows(rows, base, stride, index, value, begin, end, out, at, vectors):  # type: ignore[no-untyped-def]
    """Adds ``Σ value[j] · rows[base + index[j] · stride : …]`` over j from begin to end to ``out[at : …]``.

    Args:
        rows: Flat array of floats.
        base: Where row 0 begins in it.
        stride: Distance between rows.
        index: Row numbers, uint16 or uint32.
        value: Factor of each row.
        begin: First j.
        end: Last j + 1.
        out: Flat array of the same type.
        at: Where the sums begin in it.
        vectors: Number of vectors of :data:`VECTOR_BYTES` in a sum: 8, 4, 2 or 1.
    """
    if vectors == 8:
        _sum_8(rows, base, stride, index, value, begin, end, out, at)
    elif vectors == 4:
        _sum_4(rows, base, stride, index, value, begin, end, out, at)
    elif vectors == 2:
        _sum_2(rows, base, stride, index, value, begin, end, out, at)
    else:
        _sum_1(rows, base, stride, index, value, begin, end, out, at)


def combine_vectors(matrix: Sequence[Sequence[float]]) -> Any:
    """Returns a compiled function that multiplies a constant matrix by vectors; factors 0 and ±1 cost no product.

    ``combine(source, at, step, out, to, out_step)`` reads a vector of :data:`VECTOR_BYTES` of the flat array
    ``source`` at ``at + step · column`` for each column, and writes one to the flat array ``out`` at
    ``to + out_step · row`` for each row. They may overlap: everything is read before anything is written.

    Raises:
        ValueError: A row has no factor 1, with which its sum begins.
    """
    if not all(1 in row for row in matrix):
        raise ValueError("a row has no factor 1")

    @intrinsic
    def combine(typing, source, at, step, out, to, out_step):  # type: ignore[no-untyped-def]
        signature = types.void(source, types.intp, types.intp, out, types.intp, types.intp)

        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            dtype = signature.args[0].dtype
            size = dtype.bitwidth // 8
            vector = ir.VectorType(context.get_value_type(dtype), VECTOR_BYTES // size)

            def places(position: int, count: int) -> list[Any]:
                array = context.make_array(signature.args[position])(context, builder, arguments[position])
                start, step = arguments[position + 1 : position + 3]
                offsets = [builder.add(start, builder.mul(step, ir.IntType(64)(number))) for number in range(count)]
                return [builder.bitcast(builder.gep(array.data, [at]), vector.as_pointer()) for at in offsets]

            loaded = [builder.load(place) for place in places(0, len(matrix[0]))]
            for value in loaded:
                value.align = size
            rows = [_emit_combination(builder, vector, row, loaded) for row in matrix]
            for row, place in zip(rows, places(3, len(matrix)), strict=True):
                builder.store(row, place).align = size
            return context.get_dummy_value()

        return signature, generate

    return combine


def _emit_combination(builder: Any, vector: Any, factors: Sequence[float], values: Sequence[Any]) -> Any:
    """Emits the sum of ``factors[i] · values[i]``, and returns it."""
    multiply_add, first = _multiply_add(builder, vector), factors.index(1)
    total = values[first]
    for index, (factor, value) in enumerate(zip(factors, values, strict=True)):
        if factor == 0 or index == first:
            continue
        if abs(factor) == 1:
            total = builder.fadd(total, value) if factor == 1 else builder.fsub(total, value)
        else:
            total = builder.call(multiply_add, [ir.Constant(vector, [float(factor)] * vector.count), value, total])
    return total


MASK_LANES = 32
"""Values that :func:`active_mask` reads."""


@intrinsic
def _active_mask(typing, x, at):  # type: ignore[no-untyped-def]
    signature = types.uint32(x, types.intp)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        dtype = signature.args[0].dtype
        vector = ir.VectorType(context.get_value_type(dtype), MASK_LANES)
        start = builder.gep(context.make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]])
        values = builder.load(builder.bitcast(start, vector.as_pointer()))
        values.align = dtype.bitwidth // 8
        return builder.bitcast(builder.fcmp_unordered("!=", values, ir.Constant(vector, None)), ir.IntType(32))

    return signature, generate


@numba.njit(nogil=True, error_model="numpy", inline="always")
def active_mask(x, at):  # type: ignore[no-untyped-def]
    """Returns a bit for each of 32 values of the flat array ``x`` from ``at`` on: 1 where the value is not zero."""
    return _active_mask(x, at)  # type: ignore[call-arg]


CACHE_LINE = 64
"""Bytes that the processor reads at once."""


@intrinsic
def _prefetch(typing, x, at):  # type: ignore[no-untyped-def]
    signature = types.void(x, types.intp)

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), ir.IntType(8).as_pointer())
        number = ir.IntType(32)
        read, every_cache, of_data = (ir.Constant(number, choice) for choice in (0, 3, 1))
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], kind)
        builder.call(prefetch, [pointer, read, every_cache, of_data])
        return context.get_dummy_value()

    return signature, generate


@numba.njit(nogil=True, error_model="numpy", inline="always")
def prefetch(x, at):  # type: ignore[no-untyped-def]
    """Begins to read the cache line of the flat array ``x`` at ``at``; results are the same without it."""
    _prefetch(x, at)  # type: ignore[call-arg]
