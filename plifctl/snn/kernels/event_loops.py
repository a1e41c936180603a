"""The compiled loops of event-driven products: lists of active inputs, and the sums of rows that they select.

An input ``[M, H, W, C]`` is read as ``M · H`` rows of W · C values. The values that are not zero are listed row by row,
with their position in the row; pointers say where the list of each pixel begins. An output pixel adds up the weights of
the active inputs that it sees, for one block of output channels at a time (:mod:`plifctl.snn.kernels.registers`). Each
output is computed by one thread in a fixed order, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

from plifctl.jit import compiled, inlined
from plifctl.snn.kernels.cpu_loops import fire, scale_sums
from plifctl.snn.kernels.registers import CACHE_LINE, MASK_LANES, active_mask, prefetch, sum_rows

SPAN = 8
"""Blocks of outputs of a fully connected layer that an item computes."""

MIN_USES = 32
"""Rows of an input from which copying a block of weights pays."""


@compiled(parallel=True)
def count(x, counts):  # type: ignore[no-untyped-def]
    """Counts the values of each row ``x [R, L]`` that are not zero into ``counts [R]``, int64."""
    for row in numba.prange(len(x)):
        total = 0
        for at in range(x.shape[1]):
            total += x[row, at] != 0
        counts[row] = total


@inlined
def _list(x, begin, end, origin, at, index, value):  # type: ignore[no-untyped-def]
    """Lists the values of ``x[begin:end]`` that are not zero, counted from ``origin``; returns the end of the list."""
    place = begin
    while place + MASK_LANES <= end:
        mask = active_mask(x, place)
        while mask:
            found = place + trailing_zeros(mask)  # type: ignore[call-arg]
            index[at] = found - origin
            value[at] = x[found]
            at += 1
            mask &= mask - np.uint32(1)
        place += MASK_LANES
    for found in range(place, end):
        if x[found] != 0:
            index[at] = found - origin
            value[at] = x[found]
            at += 1
    return at


@compiled(parallel=True)
def collect(x, pixels, group, index, value, pointers):  # type: ignore[no-untyped-def]
    """Lists the values that are not zero, by row, group of channels and pixel.

    Args:
        x: ``[R, pixels · C]``.
        pixels: Pixels of a row.
        group: Channels in a group; the last group may have fewer.
        index: Result: pixel · group + channel within the group, uint16 or uint32.
        value: Result: the values.
        pointers: int64 ``[R, groups · pixels + 1]``: where the list of each pixel begins. Those of the first and the
            end of the last are given.
    """
    channels = x.shape[1] // pixels
    flat = x.reshape(x.size)
    for row in numba.prange(len(x)):
        at = pointers[row, 0]
        for first in range(0, channels, group):
            size = min(group, channels - first)
            for pixel in range(pixels):
                pointers[row, first // group * pixels + pixel] = at
                begin = row * x.shape[1] + pixel * channels + first
                at = _list(flat, begin, begin + size, begin - pixel * group, at, index, value)


@compiled(parallel=True)
def pack(weight, group, blocks, panels):  # type: ignore[no-untyped-def]
    """Writes the weights of a convolution as :func:`convolve` reads them.

    Args:
        weight: ``[O, C, K, K]``.
        group: Channels in a group.
        blocks: See :func:`convolve`.
        panels: Result, flat, zero beforehand: outputs and channels of the padding stay zero.
    """
    outputs, channels, kernel, _ = weight.shape
    groups = (channels + group - 1) // group
    for item in numba.prange(len(blocks) * groups):
        part = item % groups
        first, lanes, _ = blocks[item // groups]
        for lane in range(min(lanes, outputs - first)):
            for c in range(part * group, min(channels, (part + 1) * group)):
                for tap in range(kernel):
                    panel = (first * kernel * groups + (tap * groups + part) * lanes) * kernel * group
                    at = panel + (c - part * group) * lanes + lane
                    for column in range(kernel):
                        panels[at + column * group * lanes] = weight[first + lane, c, tap, column]


@inlined
def _copy(source, begin, size, target, at):  # type: ignore[no-untyped-def]
    for i in range(size):
        target[at + i] = source[begin + i]


@inlined
def _add_convolution(  # type: ignore[no-untyped-def]
    index, value, pointers, weight, kernel, stride, padding, height, width, group, image, first, end, block, sums, at,
    distance, out_width,
):  # fmt: skip
    """Adds the convolution of an image to rows ``first`` to ``end`` of its output, for one block of outputs.

    The sums of the first pixel begin at ``at``, those of each following one ``distance`` further.
    """
    output, lanes, vectors = block
    groups = (pointers.shape[1] - 1) // width
    for tap in range(kernel):
        for part in range(groups):
            panel = (output * kernel * groups + (tap * groups + part) * lanes) * kernel * group
            for y in range(first, end):
                row = y * stride - padding + tap
                if row < 0 or row >= height:
                    continue
                for z in range(out_width):
                    left = z * stride - padding
                    begin = pointers[image * height + row, part * width + max(0, left)]
                    last = pointers[image * height + row, part * width + min(width, left + kernel)]
                    if begin < last:
                        sum_rows(
                            weight, panel - left * group * lanes, lanes, index, value, begin, last, sums,
                            at + ((y - first) * out_width + z) * distance, vectors,
                        )  # fmt: skip


@compiled(parallel=True)
def convolve(  # type: ignore[no-untyped-def]
    index, value, pointers, weight, bias, kernel, stride, padding, height, width, group, rows_of_item, blocks, out
):
    """Computes a convolution.

    The weights of a block of outputs, a row of the kernel and a group of channels stay in a core's first cache while
    all pixels of an item are visited.

    Args:
        index: Active inputs (:func:`collect`).
        value: Their values.
        pointers: Where the list of each pixel begins, ``[M · H, groups · W + 1]``.
        weight: Flat; for each block of outputs ``[kernel, groups, kernel, group, outputs of the block]``.
        bias: ``[O]``; O is padded to whole vectors.
        kernel: Height and width of the kernel.
        stride: Distance of output pixels in the input.
        padding: Zeros around the input.
        height: H.
        width: W.
        group: Channels in a group.
        rows_of_item: Rows of the output that are computed together.
        blocks: Outputs that are summed together, int64 ``[B, 3]``: the first, their number, and that of vectors.
        out: Result, ``[M, H', W', O]``.
    """
    images, out_height, out_width, outputs = out.shape
    sums = out.reshape(out.size)
    bands = (out_height + rows_of_item - 1) // rows_of_item
    for item in numba.prange(images * bands):
        image, first = item // bands, item % bands * rows_of_item
        end = min(out_height, first + rows_of_item)
        for y in range(first, end):
            for z in range(out_width):
                out[image, y, z] = bias
        for block in range(len(blocks)):
            at = (image * out_height + first) * out_width * outputs + blocks[block, 0]
            _add_convolution(
                index, value, pointers, weight, kernel, stride, padding, height, width, group, image, first, end,
                blocks[block], sums, at, outputs, out_width,
            )  # fmt: skip


@inlined
def _fire_band(  # type: ignore[no-untyped-def]
    x, v, lanes, first, end, width, output, scale, shift, k, v_threshold, v_reset, soft, window, average, out, flat, at,
    total,
):  # fmt: skip
    """Runs one step of the neurons of rows ``first`` to ``end``, for one block of channels, and pools their spikes.

    ``x`` and ``v``, their input and potentials, are flat. ``out [H', W', C]``, the result of the step and sample,
    begins at ``at`` in ``flat``.
    """
    rows, columns, outputs = out.shape
    unused, factor = np.empty(lanes, x.dtype), x.dtype.type(1.0 / (window * window))
    out[first // window : (end + window - 1) // window, :, output : output + lanes] = 0
    of_neuron = k[0, output : output + lanes]
    place = 0
    for y in range(first, end):
        row = y // window
        for column in range((width + window - 1) // window):
            complete = row < rows and column < columns
            pooled_at = at + (row * columns + column) * outputs + output if complete else 0
            for z in range(column * window, min(width, (column + 1) * window)):
                if len(k) > 1:
                    of_neuron = k[y * width + z, output : output + lanes]
                fire(
                    x, place, scale, shift, of_neuron, v_threshold, v_reset, soft, average, v, place, total,
                    flat if complete else unused, pooled_at,
                )  # fmt: skip
                place += lanes
            if complete and average and y % window == window - 1:
                scale_sums(out[row, column, output : output + lanes], factor)


@compiled(parallel=True)
def evaluate(  # type: ignore[no-untyped-def]
    index, value, pointers, weight, bias, kernel, stride, padding, height, width, group, rows_of_item, blocks,
    scale, shift, k, v_threshold, v_reset, soft, window, average, out_height, out_width, out, counts,
):  # fmt: skip
    """Computes a convolution, an affine map of each channel, spiking neurons over all steps, and pooling.

    The input and the potentials of the neurons of an item stay in a core's second cache.

    The arguments up to ``blocks`` are those of :func:`convolve`, with M = T · N and ``rows_of_item`` a multiple of
    ``window``; those up to ``average`` are those of :func:`plifctl.snn.kernels.cpu_loops.forward`. The convolution has
    ``out_height`` rows of ``out_width`` pixels. Results are ``out``, pooled spikes ``[T, N, H', W', O]``, and
    ``counts``, spikes before pooling, float64 ``[items]``.
    """
    T, samples, rows, columns, outputs = out.shape
    flat = out.reshape(out.size)
    bands = (out_height + rows_of_item - 1) // rows_of_item
    for item in numba.prange(samples * bands):
        n, first = item // bands, item % bands * rows_of_item
        end = min(out_height, first + rows_of_item)
        fired = 0.0
        for block in range(len(blocks)):
            output, lanes, _ = blocks[block]
            part = slice(output, output + lanes)
            x = np.empty(((end - first) * out_width, lanes), bias.dtype)
            v, total = np.full(x.size, v_reset, bias.dtype), np.zeros(lanes, bias.dtype)
            for t in range(T):
                x[:] = bias[part]
                _add_convolution(
                    index, value, pointers, weight, kernel, stride, padding, height, width, group, t * samples + n,
                    first, end, blocks[block], x.reshape(x.size), 0, lanes, out_width,
                )  # fmt: skip
                ts = t if len(scale) > 1 else 0
                _fire_band(
                    x.reshape(x.size), v, lanes, first, end, out_width, output, scale[ts, part], shift[ts, part], k,
                    v_threshold[part], v_reset, soft, window, average, out[t, n], flat,
                    (t * samples + n) * rows * columns * outputs, total,
                )  # fmt: skip
            fired += total.sum()
        counts[item] = fired


@compiled(parallel=True)
def multiply(index, value, pointers, weight, group, rows_of_item, blocks, out):  # type: ignore[no-untyped-def]
    """Computes ``x @ weight``.

    The weights of a block of outputs and a group of features are copied to where they stay in a core's first cache
    while all rows of an item are visited.

    Args:
        index: Active inputs (:func:`collect`), one pixel: feature within the group.
        value: Their values.
        pointers: Where the list of each group begins, ``[M, groups + 1]``.
        weight: ``[F, O]``; O is padded to whole vectors.
        group: Features in a group.
        rows_of_item: Rows of x that are computed together.
        blocks: As in :func:`convolve`.
        out: Result, ``[M, O]``.
    """
    features, outputs = weight.shape
    rows, results = weight.reshape(weight.size), out.reshape(out.size)
    parts, spans = (len(out) + rows_of_item - 1) // rows_of_item, (len(blocks) + SPAN - 1) // SPAN
    for item in numba.prange(spans * parts):
        first = item % parts * rows_of_item
        end = min(len(out), first + rows_of_item)
        chosen = blocks[item // parts * SPAN : (item // parts + 1) * SPAN]
        origin = chosen[0, 0]
        width = chosen[-1, 0] + chosen[-1, 1] - origin
        copied = end - first >= MIN_USES
        panels = np.empty(group * width if copied else 0, weight.dtype)
        # rows of sums lie together: at the distance of whole outputs they would displace each other from the cache
        sums = np.zeros((end - first) * width, weight.dtype)
        for part in range(pointers.shape[1] - 1):
            if copied:
                for feature in range(min(group, features - part * group)):
                    source = (part * group + feature) * outputs
                    # the next row lies in another page of memory: the processor does not foresee that it is read
                    following = min(features - 1, part * group + feature + 1) * outputs + origin
                    for ahead in range(0, width, CACHE_LINE // weight.itemsize):
                        prefetch(rows, following + ahead)
                    for output, lanes, _ in chosen:
                        target = (output - origin) * group + feature * lanes
                        _copy(rows, source + output, lanes, panels, target)
            for output, lanes, vectors in chosen:
                start = (output - origin) * (end - first)
                for m in range(first, end):
                    begin, last, at = pointers[m, part], pointers[m, part + 1], start + (m - first) * lanes
                    if copied:
                        sum_rows(panels, (output - origin) * group, lanes, index, value, begin, last, sums, at, vectors)
                    else:
                        sum_rows(
                            rows, part * group * outputs + output, outputs, index, value, begin, last, sums, at,
                            vectors,
                        )  # fmt: skip
        for output, lanes, _ in chosen:
            start = (output - origin) * (end - first)
            for m in range(first, end):
                _copy(sums, start + (m - first) * lanes, lanes, results, m * outputs + output)


@compiled(parallel=True)
def transpose(  # type: ignore[no-untyped-def]
    index, value, pointers, channels, group, rows_of_tile, height, height_step, width_step, position, values, first
):
    """Lists the active inputs by channel, for each tile of rows.

    Args:
        index: Active inputs (:func:`collect`).
        value: Their values.
        pointers: Where the list of each pixel begins, ``[M · H, groups · W + 1]``.
        channels: C.
        group: Channels in a group.
        rows_of_tile: Rows of the input in a tile.
        height: H.
        height_step: Rows from one image to the next in the gradient that :func:`weight_gradient` reads.
        width_step: Pixels from one row to the next in it.
        position: Result: pixel of that gradient, uint32.
        values: Result: the values.
        first: Result, int64 ``[tiles, C + 1]``: where the list of each channel begins.
    """
    width = (pointers.shape[1] - 1) // ((channels + group - 1) // group)
    for tile in numba.prange(len(first)):
        begin, end = tile * rows_of_tile, min(len(pointers), (tile + 1) * rows_of_tile)
        counts = np.zeros(channels + 1, np.int64)
        for row in range(begin, end):
            for place in range(pointers.shape[1] - 1):
                base = place // width * group - place % width * group
                for at in range(pointers[row, place], pointers[row, place + 1]):
                    counts[base + index[at] + 1] += 1
        counts[0] = pointers[begin, 0]
        for channel in range(channels):
            counts[channel + 1] += counts[channel]
        first[tile] = counts
        for row in range(begin, end):
            start = (row // height * height_step + row % height) * width_step
            for place in range(pointers.shape[1] - 1):
                base = place // width * group - place % width * group
                for at in range(pointers[row, place], pointers[row, place + 1]):
                    channel = base + index[at]
                    position[counts[channel]] = start + place % width
                    values[counts[channel]] = value[at]
                    counts[channel] += 1


@compiled(parallel=True)
def weight_gradient(position, values, first, grad, offsets, channels_of_item, blocks, out):  # type: ignore[no-untyped-def]
    """Sums, for each channel and tap, the gradients of the outputs that its active inputs reach.

    Args:
        position: Active inputs by channel (:func:`transpose`): pixel of the gradient that tap 0 would read.
        values: Their values.
        first: Where the list of each channel begins, ``[tiles, C + 1]``.
        grad: Gradient of the output with zeros around it, ``[pixels, O]``; O is padded to whole vectors.
        offsets: Pixels from there to the one that each tap reads, int64 ``[taps]``.
        channels_of_item: Channels that are computed together.
        blocks: As in :func:`convolve`.
        out: Result, ``[taps, C, O]``.
    """
    taps, channels, outputs = out.shape
    rows, sums = grad.reshape(grad.size), out.reshape(out.size)
    for item in numba.prange((channels + channels_of_item - 1) // channels_of_item):
        for tile in range(len(first)):
            for block in range(len(blocks)):
                output, lanes, vectors = blocks[block]
                for c in range(item * channels_of_item, min(channels, (item + 1) * channels_of_item)):
                    begin, end = first[tile, c], first[tile, c + 1]
                    for tap in range(taps):
                        at = (tap * channels + c) * outputs + output
                        if tile == 0:
                            sums[at : at + lanes] = 0
                        if begin < end:
                            sum_rows(
                                rows, offsets[tap] * outputs + output, outputs, position, values, begin, end, sums, at,
                                vectors,
                            )  # fmt: skip
