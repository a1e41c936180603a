"""The compiled loops of convolutions of few input channels: event frames and images.

The inputs that an output pixel sees, its patch, are few numbers: those that are not zero are listed on the fly. Forward
adds up their weights; the gradient of the weights adds the gradient of the pixel to the rows of the active inputs,
which stay in a core's first cache. Each output is computed by one thread in a fixed order, and each item of a sum has
its own memory, so results do not depend on the number of threads.

Forward and the gradient compute some rows of the output, for which no others are needed.
"""

from __future__ import annotations

import numba
import numpy as np

from plifctl.jit import compiled, inlined
from plifctl.snn.kernels.registers import sum_rows

ROWS_OF_ITEM = 8
"""Rows of the output in an item of the weight gradient."""

FLUSH_AFTER = 1024
"""Pixels whose gradients are summed in the precision of the input, before the sum is added to one in float64."""


@inlined
def _list_columns(x, image, top, kernel, index, value, pointers):  # type: ignore[no-untyped-def]
    """Lists the values that are not zero in ``kernel`` rows from ``top`` on, column by column.

    Args:
        x: ``[M, H, W, C]``.
        image: The image.
        top: The first of the rows, which need not lie in the image.
        kernel: Number of rows.
        index: Result: (column · kernel + row) · C + channel.
        value: Result: the values.
        pointers: Result: where the list of each column begins, ``[W + 1]``.
    """
    _, height, width, channels = x.shape
    found = 0
    for column in range(width):
        pointers[column] = found
        for row in range(max(0, -top), min(kernel, height - top)):
            place = (column * kernel + row) * channels
            for c in range(channels):
                index[found] = place + c
                value[found] = x[image, top + row, column, c]
                found += value[found] != 0
    pointers[width] = found


@compiled(parallel=True)
def convolve(x, weight, bias, kernel, stride, padding, begin, blocks, out):  # type: ignore[no-untyped-def]
    """Computes rows of a convolution.

    Args:
        x: ``[M, H, W, C]``.
        weight: Rows by column, row and channel of a patch, ``[K · K · C, O]``; O is padded to whole vectors.
        bias: ``[O]``.
        kernel: K.
        stride: Distance of output pixels in the input.
        padding: Zeros around the input.
        begin: Row of the convolution that is the first of ``out``.
        blocks: Outputs that are summed together, int64 ``[B, 3]``: the first, their number, and that of vectors.
        out: Result, ``[M, rows, W', O]``.
    """
    images, rows, columns, outputs = out.shape
    width, column_size = x.shape[2], kernel * x.shape[3]
    weights, sums = weight.reshape(weight.size), out.reshape(out.size)
    for item in numba.prange(images * rows):
        image, y = item // rows, item % rows
        index, value = np.empty(width * column_size + 1, np.uint32), np.empty(width * column_size + 1, x.dtype)
        pointers = np.empty(width + 1, np.int64)
        _list_columns(x, image, (begin + y) * stride - padding, kernel, index, value, pointers)
        for z in range(columns):
            left = z * stride - padding
            first, last = pointers[max(0, left)], pointers[min(width, left + kernel)]
            out[image, y, z] = bias
            for block in range(len(blocks)):
                output, _, vectors = blocks[block]
                at = ((image * rows + y) * columns + z) * outputs + output
                origin = output - left * column_size * outputs
                sum_rows(weights, origin, outputs, index, value, first, last, sums, at, vectors)


@inlined
def _add_product(grad, value, total):  # type: ignore[no-untyped-def]
    for o in range(len(total)):
        total[o] += value * grad[o]


@inlined
def _flush(partial, total):  # type: ignore[no-untyped-def]
    for row in range(len(partial)):
        for o in range(partial.shape[1]):
            total[row, o] += partial[row, o]
            partial[row, o] = 0


@compiled(parallel=True)
def weight_gradient(x, grad, kernel, stride, padding, begin, samples, parts, sums):  # type: ignore[no-untyped-def]
    """Sums the products of patches and the gradients of their pixels, for rows of the output.

    Args:
        x: As in :func:`convolve`, like kernel, stride and padding.
        grad: Gradient of the rows, ``[M, rows, W', O]``.
        kernel: See x.
        stride: See x.
        padding: See x.
        begin: Row of the convolution that is the first of ``grad``.
        samples: Images of a step.
        parts: Items that they are divided into.
        sums: Result, float64 ``[rows / ROWS_OF_ITEM, steps · parts, K · K · C, O]``, initialised to zero.
    """
    _, rows, columns, outputs = grad.shape
    size = -(-samples // parts)
    width, column_size = x.shape[2], kernel * x.shape[3]
    for item in numba.prange(sums.shape[0] * sums.shape[1]):
        group, chunk = item // sums.shape[1], item % sums.shape[1]
        index, value = np.empty(width * column_size + 1, np.uint32), np.empty(width * column_size + 1, x.dtype)
        pointers = np.empty(width + 1, np.int64)
        partial, pixels = np.zeros((sums.shape[2], outputs), x.dtype), 0
        step, part = chunk // parts * samples, chunk % parts
        for image in range(step + part * size, step + min(samples, (part + 1) * size)):
            for y in range(group * ROWS_OF_ITEM, min(rows, (group + 1) * ROWS_OF_ITEM)):
                _list_columns(x, image, (begin + y) * stride - padding, kernel, index, value, pointers)
                for z in range(columns):
                    left = z * stride - padding
                    for j in range(pointers[max(0, left)], pointers[min(width, left + kernel)]):
                        _add_product(grad[image, y, z], value[j], partial[index[j] - left * column_size])
                pixels += columns
                if pixels >= FLUSH_AFTER:
                    _flush(partial, sums[group, chunk])
                    pixels = 0
        _flush(partial, sums[group, chunk])


@compiled(parallel=True)
def sum_patch_products(x, kernel, stride, padding, rows, columns, sums):  # type: ignore[no-untyped-def]
    """Sums the products of the values of each patch with each other, over the pixels of each image.

    Args:
        x: As in :func:`convolve`, like kernel, stride and padding.
        kernel: See x.
        stride: See x.
        padding: See x.
        rows: Rows of the output.
        columns: Its columns.
        sums: Result, float64 ``[M, K · K · C + 1, K · K · C + 1]``, initialised to zero; the last value of each patch
            is 1.
    """
    width, column_size = x.shape[2], kernel * x.shape[3]
    for image in numba.prange(len(x)):
        index, value = np.empty(width * column_size + 1, np.uint32), np.empty(width * column_size + 1, x.dtype)
        pointers, total = np.empty(width + 1, np.int64), sums[image]
        for y in range(rows):
            _list_columns(x, image, y * stride - padding, kernel, index, value, pointers)
            for z in range(columns):
                left = z * stride - padding
                first, last = pointers[max(0, left)], pointers[min(width, left + kernel)]
                for j in range(first, last):
                    a, one = index[j] - left * column_size, np.float64(value[j])
                    total[a, -1] += one
                    for i in range(first, last):
                        total[a, index[i] - left * column_size] += one * value[i]
        total[-1] = total[:, -1]
        total[-1, -1] = rows * columns
